"""A tiny task with two staked workers, for the tests beside this file."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_bench import TinyTask, publish_tiny_task
from worker_fakes import ALICE, BOB, TOKEN, FakeLedger


@pytest.fixture
def task(tmp_path: Path) -> TinyTask:
    return publish_tiny_task(tmp_path / "store")


@pytest.fixture
def ledger(task: TinyTask) -> FakeLedger:
    ledger = FakeLedger()
    ledger.post(task.parameters)
    for owner in (ALICE, BOB):
        ledger.stake(owner, 20 * TOKEN)
    return ledger
