"""What the worker knows of the chain's tasks between two looks: which can still matter, and whose turn it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ledger.errors import ContractReverted
from ledger.performance import pay_for
from ledger.types import Checkpoint, Slot, SlotStatus, Task
from trainer.worker.ports import ChainReader


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """A task at one look. `last_worker` did the round before the current one; `round_since` is local clock seconds."""

    task: Task
    slot: Slot
    last_worker: str | None
    round_since: float

    @property
    def over(self) -> bool:
        """Nothing will ever happen in this task again: no round left, or closed with no work in its slot."""
        return self.task.complete or (self.task.closed and self.slot.status in (SlotStatus.OPEN, SlotStatus.FINALISED))


@dataclass
class _Memory:
    current_round: int
    round_since: float
    last_worker: str | None


class Board:
    """Reads tasks and slots; remembers what need not be read again, and forgets it when the chain goes back in time."""

    def __init__(self, chain: ChainReader, *, worker: str, only_task: int | None, clock: Callable[[], float]) -> None:
        self._chain = chain
        self._worker = worker
        self._only_task = only_task
        self._clock = clock
        self._memory: dict[int, _Memory] = {}
        self._over: set[int] = set()
        self._block = -1
        self._paid: dict[tuple[int, int], int] = {}

    @property
    def earned(self) -> int:
        """Wei of this worker's rounds that became final since it started."""
        return sum(self._paid.values())

    def paid_for(self, task: int, round_number: int) -> int:
        """Wei of one of this worker's rounds that became final since it started; 0 for any other."""
        return self._paid.get((task, round_number), 0)

    @property
    def rounds_paid(self) -> int:
        return len(self._paid)

    def refresh(self) -> list[TaskView]:
        """All tasks that can still matter, in order of their numbers.

        Raises:
            ChainUnreachable: no answer; ask again.
        """
        block = self._chain.block_number()
        if block < self._block:
            self._over.clear()  # the chain lost blocks, and a task's end may have been in them
        self._block = block
        count = self._chain.task_count()
        numbers = range(1, count + 1) if self._only_task is None else [self._only_task]
        views = [self._look(number) for number in numbers if number not in self._over]
        return [view for view in views if view is not None]

    @property
    def all_over(self) -> bool:
        """Whether every task that this worker considers has ended, and there was one."""
        numbers = {self._only_task} if self._only_task is not None else set(range(1, self._chain.task_count() + 1))
        return bool(numbers) and numbers <= self._over

    def _look(self, number: int) -> TaskView | None:
        try:
            task = self._chain.task(number)
        except ContractReverted:
            if number == self._only_task:
                raise  # the user named it
            return None  # the chain lost blocks between the count and this read
        memory = self._remember(task)
        # A complete task has no current round; its last slot is the one to show.
        slot = self._chain.slot(number, min(task.current_round, task.parameters.rounds - 1))
        view = TaskView(task=task, slot=slot, last_worker=memory.last_worker, round_since=memory.round_since)
        if view.over:
            self._over.add(number)
        return view

    def _remember(self, task: Task) -> _Memory:
        memory = self._memory.get(task.number)
        if memory is not None and memory.current_round == task.current_round:
            return memory
        # Rounds that ended since the last look; at the first look only the last one, and only for whose turn it is.
        # The chain may also have gone back: then what was paid since is not paid any more.
        known = task.current_round if memory is None else memory.current_round
        for at in [at for at in self._paid if at[0] == task.number and at[1] >= task.current_round]:
            del self._paid[at]
        last: Checkpoint | None = None
        for number in range(max(0, min(known, task.current_round - 1)), task.current_round):
            last = self._chain.checkpoint(task.number, number)
            if number >= known and last.worker.lower() == self._worker.lower():
                self._paid[(task.number, number)] = pay_for(
                    task.parameters, round_number=number, steps=last.steps, loss_bits=last.heldout_loss
                )
        fresh = _Memory(
            current_round=task.current_round,
            # A round met at the first look began before: nobody need wait for it.
            round_since=-float("inf") if memory is None else self._clock(),
            last_worker=last.worker if last else None,
        )
        self._memory[task.number] = fresh
        return fresh
