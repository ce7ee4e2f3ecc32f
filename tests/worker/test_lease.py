from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from worker_bench import Recorder, TinyTask, publish_tiny_task
from worker_fakes import ALICE, BOB, TOKEN, FakeChain, FakeLedger

from ledger.errors import UsageError
from ledger.types import SlotStatus
from trainer.worker.lease import Lease, LeaseWatch, lease_problem
from trainer.worker.machine import SpeedRecord, free_memory
from trainer.worker.session import worker_lock
from trainer.worker.stop import Interrupted, Stop, Terminated, stop_on_signals


@pytest.fixture
def task(tmp_path: Path) -> TinyTask:
    return publish_tiny_task(tmp_path / "store")


@pytest.fixture
def ledger(task: TinyTask) -> FakeLedger:
    ledger = FakeLedger()
    ledger.post(task.parameters)
    ledger.stake(ALICE, 20 * TOKEN)
    return ledger


@pytest.fixture
def lease(ledger: FakeLedger) -> Lease:
    chain = FakeChain(ledger, ALICE)
    chain.claim(chain.task(1), 0, base_root=chain.base_root(1, 0), attempt=0, worker=ALICE)
    slot = chain.slot(1, 0)
    return Lease(task=1, round=0, slot=0, attempt=0, worker=ALICE, deadline=slot.deadline)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def test_lease_problem_while_it_stands_is_none_to_its_last_second(ledger: FakeLedger, lease: Lease) -> None:
    slot = FakeChain(ledger, ALICE).slot(1, 0)
    assert lease_problem(lease, slot, slot.deadline) is None
    assert "ran out 1 s ago" in str(lease_problem(lease, slot, slot.deadline + 1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": SlotStatus.OPEN}, "no longer on the chain"),
        ({"worker": BOB, "attempt": 1}, f"{BOB} has taken the slot"),
        ({"attempt": 1}, "Another claim or submission of yours"),
        ({"status": SlotStatus.SUBMITTED}, "Another claim or submission of yours"),
    ],
)
def test_lease_problem_says_what_became_of_the_slot(
    ledger: FakeLedger, lease: Lease, changes: dict[str, object], words: str
) -> None:
    slot = dataclasses.replace(FakeChain(ledger, ALICE).slot(1, 0), **changes)  # type: ignore[arg-type]  # by field
    assert words in str(lease_problem(lease, slot, 0))


def test_lease_watch_sees_the_lease_end(ledger: FakeLedger, lease: Lease) -> None:
    recorder = Recorder()
    with LeaseWatch(FakeChain(ledger, ALICE), lease, recorder, poll_seconds=0.01) as watch:
        time.sleep(0.05)
        assert watch.problem is None
        ledger.advance(1000)
        until(lambda: watch.problem is not None)
    assert "ran out" in str(watch.problem)


def test_lease_watch_outlives_an_outage_and_says_so_once(ledger: FakeLedger, lease: Lease) -> None:
    recorder = Recorder()
    with LeaseWatch(FakeChain(ledger, ALICE), lease, recorder, poll_seconds=0.01) as watch:
        ledger.down = True
        until(lambda: recorder.events == ["chain-lost"])
        time.sleep(0.1)
        ledger.down = False
        until(lambda: recorder.events == ["chain-lost", "chain-back"])
        assert watch.problem is None


def test_lease_watch_notices_a_task_that_is_gone(ledger: FakeLedger, lease: Lease) -> None:
    with LeaseWatch(FakeChain(ledger, ALICE), lease, Recorder(), poll_seconds=0.01) as watch:
        ledger.books.tasks.clear()
        until(lambda: watch.problem is not None)
    assert "Task 1 is gone" in str(watch.problem)


def test_worker_lock_refuses_a_second_worker_of_the_account(tmp_path: Path) -> None:
    with (
        worker_lock(tmp_path / "a", ALICE),
        worker_lock(tmp_path / "b", BOB),
        pytest.raises(UsageError, match=f"worker of account {ALICE} is already running"),
        worker_lock(tmp_path / "a", ALICE),
    ):
        raise AssertionError("the second lock was given")
    with worker_lock(tmp_path / "a", ALICE):
        assert (tmp_path / "a" / "lock").read_text().strip().isdigit()


def test_stop_on_signals_turns_the_signal_into_its_exit_code() -> None:
    import os
    import signal

    for number, kind, status in ((signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Terminated, 143)):
        before = signal.getsignal(number)
        with stop_on_signals() as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            stop.wait(5)
            assert stop.requested
            error = stop.error(remedy="Run it again.")
            assert isinstance(error, kind)
            assert error.exit_code == status
        assert signal.getsignal(number) is before


def test_stop_wait_ends_when_a_stop_is_requested() -> None:
    import threading

    stop, began = Stop(), time.monotonic()
    threading.Timer(0.05, stop.request).start()
    stop.wait(30)
    assert time.monotonic() - began < 5


def test_speed_record_remembers_and_survives_damage(tmp_path: Path) -> None:
    record = SpeedRecord(tmp_path / "speeds.json")
    assert record.seconds_per_step(b"p" * 32, "cpu") is None
    record.note(b"p" * 32, "cpu", seconds=5.0, steps=10)
    record.note(b"q" * 32, "cpu", seconds=5.0, steps=0)
    assert record.seconds_per_step(b"p" * 32, "cpu") == 0.5
    assert record.seconds_per_step(b"p" * 32, "cuda") is None
    assert record.seconds_per_step(b"q" * 32, "cpu") is None
    record.note(b"r" * 32, "cpu", seconds=1.0, steps=1)
    record.forget(b"r" * 32, "cpu")
    assert record.seconds_per_step(b"r" * 32, "cpu") is None
    assert record.seconds_per_step(b"p" * 32, "cpu") == 0.5
    (tmp_path / "speeds.json").write_text("{broken")
    assert record.seconds_per_step(b"p" * 32, "cpu") is None
    record.note(b"p" * 32, "cpu", seconds=1.0, steps=10)
    assert record.seconds_per_step(b"p" * 32, "cpu") == 0.1


def test_free_memory_is_a_plausible_number_of_bytes() -> None:
    free = free_memory()
    assert free is None or 2**20 < free < 2**50
