"""Rounds of open tasks in words, and what anybody may do for them now (docs/open-tasks.md). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ledger.open.records import OpenRound, OpenSlot, OpenTask, Question, Stage
from ledger.rounds import describe_time
from ledger.types import ZERO_ADDRESS

__all__ = ["Due", "Wait", "describe_round", "describe_slot", "due_now", "wait_of"]

Action = Literal["forfeit", "finalise", "expire", "skip", "settle_default"]


@dataclass(frozen=True)
class Due:
    """A call of `OpenClient` that anybody may make now; `slot` is None where it is about the round."""

    action: Action
    slot: OpenSlot | None


@dataclass(frozen=True)
class Wait:
    """What a slot waits for, in words, and the last second until which it does; None where no time is set."""

    text: str
    until: int | None = None


def due_now(task: OpenTask, state: OpenRound, slots: Sequence[OpenSlot], *, now: int) -> list[Due]:
    """What anybody may do in the round that runs at chain time `now`, in an order in which it can be done.

    Args:
        slots: those that are taken, and the baseline as the last one.
    """
    if task.complete or state.commit_end == 0:
        return []
    found = [Due("forfeit", slot) for slot in slots if slot.stage is Stage.COMMITTED and now > state.reveal_end]
    several = task.parameters.slots_per_round
    free = [slot for slot in slots if slot.question is not Question.OPEN]
    if state.held_out_at == 0:
        if state.defaulted(several, now):
            found += [Due("settle_default", slot) for slot in free if slot.stage is Stage.REVEALED]
        elif state.revealed == 0 and state.reveals_over(several, now):
            found.append(Due("skip", None))
        return found
    # The baseline first: nothing else is final before it.
    for slot in (*free[-1:], *free[:-1]):
        if slot.stage is Stage.REVEALED and now > slot.expires(task.parameters, state):
            found.append(Due("expire", slot))
        elif _can_be_final(task, slot, slots[-1], now=now):
            found.append(Due("finalise", slot))
    return found


def _can_be_final(task: OpenTask, slot: OpenSlot, baseline: OpenSlot, *, now: int) -> bool:
    if slot.stage is not Stage.SCORED or slot.open_games or now <= slot.deadline:
        return False
    return slot.slot == task.parameters.baseline or baseline.stage.settled


def describe_slot(task: OpenTask, round_number: int, slot: int) -> str:
    """Such as "slot 2 of round 3" or "the baseline of round 3"."""
    what = "the baseline" if slot == task.parameters.baseline else f"slot {slot}"
    return f"{what} of round {round_number}"


def describe_round(task: OpenTask, state: OpenRound, *, now: int) -> str:
    """What a round waits for, in a sentence."""
    several = task.parameters.slots_per_round
    if state.round < task.current_round:
        return "it has ended"
    if state.commit_end == 0:
        return "the task is closed" if task.closed else "nobody has committed yet"
    if not state.commits_over(several, now):
        end = describe_time(state.commit_end)
        return f"{state.committed} of {several} states are committed to; commits are over at {end}, or when all are"
    if not state.reveals_over(several, now):
        end = describe_time(state.reveal_end)
        return (
            f"{state.opened} of {state.committed} commitments are opened; revealing is over at {end}, or when all are"
        )
    if state.held_out_at:
        return f"{state.resolved} of {state.revealed + 1} scores, the baseline's among them, are final or missing"
    if state.revealed == 0:
        return "nobody revealed anything new: anybody may end it"
    end = describe_time(state.held_out_end)
    if not state.defaulted(several, now):
        return f"its requester shows the held-out data by {end}"
    paid = f"{state.resolved} of {state.revealed} states are paid in full or missing"
    return f"its requester did not show the held-out data by {end}: {paid}"


def wait_of(task: OpenTask, state: OpenRound, slot: OpenSlot, baseline: OpenSlot, *, now: int) -> Wait | None:
    """What one slot of a round waits for; None where nothing is to come."""
    if slot.stage is Stage.COMMITTED:
        late = now > state.reveal_end
        return Wait("anybody may forfeit it") if late else Wait("its worker reveals it", state.reveal_end)
    if slot.stage not in (Stage.REVEALED, Stage.SCORED):
        return None
    if slot.question is Question.OPEN:
        return Wait("whether its state can be fetched")
    if slot.stage is Stage.REVEALED:
        return _wait_for_score(task, state, slot, now=now)
    if slot.open_games:
        return Wait("a dispute" if slot.open_games == 1 else f"{slot.open_games} disputes")
    if now <= slot.deadline:
        return Wait("its challenge window ends", slot.deadline)
    return Wait("anybody may finalise it" if _can_be_final(task, slot, baseline, now=now) else "the baseline is final")


def _wait_for_score(task: OpenTask, state: OpenRound, slot: OpenSlot, *, now: int) -> Wait:
    if state.held_out_at == 0:
        if state.defaulted(task.parameters.slots_per_round, now):
            return Wait("anybody may settle it, paid in full")
        return Wait("the requester shows the held-out data", state.held_out_end)
    owned, end = slot.owners_end(task.parameters, state), slot.expires(task.parameters, state)
    if now > end:
        return Wait("anybody may give it up")
    if now > owned or slot.worker == ZERO_ADDRESS:
        return Wait("anybody scores it", end)
    return Wait("its worker scores it", owned)
