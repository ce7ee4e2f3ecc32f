"""What a worker can do in a round of an open task, from what the chain says alone; what it waits for, in words."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ledger.open.records import OpenRound, OpenSlot, OpenTask, Question, Stage
from ledger.types import ZERO_ADDRESS


@dataclass(frozen=True, kw_only=True)
class RoundView:
    """A task's current round at one moment. `slots` are the taken ones in order, and the baseline last.

    `own` is the slot of the worker that looks, None where it has not committed; `now` is the chain's time.
    """

    task: OpenTask
    state: OpenRound
    slots: tuple[OpenSlot, ...]
    own: int | None
    now: int

    @property
    def width(self) -> int:
        """States that the round takes."""
        return self.task.parameters.slots_per_round

    @property
    def baseline(self) -> OpenSlot:
        """The base's own slot."""
        return self.slots[-1]

    @property
    def mine(self) -> OpenSlot | None:
        """The worker's own slot."""
        return None if self.own is None else self.slots[self.own]

    @property
    def over(self) -> bool:
        """Whether the task has no round left: complete, closed between two, or its requester's default is settled."""
        if self.task.complete:
            return True
        if not self.task.closed:
            return False
        left = any(slot.stage in (Stage.COMMITTED, Stage.REVEALED, Stage.SCORED) for slot in self.slots)
        return self.state.committed == 0 or (self.state.defaulted(self.width, self.now) and not left)


class Deed(enum.Enum):
    """What a worker does for its pay."""

    COMMIT = "commit"
    REVEAL = "reveal"
    SCORE = "score"


@dataclass(frozen=True)
class Due:
    """Something that a worker can do now. `slot` is -1 before it has one."""

    deed: Deed
    slot: int = -1


@dataclass(frozen=True)
class Waiting:
    """Nothing can be done now, and why. `code` is a stable name; `until` the chain's time at which it ends, or None."""

    code: str
    text: str
    until: int | None = None


def work_due(view: RoundView, worker: str) -> list[Due]:
    """What a worker may do now for pay, the most urgent first."""
    state, mine = view.state, view.mine
    if state.held_out_at:
        return [Due(Deed.SCORE, slot.slot) for slot in _to_score(view, worker)]
    if mine is not None:
        opens = state.commits_over(view.width, view.now) and view.now <= state.reveal_end
        return [Due(Deed.REVEAL, mine.slot)] if mine.stage is Stage.COMMITTED and opens else []
    takes = not view.task.closed and not state.commits_over(view.width, view.now)
    return [Due(Deed.COMMIT)] if takes else []


def why_waiting(view: RoundView, worker: str) -> Waiting:
    """What the round waits for, where nothing is due."""
    state, number = view.state, view.state.round
    if view.task.closed and not state.committed:
        return Waiting("closed", "the task is closed")
    if not state.commits_over(view.width, view.now):
        return Waiting(
            "commits", f"round {number} has {state.committed} of {view.width} states; more can come", state.commit_end
        )
    if not state.reveals_over(view.width, view.now):
        left = state.committed - state.opened
        return Waiting("reveals", f"round {number} waits for {left} of its workers to reveal", state.reveal_end)
    if not state.held_out_at:
        if view.now > state.held_out_end:
            return Waiting("questions", f"round {number} waits for questions about its states to be decided")
        return Waiting(
            "held-out", f"round {number} waits for the requester to show the held-out data", state.held_out_end
        )
    scored = [slot for slot in view.slots if slot.stage is Stage.SCORED]
    if any(slot.open_games for slot in scored):
        return Waiting("disputes", f"scores of round {number} are disputed")
    if any(slot.question is Question.OPEN for slot in view.slots):
        return Waiting("questions", f"round {number} waits for questions about its states to be decided")
    unscored = [slot for slot in view.slots if slot.stage is Stage.REVEALED]
    if unscored:
        until = min(slot.owners_end(view.task.parameters, state) for slot in unscored)
        return Waiting("scores", f"round {number} waits for {len(unscored)} of its scores", until)
    return Waiting(
        "windows",
        f"scores of round {number} can be challenged for a while",
        max((slot.deadline for slot in scored), default=None),
    )


def _to_score(view: RoundView, worker: str) -> list[OpenSlot]:
    """Own state first, then the baseline, then what others have left."""
    parameters, state = view.task.parameters, view.state
    own = [slot for slot in view.slots if slot.stage is Stage.REVEALED and _is(slot.worker, worker)]
    free = [
        slot
        for slot in (view.baseline, *view.slots[:-1])
        if slot.stage is Stage.REVEALED
        and not _is(slot.worker, worker)
        and (_is(slot.worker, ZERO_ADDRESS) or view.now > slot.owners_end(parameters, state))
    ]
    return own + free


def _is(one: str, other: str) -> bool:
    return one.lower() == other.lower()
