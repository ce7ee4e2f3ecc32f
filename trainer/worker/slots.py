"""Which slot of a round a worker looks at next, and what there is to do for everybody. Pure (docs/rounds.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ledger.rounds import describe_slot
from ledger.types import Round, Slot, SlotStatus, TaskParameters
from trainer.worker.policy import Reason, claimable, mine


def slots_to_try(
    parameters: TaskParameters, slots: Iterable[Slot], state: Round | None, *, now: int, worker: str
) -> list[Slot]:
    """The slots of the current round that this worker could claim now, in the order in which it should try them.

    Workers begin at different places, so that they seldom race for the same slot. Who proved a fraud comes to its own
    slot first, because nobody else may take it.
    """
    free = [slot for slot in slots if claimable(slot, now, worker)]
    if state is None:
        return free
    if any(state.inputs_root):
        return [slot for slot in free if parameters.is_merge(slot.slot)]
    if state.frozen_at:
        return []
    redo = _redo(state, now)
    free = [
        slot for slot in free if not parameters.is_merge(slot.slot) and (not redo or slot.slot in state.counted_slots)
    ]
    return sorted(free, key=lambda slot: (slot.reserved_for(now) is None, _place(worker, slot)))


def _redo(state: Round, now: int) -> bool:
    """Whether a round that has thawed waits for the slots that counted only."""
    return state.counted > 0 and now <= state.deadline


def _place(worker: str, slot: Slot) -> bytes:
    return hashlib.sha256(f"{worker.lower()} {slot.task} {slot.round} {slot.slot}".encode()).digest()


def what_it_waits_for(parameters: TaskParameters, state: Round, *, now: int) -> Reason:
    """Why a round of several slots has none to claim, in words."""
    number, asked = state.round, parameters.slots_per_round
    about = (number, state.generation, state.submitted, state.finalised, bool(state.frozen_at))
    if state.frozen_at and any(state.inputs_root):
        return Reason("merge", f"round {number} is being merged; {state.finalised} of {state.counted} are final", about)
    if state.frozen_at:
        return Reason("merge", f"the states of round {number} are being collected for its merge", about)
    left = max(0, state.deadline - now)
    after = f"; {parameters.quorum} are enough in {left} s" if left else f"; {parameters.quorum} are enough"
    return Reason("slots", f"{state.submitted} of {asked} slots of round {number} are submitted{after}", about)


def to_collect(parameters: TaskParameters, state: Round | None) -> bool:
    """Whether anybody should freeze the round or read its inputs now."""
    if state is None:
        return False
    return state.ready or (state.frozen_at > 0 and state.collected <= parameters.slots_per_round)


def to_finalise(parameters: TaskParameters, slot: Slot, state: Round | None, *, now: float) -> bool:
    """Whether a submission's window is over at chain time `now`, and nothing else holds it."""
    if slot.status is not SlotStatus.SUBMITTED or slot.open_games or now <= slot.deadline:
        return False
    if state is None or not parameters.is_merge(slot.slot):
        return True
    return any(state.inputs_root) and state.finalised == state.counted


def to_release(
    parameters: TaskParameters,
    slot: Slot,
    state: Round | None,
    inputs_root: bytes,
    *,
    now: int,
    worker: str,
    closed: bool = False,
) -> bool:
    """Whether a lease came to nothing and no claim will end it, so that its bond would stay locked.

    Its own of a slot that the round went on without, which costs a fee only where it had run out before; anybody's of a
    merge whose inputs (`inputs_root`) are others now; anybody's that ran out in a task that is `closed`.
    """
    if slot.status is not SlotStatus.LEASED:
        return False
    if closed and now > slot.deadline:
        return True
    if state is None:
        return False
    if parameters.is_merge(slot.slot):
        return inputs_root != state.inputs_root
    thawed = state.frozen_at == 0 and _redo(state, now) and slot.slot not in state.counted_slots
    return mine(slot, worker) and (thawed or state.frozen_at > 0)


def slot_name(parameters: TaskParameters, task: int, round_number: int, slot: int) -> str:
    """As users read it: "round 2 of task 1", "slot 3 of round 2 of task 1", "the merge of round 2 of task 1"."""
    return f"{describe_slot(parameters, round_number, slot)} of task {task}"
