"""What commands show and do for open tasks, on a real node."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import PROJECT, CommandLine
from open_world import BOND, FLOOR, SCORE, SLOT, OpenWorld, trained_root
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.moves import Opening
from ledger.keys import Wallet
from ledger.rpc import rpc

pytestmark = pytest.mark.chain


@pytest.fixture
def world(
    online: CommandLine,
    chain: LocalChain,
    web3: Web3,
    deployment: Deployment,
    artifacts: dict[str, Artifact],
    deployer: Wallet,
    rolled_back: None,
) -> OpenWorld:
    """People with stakes, whose keys the command line has."""
    made = OpenWorld(web3, deployment, artifacts, chain)
    made.people(deployer)
    for name in ("requester", "stranger"):
        online.add(made.wallet(name), name)
    return made


def settle(online: CommandLine, task: int) -> list[tuple[str, int | None]]:
    """What `open finalise` did: action and slot."""
    document = online.json("open", "finalise", str(task), "--account", "stranger")
    assert document["task"] == task
    return [(entry["action"], entry["slot"]) for entry in document["done"]]


def shown(online: CommandLine, task: int, *options: str) -> tuple[dict[str, Any], str]:
    """`open show` as JSON, and as text with single spaces."""
    text = online.run("open", "show", str(task), *options).stdout
    return online.json("open", "show", str(task), *options), re.sub(r" +", " ", text)


def waits(document: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(slot["stage"], slot["waits_for"]) for slot in document["slots"]]


def test_list_show_and_close(online: CommandLine, world: OpenWorld) -> None:
    assert online.json("open", "list") == []
    assert "No open tasks." in online.run("open", "list").output
    task = world.post(rounds=2)
    (listed,) = online.json("open", "list", "--running")
    document, text = shown(online, task)
    assert listed.items() <= document.items()
    assert (document["escrow"]["tokens"], document["paid"]["tokens"]) == ("61", "0")
    assert (document["full_gain"], document["floor_reward"]["tokens"]) == (2.0, "1")
    assert document["standing"]["commit_end"] is None
    assert "Round 0: nobody has committed yet." in text
    assert re.search(r"\n1 running 0/2 3 10 1 1 0x", re.sub(r" +", " ", online.run("open", "list").stdout))
    assert "OnlyRequester" in online.fail(3, "open", "close", str(task), "--account", "stranger")
    closed = online.json("open", "close", str(task), "--account", "requester")
    assert (closed["already_closed"], closed["refunded"]["tokens"], closed["escrow_left"]["tokens"]) == (
        False,
        "61",
        "0",
    )
    assert online.json("open", "close", str(task), "--account", "requester")["already_closed"] is True
    assert shown(online, task)[0]["standing"]["waits_for"] == "the task is closed"
    assert online.json("open", "list", "--running") == []
    assert "Open task 2 does not exist; there is only task 1." in online.fail(3, "open", "show", "2")
    assert "has rounds 0 to 1" in online.fail(2, "open", "show", str(task), "--round", "2")


def test_show_tells_what_each_slot_waits_for(online: CommandLine, world: OpenWorld) -> None:
    task = world.post(slots_per_round=2)
    world.commit("anna", task, trained_root("anna"))
    document, text = shown(online, task)
    state = world.client("anna").round(task, 0)
    assert waits(document) == [("committed", "its worker reveals it"), ("empty", None)]
    assert document["slots"][0]["until"] == state.reveal_end
    assert "Round 0: 1 of 2 states are committed to; commits are over at " in text
    world.commit("boris", task, trained_root("boris"))
    world.client("anna").reveal(task, 0, 0, trained_root("anna"), b"\x08" * 32)
    assert "Round 0: 1 of 2 commitments are opened; revealing is over at " in shown(online, task)[1]
    world.client("boris").reveal(task, 0, 1, trained_root("boris"), b"\x08" * 32)
    document, text = shown(online, task)
    assert "Round 0: its requester shows the held-out data by " in text
    assert waits(document)[0] == ("revealed", "the requester shows the held-out data")
    world.show(task)
    document, text = shown(online, task)
    assert "Round 0: 0 of 3 scores, the baseline's among them, are final or missing." in text
    assert waits(document)[1:] == [("revealed", "its worker scores it"), ("revealed", "anybody scores it")]
    world.score("anna", task, 0, 3.0)
    document, _ = shown(online, task)
    assert (document["slots"][0]["heldout_loss"], document["slots"][0]["pay"]) == (3.0, None)
    assert waits(document)[0] == ("scored", "its challenge window ends")
    world.score("stranger", task, 2, 4.0)
    document, text = shown(online, task)
    assert [slot["pay"] and slot["pay"]["tokens"] for slot in document["slots"]] == ["5.5", None, "0.5"]
    assert re.search(r"\nbaseline scored 0x\w+…\w+ its challenge window ends \d+ 4\.0000 0\.5\n", text)


def test_finalise_does_what_is_due_and_no_more(online: CommandLine, world: OpenWorld) -> None:
    task = world.post(rounds=3, slots_per_round=2)
    assert settle(online, task) == []
    world.commit("clara", task, trained_root("never"))
    world.handed_in(("anna",), task)
    state = world.client("anna").round(task, 0)
    world.pass_time(state.reveal_end)
    world.show(task)
    assert settle(online, task) == [("forfeited", 0)]
    world.score("anna", task, 1, 3.0)
    world.pass_time(world.client("anna").slot(task, 0, 1).deadline)  # after which nobody may score the baseline either
    assert waits(shown(online, task)[0])[1:] == [
        ("scored", "the baseline is final"),
        ("revealed", "anybody may give it up"),
    ]
    assert settle(online, task) == [("expired", 2), ("finalised", 1)]
    document, text = shown(online, task, "--round", "0")
    assert (document["paid"]["wei"], document["standing"]["waits_for"]) == (str(FLOOR), "it has ended")
    assert document["slots"][1]["pay"]["wei"] == str(FLOOR)  # nothing to compare it with
    assert document["current_round"] == 1
    world.commit("clara", task, trained_root("never"), 1)
    world.pass_time(world.client("anna").round(task, 1).reveal_end)
    assert settle(online, task) == [("forfeited", 0), ("skipped", None)]
    world.handed_in(("anna", "boris"), task, 2)
    world.pass_time(world.client("anna").round(task, 2).held_out_end)
    assert waits(shown(online, task)[0])[0] == ("revealed", "anybody may settle it, paid in full")
    assert settle(online, task) == [("defaulted", 0), ("defaulted", 1)]
    document, text = shown(online, task)
    assert (document["state"], document["escrow"]["wei"]) == ("closed", "0")
    assert document["paid"]["wei"] == str(FLOOR + 2 * SLOT)
    assert [slot["pay"] and slot["pay"]["wei"] for slot in document["slots"]] == [str(SLOT), str(SLOT), None]
    assert "did not show the held-out data by" in text
    assert settle(online, task) == []
    said = online.run("open", "finalise", str(task), "--account", "stranger").stdout
    assert said == f"Nothing can be done for open task {task} now.\n"


def test_finalise_frees_the_bond_of_a_commit_whose_round_has_ended(online: CommandLine, world: OpenWorld) -> None:
    task = world.post(rounds=2, slots_per_round=2)
    world.commit("clara", task, trained_root("never"))
    world.handed_in(("anna",), task)
    clara = world.client("clara")
    world.pass_time(clara.round(task, 0).reveal_end)
    world.show(task)
    for name, slot, loss in (("anna", 1, 3.0), ("stranger", 2, 4.0)):
        world.score(name, task, slot, loss)
    world.pass_time(clara.slot(task, 0, 2).deadline)
    for slot in (2, 1):
        world.finalise(task, slot)
    assert (clara.task(task).current_round, clara.stake_account(clara.address).locked) == (1, BOND)
    assert settle(online, task) == [("forfeited", 0)]
    assert clara.stake_account(clara.address).locked == 0


def test_finalise_takes_the_bond_of_a_score_that_fell(online: CommandLine, world: OpenWorld) -> None:
    task = world.post(slots_per_round=1)
    world.handed_in(("anna",), task)
    world.show(task)
    wrong = world.score("anna", task, 0, 1.0)
    boris = world.disputes("boris")
    game = boris.open(Opening(boris.address, task, 0, 0, 0, wrong.root), [b"\x09" * 32])
    assert waits(shown(online, task)[0])[0] == ("scored", "a dispute")
    seen = online.json("dispute", "show", str(game), "--open")
    assert (seen["open_task"], seen["about"], seen["place"]) == (True, "slot 0 of round 0", "run 0 of 1")
    assert seen["at_stake"]["wei"] == str(BOND)
    listed = online.json("dispute", "list", "--open")[0]
    assert [listed[name] for name in ("game", "open_task", "about")] == [game, True, seen["about"]]
    assert online.json("dispute", "list") == []
    said = online.run("dispute", "show", str(game), "--open").stdout
    assert said.startswith(f"Game {game} is about the score of slot 0 of round 0 of open task {task} (attempt 0).")
    world.pass_time(boris.view(game).deadline)
    assert f"`trainledger dispute settle {game} --open`" in online.run("dispute", "show", str(game), "--open").stdout
    settled = online.json("dispute", "settle", str(game), "--open", "--account", "stranger")
    assert (settled["already_over"], settled["winner"]) == (False, boris.address)
    world.score("boris", task, 0, 3.5)
    world.score("stranger", task, 1, 4.0)
    world.pass_time(world.client("anna").slot(task, 0, 1).deadline)
    assert settle(online, task) == [("finalised", 1), ("finalised", 0), ("awarded", 0)]
    assert settle(online, task) == []
    assert online.json("open", "show", str(task))["state"] == "complete"


def test_question_is_asked_acknowledged_and_answered(online: CommandLine, world: OpenWorld) -> None:
    world.enrol()
    tasks = [world.post(slots_per_round=1) for _ in range(2)]
    for task in tasks:
        world.handed_in(("anna",), task)
        world.show(task)
        asked = online.json("open", "question", str(task), "0", "0", "--account", "stranger")
        assert (asked["already_asked"], asked["deposit"]["wei"]) == (False, str(BOND))
        assert asked["state_root"] == "0x" + trained_root("anna").hex()
    again = online.run("open", "question", str(tasks[0]), "0", "0", "--account", "stranger").stdout
    assert again.startswith("It was asked already whether the state of slot 0 can be fetched; 1 ")
    document, _ = shown(online, tasks[0])
    assert document["slots"][0]["question"] == "open"
    assert waits(document)[0] == ("revealed", "whether its state can be fetched")
    place = (str(tasks[0]), "0", "0", "--account", "requester")
    done = online.json("open", "acknowledge", *place)
    assert (done["already_decided"], done["fee"]["tokens"]) == (False, "0.1")
    assert online.json("open", "acknowledge", *place)["already_decided"] is True
    client = world.client("stranger")
    rpc(world.web3, "anvil_mine", hex(3))
    client.draw(tasks[1], 0, 0)
    assert settle(online, tasks[1]) == []
    world.pass_time(client.inquiry(tasks[1], 0, 0).reveal_end)
    assert settle(online, tasks[1]) == [("answered", 0)]
    assert waits(shown(online, tasks[1])[0])[0] == ("missing", None)
    assert client.stake_account(client.address).locked == 0


def test_rewards_tell_what_open_tasks_paid(online: CommandLine, world: OpenWorld, record: Path) -> None:
    task = world.post(slots_per_round=1)
    world.handed_in(("anna",), task)
    world.show(task)
    world.score("anna", task, 0, 3.0)
    world.score("stranger", task, 1, 4.0)
    world.pass_time(world.client("anna").slot(task, 0, 1).deadline)
    settle(online, task)
    other = world.post(slots_per_round=1)
    world.handed_in(("anna",), other)
    world.pass_time(world.client("anna").round(other, 0).held_out_end)
    settle(online, other)
    scorer = online.json("rewards", "--account", "stranger")
    assert scorer["total"]["earned"]["wei"] == scorer["balance"]["credit"]["wei"] == str(SCORE)
    anna = world.client("anna").address
    made = online.json("rewards", "--account", anna)
    assert [(one["task"], one["heldout_loss"], one["paid"]["tokens"]) for one in made["open_earnings"]] == [
        (task, 3.0, "5.5"),
        (other, None, "10"),
    ]
    assert made["open_earnings"][1]["state_root"] == "0x" + trained_root("anna").hex()
    assert (made["total"]["earned"]["tokens"], made["total"]["refunded"]["tokens"]) == ("15.5", "0")
    text = re.sub(r" +", " ", online.run("rewards", "--account", anna).stdout)
    assert re.search(rf"\n ?{task} 0 0 0x\S+ 0x\S+ 3\.0000 5\.5\n", text)
    script = [sys.executable, str(PROJECT / "examples" / "query_rewards.py"), "--deployment", str(record)]
    theirs = subprocess.run(
        [*script, "--rpc-url", str(online.rpc_url), anna], capture_output=True, text=True, check=True, timeout=60
    )
    assert theirs.stdout == online.run("rewards", "--account", anna, "--json").stdout
