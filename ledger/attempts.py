"""What became of each attempt at a slot, and of its money, by the ledger's and the vault's events. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ledger.types import Event

__all__ = ["EVENTS", "Attempt", "AttemptKey", "AttemptLog", "Award", "Stage", "Withdrawal", "read_attempts"]

EVENTS = (
    "SlotClaimed",
    "LeaseExpired",
    "Submitted",
    "WindowShortened",
    "Finalised",
    "MergeVoid",
    "SubmissionFell",
    "FallAwarded",
    "Withdrawn",
)  # what `read_attempts` needs


class AttemptKey(NamedTuple):
    """Which attempt at which slot."""

    task: int
    round: int
    slot: int
    attempt: int


class Stage(enum.Enum):
    """Where an attempt stands; a lease that ran out is leased until somebody expires it."""

    LEASED = "leased"
    SUBMITTED = "submitted"
    FINAL = "final"
    LAPSED = "lapsed"
    FELL = "fell"
    VOID = "void"


@dataclass(frozen=True, kw_only=True)
class Award:
    """What became of the bond of a submission that fell, wei. `winner` is the zero address where there was none."""

    winner: str
    awarded: int
    burned: int
    transaction: bytes


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One claim of a slot and what followed. Amounts are wei, times Unix seconds.

    Attributes:
        worker: whose stake. operator: the key that claimed. payout: who is paid.
        deadline: of the lease, and once submitted of the challenge window.
        state_root, steps, loss_bits: what was submitted; no bytes and zeros before.
        ended: transaction in which it became final, lapsed, fell or was void; None before.
        ended_at: block and place in its log where it ended.
        paid: pay of a final submission. fee: what a lapsed lease burned of the bond.
        award: of a submission that fell, once its bond was taken.
    """

    key: AttemptKey
    worker: str
    operator: str
    payout: str
    deadline: int
    stage: Stage = Stage.LEASED
    state_root: bytes = b""
    steps: int = 0
    loss_bits: int = 0
    ended: bytes | None = None
    ended_at: tuple[int, int] = (0, 0)
    paid: int = 0
    fee: int = 0
    award: Award | None = None

    @property
    def was_submitted(self) -> bool:
        return self.state_root != b""

    def concerns(self, account: str) -> bool:
        """Whether the account staked, claimed or is paid for it."""
        return account in (self.worker, self.operator, self.payout)


class Withdrawal(NamedTuple):
    """All credit of an account, taken out."""

    account: str
    place: tuple[int, int]
    transaction: bytes


@dataclass(frozen=True, kw_only=True)
class AttemptLog:
    """All attempts, in the order in which they were claimed, and all withdrawals, oldest first."""

    attempts: dict[AttemptKey, Attempt] = field(default_factory=dict)
    withdrawals: list[Withdrawal] = field(default_factory=list)

    def withdrawn(self, attempt: Attempt) -> bytes | None:
        """The transaction that took the pay of a final attempt out of the vault; None where it is there still.

        A withdrawal takes all the credit, so it is the first one of the payout address after the attempt's end.
        """
        for account, place, transaction in self.withdrawals:
            if account == attempt.payout and place > attempt.ended_at:
                return transaction
        return None


def read_attempts(events: Iterable[Event]) -> AttemptLog:
    """Attempts and withdrawals of a deployment. `events` holds all of the kinds in EVENTS, oldest first."""
    log = AttemptLog()
    for event in events:
        values: Any = event.arguments
        if event.name == "Withdrawn":
            place = (event.block_number, event.log_index)
            log.withdrawals.append(Withdrawal(values["account"], place, event.transaction))
            continue
        key = AttemptKey(*(values[name] for name in AttemptKey._fields))
        known = log.attempts.get(key)
        if event.name == "SlotClaimed":
            names = ("worker", "operator", "payout")
            log.attempts[key] = Attempt(key=key, deadline=values["leaseEnd"], **{name: values[name] for name in names})
        elif known is not None:
            log.attempts[key] = _went_on(known, event)
    return log


def _went_on(attempt: Attempt, event: Event) -> Attempt:
    values: Any = event.arguments
    if event.name == "Submitted":
        return replace(
            attempt,
            stage=Stage.SUBMITTED,
            deadline=values["windowEnd"],
            state_root=values["stateRoot"],
            steps=values["steps"],
            loss_bits=values["heldOutLoss"],
        )
    if event.name == "WindowShortened":
        return replace(attempt, deadline=values["windowEnd"])
    if event.name == "FallAwarded":
        award = Award(
            winner=values["winner"],
            awarded=values["awarded"],
            burned=values["burned"],
            transaction=event.transaction,
        )
        return replace(attempt, award=award)
    ended = replace(attempt, ended=event.transaction, ended_at=(event.block_number, event.log_index))
    if event.name == "Finalised":
        return replace(ended, stage=Stage.FINAL, paid=values["paid"])
    if event.name == "LeaseExpired":
        return replace(ended, stage=Stage.LAPSED, fee=values["feeBurned"])
    return replace(ended, stage=Stage.VOID if event.name == "MergeVoid" else Stage.FELL)
