"""A chain that takes blocks back, also where the new branch is as high or higher: what was known is looked at again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker_bench import TinyTask, bench
from worker_fakes import ALICE, BOB, TOKEN, FakeChain, FakeLedger

from trainer.worker.board import Board
from trainer.worker.branch import Branch


@dataclass
class Blocks:
    """A chain of hashes."""

    hashes: list[bytes] = field(default_factory=lambda: [b"0", b"1", b"2"])

    def block_number(self) -> int:
        return len(self.hashes) - 1

    def block_hash(self, number: int) -> bytes:
        return self.hashes[number] if number < len(self.hashes) else b""


def test_changed_tells_growth_from_another_branch() -> None:
    chain: Any = Blocks()
    branch = Branch(chain)
    assert not branch.changed()
    chain.hashes.append(b"3")
    assert not branch.changed()
    chain.hashes[3] = b"another 3"
    assert branch.changed()
    assert not branch.changed()
    chain.hashes[3:] = [b"a third 3", b"4", b"5"]  # longer than before
    assert branch.changed()
    del chain.hashes[2:]
    assert branch.changed()
    assert not branch.changed()


def board(ledger: FakeLedger, worker: str) -> Board:
    return Board(FakeChain(ledger, worker), worker=worker, only_task=None, clock=lambda: 0.0)


def test_board_counts_no_pay_of_a_branch_that_is_gone(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    before, looks = ledger.save(), board(ledger, ALICE)
    looks.refresh()
    bench(ledger, tmp_path, task, ALICE, maximum_rounds=1).worker.run()
    looks.refresh()
    assert (looks.earned, looks.rounds_paid) == (10 * TOKEN, 1)
    height = ledger.books.block
    ledger.restore(before)
    bench(ledger, tmp_path, task, BOB, maximum_rounds=1).worker.run()  # so that no round is seen to go back
    ledger.books.block = height + 5
    looks.refresh()
    assert ledger.books.tasks[1].current_round == 1
    assert (looks.earned, looks.rounds_paid) == (0, 0)


def test_board_counts_the_pay_of_a_round_that_is_this_worker_s_on_the_new_branch(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    before, looks = ledger.save(), board(ledger, ALICE)
    looks.refresh()
    bench(ledger, tmp_path, task, BOB, maximum_rounds=1).worker.run()
    looks.refresh()
    assert (looks.earned, looks.rounds_paid) == (0, 0)
    height = ledger.books.block
    ledger.restore(before)
    bench(ledger, tmp_path, task, ALICE, maximum_rounds=1).worker.run()  # no round is seen to go back
    ledger.books.block = height + 5
    (view,) = looks.refresh()
    assert (view.task.current_round, view.last_worker) == (1, ALICE)
    assert (looks.earned, looks.rounds_paid) == (10 * TOKEN, 1)


def test_board_takes_up_a_task_whose_end_is_gone(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    looks = board(ledger, ALICE)
    bench(ledger, tmp_path, task, ALICE, maximum_rounds=2).worker.run()
    before = ledger.save()
    bench(ledger, tmp_path, task, ALICE).worker.run()
    looks.refresh()
    assert looks.all_over
    height = ledger.books.block
    ledger.restore(before)
    ledger.books.block = height + 5
    (view,) = looks.refresh()
    assert (view.task.current_round, looks.all_over) == (2, False)
