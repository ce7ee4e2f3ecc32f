"""What an auditor knows of the chain between two looks: every submission of the rounds that are under way."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.errors import ContractReverted
from ledger.rounds import describe_slot
from ledger.types import Slot, SlotStatus, Task
from trainer.worker.branch import Branch
from trainer.worker.ports import ChainReader

__all__ = ["SlotView", "Watch"]

_AT_WORK = (SlotStatus.LEASED, SlotStatus.SUBMITTED)


@dataclass(frozen=True, kw_only=True)
class SlotView:
    """A slot of a task's current round at one look."""

    task: Task
    slot: Slot

    @property
    def place(self) -> str:
        """Such as "round 3" or "slot 2 of round 3"."""
        return describe_slot(self.task.parameters, self.slot.round, self.slot.slot)

    @property
    def name(self) -> str:
        """The place with its task, such as "slot 2 of round 3 of task 1"."""
        return f"{self.place} of task {self.task.number}"

    @property
    def title(self) -> str:
        """The name at the beginning of a sentence."""
        return self.name[0].upper() + self.name[1:]

    @property
    def merge(self) -> bool:
        return self.task.parameters.is_merge(self.slot.slot)


class Watch:
    """Reads tasks and their submissions; leaves out tasks that have ended, until the chain goes back in time."""

    def __init__(self, chain: ChainReader, *, only_task: int | None) -> None:
        self._chain, self._only_task = chain, only_task
        self._over: set[int] = set()
        self._branch = Branch(chain)

    def refresh(self) -> list[SlotView]:
        """What can hold a submission, by task and slot: the merge of a round after the slots that train.

        Raises:
            ChainUnreachable: no answer; ask again.
            ContractReverted: the only task does not exist.
        """
        if self._branch.changed():
            self._over.clear()  # a task's end may have been in the blocks that are gone
        return [view for number in self._numbers() if number not in self._over for view in self._look(number)]

    @property
    def all_over(self) -> bool:
        """Whether every task that is watched has ended, and there was one."""
        numbers = set(self._numbers())
        return bool(numbers) and numbers <= self._over

    def _numbers(self) -> list[int]:
        return list(range(1, self._chain.task_count() + 1)) if self._only_task is None else [self._only_task]

    def _look(self, number: int) -> list[SlotView]:
        try:
            task = self._chain.task(number)
        except ContractReverted:
            if number == self._only_task:
                raise  # the user named it
            return []  # the chain lost blocks between the count and this read
        # A complete task has no current round; its last one is the one to show.
        current = min(task.current_round, task.parameters.rounds - 1)
        slots, running = [task.parameters.last_slot], 0
        if task.parameters.merges and not task.complete:
            state = self._chain.round(number, current)
            slots, running = [*sorted(state.submitted_slots), *slots], state.running
        views = [SlotView(task=task, slot=self._chain.slot(number, current, slot)) for slot in slots]
        if task.complete or (task.closed and not running and views[-1].slot.status not in _AT_WORK):
            self._over.add(number)
        return views
