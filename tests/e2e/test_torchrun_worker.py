"""`worker run` under torchrun: a rank is killed, torchrun starts all again, and the round goes on where it was."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from stage import Stage

pytestmark = [pytest.mark.chain, pytest.mark.full]

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2")


def rank_of(parent: int, rank: int) -> int:
    """The process that torchrun, the parent, has started as this rank."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
            environment = (stat.parent / "environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in environment:
                return int(stat.parent.name)
    raise AssertionError(f"torchrun has no process of rank {rank}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds torchrun's processes in /proc")
def test_worker_with_a_killed_rank_goes_on_at_the_step_it_lost(stage: Stage) -> None:
    path = stage.task_file(rounds=1, steps=400, lease=300, window=300, target=0.2)
    path.write_text(path.read_text().replace("batch_size = 4", "batch_size = 4\nshards = 4"))
    task = int(stage.ask("task", "create", str(path), account="requester")["task"])
    # No snapshots but that of the step that is lost.
    words = ("worker", "run", "--task", str(task), "--exit-when-done")
    worker = stage.command("alice", *words, launcher=LAUNCHER, TRAINLEDGER_SNAPSHOT_SECONDS="3600")
    before = worker.wait_for("progress")["step"]
    assert before < 400
    os.kill(rank_of(worker.popen.pid, 1), signal.SIGKILL)
    resumed = worker.wait_for("resumed")
    assert before <= resumed["step"] < 400
    worker.wait_for("submitted")
    stage.play_out(task)
    assert worker.ended() == 0, worker.err.read_text()
    assert worker.events().count("claimed") == 1
    assert stage.ask("verify", str(task), "--all")["agrees"] is True


def test_rank_0_that_cannot_begin_keeps_nobody_waiting(stage: Stage) -> None:
    began = time.monotonic()
    worker = stage.command("alice", "worker", "run", "--task", "999", launcher=LAUNCHER[:-1])
    assert worker.ended() == 1
    assert "Task 999 does not exist" in worker.err.read_text()
    worker = stage.command(None, "worker", "run", launcher=LAUNCHER[:-1])
    assert worker.ended() == 1
    assert "There is no account in" in worker.err.read_text()
    assert time.monotonic() - began < 55.0  # torchrun itself would give the other rank 30 seconds each time


def test_worker_under_torchrun_with_ranks_of_its_own_refused(stage: Stage) -> None:
    worker = stage.command("alice", "worker", "run", launcher=LAUNCHER[:-1], TRAINLEDGER_RANKS="2")
    assert worker.ended() == 1  # torchrun's own exit code
    assert "torchrun started 2 ranks, and the setting ranks asks each for 2 more." in worker.err.read_text()
