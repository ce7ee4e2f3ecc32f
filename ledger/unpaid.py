"""Why an attempt at a slot is not paid: what its pay still waits for, until when, and who may help. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ledger.amounts import format_tokens
from ledger.attempts import Attempt, Stage
from ledger.rounds import describe_slot, describe_time, describe_wait
from ledger.types import Round, Slot, SlotStatus, TaskParameters

__all__ = ["Condition", "Facts", "OpenGame", "Reason", "why_not_paid"]


@dataclass(frozen=True, kw_only=True)
class OpenGame:
    """A dispute about a submission that is not over. `deadline` is the mover's, Unix seconds."""

    number: int
    defender_to_move: bool
    deadline: int


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of one attempt.

    Attributes:
        now: the chain's time. credited: whether its pay is credited and not withdrawn.
        closed: whether its task is closed. passed: whether its round is over. games: disputes about it that run.
        fell_in: the dispute that it lost, None where it lost none.
        slot: the slot as it is now; for submissions that fell only.
        round: where its round stands; None where a round has one slot.
        merge: the round's merge slot as it is now; None as before.
        inputs: slots that the round's merge takes, as they are now; for merges only.
        inputs_stand: whether a merge took what the round's merge takes now; None while that is not collected.
    """

    parameters: TaskParameters
    attempt: Attempt
    now: int
    closed: bool = False
    passed: bool = False
    credited: bool = False
    games: tuple[OpenGame, ...] = ()
    fell_in: int | None = None
    slot: Slot | None = None
    round: Round | None = None
    merge: Slot | None = None
    inputs: tuple[Slot, ...] = ()
    inputs_stand: bool | None = True


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that pay needs. `until`: the end of the clock that it hangs on, Unix seconds; None without one."""

    met: bool
    text: str
    until: int | None = None


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why an attempt is not paid.

    Attributes:
        text: a sentence without its full stop. lost: whether this attempt will never be paid.
        conditions: what pay needs, in the order in which the contract asks for it; empty once the attempt ended.
        command: what helps now, without `trainledger`; None where there is only waiting.
    """

    text: str
    lost: bool = False
    conditions: tuple[Condition, ...] = ()
    command: str | None = None


def why_not_paid(facts: Facts) -> Reason | None:
    """The reason, or None where the attempt is paid and its pay withdrawn."""
    stage = facts.attempt.stage
    if stage is Stage.FINAL:
        return _final(facts)
    if stage is Stage.LEASED:
        return _leased(facts)
    if stage is Stage.SUBMITTED:
        return _submitted(facts)
    return _ended(facts)


def _final(facts: Facts) -> Reason | None:
    attempt = facts.attempt
    if attempt.paid == 0:
        return Reason(
            text="it is final and earned nothing, as `trainledger rewards explain` shows",
            lost=True,
        )
    if not facts.credited:
        return None
    return Reason(
        text=f"its pay of {format_tokens(attempt.paid)} is credited to {attempt.payout} and not withdrawn",
        command=f"withdraw --account {attempt.payout}",
    )


def _leased(facts: Facts) -> Reason:
    attempt, fixed, state = facts.attempt, facts.parameters, facts.round
    merge = fixed.is_merge(attempt.key.slot)
    if facts.now > attempt.deadline:
        fee = "is burned, unless the round froze without it" if state is not None else "is burned"
        return Reason(
            text=f"nothing was submitted before the lease ended at {describe_time(attempt.deadline)}; when somebody "
            f"expires it the fee of {format_tokens(fixed.lease_fee)} {fee}",
            lost=True,
            command=_settle(facts),
        )
    running = Condition(
        met=False,
        text=f"a submission, before the lease ends at {describe_time(attempt.deadline)}",
        until=attempt.deadline,
    )
    if merge and facts.inputs_stand is not True:
        now = "they are others now" if facts.inputs_stand is False else "they are not collected again yet"
        return Reason(
            text=f"nothing is submitted, and a slot of its inputs fell since it was claimed: {now}; the lease can be "
            "expired without a fee",
            conditions=(*_collected(facts), running),
            command=_settle(facts),
        )
    if not merge and state is not None and state.frozen_at != 0:
        return Reason(
            text="nothing was submitted before the round froze, and what comes now is refused; the lease can be "
            "expired without a fee",
            conditions=(Condition(met=False, text="a round that is not frozen"), running),
            command=_settle(facts),
        )
    return Reason(text="nothing is submitted yet", conditions=(running,))


def _submitted(facts: Facts) -> Reason:
    merge = facts.parameters.is_merge(facts.attempt.key.slot)
    conditions = (Condition(met=True, text="a submission"), _window(facts), *_disputes(facts))
    if merge:
        conditions += (*_collected(facts), *_inputs(facts))
    missing = [condition for condition in conditions if not condition.met]
    if merge and facts.inputs_stand is False:
        return Reason(
            text="it merged inputs that are others now, so it earns nothing: once nothing is missing below, `finalise` "
            "declares it void and frees its bond",
            lost=True,
            conditions=conditions,
            command=_help(facts) if missing else _settle(facts),
        )
    if missing:
        return Reason(text=f"it waits for {missing[0].text}", conditions=conditions, command=_help(facts))
    return Reason(text="nothing is missing: anybody can finalise it now", conditions=conditions, command=_settle(facts))


def _window(facts: Facts) -> Condition:
    end = facts.attempt.deadline
    return Condition(
        met=facts.now > end, text=f"the end of its challenge window, open until {describe_time(end)}", until=end
    )


def _disputes(facts: Facts) -> Iterator[Condition]:
    if not facts.games:
        yield Condition(met=True, text="no open dispute")
    for game in facts.games:
        side = "defender" if game.defender_to_move else "challenger"
        late = facts.now > game.deadline
        turn = f"the {side} is late" if late else f"the {side} has until {describe_time(game.deadline)} to move"
        yield Condition(met=False, text=f"the end of dispute {game.number}: {turn}", until=game.deadline)


def _collected(facts: Facts) -> Iterator[Condition]:
    """Whether the round is frozen, and its inputs are collected. After a fall it thaws until both are so again."""
    state, fixed = facts.round, facts.parameters
    assert state is not None  # only rounds with merges come here
    assert facts.merge is not None
    needed = fixed.slots_per_round + 1
    if state.frozen_at == 0:
        wait = describe_wait(fixed, state, facts.merge, now=facts.now)
        yield Condition(met=False, text=f"a round that is frozen: {wait}", until=state.deadline or None)
    else:
        done = state.collected == needed
        yield Condition(met=done, text=f"{needed} inputs of the merge collected ({state.collected} are)")


def _inputs(facts: Facts) -> Iterator[Condition]:
    """One for each slot that the merge takes and that is not final."""
    waiting = [slot for slot in facts.inputs if slot.status is not SlotStatus.FINALISED]
    if not waiting:
        yield Condition(met=True, text="its inputs final")
    for slot in waiting:
        name = describe_slot(facts.parameters, slot.round, slot.slot)
        if slot.status is not SlotStatus.SUBMITTED:
            yield Condition(met=False, text=f"{name}, which is {slot.status.name.lower()}, to be final")
        elif slot.open_games:
            yield Condition(met=False, text=f"{name}, which is in {slot.open_games} open disputes, to be final")
        elif facts.now > slot.deadline:
            yield Condition(met=False, text=f"{name}, which anybody can finalise now", until=slot.deadline)
        else:
            end = describe_time(slot.deadline)
            yield Condition(
                met=False, text=f"{name}, whose window is open until {end}, to be final", until=slot.deadline
            )


def _ended(facts: Facts) -> Reason:
    attempt, fixed = facts.attempt, facts.parameters
    if attempt.stage is Stage.VOID:
        text = "it was void: its inputs changed after a slot of its round fell; it earns nothing, and its bond is free"
        return Reason(text=text, lost=True)
    if attempt.stage is Stage.LAPSED:
        text = (
            f"its lease ended without a submission; {format_tokens(attempt.fee)} of its bond burned, the rest is free"
        )
        return Reason(text=text, lost=True)
    where = "a dispute" if facts.fell_in is None else f"dispute {facts.fell_in}"
    redone = facts.slot is not None and facts.slot.status is SlotStatus.FINALISED
    over = facts.closed or facts.passed
    given_up = facts.slot is not None and facts.slot.status is SlotStatus.OPEN and over
    bond = f"its bond of {format_tokens(fixed.bond)}"
    if attempt.award is None and (redone or given_up):
        text = f"it fell in {where}; {bond} is lost, and anybody can have it taken now"
        return Reason(text=text, lost=True, command=_settle(facts))
    if attempt.award is None:
        text = f"it fell in {where}; {bond} is locked until its slot is final"
    else:
        text = f"it fell in {where}; {bond} is lost"
    return Reason(text=text, lost=True)


def _help(facts: Facts) -> str | None:
    """What anybody can do now that brings a submission nearer to its pay."""
    late = next((game.number for game in facts.games if facts.now > game.deadline), None)
    if late is not None:
        return f"dispute settle {late}"
    state = facts.round
    if state is None or not facts.parameters.is_merge(facts.attempt.key.slot):
        return None
    ripe = any(
        slot.status is SlotStatus.SUBMITTED and not slot.open_games and facts.now > slot.deadline
        for slot in facts.inputs
    )
    uncollected = state.frozen_at != 0 and state.collected <= facts.parameters.slots_per_round
    return _settle(facts) if ripe or uncollected or state.ready else None


def _settle(facts: Facts) -> str:
    return f"task settle {facts.attempt.key.task}"
