"""Rounds of many slots in words: which slot is meant, and what a round waits for (docs/rounds.md)."""

from __future__ import annotations

from datetime import UTC, datetime

from ledger.types import Round, Slot, SlotStatus, TaskParameters

__all__ = ["describe_slot", "describe_time", "describe_wait"]


def describe_slot(parameters: TaskParameters, round_number: int, slot: int) -> str:
    """Such as "round 3", where a round has one slot, "slot 2 of round 3" or "the merge of round 3"."""
    if not parameters.merges:
        return f"round {round_number}"
    if parameters.is_merge(slot):
        return f"the merge of round {round_number}"
    return f"slot {slot} of round {round_number}"


def describe_wait(parameters: TaskParameters, state: Round, merge: Slot, *, now: int) -> str:
    """What a round waits for, in a sentence. `merge` is its last slot, `now` the chain's time."""
    if merge.status is SlotStatus.FINALISED:
        return "its merge is final"
    if state.frozen_at == 0:
        return _wait_for_slots(parameters, state, now=now)
    needed = parameters.slots_per_round + 1
    if state.collected < needed:
        return f"{state.counted} slots count; {state.collected} of {needed} inputs of the merge are collected"
    if merge.status is SlotStatus.LEASED:
        return f"the merge of {state.counted} slots is leased until {describe_time(merge.deadline)}"
    if merge.status is SlotStatus.OPEN:
        return f"the merge of {state.counted} slots can be claimed"
    if merge.generation != state.generation:
        return "a merge of earlier inputs is submitted; where they are others now it is void once its window is over"
    if state.finalised < state.counted:
        return f"the merge is submitted; {state.finalised} of the {state.counted} slots that it took are final"
    return f"the merge is submitted; its window ends at {describe_time(merge.deadline)}"


def _wait_for_slots(parameters: TaskParameters, state: Round, *, now: int) -> str:
    if state.deadline == 0:
        return "no slot has been claimed yet"
    needed = state.counted or parameters.slots_per_round
    late = now > state.deadline
    thawed = f"thawed {state.generation} times, " if state.generation > 1 else "thawed, " if state.generation else ""
    if state.ready:
        return f"{thawed}{state.submitted} of {needed} submitted: anybody may collect the merge's inputs"
    when = f"since {describe_time(state.deadline)}" if late else f"after {describe_time(state.deadline)}"
    return f"{thawed}{state.submitted} of {needed} submitted, quorum {parameters.quorum} {when}"


def describe_time(seconds: int) -> str:
    """Chain time for people: the hour, in UTC, with its day."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %H:%M:%S UTC")
