"""A ledger in memory for auditors: tasks with submissions, stakes, and games about them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from arena import matter_of
from fake_games import FakeGames, reverted
from worlds import World

from ledger.disputes.moves import Opening
from ledger.types import Checkpoint, Slot, SlotStatus, StakeAccount, Task, TaskParameters
from trainer.dispute.segments import Segment
from trainer.dispute.values import Truth

BOND = 5 * 10**18
WINDOW = 10_000


@dataclass
class FakeAudits(FakeGames):
    """Tasks of one world, each with a submission in its round 0. `staked` is free stake by owner."""

    at: World | None = None
    tasks: dict[int, Task] = field(default_factory=dict)
    staked: dict[str, int] = field(default_factory=dict)
    finalised: list[int] = field(default_factory=list)

    def post(self, worker: str, root: bytes) -> int:
        """A task whose round 0 has been submitted."""
        assert self.at is not None
        number = len(self.tasks) + 1
        parameters = TaskParameters(
            specification_hash=bytes([number]) * 32,
            program_root=self.at.plain.task_program,
            dataset_root=self.at.plain.dataset,
            initial_state_root=self.at.plain.state_root(0),
            state_tensors=5,
            rounds=1,
            steps_per_round=self.at.plain.steps,
            minimum_steps=1,
            slot_reward=10**18,
            bond=BOND,
            lease_fee=0,
            lease_seconds=60,
            challenge_window=WINDOW,
        )
        self.tasks[number] = Task(
            number=number, parameters=parameters, requester="0x" + "99" * 20, current_round=0, closed=False
        )
        self.submit(number, 0, defender=worker, root=root, steps=self.at.plain.steps)
        return number

    # --- what an auditor sees ---

    def task_count(self) -> int:
        return len(self.tasks)

    def task(self, number: int, /) -> Task:
        if number not in self.tasks:
            raise reverted("getTask", "UnknownTask", task=number)
        return dataclasses.replace(self.tasks[number], closed=self.closed)

    def base_root(self, task: int, round_number: int, /) -> bytes:
        return self.tasks[task].parameters.initial_state_root

    def checkpoint(self, task: int, round_number: int, /) -> Checkpoint:
        slot = self.slots[(task, round_number)]
        return Checkpoint(
            task=task,
            round=round_number,
            parent=self.base_root(task, round_number),
            state_root=slot.state_root,
            worker=slot.worker,
            steps=slot.steps,
            heldout_loss=0,
        )

    def block_hash(self, number: int, /) -> bytes:
        return str(number).encode()

    def block_number(self) -> int:
        return self.now

    def stake_account(self, owner: str, /) -> StakeAccount:
        staked = self.staked.get(owner, 0)
        return StakeAccount(staked=staked, locked=0, unbonding=0, unbonding_release=0, credit=0, payout=owner)

    def open_game(self, opening: Opening, points: Sequence[bytes], /) -> int:
        self.before_write("open", 0)
        slot = self.slots[(opening.task, opening.round)]
        if (slot.status, slot.state_root) != (SlotStatus.SUBMITTED, opening.submitted):
            raise reverted("open", "WrongStatus")
        if self.now > slot.deadline:
            raise reverted("open", "WindowOver")
        for view in self.views.values():
            matter = view.position.matter
            if (matter.task, matter.challenger, matter.claimed) == (opening.task, opening.challenger, points[-1]):
                return view.number
        self.staked[opening.challenger] -= BOND
        assert self.at is not None
        matter = matter_of(self.at.plain, submitted=opening.submitted, claimed=points[-1])
        matter = dataclasses.replace(
            matter, task=opening.task, defender=slot.worker, challenger=opening.challenger, attempt=opening.attempt
        )
        game = self.open(matter, points)
        self.moves.append((game, "open"))
        return game

    def finalise(self, task: int, round_number: int, /, *, attempt: int, state_root: bytes, slot: int = 0) -> object:
        slot: Slot = self.slots[(task, round_number)]
        assert self.now > slot.deadline
        self.slots[(task, round_number)] = dataclasses.replace(slot, status=SlotStatus.FINALISED)
        self.tasks[task] = dataclasses.replace(self.tasks[task], current_round=1)
        self.finalised.append(task)
        return "receipt"


class AuditView:
    """What one auditor sees: `open` opens a game as `DisputeClient.open` does."""

    def __init__(self, ledger: FakeAudits) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    def open(self, opening: Opening, points: Sequence[bytes], /) -> int:
        return self._ledger.open_game(opening, points)


@dataclass
class Sources:
    """True values, but where told otherwise: a fault in the first replay, in both, or data that cannot be had."""

    truth_of: Truth
    first: Truth | None = None
    second: Truth | None = None
    missing: dict[int, Exception] = field(default_factory=dict)
    replays: int = 0
    distrusted: int = 0

    def truth(self, segment: Segment, /) -> Truth:
        if segment.task in self.missing:
            raise self.missing[segment.task]
        self.replays += 1
        return self.first or self.truth_of

    def fresh(self, segment: Segment, /) -> Truth:
        self.replays += 1
        return self.second or self.truth_of

    def explain(self, position: object, /) -> None:
        return None

    def distrust(self) -> bool:
        self.distrusted += 1
        self.first = self.second = None
        return True
