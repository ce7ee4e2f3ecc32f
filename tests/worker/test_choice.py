"""Which of all open slots comes first: what it pays, how often, and how long it takes here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_programs import users_engine
from worker_bench import TinyTask, bench
from worker_fakes import ALICE, REQUESTER, TOKEN, FakeLedger

from ledger.types import ZERO_ADDRESS, Slot, SlotStatus, Task, TaskParameters
from trainer.worker.board import TaskView
from trainer.worker.choice import UNTRIED_SHARE, best_first, expected_pay, seconds_assumed
from trainer.worker.machine import SpeedRecord
from trainer.worker.policy import Reason
from trainer.worker.session import worker_folder

PARAMETERS = TaskParameters(
    specification_hash=b"\1" * 32,
    program_root=b"\2" * 32,
    dataset_root=b"\3" * 32,
    initial_state_root=b"\4" * 32,
    state_tensors=7,
    rounds=3,
    slots_per_round=4,
    steps_per_round=100,
    minimum_steps=100,
    slot_reward=10 * TOKEN,
    bond=TOKEN,
    lease_fee=0,
    lease_seconds=400,
    challenge_window=400,
    quorum=4,
    round_seconds=800,
    merge_reward=2 * TOKEN,
    has_target=False,
    base_loss=0,
    target_loss=0,
)


def view(number: int = 1, *, slot: int = 0, attempt: int = 0, share: float | None = None, **changes: Any) -> TaskView:
    parameters = dataclasses.replace(PARAMETERS, **changes)
    made = Slot(
        task=number,
        round=0,
        slot=slot,
        worker=ZERO_ADDRESS,
        attempt=attempt,
        deadline=0,
        status=SlotStatus.OPEN,
        open_games=0,
        payout=ZERO_ADDRESS,
        steps=0,
        heldout_loss=0,
        state_root=bytes(32),
    )
    task = Task(number=number, parameters=parameters, requester=REQUESTER, current_round=0, closed=False)
    return TaskView(task=task, slots=(made,), slot=made, last_worker=None, round_since=0.0, paid_share=share)


def order(*views: TaskView, seconds: dict[int, float] | None = None, waits: set[int] | None = None) -> list[int]:
    reason = Reason("slots", "none is free")
    looked = [(one, reason if one.task.number in (waits or ()) else None) for one in views]
    measured = seconds or {}
    return [one.task.number for one, _ in best_first(looked, lambda one: measured.get(one.task.number))]


def test_the_best_paid_second_comes_first() -> None:
    slow, quick = view(1, slot_reward=30 * TOKEN), view(2)
    assert order(slow, quick) == [1, 2]
    assert order(slow, quick, seconds={1: 100.0, 2: 30.0}) == [2, 1]
    assert order(quick, view(1)) == [1, 2]  # alike: by their numbers


def test_what_was_never_run_here_is_taken_to_take_a_share_of_its_lease() -> None:
    known, untried = view(1), view(2)
    assert order(known, untried, seconds={1: 99.0}) == [1, 2]
    assert order(known, untried, seconds={1: 101.0}) == [2, 1]
    assert seconds_assumed(untried, None) == UNTRIED_SHARE * 400
    assert seconds_assumed(untried, 7.0) == 7.0


def test_tasks_that_wait_come_last() -> None:
    assert order(view(1, slot_reward=99 * TOKEN), view(2), waits={1}) == [2, 1]


def test_a_merge_comes_before_training_for_it_is_short() -> None:
    merge = view(2, slot=4)
    assert order(view(1), merge) == [2, 1]
    assert seconds_assumed(merge, None) == UNTRIED_SHARE * 400 * 5 / 100
    assert seconds_assumed(view(slot=4, steps_per_round=2), None) == UNTRIED_SHARE * 400
    assert order(view(1), merge, seconds={2: 50.0}) == [1, 2]


@pytest.mark.parametrize(
    ("one", "tokens"),
    [
        (view(), 10),
        (view(share=0.25), 2.5),
        (view(share=0.0), 0),
        (view(attempt=1), 5),
        (view(attempt=2, share=0.5), 10 / 6),
        (view(slot=4), 2),
        (view(slot=4, share=0.25), 2),
    ],
)
def test_expected_pay(one: TaskView, tokens: float) -> None:
    assert expected_pay(one) / TOKEN == pytest.approx(tokens)


def test_run_takes_the_task_that_pays_more_a_second(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    """The second task pays twice as much, and its program is known to take ten times as long."""
    other = dataclasses.replace(task.parameters, slot_reward=2 * task.parameters.slot_reward, program_root=b"\7" * 32)
    assert ledger.post(other) == 2
    made = bench(ledger, tmp_path, task, ALICE, maximum_rounds=1, finalise=False)
    folder = worker_folder(made.home, ALICE)
    speeds, setting = SpeedRecord(folder / "speeds.json"), users_engine().setting
    speeds.note(task.parameters.program_root, setting, seconds=0.5, steps=12)
    speeds.note(other.program_root, setting, seconds=5.0, steps=12)
    made.worker.run()
    assert [write[:2] for write in ledger.writes] == [("claim", 1), ("submit", 1)]


def test_run_learns_what_a_task_really_pays(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    parameters = ledger.books.tasks[1].parameters
    made = bench(ledger, tmp_path, task, ALICE, maximum_rounds=1)
    assert made.worker._board.refresh()[0].paid_share is None
    made.worker.run()
    assert parameters.slot_reward
    assert made.worker._board.refresh()[0].paid_share == 1.0


def test_speed_record_keeps_merges_apart(tmp_path: Path) -> None:
    speeds = SpeedRecord(tmp_path / "speeds.json")
    speeds.note(b"p" * 32, "engine", seconds=6.0, steps=3)
    assert speeds.seconds_to_merge(b"p" * 32, "engine") is None
    speeds.note_merge(b"p" * 32, "engine", seconds=9.0)
    assert (speeds.seconds_per_step(b"p" * 32, "engine"), speeds.seconds_to_merge(b"p" * 32, "engine")) == (2.0, 9.0)
