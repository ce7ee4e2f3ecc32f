"""What commands show of rounds with several slots, on a real node: open, frozen, thawed and merged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import PROJECT, CommandLine
from life import LEASE
from round_life import (
    DEADLINE,
    MERGE,
    MERGE_REWARD,
    claim_slot,
    collect,
    do_slot,
    fell,
    finalise_slot,
)
from rounds_of_two import Rounds
from test_rewards import all_keys

pytestmark = pytest.mark.chain


def shown(online: CommandLine, rounds: Rounds) -> tuple[dict[str, Any], str]:
    """`task show` as JSON, and as text with single spaces."""
    text = online.run("task", "show", rounds.number).stdout
    return online.json("task", "show", rounds.number), re.sub(r" +", " ", text)


def statuses(document: dict[str, Any]) -> list[str]:
    return [slot["status"] for slot in document["slots"]]


def test_task_show_of_a_round_that_is_open(online: CommandLine, rounds: Rounds) -> None:
    before, text = shown(online, rounds)
    assert (before["slots_per_round"], before["quorum"], before["round_seconds"]) == (2, 1, DEADLINE)
    assert before["merge_reward"] == {"wei": str(MERGE_REWARD), "tokens": "3"}
    assert before["escrow"]["tokens"] == "46"  # two rounds of two slots for 10 and a merge for 3
    assert before["standing"]["round_deadline"] is before["standing"]["frozen_at"] is None
    assert "Round 0: no slot has been claimed yet." in text
    do_slot(rounds.worker, rounds.task, 0, seed=1)
    claim_slot(rounds.worker, rounds.task, 1)
    document, text = shown(online, rounds)
    assert statuses(document) == ["submitted", "leased", "open"]
    assert [slot["merge"] for slot in document["slots"]] == [False, False, True]
    assert document["slot"] == document["slots"][MERGE]
    standing = document["standing"]
    assert (standing["submitted"], standing["counted"], standing["ready"]) == (1, [], False)
    assert re.search(r"Round 0: 1 of 2 submitted, quorum 1 after \d\d \w{3} \d\d:\d\d:\d\d UTC\.", text)
    assert re.search(r"\n0 submitted 0x.* 0x[0-9a-f]{64}", text)
    assert re.search(r"\n1 leased 0x", text)
    assert "\nmerge open" in text


def frozen(rounds: Rounds) -> bytes:
    """Slot 0 is missing, and the merge can be claimed."""
    do_slot(rounds.worker, rounds.task, 1, seed=1)
    rounds.chain.advance(DEADLINE + 1)
    return collect(rounds.worker, rounds.task)


def test_task_show_of_a_frozen_round(online: CommandLine, rounds: Rounds) -> None:
    inputs = frozen(rounds)
    document, text = shown(online, rounds)
    standing = document["standing"]
    assert (standing["counted"], standing["collected"], standing["generation"]) == ([1], 3, 0)
    assert standing["inputs_root"] == "0x" + inputs.hex()
    assert standing["frozen_at"] >= standing["round_deadline"]
    assert [slot["missing"] for slot in document["slots"]] == [True, False, False]
    assert "Round 0: the merge of 1 slots can be claimed." in text
    assert "\n0 missing" in text
    assert "\n1 submitted" in text


def test_task_show_of_a_thawed_round(online: CommandLine, rounds: Rounds) -> None:
    for slot in range(2):
        do_slot(rounds.worker, rounds.task, slot, seed=slot)
    collect(rounds.worker, rounds.task)
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    fell(rounds.challenger, rounds.task, 1, rounds.chain)
    document, text = shown(online, rounds)
    standing, (_, free, merge) = document["standing"], document["slots"]
    assert (standing["generation"], standing["frozen_at"], standing["inputs_root"]) == (1, None, None)
    assert (standing["counted"], standing["submitted"]) == ([0, 1], 1)
    assert (free["status"], free["reserved_for"]) == ("open", rounds.challenger.address)
    assert merge["status"] == "submitted"
    assert "Round 0: thawed, 1 of 2 submitted, quorum 1 after" in text
    assert re.search(r"\n1 free, kept for 0x", text)


def test_task_show_of_slots_that_stay_missing_after_a_thaw(online: CommandLine, rounds: Rounds) -> None:
    claim_slot(rounds.worker, rounds.task, 1)
    rounds.chain.advance(DEADLINE - 10)
    do_slot(rounds.worker, rounds.task, 1, seed=1)  # late, so that its window outlasts the round's deadline
    rounds.chain.advance(LEASE // 2)
    collect(rounds.worker, rounds.task)
    fell(rounds.challenger, rounds.task, 1, rounds.chain)
    document, text = shown(online, rounds)
    assert [slot["missing"] for slot in document["slots"]] == [True, False, False]
    assert "Round 0: thawed, 0 of 1 submitted, quorum 1 after" in text
    assert "\n0 missing" in text
    assert re.search(r"\n1 free, kept for 0x", text)
    rounds.chain.advance(DEADLINE + 1)
    document, text = shown(online, rounds)
    assert [slot["missing"] for slot in document["slots"]] == [False] * 3
    assert "\n0 free" in text


def test_checkpoint_list_and_rewards_tell_merges_apart(online: CommandLine, rounds: Rounds, record: Path) -> None:
    frozen(rounds)
    merged = do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    rounds.chain.advance(LEASE + 1)
    for slot in (1, MERGE):
        finalise_slot(rounds.worker, rounds.task, slot)
    listed = online.json("checkpoint", "list", rounds.number)
    (entry,) = listed["checkpoints"]
    assert (entry["state_root"], entry["merged"], entry["steps"]) == ("0x" + merged.hex(), 1, 1)
    text = online.run("checkpoint", "list", rounds.number).stdout
    assert "merged" in text
    assert "1 of 2 slots" in text

    document = online.json("rewards", "--account", "worker")
    earned = [(item["slot"], item["merge"], item["paid"]["tokens"]) for item in document["earnings"]]
    assert earned == [(1, False, "10"), (MERGE, True, "3")]
    assert document["total"]["earned"]["tokens"] == document["balance"]["credit"]["tokens"] == "13"
    assert re.search(r" merge +0x", online.run("rewards", "--account", "worker").stdout)
    script = [sys.executable, str(PROJECT / "examples" / "query_rewards.py"), "--deployment", str(record)]
    ours = online.run("rewards", "--json", "--account", "worker")
    theirs = subprocess.run(
        [*script, "--rpc-url", str(online.rpc_url), rounds.worker.address], capture_output=True, check=False, timeout=60
    )
    assert (theirs.stderr, theirs.stdout) == (b"", ours.stdout_bytes)


def test_dispute_list_and_show_name_slot_and_merge(online: CommandLine, rounds: Rounds) -> None:
    for slot in range(2):
        do_slot(rounds.worker, rounds.task, slot, seed=slot)
    collect(rounds.worker, rounds.task)
    do_slot(rounds.worker, rounds.task, MERGE, seed=9)
    fell(rounds.challenger, rounds.task, MERGE, rounds.chain)
    (game,) = online.json("dispute", "list", "--task", rounds.number)
    assert (game["slot"], game["merge"], game["about"]) == (MERGE, True, "the merge of round 0")
    assert re.search(r" merge +0x", online.run("dispute", "list", "--task", rounds.number).stdout)
    text = online.run("dispute", "show", str(game["game"])).stdout
    assert f"is about the submission of the merge of round 0 of task {rounds.number} (attempt 0)" in text


def test_task_list_has_the_slots(online: CommandLine, rounds: Rounds) -> None:
    listed = {task["task"]: task for task in online.json("task", "list")}
    assert listed[rounds.task.number]["slots_per_round"] == 2
    assert "slots" in online.run("task", "list").stdout.splitlines()[0].split()


def test_json_keys_of_rounds_are_documented(online: CommandLine, rounds: Rounds) -> None:
    frozen(rounds)
    text = " ".join(online.run("task", "show", "--help").stdout.split())
    documented = set(re.findall(r"`(\w+)`", text[text.index("JSON:") :].split(" Example")[0]))
    assert documented == all_keys(online.json("task", "show", rounds.number))
