"""Leases that nobody else would end: of rounds that went on without their worker, and of closed tasks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from worker_bench import Recorder, TinyTask, bench
from worker_fakes import ALICE, BOB, TOKEN, FakeLedger, kinds

from ledger.types import Slot, SlotStatus, StakeAccount, Task
from tests.worker.test_policy import FREE
from tests.worker.test_slots import MANY
from trainer.worker.board import TaskView
from trainer.worker.policy import WorkerOptions
from trainer.worker.upkeep import Upkeep

TASK = Task(number=1, parameters=MANY, requester=BOB, current_round=1, closed=False)


class LeftBehind:
    """A chain on which Alice was away: what is leased to her, and what she has expired since."""

    def __init__(self, *slots: Slot) -> None:
        self.left, self.expired, self.looks = list(slots), [], 0
        self.task_now = TASK

    def stake_account(self, owner: str, /) -> StakeAccount:
        locked = len(self.left) * MANY.bond
        return StakeAccount(staked=100 * TOKEN, locked=locked, unbonding=0, unbonding_release=0, credit=0, payout=owner)

    def leases(self, worker: str, /) -> list[Slot]:
        self.looks += 1
        return list(self.left)

    def task(self, number: int, /) -> Task:
        return self.task_now

    def chain_time(self) -> int:
        return 1000

    def expire_lease(self, task: int, round_number: int, attempt: int, slot: int = 0, /) -> None:
        self.left = [one for one in self.left if (one.round, one.slot) != (round_number, slot)]
        self.expired.append((task, round_number, attempt, slot))


def upkeep(chain: LeftBehind) -> tuple[Upkeep, Recorder]:
    recorder = Recorder()
    return Upkeep(chain, worker=ALICE, options=WorkerOptions(), reporter=recorder), recorder  # type: ignore[arg-type]


def view(chain: LeftBehind) -> TaskView:
    return TaskView(task=chain.task_now, slots=(FREE,), slot=FREE, last_worker=None, round_since=0.0)


def lease(round_number: int, slot: int) -> Slot:
    return dataclasses.replace(
        FREE, round=round_number, slot=slot, status=SlotStatus.LEASED, worker=ALICE, attempt=2, deadline=900
    )


def test_lease_of_a_round_that_is_over_is_ended_once_its_worker_is_back() -> None:
    chain = LeftBehind(lease(0, 3), lease(1, 2))
    made, recorder = upkeep(chain)
    assert made.close([view(chain)])
    assert chain.expired == [(1, 0, 2, 3)]  # the other is of the round that runs
    assert recorder.texts("released") == ["Released slot 3 of round 0 of task 1."]
    assert not made.close([view(chain)])
    assert chain.looks == 1  # the log is not read again at each look


def test_lease_that_a_round_left_behind_is_ended_when_it_ends() -> None:
    chain = LeftBehind(lease(1, 2))
    made, _ = upkeep(chain)
    assert not made.close([view(chain)])
    chain.task_now = dataclasses.replace(TASK, current_round=2)
    assert made.close([view(chain)])
    assert chain.expired == [(1, 1, 2, 2)]


def test_log_is_not_read_where_no_bond_is_locked() -> None:
    chain = LeftBehind()
    made, _ = upkeep(chain)
    assert not made.close([view(chain)])
    assert chain.looks == 0


def test_closed_task_whose_worker_vanished_is_ended_by_another(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    base = task.parameters.initial_state_root
    bench(ledger, tmp_path, task, BOB).chain.claim(ledger.books.tasks[1], 0, base_root=base, attempt=0, worker=BOB)
    ledger.books.tasks[1] = dataclasses.replace(ledger.books.tasks[1], closed=True)
    summary = bench(ledger, tmp_path, task, ALICE).worker.run()
    assert kinds(ledger) == ["claim", "expire"]
    assert (ledger.books.locked[BOB], ledger.books.burned, summary.rounds_submitted) == (0, TOKEN, 0)
