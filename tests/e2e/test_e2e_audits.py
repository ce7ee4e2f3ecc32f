"""Drawn auditors with real processes: two replay what a worker trained, agree, are paid, and the window ends early."""

from __future__ import annotations

import time

import pytest
from stage import TOKEN, Process, Stage

from ledger.audits.client import CommitteeClient
from ledger.audits.records import VOTES, attempt_key
from ledger.rpc import connect

pytestmark = pytest.mark.chain

LEASE, WINDOW, STEPS = 300, 7200, 12
FEE = TOKEN // 2


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.full)])
def test_drawn_auditors_end_a_window_early(own_stage: Stage, killed: bool) -> None:
    stage = own_stage
    reader = CommitteeClient(connect(stage.chain.rpc_url), stage.deployment)
    for name in ("carol", "dave"):
        stage.fund(name, stake=20)
        assert stage.ask("auditor", "enrol", "6", account=name)["seats"] == 6
    stage.chain.advance(reader.seat_age() + 1)
    task = stage.post(rounds=1, steps=STEPS, lease=LEASE, window=WINDOW)
    stage.ask("auditor", "fund", str(task), "9", "--fee", "0.5", account="requester")
    auditors = {name: stage.command(name, "audit", str(task), "--exit-when-done") for name in ("carol", "dave")}
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    root = worker.wait_for("submitted")["state_root"]
    end = reader.slot(task, 0).deadline
    if killed:  # after it has committed: its finding is on disk
        auditors["carol"].wait_for("audit-committed")
        auditors["carol"].kill()
        auditors["carol"] = stage.command("carol", "audit", str(task), "--exit-when-done")
    paid = {name: _paid(stage, reader, name, auditor, task) for name, auditor in auditors.items()}
    assert sum(paid.values()) == VOTES * FEE
    assert reader.audit(attempt_key(task, 0, 0)).state_root.hex() == root[2:]
    assert reader.slot(task, 0).deadline == end - WINDOW + LEASE
    stage.play_out(task)
    assert reader.chain_time() < end
    assert worker.ended() == 0
    assert [auditor.ended() for auditor in auditors.values()] == [0, 0]
    assert int(auditors["dave"].said("finished")["fees"]) == paid["dave"]
    assert reader.checkpoint(task, 0).state_root.hex() == root[2:]
    assert stage.ask("auditor", "budget", str(task))["held"]["tokens"] == "4.5"
    assert stage.ask("auditor", "refund", str(task), account="requester")["refunded"]["tokens"] == "4.5"


def _paid(stage: Stage, reader: CommitteeClient, name: str, auditor: Process, task: int) -> int:
    """What an auditor was paid, wei; nothing where none of its seats was drawn."""
    address, key, end = stage.wallet(name).address, attempt_key(task, 0, 0), time.monotonic() + 60
    while not any(reader.audit(key).seed):
        assert time.monotonic() < end, auditor.events()
        time.sleep(0.1)
    if not reader.votes_of(key, address):
        return 0
    auditor.wait_for("audit-paid")
    credit = reader.stake_account(address).credit
    assert credit == reader.votes_of(key, address) * FEE
    return credit
