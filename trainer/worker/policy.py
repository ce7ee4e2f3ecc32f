"""Which tasks a worker can and should do, and in words why it leaves the others.

Pure: facts in, a reason or nothing out. Every reason says what is in the way, with the value, and what would help,
because a worker that stands idle and does not say why is the commonest complaint about systems of this kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ledger.amounts import format_tokens
from ledger.performance import bits_float
from ledger.types import Slot, SlotStatus, StakeAccount, Task, TaskParameters

# How much longer than the estimate a round may take before its lease runs out: speed varies while others use the
# machine, and the upload has to fit in as well.
LEASE_MARGIN: Final = 1.25


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What the user lets a worker do.

    Attributes:
        minimum_pay: wei; tasks whose rounds can pay less are left alone. Also for one second of training, below.
        ticket_seconds: most time to spend on one proof-of-work ticket.
        turn_seconds: how long the worker of a task's last round lets others go first.
        poll_seconds, snapshot_seconds: how often the chain is asked, and the training state kept.
        attention_seconds: how often training shows its progress and asks whether to stop, at least once a step.
        allowed_stores: URL prefixes of stores, named by requesters, that may be used besides one's own.
        memory_bytes, disk_bytes: what a task may need; None means no limit of ours.
        only_task: leave all other tasks alone.
        maximum_rounds: stop after so many submissions.
        finalise: turn submissions whose window has passed into checkpoints, one's own and others'.
        exit_when_done: leave when no considered task has work left.
        idle_exit: leave after so many seconds without anything to do.
    """

    minimum_pay: int = 0
    minimum_pay_per_second: int = 0
    ticket_seconds: float = 60.0
    turn_seconds: float = 3.0
    poll_seconds: float = 1.0
    snapshot_seconds: float = 10.0
    attention_seconds: float = 0.2
    allowed_stores: tuple[str, ...] = ()
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    only_task: int | None = None
    maximum_rounds: int | None = None
    finalise: bool = True
    exit_when_done: bool = False
    idle_exit: float | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Reason:
    """Why a task is left alone. `code` and `about` identify it: it is shown again only when one of them changes."""

    code: str
    text: str
    about: tuple[object, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        return (self.code, *self.about)


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """Everything on chain that decides whether a round may be claimed.

    Attributes:
        slot: the current round's slot. now: chain time, Unix seconds. account: of the stake that would be bonded.
        authorised: the signing key is the worker or one of its operators.
        turn_left: seconds for which this worker still lets others go first.
        has_snapshot: training of this very round was begun here before.
    """

    task: Task
    slot: Slot
    now: int
    worker: str
    account: StakeAccount
    authorised: bool
    turn_left: float
    has_snapshot: bool = False


def lease_over(slot: Slot, now: int) -> bool:
    """Whether the slot's lease has run out, so that a claim would reopen it. Its last second still belongs to it."""
    return slot.status is SlotStatus.LEASED and now > slot.deadline


def claimable(slot: Slot, now: int, worker: str) -> bool:
    """Whether the contract would let this worker claim the slot now.

    A slot whose submission fell is open, but until its deadline only for who won the game.
    """
    reserved = now <= slot.deadline and slot.worker.lower() != worker.lower()
    return lease_over(slot, now) or (slot.status is SlotStatus.OPEN and not reserved)


def mine(slot: Slot, worker: str) -> bool:
    """Whether the slot is leased to, or holds the work of, this worker."""
    return slot.status is not SlotStatus.OPEN and slot.worker.lower() == worker.lower()


def judge_claim(facts: TaskFacts, options: WorkerOptions) -> Reason | None:
    """What keeps this worker from claiming the task's current round, judged from the chain alone; None is nothing."""
    return (
        _judge_task(facts.task)
        or _judge_slot(facts)
        or _judge_pay(facts.task.parameters, facts.slot, options)
        or _judge_stake(facts)
        or _judge_turn(facts)
    )


def _judge_task(task: Task) -> Reason | None:
    if task.complete:
        return Reason("complete", f"all {task.parameters.rounds} rounds are done")
    if task.closed:
        return Reason("closed", "its requester has closed it")
    return None


def _judge_slot(facts: TaskFacts) -> Reason | None:
    slot, round_number = facts.slot, facts.task.current_round
    if claimable(slot, facts.now, facts.worker):
        return None
    left = max(0, slot.deadline - facts.now)
    about = (round_number, slot.status, slot.worker, slot.attempt)
    if slot.status is SlotStatus.OPEN:
        return Reason(
            "reserved",
            f"round {round_number} is kept for {slot.worker}, who won the dispute about it, for {left} s more",
            about,
        )
    if slot.status is SlotStatus.LEASED:
        return Reason("leased", f"round {round_number} is leased to {slot.worker} for {left} s more", about)
    if slot.status is SlotStatus.SUBMITTED:
        whose = "your submission" if mine(slot, facts.worker) else f"the submission of {slot.worker}"
        open_games = "1 dispute is" if slot.open_games == 1 else f"{slot.open_games} disputes are"
        held = f" and {open_games} open" if slot.open_games else ""
        return Reason(
            "submitted", f"round {round_number} holds {whose}; its window closes in {left} s{held}", (*about, held)
        )
    return Reason("finalised", f"round {round_number} is being closed", about)


def reward_of(parameters: TaskParameters, slot: Slot) -> int:
    """The most that a slot can pay, wei."""
    return parameters.merge_reward if parameters.is_merge(slot.slot) else parameters.slot_reward


def _judge_pay(parameters: TaskParameters, slot: Slot, options: WorkerOptions) -> Reason | None:
    reward = reward_of(parameters, slot)
    if reward >= options.minimum_pay:
        return None
    what = "a merge" if parameters.is_merge(slot.slot) else "a round"
    return Reason(
        "pay",
        f"{what} pays at most {format_tokens(reward)} tokens and you asked for "
        f"{format_tokens(options.minimum_pay)}; lower --minimum-pay to take it",
        (options.minimum_pay,),
    )


def _judge_stake(facts: TaskFacts) -> Reason | None:
    parameters, account = facts.task.parameters, facts.account
    if not facts.authorised:
        return Reason(
            "operator",
            f"your key may not claim on the stake of {facts.worker}; its owner can allow it with "
            "`trainledger account authorise`",
        )
    if parameters.admission.needs_stake and account.staked < parameters.minimum_stake:
        return Reason(
            "minimum-stake",
            f"it admits only who has staked {format_tokens(parameters.minimum_stake)} tokens, and {facts.worker} has "
            f"staked {format_tokens(account.staked)}; add some with `trainledger account stake`",
            (account.staked,),
        )
    if account.free < parameters.bond:
        return Reason(
            "bond",
            f"a claim locks a bond of {format_tokens(parameters.bond)} tokens, and {format_tokens(account.free)} of "
            f"the {format_tokens(account.staked)} staked by {facts.worker} are free; add some with "
            "`trainledger account stake`",
            (account.staked, account.locked),
        )
    return None


def _judge_turn(facts: TaskFacts) -> Reason | None:
    # Somebody who has begun this round before (and lost the lease, or the chain lost the claim) is not taking a
    # second turn.
    if facts.turn_left <= 0 or facts.has_snapshot:
        return None
    last = "you have submitted" if facts.task.parameters.merges else "you did the round before"
    return Reason("turn", f"{last}; others may go first for {facts.turn_left:.0f} s", (facts.task.current_round,))


def judge_speed(
    parameters: TaskParameters, options: WorkerOptions, *, seconds_per_step: float, steps_left: int
) -> Reason | None:
    """Whether the round fits its lease, and pays enough a second, at a measured speed."""
    needed = seconds_per_step * steps_left * LEASE_MARGIN
    if needed > parameters.lease_seconds:
        return Reason(
            "slow",
            f"the {steps_left} steps of a round would take about {needed:.0f} s on this machine and the lease lasts "
            f"{parameters.lease_seconds} s; you would lose the lease fee, {format_tokens(parameters.lease_fee)} tokens",
            (parameters.lease_seconds,),
        )
    seconds = max(seconds_per_step * parameters.steps_per_round, 1e-9)
    per_second = int(parameters.slot_reward / seconds)
    if per_second < options.minimum_pay_per_second:
        return Reason(
            "pay-per-second",
            f"it pays at most {format_tokens(per_second)} tokens a second on this machine and you asked for "
            f"{format_tokens(options.minimum_pay_per_second)}; lower --minimum-pay-per-second to take it",
            (options.minimum_pay_per_second,),
        )
    return None


def judge_resources(
    *, memory_needed: int, memory_free: int | None, disk_needed: int, disk_free: int | None
) -> Reason | None:
    """Whether training fits the memory, and its files the disk. Bytes; None where nobody can tell."""
    for what, needed, free in (("memory", memory_needed, memory_free), ("disk", disk_needed, disk_free)):
        if free is not None and needed > free:
            return Reason(
                what,
                f"it needs about {needed / 2**20:.0f} MiB of {what} and {free / 2**20:.0f} are free",
                (needed > free,),
            )
    return None


def judge_store(hint: str, own: str, allowed: tuple[str, ...]) -> str | None:
    """The store to use for a task whose requester names `hint`: that one if it is allowed, else None (use one's own).

    A hint is a stranger's text, so nothing is ever fetched from it unless the user allowed its prefix.
    """
    if not hint or hint.rstrip("/") == own.rstrip("/"):
        return None
    for prefix in allowed:
        stem = prefix.rstrip("/")
        # A whole path segment, so that "s3://models" does not also allow "s3://models-of-somebody-else". Dots are
        # refused: ".." would climb out of the prefix again.
        if (hint == stem or hint.startswith(stem + "/")) and ".." not in hint:
            return hint
    return None


def describe_pay(parameters: TaskParameters, slot: int = 0) -> str:
    """One line on what a slot pays and for which loss."""
    if parameters.is_merge(slot):
        return f"{format_tokens(parameters.merge_reward)} tokens"
    reward = f"{format_tokens(parameters.slot_reward)} tokens a {'slot' if parameters.merges else 'round'}"
    if not parameters.has_target:
        return reward
    base, target = bits_float(parameters.base_loss), bits_float(parameters.target_loss)
    return f"up to {reward}, for a held-out loss going from {base:.4f} to {target:.4f} in {parameters.rounds} rounds"


def changed(reasons: Mapping[int, Reason], shown: Mapping[int, Reason]) -> dict[int, Reason]:
    """The reasons whose identity differs from what was last shown for the task."""
    return {task: reason for task, reason in reasons.items() if task not in shown or shown[task].key != reason.key}
