"""`rewards explain` on a real node: each end that a submission can come to, to the wei."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from command_line import CommandLine
from life import BOND, LEASE
from made_up_work import TOKEN, Work, parameters, start_work
from round_life import MERGE, MERGE_REWARD, claim_slot, collect, do_slot, fell, finalise_slot
from rounds_of_two import Rounds
from test_rewards import all_keys, amount

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.keys import Wallet
from ledger.performance import bits_float, float_bits

pytestmark = pytest.mark.chain


@pytest.fixture
def work(
    chain: LocalChain, client_for: Callable[..., LedgerClient], account: Callable[..., Wallet]
) -> tuple[Work, int]:
    wallets = {name: account(name) for name in ("requester", "owner", "operator")}
    return start_work(chain, client_for, wallets)


def explained(online: CommandLine, *arguments: object) -> dict[str, Any]:
    document: dict[str, Any] = online.json("rewards", "explain", *map(str, arguments))
    return document


def bond_parts(document: dict[str, Any]) -> dict[str, int]:
    """The parts of a bond in wei, which make up the whole."""
    bond = document["bond"]
    parts = {name: int(bond[name]["wei"]) for name in ("freed", "burned", "awarded", "locked")}
    assert sum(parts.values()) == int(bond["whole"]["wei"])
    return {name: wei for name, wei in parts.items() if wei}


def test_a_pay_that_rounds_down_is_explained_to_the_wei(
    online: CommandLine, work: tuple[Work, int], chain: LocalChain
) -> None:
    hands, _ = work
    number = hands.requester.post_task(parameters(slot_reward=1000), "memory://nothing")
    attempt = hands.claim(number, 0)
    root = hands.submit(number, 0, attempt, loss=3.9, steps=7)
    before = explained(online, number, 0)
    assert (before["state"], before["money"]["place"]) == ("submitted", "escrow")
    assert bond_parts(before) == {"locked": 2 * TOKEN}
    chain.advance(61)
    hands.requester.finalise(number, 0, attempt=attempt, state_root=root)

    document = explained(online, number, 0)
    factors = document["factors"]
    unit = 1 << 64
    # float32(3.9) is 3.9000000953…, so the gain is a little below a tenth.
    loss = int(Fraction(bits_float(float_bits(3.9))) * unit)
    assert (factors["base"], factors["target"], factors["loss"]) == (str(4 * unit), str(unit), str(loss))
    assert (factors["gain"], factors["need"]) == (str(4 * unit - loss), str(3 * unit))
    assert factors["earned"] == str((4 * unit - loss) * 3)
    assert factors["rate"] == "7/10"
    assert Fraction(factors["performance"]) == Fraction(4 * unit - loss, unit)
    exact = 1000 * Fraction(7, 10) * Fraction(4 * unit - loss, unit)
    pay = int(document["pay"]["wei"])
    assert pay == exact // 1 == 69
    assert pay + Fraction(int(factors["remainder"]), int(factors["denominator"])) == exact
    assert pay == hands.owner.pay_for(number, 0, steps=7, loss_bits=float_bits(3.9))
    assert pay == hands.owner.stake_account(hands.owner.address).credit
    assert document["unearned"]["wei"] == "931"
    assert hands.owner.escrow(number) == 2931
    assert document["money"]["place"] == "credit"
    assert "stays in the task's escrow" in document["money"]["text"]
    assert bond_parts(document) == {"freed": 2 * TOKEN}
    assert document["bond"]["transaction"] == document["money"]["credited"]

    text = online.run("rewards", "explain", str(number), "0").stdout
    assert text.startswith(f"Round 0 of task {number}, attempt 0, is final.\n")
    assert "7 steps of 10 = 7/10" in text
    assert f"max(0, {4 * unit} - {loss}) = {factors['gain']} (units of 2⁻⁶⁴ nats)" in text
    assert f"by {factors['remainder']} / {factors['denominator']} wei" in text
    assert "69 wei = 0.000000000000000069 TRAIN" in text


def test_money_is_followed_to_the_withdrawal(online: CommandLine, work: tuple[Work, int]) -> None:
    hands, number = work
    hands.do_round(number, 0, loss=3.0)
    credited = explained(online, number, 0)["money"]
    assert (credited["place"], credited["withdrawn"]) == ("credit", None)
    assert f"`trainledger withdraw --account {hands.owner.address}`" in credited["text"]
    hands.owner.withdraw()
    hands.do_round(number, 1, loss=2.0)
    first, second = explained(online, number, 0)["money"], explained(online, number, 1)["money"]
    assert (first["place"], second["place"]) == ("withdrawn", "credit")
    assert first["credited"] == credited["credited"] != first["withdrawn"]
    assert first["withdrawn"] in first["text"]
    hands.requester.close_task(number)
    assert explained(online, number, 1)["money"]["text"].endswith("what was not earned has gone back to the requester")


def test_a_submission_that_improved_nothing(online: CommandLine, work: tuple[Work, int]) -> None:
    hands, number = work
    hands.do_round(number, 0, loss=4.5)
    document = explained(online, number, 0)
    assert (document["factors"]["gain"], document["pay"], document["unearned"]) == (
        "0", amount("0", 0), amount("6", 6 * TOKEN)
    )  # fmt: skip
    assert document["money"]["place"] == "escrow"
    hands.requester.close_task(number)
    money = explained(online, number, 0)["money"]
    assert (money["place"], money["credited"]) == ("requester", None)
    assert money["text"] == "nothing was earned; the reward has gone back to the requester"
    unpaid = online.json("why-not-paid", "--account", "owner")["unpaid"]
    assert [(entry["state"], entry["lost"], entry["command"]) for entry in unpaid] == [("final", True, None)]


def test_a_loss_that_is_not_finite_and_a_task_without_target(online: CommandLine, work: tuple[Work, int]) -> None:
    hands, number = work
    hands.do_round(number, 0, loss=float("inf"))
    document = explained(online, number, 0)
    assert (document["factors"]["loss"], document["submission"]["heldout_loss"]) == (None, None)
    assert "0, as the loss is not finite" in online.run("rewards", "explain", str(number), "0").stdout
    changes = {"has_target": False, "base_loss": 0, "target_loss": 0}
    plain = hands.requester.post_task(parameters(**changes), "memory://nothing")
    hands.do_round(plain, 0, loss=9.0, steps=5)
    document = explained(online, plain, 0)
    assert (document["factors"]["base"], document["pay"]) == (None, amount("3", 3 * TOKEN))
    assert "1, as the task has no target" in online.run("rewards", "explain", str(plain), "0").stdout


def test_a_lease_and_one_that_lapsed(online: CommandLine, work: tuple[Work, int], chain: LocalChain) -> None:
    hands, number = work
    hands.claim(number, 0)
    leased = explained(online, number, 0)
    assert (leased["state"], leased["submission"], leased["pay"], leased["factors"]) == ("leased", None, None, None)
    chain.advance(61)
    hands.requester.expire_lease(number, 0, 0)
    lapsed = explained(online, number, 0)
    assert (lapsed["state"], lapsed["pay"], lapsed["money"]["place"]) == ("lapsed", amount("0", 0), None)
    assert bond_parts(lapsed) == {"burned": TOKEN // 2, "freed": 3 * TOKEN // 2}
    hands.claim(number, 0)
    assert [explained(online, number, 0, *more)["attempt"] for more in ([], ["--attempt", 0])] == [1, 0]


def test_a_merge_earns_its_reward_and_a_lease_that_froze_out_nothing(online: CommandLine, rounds: Rounds) -> None:
    do_slot(rounds.worker, rounds.task, 1, seed=1)
    rounds.chain.advance(2 * LEASE - 10)
    claim_slot(rounds.worker, rounds.task, 0)
    rounds.chain.advance(20)
    collect(rounds.worker, rounds.task)
    rounds.worker.expire_lease(rounds.task.number, 0, 0, 0)
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    rounds.chain.advance(LEASE + 1)
    for slot in (1, MERGE):
        finalise_slot(rounds.worker, rounds.task, slot)
    merge = explained(online, rounds.number, 0, "--slot", "merge")
    assert (merge["about"], merge["factors"], merge["unearned"]["wei"]) == ("the merge of round 0", None, "0")
    assert merge["pay"] == merge["slot_reward"] == amount("3", MERGE_REWARD)
    assert merge == explained(online, rounds.number, 0, "--slot", MERGE)
    assert bond_parts(explained(online, rounds.number, 0, "--slot", 0)) == {"freed": BOND}
    text = online.run("rewards", "explain", rounds.number, "0", "--slot", "merge").stdout
    assert "fixed by the task, whatever the merge's loss" in text


def test_a_fall_its_bond_and_the_merge_that_was_void(online: CommandLine, rounds: Rounds) -> None:
    for slot in range(2):
        do_slot(rounds.worker, rounds.task, slot, seed=slot)
    collect(rounds.worker, rounds.task)
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    fell(rounds.challenger, rounds.task, 1, rounds.chain)
    fallen = explained(online, rounds.number, 0, "--slot", 1)
    assert (fallen["state"], fallen["pay"]["wei"], fallen["factors"]) == ("fell", "0", None)
    assert bond_parts(fallen) == {"locked": BOND}
    rounds.chain.advance(LEASE + 1)
    do_slot(rounds.worker, rounds.task, 1, seed=5)
    collect(rounds.worker, rounds.task)
    rounds.chain.advance(LEASE + 1)
    for slot in (0, 1, MERGE):
        finalise_slot(rounds.worker, rounds.task, slot)
    rounds.worker.award_fall(rounds.task.number, 0, attempt=0, slot=1)
    # The challenger had not named the state that the slot found, so nobody is awarded.
    fallen = explained(online, rounds.number, 0, "--slot", 1, "--attempt", 0)
    assert bond_parts(fallen) == {"burned": BOND}
    assert (fallen["bond"]["winner"], fallen["bond"]["transaction"] is None) == (None, False)
    void = explained(online, rounds.number, 0, "--slot", "merge")
    assert (void["state"], void["pay"]["wei"]) == ("void", "0")
    assert bond_parts(void) == {"freed": BOND}
    redone = explained(online, rounds.number, 0, "--slot", 1)
    assert (redone["state"], redone["attempt"]) == ("final", 1)


def test_a_fall_in_a_task_that_is_closed_is_awarded_to_the_winner(online: CommandLine, rounds: Rounds) -> None:
    do_slot(rounds.worker, rounds.task, 0, seed=1)
    fell(rounds.challenger, rounds.task, 0, rounds.chain)
    online.json("task", "close", rounds.number, "--account", "requester")
    rounds.worker.award_fall(rounds.task.number, 0, attempt=0, slot=0)
    document = explained(online, rounds.number, 0, "--slot", 0)
    assert bond_parts(document) == {"awarded": BOND // 2, "burned": BOND // 2}
    assert document["bond"]["winner"] == rounds.challenger.address
    assert document["bond"]["text"] == f"half awarded to {rounds.challenger.address}"


def test_wrong_words_say_what_there_is(online: CommandLine, rounds: Rounds) -> None:
    command = ("rewards", "explain", rounds.number, "0")
    assert "has 2 slots and a merge" in online.fail(2, *command)
    assert "no slot '3'" in online.fail(2, *command, "--slot", "3")
    assert "no slot 'x'" in online.fail(2, *command, "--slot", "x")
    assert "Nobody has claimed slot 1 of round 0" in online.fail(2, *command, "--slot", "1")
    claim_slot(rounds.worker, rounds.task, 0)
    assert "no attempt 4 at slot 0" in online.fail(2, *command, "--slot", "0", "--attempt", "4")
    assert "does not exist" in online.fail(3, "rewards", "explain", "99999", "0")


def test_arithmetic_that_the_contract_does_not_share_is_an_error(
    online: CommandLine, work: tuple[Work, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    hands, number = work
    hands.do_round(number, 0, loss=3.0)
    monkeypatch.setattr(LedgerClient, "pay_for", lambda *_, **__: 1)
    assert f"gives {6 * TOKEN} wei, and the contract says 1 wei" in online.fail(
        3, "rewards", "explain", str(number), "0"
    )


def test_options_stand_before_and_after_the_command(online: CommandLine, work: tuple[Work, int]) -> None:
    hands, number = work
    hands.do_round(number, 0, loss=3.0)
    before = online.run("rewards", "--json", "explain", str(number), "0")
    assert (before.exit_code, before.stdout) == (0, online.run("rewards", "explain", str(number), "0", "--json").stdout)
    assert online.json("rewards", "--account", "owner")["earnings"][-1]["task"] == number


def test_json_keys_are_documented(online: CommandLine, work: tuple[Work, int]) -> None:
    hands, number = work
    hands.do_round(number, 0, loss=3.0)
    text = " ".join(online.run("rewards", "explain", "--help").stdout.split())
    documented = set(re.findall(r"`(\w+)`", text[text.index("JSON:") :].split(" Example")[0]))
    assert documented == all_keys(explained(online, number, 0))
