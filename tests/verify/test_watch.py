"""What an auditor looks at: every submission of the rounds that are under way, and when nothing is left."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from round_life import MERGE, round_parameters
from worker_fakes import ALICE, REQUESTER, reverted

from ledger.types import Round, Slot, SlotStatus, Task, TaskParameters
from trainer.verify.watch import Watch
from trainer.worker.ports import ChainReader


@dataclass
class Rounds:
    """Tasks and their current rounds. `slots` holds what is not open."""

    tasks: dict[int, Task] = field(default_factory=dict)
    slots: dict[tuple[int, int], SlotStatus] = field(default_factory=dict)
    block: int = 1
    branch: int = 0

    def post(self, parameters: TaskParameters, **changes: Any) -> int:
        number = len(self.tasks) + 1
        task = Task(number=number, parameters=parameters, requester=REQUESTER, current_round=0, closed=False)
        self.tasks[number] = dataclasses.replace(task, **changes)
        return number

    def change(self, number: int, **changes: Any) -> None:
        self.tasks[number] = dataclasses.replace(self.tasks[number], **changes)

    def block_hash(self, number: int) -> bytes:
        return b"%d on %d" % (number, self.branch)

    def block_number(self) -> int:
        return self.block

    def task_count(self) -> int:
        return len(self.tasks)

    def task(self, number: int) -> Task:
        if number not in self.tasks:
            raise reverted("getTask", "UnknownTask", task=number)
        return self.tasks[number]

    def slot(self, task: int, round_number: int, slot: int = 0) -> Slot:
        return Slot(
            task=task,
            round=round_number,
            slot=slot,
            worker=ALICE,
            attempt=0,
            deadline=0,
            status=self.slots.get((task, slot), SlotStatus.OPEN),
            open_games=0,
            payout=ALICE,
            steps=0,
            heldout_loss=0,
            state_root=bytes(32),
        )

    def round(self, task: int, round_number: int) -> Round:
        there = {slot: status for (at, slot), status in self.slots.items() if at == task and slot != MERGE}
        submitted = frozenset(slot for slot, status in there.items() if status >= SlotStatus.SUBMITTED)
        return Round(
            task=task,
            round=round_number,
            deadline=0,
            frozen_at=0,
            generation=0,
            running=sum(status in (SlotStatus.LEASED, SlotStatus.SUBMITTED) for status in there.values()),
            submitted=len(submitted),
            finalised=0,
            counted=0,
            collected=0,
            submitted_slots=submitted,
            counted_slots=frozenset(),
            inputs_root=bytes(32),
            ready=False,
        )

    def watch(self, only_task: int | None = None) -> Watch:
        return Watch(cast(ChainReader, self), only_task=only_task)


def seen(watch: Watch) -> list[str]:
    return [view.name for view in watch.refresh()]


def test_refresh_gives_submitted_slots_and_the_merge() -> None:
    chain = Rounds()
    chain.post(round_parameters(slots_per_round=1, merge_reward=0))
    several = chain.post(round_parameters())
    chain.slots |= {(several, 0): SlotStatus.LEASED, (several, 1): SlotStatus.SUBMITTED}
    watch = chain.watch()
    views = watch.refresh()
    assert [view.name for view in views] == [
        "round 0 of task 1",
        "slot 1 of round 0 of task 2",
        "the merge of round 0 of task 2",
    ]
    assert [view.merge for view in views] == [False, False, True]
    assert views[2].title == "The merge of round 0 of task 2"
    assert seen(chain.watch(only_task=several)) == ["slot 1 of round 0 of task 2", "the merge of round 0 of task 2"]


@pytest.mark.parametrize("status", [SlotStatus.LEASED, SlotStatus.SUBMITTED])
@pytest.mark.parametrize("slot", [0, MERGE])
def test_closed_task_is_watched_while_a_slot_is_at_work(slot: int, status: SlotStatus) -> None:
    chain = Rounds()
    number = chain.post(round_parameters(), closed=True)
    chain.slots[(number, slot)] = status
    watch = chain.watch()
    watch.refresh()
    assert not watch.all_over
    chain.slots.clear()
    watch.refresh()
    assert watch.all_over
    assert watch.refresh() == []


@pytest.mark.parametrize(("block", "branch"), [(8, 0), (12, 1)])
def test_complete_task_is_over_until_the_chain_loses_blocks(block: int, branch: int) -> None:
    chain = Rounds(block=9)
    number = chain.post(round_parameters(), current_round=2)
    watch = chain.watch()
    assert not watch.all_over  # nobody has looked
    assert seen(watch) == ["the merge of round 1 of task 1"]
    assert watch.all_over
    chain.change(number, current_round=1)
    assert seen(watch) == []
    chain.block, chain.branch = block, branch
    assert seen(watch) == ["the merge of round 1 of task 1"]
    assert not watch.all_over


def test_nothing_posted_is_not_over() -> None:
    watch = Rounds().watch()
    assert watch.refresh() == []
    assert not watch.all_over
