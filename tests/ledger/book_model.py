"""Token, vault and ledger in plain Python, from the documents alone: what must happen, or why not.

Every call takes the chain's time at which it is simulated and gives the events that it must leave, or raises `Refused`
and changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ledger.performance import bits_float
from ledger.types import ZERO_ADDRESS, Admission, SlotStatus, TaskParameters

Events = list[tuple[str, dict[str, Any]]]


class Refused(Exception):
    """A call must revert with this error and these arguments."""

    def __init__(self, error: str, **arguments: Any) -> None:
        super().__init__(error)
        self.error = error
        self.arguments = arguments


class AlreadyDone(Exception):
    """A call must succeed without a transaction."""


@dataclass
class BookSlot:
    worker: str = ZERO_ADDRESS
    attempt: int = 0
    deadline: int = 0
    status: SlotStatus = SlotStatus.OPEN
    payout: str = ZERO_ADDRESS
    steps: int = 0
    loss: int = 0
    root: bytes = bytes(32)

    def lapsed(self, now: int) -> bool:
        return self.status == SlotStatus.LEASED and now > self.deadline


@dataclass
class BookTask:
    terms: TaskParameters
    requester: str
    escrow: int
    current: int = 0
    closed: bool = False
    slots: defaultdict[int, BookSlot] = field(default_factory=lambda: defaultdict(BookSlot))

    @property
    def complete(self) -> bool:
        return self.current == self.terms.rounds

    def base(self, round_number: int) -> bytes:
        return self.terms.initial_state_root if round_number == 0 else self.slots[round_number - 1].root

    def pay(self, round_number: int, slot: BookSlot) -> int:
        """docs/formats.md section 6, in exact fractions."""
        terms = self.terms
        full = Fraction(terms.slot_reward * slot.steps, terms.steps_per_round)
        if not terms.has_target:
            return int(full)
        loss = bits_float(slot.loss)
        if loss != loss or loss in (float("inf"), -float("inf")):
            return 0
        base, target = (Fraction(bits_float(bits)) for bits in (terms.base_loss, terms.target_loss))
        asked = (base - target) * (round_number + 1) / terms.rounds
        return int(full * min(max(base - Fraction(loss), Fraction(0)) / asked, Fraction(1)))


@dataclass
class Book:
    """The whole world: who has what, wei."""

    vault: str
    delay: int
    tokens: defaultdict[str, int]
    burned: int = 0
    staked: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    locked: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    unbonding: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    release: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    credit: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    payout: dict[str, str] = field(default_factory=dict)
    operators: set[tuple[str, str]] = field(default_factory=set)
    tasks: dict[int, BookTask] = field(default_factory=dict)

    @property
    def total_staked(self) -> int:
        return sum(self.staked.values()) + sum(self.unbonding.values())

    @property
    def total_owed(self) -> int:
        return sum(self.credit.values()) + sum(task.escrow for task in self.tasks.values())

    def moments(self) -> set[int]:
        """Times at which a call just sent may be mined on the other side of a deadline than it was simulated on."""
        ends = {slot.deadline for task in self.tasks.values() for slot in task.slots.values()}
        return ends | {time - 1 for time in self.release.values()}

    def _free(self, owner: str, needed: int) -> None:
        free = self.staked[owner] - self.locked[owner]
        if needed > free:
            raise Refused("InsufficientFreeStake", owner=owner, free=free, needed=needed)

    def _move(self, source: str, to: str, amount: int) -> Events:
        self.tokens[source] -= amount
        if to == ZERO_ADDRESS:
            self.burned += amount
        else:
            self.tokens[to] += amount
        return [("Transfer", {"from": source, "to": to, "value": amount})]

    # --- the vault ---

    def stake(self, payer: str, owner: str, amount: int) -> Events:
        if amount == 0:
            raise Refused("ZeroAmount")
        self.staked[owner] += amount
        event = {"owner": owner, "from": payer, "amount": amount, "stakedAfter": self.staked[owner]}
        return [("Staked", event), *self._move(payer, self.vault, amount)]

    def request_unbond(self, owner: str, amount: int, now: int) -> Events:
        if amount == 0:
            raise Refused("ZeroAmount")
        self._free(owner, amount)
        self.staked[owner] -= amount
        self.unbonding[owner] += amount
        self.release[owner] = now + 1 + self.delay
        total, release = self.unbonding[owner], self.release[owner]
        event = {"owner": owner, "amount": amount, "unbondingTotal": total, "releaseTime": release}
        return [("UnbondingRequested", event)]

    def complete_unbond(self, owner: str, now: int) -> Events:
        amount, release = self.unbonding[owner], self.release[owner]
        if amount == 0:
            raise Refused("NothingUnbonding", owner=owner)
        if now < release:
            raise Refused("StillUnbonding", owner=owner, releaseTime=release, nowTime=now)
        self.unbonding[owner] = self.release[owner] = 0
        return [("Unbonded", {"owner": owner, "amount": amount}), *self._move(self.vault, owner, amount)]

    def set_operator(self, owner: str, operator: str, allowed: bool) -> Events:
        (self.operators.add if allowed else self.operators.discard)((owner, operator))
        return [("OperatorSet", {"owner": owner, "operator": operator, "allowed": allowed})]

    def set_payout(self, owner: str, to: str) -> Events:
        self.payout[owner] = to
        return [("PayoutSet", {"owner": owner, "payout": to})]

    def payout_of(self, owner: str) -> str:
        to = self.payout.get(owner, ZERO_ADDRESS)
        return owner if to == ZERO_ADDRESS else to

    def withdraw(self, account: str, to: str) -> Events:
        amount = self.credit[account]
        if to == ZERO_ADDRESS:
            raise Refused("ZeroAddress")
        if amount == 0:
            raise Refused("NothingToWithdraw", account=account)
        self.credit[account] = 0
        return [("Withdrawn", {"account": account, "to": to, "amount": amount}), *self._move(self.vault, to, amount)]

    def _pay(self, number: int, to: str, amount: int) -> Events:
        task = self.tasks[number]
        if amount == 0:
            return []
        task.escrow -= amount
        self.credit[to] += amount
        return [("EscrowPaid", {"task": number, "to": to, "amount": amount, "escrowAfter": task.escrow})]

    def _unlock(self, owner: str, bond: int, taken: int) -> Events:
        """Frees a bond; `taken` of it is burned first."""
        self.locked[owner] -= bond
        self.staked[owner] -= taken
        return [("BondReleased", {"owner": owner, "amount": bond - taken, "lockedAfter": self.locked[owner]})]

    # --- the ledger ---

    def post(self, requester: str, terms: TaskParameters) -> Events:
        number = len(self.tasks) + 1
        total = terms.rounds * terms.slot_reward
        self.tasks[number] = BookTask(terms, requester, total)
        opened = {"task": number, "requester": requester, "amount": total}
        return [("TaskPosted", {"task": number}), ("EscrowOpened", opened), *self._move(requester, self.vault, total)]

    def close(self, caller: str, number: int) -> Events:
        task = self.tasks[number]
        if caller != task.requester:
            raise Refused("OnlyRequester", caller=caller, requester=task.requester)
        if task.closed or task.complete:
            raise Refused("TaskIsClosed", task=number)
        task.closed = True
        running = task.slots[task.current].status in (SlotStatus.LEASED, SlotStatus.SUBMITTED)
        refunded = task.escrow - (task.terms.slot_reward if running else 0)
        return [*self._pay(number, caller, refunded), ("TaskClosed", {"task": number, "refunded": refunded})]

    def _authorised(self, caller: str, worker: str) -> None:
        if caller != worker and (worker, caller) not in self.operators:
            raise Refused("NotAuthorised", caller=caller, worker=worker)

    def check_claim(
        self, caller: str, number: int, round_number: int, attempt: int, base: bytes, worker: str, now: int
    ) -> None:
        task = self.tasks[number]
        terms, slot = task.terms, task.slots[round_number]
        self._authorised(caller, worker)
        if task.closed:
            raise Refused("TaskIsClosed", task=number)
        if task.complete or round_number != task.current:
            raise Refused("WrongRound", round=round_number, current=task.current)
        lapsed = slot.lapsed(now)
        if slot.status != SlotStatus.OPEN and not lapsed:
            raise Refused("SlotTaken", worker=slot.worker, status=slot.status, deadline=slot.deadline)
        if attempt != slot.attempt + lapsed:
            raise Refused("WrongAttempt", attempt=attempt, current=slot.attempt + lapsed)
        expected = task.base(round_number)
        if base != expected:
            raise Refused("WrongBase", given="0x" + base.hex(), expected="0x" + expected.hex())
        # What the lapsed lease's end changes counts already: its bond is free again, its fee gone.
        same = lapsed and slot.worker == worker
        staked = self.staked[worker] - (terms.lease_fee if same else 0)
        if terms.admission == Admission.STAKE and staked < terms.minimum_stake:
            raise Refused("StakeTooSmall", worker=worker, staked=staked, minimumStake=terms.minimum_stake)
        free = staked - self.locked[worker] + (terms.bond if same else 0)
        if terms.bond > free:
            raise Refused("InsufficientFreeStake", owner=worker, free=free, needed=terms.bond)

    def claim(
        self, caller: str, number: int, round_number: int, attempt: int, base: bytes, worker: str, now: int
    ) -> Events:
        self.check_claim(caller, number, round_number, attempt, base, worker, now)
        task = self.tasks[number]
        slot = task.slots[round_number]
        events = self._reopen(number, round_number) if slot.lapsed(now) else []
        bond, payout, end = task.terms.bond, self.payout_of(worker), now + 1 + task.terms.lease_seconds
        self.locked[worker] += bond
        task.slots[round_number] = BookSlot(worker, attempt, end, SlotStatus.LEASED, payout)
        claimed = {
            "task": number, "round": round_number, "worker": worker, "slot": 0, "attempt": attempt,
            "operator": caller, "payout": payout, "baseRoot": base, "leaseEnd": end,
        }  # fmt: skip
        locked = {"owner": worker, "amount": bond, "lockedAfter": self.locked[worker]}
        return [*events, ("BondLocked", locked), ("SlotClaimed", claimed)]

    def _reopen(self, number: int, round_number: int) -> Events:
        task = self.tasks[number]
        slot, fee = task.slots[round_number], task.terms.lease_fee
        expired = {"task": number, "round": round_number, "worker": slot.worker, "slot": 0, "attempt": slot.attempt}
        taken = {"owner": slot.worker, "winner": ZERO_ADDRESS, "burned": fee, "awarded": 0}
        events: Events = [("LeaseExpired", expired | {"feeBurned": fee}), ("BondTaken", taken)]
        events += self._unlock(slot.worker, task.terms.bond, fee)
        events += self._move(self.vault, ZERO_ADDRESS, fee) if fee else []
        task.slots[round_number] = BookSlot(attempt=slot.attempt + 1)
        return events + (self._pay(number, task.requester, task.escrow) if task.closed else [])

    def expire(self, number: int, round_number: int, attempt: int, now: int) -> Events:
        slot = self.tasks[number].slots[round_number]
        self._same_attempt(slot, attempt)
        self._status(slot, SlotStatus.LEASED)
        if now <= slot.deadline:
            raise Refused("LeaseStillRunning", deadline=slot.deadline, nowTime=now)
        return self._reopen(number, round_number)

    @staticmethod
    def _same_attempt(slot: BookSlot, attempt: int) -> None:
        if attempt != slot.attempt:
            raise Refused("WrongAttempt", attempt=attempt, current=slot.attempt)

    @staticmethod
    def _status(slot: BookSlot, needed: SlotStatus) -> None:
        if slot.status != needed:
            raise Refused("WrongStatus", status=slot.status, needed=needed)

    def submit(
        self, caller: str, number: int, round_number: int, attempt: int, root: bytes, steps: int, loss: int, now: int
    ) -> Events:
        task = self.tasks[number]
        terms, slot = task.terms, task.slots[round_number]
        self._same_attempt(slot, attempt)
        if slot.status == SlotStatus.OPEN:
            raise Refused("WrongStatus", status=slot.status, needed=SlotStatus.LEASED)
        self._authorised(caller, slot.worker)
        if slot.status != SlotStatus.LEASED and root == slot.root:
            raise AlreadyDone
        self._status(slot, SlotStatus.LEASED)
        if now > slot.deadline:
            raise Refused("LeaseOver", deadline=slot.deadline, nowTime=now)
        if not terms.minimum_steps <= steps <= terms.steps_per_round:
            fields = {"minimumSteps": terms.minimum_steps, "stepsPerRound": terms.steps_per_round}
            raise Refused("WrongSteps", steps=steps, **fields)
        slot.deadline, slot.status = now + 1 + terms.challenge_window, SlotStatus.SUBMITTED
        slot.steps, slot.loss, slot.root = steps, loss, root
        done = self._result(number, round_number) | {"baseRoot": task.base(round_number), "windowEnd": slot.deadline}
        return [("Submitted", done)]

    def _result(self, number: int, round_number: int) -> dict[str, Any]:
        slot = self.tasks[number].slots[round_number]
        return {
            "task": number, "round": round_number, "worker": slot.worker, "slot": 0, "attempt": slot.attempt,
            "stateRoot": slot.root, "steps": slot.steps, "heldOutLoss": slot.loss,
        }  # fmt: skip

    def finalise(self, number: int, round_number: int, attempt: int, root: bytes, now: int) -> Events:
        task = self.tasks[number]
        slot = task.slots[round_number]
        self._same_attempt(slot, attempt)
        if slot.status == SlotStatus.FINALISED and root == slot.root:
            raise AlreadyDone
        self._status(slot, SlotStatus.SUBMITTED)
        if root != slot.root:
            raise Refused("WrongState", given="0x" + root.hex(), expected="0x" + slot.root.hex())
        if now <= slot.deadline:
            raise Refused("WindowStillOpen", deadline=slot.deadline, nowTime=now)
        slot.status, task.current = SlotStatus.FINALISED, task.current + 1
        paid = task.pay(round_number, slot)
        done = self._result(number, round_number) | {"payout": slot.payout, "paid": paid}
        events: Events = [("Finalised", done), *self._unlock(slot.worker, task.terms.bond, 0)]
        events += self._pay(number, slot.payout, paid)
        left = task.escrow
        if task.complete or task.closed:
            events += self._pay(number, task.requester, left)
        if task.complete:
            task.closed = False
            events.append(("TaskCompleted", {"task": number, "refunded": left}))
        return events
