"""What the worker knows of the chain's tasks between two looks: which can still matter, and whose turn it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from ledger.errors import ContractReverted
from ledger.performance import pay_of
from ledger.types import Round, Slot, SlotStatus, Task
from trainer.worker.branch import Branch
from trainer.worker.ports import ChainReader


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """A task at one look.

    Attributes:
        slots: of the current round; where the task is complete, of its last one.
        slot: the one that is looked at: the one that ends the round, if nobody said otherwise (`at`).
        state: where a round of several slots stands; None with one slot a round.
        last_worker: who did the slot that ended the round before. round_since: local clock seconds.
        paid_share: of their reward that the training slots of the round before were paid; None where there is none.
    """

    task: Task
    slots: tuple[Slot, ...]
    slot: Slot
    state: Round | None = None
    last_worker: str | None
    round_since: float
    paid_share: float | None = None

    @property
    def over(self) -> bool:
        """Nothing will ever happen in this task again: no round left, or closed with no work in its slots."""
        idle = all(slot.status in (SlotStatus.OPEN, SlotStatus.FINALISED) for slot in self.slots)
        return self.task.complete or (self.task.closed and idle)

    def at(self, slot: Slot) -> TaskView:
        """The same, looking at another slot of the round."""
        return dataclasses.replace(self, slot=slot)


@dataclass
class _Memory:
    """What is known of a task. `stale`: blocks were taken back, so what became of its rounds is to be read again."""

    first_round: int
    current_round: int
    round_since: float
    last_worker: str | None
    paid_share: float | None
    stale: bool = False


class Board:
    """Reads tasks and slots; remembers what need not be read again, and forgets it when the chain goes back in time."""

    def __init__(self, chain: ChainReader, *, worker: str, only_task: int | None, clock: Callable[[], float]) -> None:
        self._chain = chain
        self._worker = worker
        self._only_task = only_task
        self._clock = clock
        self._memory: dict[int, _Memory] = {}
        self._over: set[int] = set()
        self._branch = Branch(chain)
        self._doubted: set[tuple[int, int, int]] = set()  # slots that were paid on a branch that is gone
        self._paid: dict[tuple[int, int, int], int] = {}
        self._paid_before: set[tuple[int, int, int]] = set()  # its own that were final when it first looked

    @property
    def earned(self) -> int:
        """Wei of this worker's slots that became final since it started."""
        return sum(self._paid.values())

    def paid_for(self, task: int, round_number: int, slot: int = 0) -> int:
        """Wei of one of this worker's slots that became final since it started; 0 for any other."""
        return self._paid.get((task, round_number, slot), 0)

    @property
    def rounds_paid(self) -> int:
        return len(self._paid)

    def refresh(self) -> list[TaskView]:
        """All tasks that can still matter, in order of their numbers.

        Raises:
            ChainUnreachable: no answer; ask again.
        """
        if self._branch.changed():  # a task's end may have been in the blocks that are gone, or a slot's
            self._over.clear()
            self._doubted.update(self._paid)
            for memory in self._memory.values():
                memory.stale = True  # a round that another did may be this worker's now
        self._check_paid()
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
        first = task.number not in self._memory
        memory = self._remember(task)
        # A complete task has no current round; its last one is to be shown.
        current = min(task.current_round, task.parameters.rounds - 1)
        slots = self._slots(task, current)
        if task.parameters.merges and first:
            self._paid_before.update(_place(slot) for slot in slots if self._is_paid(slot))
        elif task.parameters.merges:
            self._note_pay(task, slots)  # slots of a round become final one by one
        view = TaskView(
            task=task,
            slots=slots,
            slot=slots[-1],
            state=self._chain.round(number, current) if task.parameters.merges else None,
            last_worker=memory.last_worker,
            round_since=memory.round_since,
            paid_share=memory.paid_share,
        )
        if view.over:
            self._over.add(number)
        return view

    def _remember(self, task: Task) -> _Memory:
        memory = self._memory.get(task.number)
        same = memory is not None and memory.current_round == task.current_round
        if memory is not None and same and not memory.stale:
            return memory
        # Rounds that ended since the last look; at the first look only the last one, and only for whose turn it is.
        # The chain may also have gone back: then what was paid since is not paid any more.
        known = task.current_round
        if memory is not None:
            known = memory.first_round if memory.stale else memory.current_round
        for at in [at for at in self._paid if at[0] == task.number and at[1] >= task.current_round]:
            del self._paid[at]
        last, paid_share = None, None
        for number in range(max(0, min(known, task.current_round - 1)), task.current_round):
            slots = self._slots(task, number)
            last, paid_share = slots[-1], _paid_share(task, slots)
            if number >= known:
                self._note_pay(task, slots)
        # A round met at the first look began before: nobody need wait for it.
        since = -float("inf") if memory is None else memory.round_since if same else self._clock()
        fresh = _Memory(
            first_round=task.current_round if memory is None else min(memory.first_round, task.current_round),
            current_round=task.current_round,
            round_since=since,
            last_worker=last.worker if last else None,
            paid_share=paid_share,
        )
        self._memory[task.number] = fresh
        return fresh

    def _slots(self, task: Task, round_number: int) -> tuple[Slot, ...]:
        numbers = range(task.parameters.last_slot + 1)
        return tuple(self._chain.slot(task.number, round_number, number) for number in numbers)

    def _check_paid(self) -> None:
        """Forgets the pay of slots that are not this worker's any more since blocks were taken back."""
        for at in sorted(self._doubted):
            try:
                stands = self._is_paid(self._chain.slot(*at))
            except ContractReverted:
                stands = False
            if not stands:
                self._paid.pop(at, None)
            self._doubted.discard(at)

    def _note_pay(self, task: Task, slots: tuple[Slot, ...]) -> None:
        for slot in slots:
            if self._is_paid(slot) and _place(slot) not in self._paid_before:
                self._paid[_place(slot)] = pay_of(task.parameters, slot)

    def _is_paid(self, slot: Slot) -> bool:
        return slot.status is SlotStatus.FINALISED and slot.worker.lower() == self._worker.lower()


def _paid_share(task: Task, slots: tuple[Slot, ...]) -> float | None:
    """What slots that trained were paid, over what they could have been."""
    trained = [slot for slot in slots if slot.status is SlotStatus.FINALISED]
    trained = [slot for slot in trained if not task.parameters.is_merge(slot.slot)]
    most = len(trained) * task.parameters.slot_reward
    return sum(pay_of(task.parameters, slot) for slot in trained) / most if most else None


def _place(slot: Slot) -> tuple[int, int, int]:
    return slot.task, slot.round, slot.slot
