"""`why-not-paid` and `task settle` on a real node, which finish each other's sentences."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from command_line import CommandLine
from life import BOND, LEASE
from made_up_work import TOKEN, Work, start_work
from round_life import MERGE, claim_slot, collect, do_slot, fell, finalise_slot
from rounds_of_two import Rounds
from test_rewards import all_keys, amount

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.disputes.moves import Opening
from ledger.disputes.positions import RUN_POINTS, points_of
from ledger.keys import Wallet
from ledger.types import SlotStatus

pytestmark = pytest.mark.chain


@pytest.fixture
def work(
    chain: LocalChain, client_for: Callable[..., LedgerClient], account: Callable[..., Wallet]
) -> tuple[Work, int]:
    wallets = {name: account(name) for name in ("requester", "owner", "operator")}
    return start_work(chain, client_for, wallets)


def unpaid(online: CommandLine, number: object, account: str = "worker") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = online.json("why-not-paid", str(number), "--account", account)["unpaid"]
    return found


def missing(entry: dict[str, Any]) -> list[str]:
    return [condition["text"] for condition in entry["conditions"] if not condition["met"]]


def settle(online: CommandLine, number: object, account: str = "requester") -> list[tuple[str, int | None]]:
    """What was done: actions with their slots."""
    document = online.json("task", "settle", str(number), "--account", account)
    return [(entry["action"], entry["slot"]) for entry in document["done"]]


def run_named(online: CommandLine, entry: dict[str, Any], account: str) -> None:
    """Runs the command that an entry names, as it stands there."""
    program, *words = entry["command"].split()
    assert program == "trainledger"
    online.json(*words, *([] if "--account" in words else ["--account", account]))


def test_a_slot_from_claim_to_withdrawal(online: CommandLine, work: tuple[Work, int], chain: LocalChain) -> None:
    hands, number = work
    for account in ("owner", "requester"):
        text = online.run("why-not-paid", "--account", account).stdout
        assert text.startswith("Nothing is unpaid: it never held a slot")
    hands.claim(number, 0)
    (leased,) = unpaid(online, number, "operator")
    assert (leased["state"], leased["reason"], leased["pay"]) == ("leased", "nothing is submitted yet", None)
    assert 0 < leased["conditions"][0]["seconds_left"] <= 60
    assert settle(online, number) == []

    hands.submit(number, 0, 0, loss=3.0)
    (submitted,) = unpaid(online, number, "owner")
    (window,) = [condition for condition in submitted["conditions"] if not condition["met"]]
    slot = hands.owner.slot(number, 0)
    assert (window["until"], submitted["command"]) == (slot.deadline, None)
    assert submitted["pay"] == amount("6", 6 * TOKEN)
    assert re.search(
        r"missing: the end of its challenge window, .* \(\d+ s left\)",
        online.run("why-not-paid", "--account", "owner").stdout,
    )
    assert settle(online, number) == []

    chain.advance(61)
    (ripe,) = unpaid(online, number, "owner")
    assert (missing(ripe), ripe["command"]) == ([], f"trainledger task settle {number}")
    run_named(online, ripe, "requester")
    (credited,) = unpaid(online, number, "owner")
    assert (credited["state"], credited["command"]) == ("final", f"trainledger withdraw --account {slot.payout}")
    run_named(online, credited, "owner")
    assert unpaid(online, number, "owner") == []
    assert online.run("why-not-paid", str(number), "--account", "owner").stdout.startswith(
        f"Nothing is unpaid of task {number} (0x"
    )
    assert settle(online, number) == []


def test_a_lease_that_ran_out(online: CommandLine, work: tuple[Work, int], chain: LocalChain) -> None:
    hands, number = work
    hands.claim(number, 0)
    chain.advance(61)
    (late,) = unpaid(online, number, "owner")
    assert late["lost"]
    run_named(online, late, "requester")
    (lapsed,) = unpaid(online, number, "owner")
    assert (lapsed["state"], lapsed["command"]) == ("lapsed", None)
    assert lapsed["reason"] == "its lease ended without a submission; 0.5 of its bond burned, the rest is free"
    assert hands.owner.slot(number, 0).status is SlotStatus.OPEN


def test_a_round_of_slots_is_settled_step_by_step(online: CommandLine, rounds: Rounds) -> None:
    number = rounds.number
    do_slot(rounds.worker, rounds.task, 0, seed=1)
    do_slot(rounds.worker, rounds.task, 1, seed=2)
    assert settle(online, number) == [("collected", None)]
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    *_, merge = unpaid(online, number)
    first, *others = missing(merge)
    assert first.startswith("the end of its challenge window")
    assert [re.split(",", text)[0] for text in others] == ["slot 0 of round 0", "slot 1 of round 0"]
    assert merge["pay"] == amount("3", 3 * TOKEN)
    rounds.chain.advance(LEASE + 1)
    result = online.run("task", "settle", number, "--account", "requester")
    assert result.stdout == f"Did 3 things for task {number}.\n"
    assert "Finalised: the merge of round 0, attempt 0.\n" in result.stderr
    assert [entry["state"] for entry in unpaid(online, number)] == ["final"] * 3
    assert rounds.worker.task(rounds.task.number).current_round == 1
    rounds.worker.withdraw()
    assert unpaid(online, number) == []


def test_a_merge_waits_for_an_input_in_dispute(online: CommandLine, rounds: Rounds) -> None:
    for slot in range(2):
        do_slot(rounds.worker, rounds.task, slot, seed=slot)
    collect(rounds.worker, rounds.task)
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    made = rounds.challenger.slot(rounds.task.number, 0, 1)
    opening = Opening(rounds.challenger.address, rounds.task.number, 0, 1, 0, made.state_root)
    points = [bytes([number + 1]) * 32 for number, _ in enumerate(points_of(0, made.steps + 1, RUN_POINTS))]
    game = rounds.challenger.open(opening, points)
    _, disputed, merge = unpaid(online, rounds.number)
    clock = rounds.challenger.view(game).deadline
    assert (f"the end of dispute {game}: the defender has until", clock) in [
        (condition["text"][: len(f"the end of dispute {game}: the defender has until")], condition["until"])
        for condition in disputed["conditions"]
    ]
    assert "slot 1 of round 0, which is in 1 open disputes, to be final" in missing(merge)
    rounds.chain.advance(LEASE + 1)
    assert settle(online, rounds.number) == [("finalised", 0)]
    rounds.chain.advance(LEASE)
    _, disputed, merge = unpaid(online, rounds.number)
    assert disputed["command"] == f"trainledger dispute settle {game}"
    run_named(online, disputed, "requester")
    _, fallen, merge = unpaid(online, rounds.number)
    assert fallen["reason"] == f"it fell in dispute {game}; its bond of 0.1 is locked until its slot is final"
    assert merge["conditions"][3]["text"].startswith("a round that is frozen: thawed, 1 of 2 submitted")
    assert not merge["lost"]


def test_a_fall_makes_the_merge_void_and_its_bond_is_taken(online: CommandLine, rounds: Rounds) -> None:
    for slot in range(2):
        do_slot(rounds.worker, rounds.task, slot, seed=slot)
    collect(rounds.worker, rounds.task)
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    fell(rounds.challenger, rounds.task, 1, rounds.chain)
    rounds.chain.advance(LEASE + 1)
    do_slot(rounds.worker, rounds.task, 1, seed=5)
    # Slot 0's window is over since the dispute.
    assert settle(online, rounds.number) == [("collected", None), ("finalised", 0)]
    _, _, merge, _ = unpaid(online, rounds.number)
    assert (merge["lost"], merge["pay"]["wei"], merge["command"]) == (True, "0", None)
    rounds.chain.advance(LEASE + 1)
    _, fallen, merge, redone = unpaid(online, rounds.number)
    assert (fallen["state"], redone["attempt"], missing(redone)) == ("fell", 1, [])
    locked = rounds.worker.stake_account(rounds.worker.address).locked
    assert settle(online, rounds.number) == [("finalised", 1), ("void", MERGE), ("awarded", 1)]
    assert locked - rounds.worker.stake_account(rounds.worker.address).locked == 3 * BOND
    states = {(entry["slot"], entry["attempt"]): entry["state"] for entry in unpaid(online, rounds.number)}
    assert states == {(0, 0): "final", (1, 0): "fell", (1, 1): "final", (MERGE, 0): "void"}
    assert settle(online, rounds.number) == []


def test_leases_that_a_frozen_round_or_other_inputs_end(online: CommandLine, rounds: Rounds) -> None:
    do_slot(rounds.worker, rounds.task, 1, seed=1)
    rounds.chain.advance(2 * LEASE - 10)
    claim_slot(rounds.worker, rounds.task, 0)
    rounds.chain.advance(20)
    (leased,) = [entry for entry in unpaid(online, rounds.number) if entry["slot"] == 0]
    assert leased["reason"] == "nothing is submitted yet"
    assert settle(online, rounds.number) == [("collected", None), ("expired", 0), ("finalised", 1)]
    claim_slot(rounds.worker, rounds.task, MERGE)
    (merge,) = [entry for entry in unpaid(online, rounds.number) if entry["slot"] == MERGE]
    assert merge["reason"] == "nothing is submitted yet"
    assert settle(online, rounds.number) == []
    burned = online.json("rewards", "--account", "worker")["total"]["stake_taken"]
    assert burned == amount("0", 0)


def test_a_lease_on_a_merge_whose_input_fell_is_expired_without_a_fee(online: CommandLine, rounds: Rounds) -> None:
    do_slot(rounds.worker, rounds.task, 0, seed=0)
    rounds.chain.advance(2 * LEASE + 1)
    do_slot(rounds.worker, rounds.task, 1, seed=1)
    collect(rounds.worker, rounds.task)
    made = rounds.challenger.slot(rounds.task.number, 0, 1)
    opening = Opening(rounds.challenger.address, rounds.task.number, 0, 1, 0, made.state_root)
    points = [bytes([number + 1]) * 32 for number, _ in enumerate(points_of(0, made.steps + 1, RUN_POINTS))]
    game = rounds.challenger.open(opening, points)
    rounds.chain.advance(rounds.challenger.view(game).deadline - rounds.worker.chain_time() - 5)
    claim_slot(rounds.worker, rounds.task, MERGE)
    rounds.chain.advance(10)
    rounds.challenger.settle_late(game)
    (merge,) = [entry for entry in unpaid(online, rounds.number) if entry["slot"] == MERGE]
    assert "a slot of its inputs fell since it was claimed: they are not collected again yet" in merge["reason"]
    assert not merge["lost"]
    assert settle(online, rounds.number) == [("expired", MERGE), ("finalised", 0)]
    (merge,) = [entry for entry in unpaid(online, rounds.number) if entry["slot"] == MERGE]
    assert merge["reason"] == "its lease ended without a submission; 0 of its bond burned, the rest is free"


def test_a_fall_whose_round_went_on_without_the_slot(online: CommandLine, rounds: Rounds) -> None:
    for slot in range(2):
        do_slot(rounds.worker, rounds.task, slot, seed=slot)
    fell(rounds.challenger, rounds.task, 1, rounds.chain)
    rounds.chain.advance(LEASE + 1)  # the fallen slot is kept for the challenger no more, and the round is late
    collect(rounds.worker, rounds.task)
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    rounds.chain.advance(LEASE + 1)
    assert settle(online, rounds.number) == [("finalised", 0), ("finalised", MERGE)]
    (fallen,) = [entry for entry in unpaid(online, rounds.number) if entry["slot"] == 1]
    assert "anybody can have it taken now" in fallen["reason"]
    assert settle(online, rounds.number) == [("awarded", 1)]


def test_a_fall_in_a_closed_task_is_awarded_by_hand(online: CommandLine, rounds: Rounds) -> None:
    do_slot(rounds.worker, rounds.task, 0, seed=1)
    fell(rounds.challenger, rounds.task, 0, rounds.chain)
    assert settle(online, rounds.number) == []
    online.json("task", "close", rounds.number, "--account", "requester")
    (fallen,) = unpaid(online, rounds.number)
    assert fallen["command"] == f"trainledger task settle {rounds.number}"
    run_named(online, fallen, "requester")
    (fallen,) = unpaid(online, rounds.number)
    assert (fallen["command"], fallen["reason"].endswith("its bond of 0.1 is lost")) == (None, True)


def test_finalised_without_settle_is_not_done_again(online: CommandLine, rounds: Rounds) -> None:
    do_slot(rounds.worker, rounds.task, 0, seed=1)
    rounds.chain.advance(LEASE + 1)
    finalise_slot(rounds.worker, rounds.task, 0)
    assert settle(online, rounds.number) == []
    text = online.run("task", "settle", rounds.number, "--account", "requester").stdout
    assert text == f"Nothing can be done for task {rounds.number} now.\n"


def test_unknown_tasks_are_refused(online: CommandLine, rounds: Rounds) -> None:
    for command in (
        ["why-not-paid", "99999", "--account", "worker"],
        ["task", "settle", "99999", "--account", "worker"],
    ):
        assert "Task 99999 does not exist" in online.fail(3, *command)


def test_json_keys_are_documented(online: CommandLine, rounds: Rounds) -> None:
    do_slot(rounds.worker, rounds.task, 0, seed=1)
    shown = all_keys(online.json("why-not-paid", rounds.number, "--account", "worker"))
    rounds.chain.advance(LEASE + 1)
    done = all_keys(online.json("task", "settle", rounds.number, "--account", "worker"))
    for command, keys in ((["why-not-paid"], shown), (["task", "settle"], done)):
        text = " ".join(online.run(*command, "--help").stdout.split())
        documented = set(re.findall(r"`(\w+)`", text[text.index("JSON:") :].split(" Example")[0]))
        assert documented == keys, command
