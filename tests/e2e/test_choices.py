"""What a worker takes, what it leaves, and what it says about it: on a real chain, one command at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stage import TOKEN, Stage

from ledger.errors import DataError
from ledger.types import SlotStatus

pytestmark = pytest.mark.chain


def work(
    stage: Stage, task: int, *words: str, account: str = "alice", ends: int = 0, **more: str
) -> list[dict[str, Any]]:
    """Runs a worker until it has nothing to do for a moment, and gives what it said; `ends` is its exit code."""
    done = stage.run(
        "worker", "run", "--json", "--task", str(task), "--idle-exit", "0.3", *words, account=account, **more
    )
    assert done.exit_code == ends, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def reasons(said: list[dict[str, Any]]) -> dict[str, str]:
    return {line["reason"]: line["detail"] for line in said if line["event"] == "waiting"}


@pytest.fixture(scope="module")
def task(stage: Stage) -> int:
    return stage.post(rounds=2, steps=8)


@pytest.mark.full
def test_worker_leaves_a_slot_that_is_taken_and_names_the_holder(stage: Stage) -> None:
    number = stage.post(rounds=1, steps=9)
    alice = stage.client("alice")
    task = alice.task(number)
    alice.claim(task, 0, base_root=task.parameters.initial_state_root, attempt=0, worker=alice.address)
    said = reasons(work(stage, number, account="bob"))
    assert f"leased to {alice.address}" in said["leased"]
    assert alice.slot(number, 0).worker == alice.address
    # The lease runs out, and bob may have it: that costs alice the fee, which is burned.
    before = alice.stake_account(alice.address).staked
    stage.chain.advance(100)
    work(stage, number, "--once", "--no-finalise", account="bob")
    slot = alice.slot(number, 0)
    assert (slot.worker, slot.attempt, slot.status) == (stage.wallet("bob").address, 1, SlotStatus.SUBMITTED)
    assert alice.stake_account(alice.address).staked == before - TOKEN


def test_worker_finds_a_proof_of_work_ticket(stage: Stage) -> None:
    number = stage.post(rounds=1, steps=10, admission='[admission]\nkind = "ticket"\nticket_bits = 10\n')
    said = work(stage, number, "--once", "--no-finalise")
    assert [line["event"] for line in said if line["event"] in ("mining", "claimed", "submitted")] == [
        "mining",
        "claimed",
        "submitted",
    ]


def test_worker_gives_up_a_ticket_that_is_too_hard(stage: Stage) -> None:
    number = stage.post(rounds=1, steps=11, admission='[admission]\nkind = "ticket"\nticket_bits = 60\n')
    said = reasons(work(stage, number, "--ticket-seconds", "0.2"))
    assert "1,152,921,504,606,846,976 tries" in said["ticket"]
    assert stage.client("alice").slot(number, 0).status is SlotStatus.OPEN


def test_worker_without_stake_is_told_how_much_is_missing(stage: Stage, task: int) -> None:
    stage.fund("carol")
    said = reasons(work(stage, task, account="carol"))
    assert "a bond of 5 tokens, and 0 of the 0 staked" in said["bond"]


def test_worker_without_ether_is_told_so(stage: Stage, task: int) -> None:
    address = stage.fund("dave", stake=50)
    stage.chain.set_balance(address, 0)
    refused = stage.run("worker", "run", "--task", str(task), account="dave")
    assert refused.exit_code == 3
    assert f"Account {address} has 0 ether and needs 0.0" in refused.stderr


def test_worker_leaves_what_pays_too_little_or_needs_too_much(stage: Stage, task: int) -> None:
    assert "you asked for 10.5" in reasons(work(stage, task, "--minimum-pay", "10.5"))["pay"]
    assert "MiB of memory" in reasons(work(stage, task, "--memory-limit", "1"))["memory"]
    rate = reasons(work(stage, task, "--minimum-pay-per-second", "1000000"))
    assert "tokens a second on this machine and you asked for 1000000" in rate["pay-per-second"]


def test_worker_on_anothers_stake_needs_to_be_its_operator(stage: Stage) -> None:
    number = stage.post(rounds=1, steps=12)
    alice, hot = stage.client("alice"), stage.fund("hot", tokens=0)
    words = ("--stake-of", alice.address, "--once", "--no-finalise")
    assert "may not claim on the stake" in reasons(work(stage, number, *words, account="hot"))["operator"]
    alice.set_operator(hot, True)
    work(stage, number, *words, account="hot")
    slot = alice.slot(number, 0)
    assert (slot.worker, slot.status) == (alice.address, SlotStatus.SUBMITTED)


def test_worker_names_a_damaged_or_missing_file_and_claims_nothing(stage: Stage, task: int, tmp_path: Path) -> None:
    store = stage.home / "store"
    fresh = {
        "TRAINLEDGER_HOME": str(tmp_path),
        "TRAINLEDGER_DEPLOYMENT": str(stage.home / "deployments" / "31337"),
        "TRAINLEDGER_STORE": str(store),
    }
    parameters = stage.client("alice").task(task).parameters
    part = store / "datasets" / ("0x" + parameters.dataset_root.hex()) / "heldout.bin"
    whole = part.read_bytes()
    part.write_bytes(whole[:100] + b"\0\0" + whole[102:])
    try:
        assert (
            "heldout.bin is corrupt: chunk 0"
            in reasons(work(stage, task, ends=DataError.exit_code, **fresh))["materials"]
        )
    finally:
        part.write_bytes(whole)
    state = store / "states" / ("0x" + parameters.initial_state_root.hex() + ".safetensors")
    aside = state.rename(tmp_path / "aside")
    try:
        assert (
            f"{state.name} is not in the store"
            in reasons(work(stage, task, ends=DataError.exit_code, **fresh))["materials"]
        )
    finally:
        aside.rename(state)
    assert stage.client("alice").slot(task, 0).status is SlotStatus.OPEN


def test_worker_uses_a_tasks_own_store_only_where_allowed(stage: Stage, tmp_path: Path) -> None:
    number = stage.post(rounds=1, steps=13)
    elsewhere = {
        "TRAINLEDGER_HOME": str(tmp_path),
        "TRAINLEDGER_DEPLOYMENT": str(stage.home / "deployments" / "31337"),
        "TRAINLEDGER_STORE": str(tmp_path / "empty"),
    }
    said = reasons(work(stage, number, ends=DataError.exit_code, **elsewhere))["materials"]
    assert "--allow-store" in said
    named = stage.client("alice").store_url(number)
    work(stage, number, "--allow-store", named, "--once", "--no-finalise", **elsewhere)
    slot = stage.client("alice").slot(number, 0)
    assert slot.status is SlotStatus.SUBMITTED
    # The result lies where the requester and verifiers look for it.
    assert (stage.home / "store" / "states" / ("0x" + slot.state_root.hex() + ".safetensors")).is_file()
