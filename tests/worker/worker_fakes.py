"""A ledger in memory that keeps the contract's rules, with a clock that moves only when told, and faults on demand."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ledger.errors import ChainUnreachable, ContractReverted
from ledger.performance import pay_for
from ledger.types import (
    ZERO_ADDRESS,
    Checkpoint,
    Round,
    Slot,
    SlotStatus,
    StakeAccount,
    Task,
    TaskParameters,
)

TOKEN = 10**18
ALICE = "0x" + "A1" * 20
BOB = "0x" + "B0" * 20
REQUESTER = "0x" + "C3" * 20


def reverted(method: str, error: str, **arguments: Any) -> ContractReverted:
    return ContractReverted("TrainingLedger", method, error, arguments)


@dataclass
class Books:
    """All that a roll-back takes back."""

    tasks: dict[int, Task] = field(default_factory=dict)
    urls: dict[int, str] = field(default_factory=dict)
    slots: dict[tuple[int, int], Slot] = field(default_factory=dict)
    lineage: dict[tuple[int, int], Checkpoint] = field(default_factory=dict)
    staked: dict[str, int] = field(default_factory=dict)
    locked: dict[str, int] = field(default_factory=dict)
    credit: dict[str, int] = field(default_factory=dict)
    burned: int = 0
    block: int = 1
    branch: int = 0
    forked_at: int = 0
    now: int = 1_000_000


class FakeLedger:
    """The chain that all workers of a test share. `writes` lists what landed, in order."""

    def __init__(self) -> None:
        self.books = Books()
        self.writes: list[tuple[object, ...]] = []
        self.down = False
        self.before_write: Callable[[str], None] = lambda method: None

    def post(self, parameters: TaskParameters, url: str = "") -> int:
        number = len(self.books.tasks) + 1
        self.books.tasks[number] = Task(
            number=number, parameters=parameters, requester=REQUESTER, current_round=0, closed=False
        )
        self.books.urls[number] = url
        return number

    def stake(self, owner: str, amount: int) -> None:
        self.books.staked[owner] = self.books.staked.get(owner, 0) + amount

    def save(self) -> Books:
        return copy.deepcopy(self.books)

    def restore(self, books: Books) -> None:
        """Takes back everything since `save`, as a restarted chain does; time does not go back."""
        now, branch = self.books.now, self.books.branch
        self.books = copy.deepcopy(books)
        self.books.now = max(now, books.now)
        self.books.branch, self.books.forked_at = branch + 1, books.block

    def advance(self, seconds: float) -> None:
        self.books.now += max(1, round(seconds))
        self.books.block += 1

    def read(self) -> Books:
        if self.down:
            raise ChainUnreachable("http://fake", "connection refused")
        return self.books

    def writing(self, method: str) -> Books:
        self.before_write(method)
        return self.read()


class FakeChain:
    """What one account sees of a `FakeLedger`."""

    def __init__(self, ledger: FakeLedger, address: str) -> None:
        self.ledger = ledger
        self.address = address
        self.operators: set[tuple[str, str]] = set()
        self.tickets: list[float] = []

    def task_count(self) -> int:
        return len(self.ledger.read().tasks)

    def task(self, number: int, /) -> Task:
        tasks = self.ledger.read().tasks
        if number not in tasks:
            raise reverted("getTask", "UnknownTask", task=number)
        return tasks[number]

    def slot(self, task: int, round_number: int, slot: int = 0, /) -> Slot:
        self.task(task)
        return self.ledger.read().slots.get(
            (task, round_number),
            Slot(
                task=task,
                round=round_number,
                slot=slot,
                worker=ZERO_ADDRESS,
                attempt=0,
                deadline=0,
                status=SlotStatus.OPEN,
                open_games=0,
                payout=ZERO_ADDRESS,
                steps=0,
                heldout_loss=0,
                state_root=bytes(32),
            ),
        )

    def leases(self, worker: str, /) -> list[Slot]:
        return [
            slot
            for slot in self.ledger.read().slots.values()
            if slot.status is SlotStatus.LEASED and slot.worker == worker
        ]

    def next_attempt(self, task: int, round_number: int, slot: int = 0, /) -> int:
        held = self.slot(task, round_number, slot)
        over = held.status is SlotStatus.LEASED and self.ledger.read().now > held.deadline
        return held.attempt + over

    def base_root(self, task: int, round_number: int, /) -> bytes:
        if round_number == 0:
            return self.task(task).parameters.initial_state_root
        entry = self.ledger.read().lineage.get((task, round_number - 1))
        return entry.state_root if entry else bytes(32)

    def round(self, task: int, round_number: int, /) -> Round:
        raise reverted("isReady", "NotGrouped", task=task)

    def inputs_root(self, task: int, round_number: int, generation: int, /) -> bytes:
        return bytes(32)

    def merge_inputs(self, task: int, round_number: int, inputs_root: bytes, /) -> tuple[bytes, ...]:
        return ()

    def collect(self, task: int, round_number: int, generation: int, /) -> None:
        raise reverted("collect", "NotGrouped", task=task)

    def expire_lease(self, task: int, round_number: int, attempt: int, slot: int = 0, /) -> None:
        books = self.ledger.writing("expire")
        held, terms = self.slot(task, round_number), self.task(task).parameters
        if held.status is not SlotStatus.LEASED or held.attempt != attempt:
            raise reverted("expireLease", "WrongStatus", status=held.status, needed=SlotStatus.LEASED)
        if books.now <= held.deadline:
            raise reverted("expireLease", "LeaseStillRunning", deadline=held.deadline, nowTime=books.now)
        books.staked[held.worker] -= terms.lease_fee
        books.locked[held.worker] -= terms.bond
        books.burned += terms.lease_fee
        books.slots[(task, round_number)] = dataclasses.replace(
            held, status=SlotStatus.OPEN, worker=ZERO_ADDRESS, attempt=attempt + 1
        )
        self.ledger.writes.append(("expire", task, round_number, attempt))

    def checkpoint(self, task: int, round_number: int, /) -> Checkpoint:
        entry = self.ledger.read().lineage.get((task, round_number))
        if entry is None:
            raise reverted("getCheckpoint", "WrongStatus", status=0, needed=3)
        return entry

    def stake_account(self, owner: str, /) -> StakeAccount:
        books = self.ledger.read()
        return StakeAccount(
            staked=books.staked.get(owner, 0),
            locked=books.locked.get(owner, 0),
            unbonding=0,
            unbonding_release=0,
            credit=books.credit.get(owner, 0),
            payout=owner,
        )

    def is_operator(self, owner: str, operator: str, /) -> bool:
        return (owner, operator) in self.operators

    def chain_time(self) -> int:
        return self.ledger.read().now

    def block_hash(self, number: int, /) -> bytes:
        books = self.ledger.read()
        return f"{number} {books.branch if number > books.forked_at else ''}".encode() if number <= books.block else b""

    def block_number(self) -> int:
        return self.ledger.read().block

    def store_url(self, task: int, /) -> str:
        return self.ledger.read().urls[task]

    def mine_ticket(self, task: Task, round_number: int, /, *, seconds: float, **_: object) -> None:
        self.tickets.append(seconds)

    def claim(
        self,
        task: Task,
        round_number: int,
        /,
        *,
        base_root: bytes,
        attempt: int,
        worker: str,
        ticket: object = None,
        slot: int = 0,
    ) -> None:
        books = self.ledger.writing("claim")
        current, held = self.task(task.number), self.slot(task.number, round_number)
        bond = current.parameters.bond
        if current.closed:
            raise reverted("claim", "TaskIsClosed", task=task.number)
        if round_number != current.current_round:
            raise reverted("claim", "WrongRound", round=round_number, current=current.current_round)
        if held.status is SlotStatus.LEASED and books.now > held.deadline:
            fee = current.parameters.lease_fee
            books.staked[held.worker] -= fee
            books.locked[held.worker] -= bond
            books.burned += fee
        elif held.status is not SlotStatus.OPEN:
            raise reverted("claim", "SlotTaken", worker=held.worker, status=held.status, deadline=held.deadline)
        if attempt != self.next_attempt(task.number, round_number):
            raise reverted("claim", "WrongAttempt", attempt=attempt, current=held.attempt)
        if base_root != self.base_root(task.number, round_number):
            raise reverted("claim", "WrongBase", given=base_root, expected=self.base_root(task.number, round_number))
        if self.stake_account(worker).free < bond:
            raise reverted("claim", "InsufficientFreeStake", owner=worker, free=0, needed=bond)
        books.locked[worker] = books.locked.get(worker, 0) + bond
        books.slots[(task.number, round_number)] = dataclasses.replace(
            held,
            worker=worker,
            attempt=attempt,
            deadline=books.now + current.parameters.lease_seconds,
            status=SlotStatus.LEASED,
            payout=worker,
        )
        self.ledger.writes.append(("claim", task.number, round_number, attempt, worker))

    def submit(
        self,
        task: int,
        round_number: int,
        /,
        *,
        attempt: int,
        base_root: bytes,
        state_root: bytes,
        steps: int,
        loss_bits: int,
        proof: list[bytes],
        slot: int = 0,
    ) -> None:
        books = self.ledger.writing("submit")
        held = self.slot(task, round_number)
        if held.status is SlotStatus.SUBMITTED and (held.attempt, held.state_root) == (attempt, state_root):
            return  # what LedgerClient makes of AlreadySubmitted
        if held.status is not SlotStatus.LEASED:
            raise reverted("submit", "WrongStatus", status=held.status, needed=SlotStatus.LEASED)
        if held.attempt != attempt:
            raise reverted("submit", "WrongAttempt", attempt=attempt, current=held.attempt)
        if held.worker != self.address:
            raise reverted("submit", "NotAuthorised", caller=self.address, worker=held.worker)
        if books.now > held.deadline:
            raise reverted("submit", "LeaseOver", deadline=held.deadline, nowTime=books.now)
        books.slots[(task, round_number)] = dataclasses.replace(
            held,
            status=SlotStatus.SUBMITTED,
            deadline=books.now + self.task(task).parameters.challenge_window,
            steps=steps,
            heldout_loss=loss_bits,
            state_root=state_root,
        )
        self.ledger.writes.append(("submit", task, round_number, attempt, state_root))

    def finalise(self, task: int, round_number: int, /, *, attempt: int, state_root: bytes, slot: int = 0) -> None:
        books = self.ledger.writing("finalise")
        held, current = self.slot(task, round_number), self.task(task)
        if held.status is SlotStatus.FINALISED:
            return  # what LedgerClient makes of AlreadyFinalised
        if held.status is not SlotStatus.SUBMITTED:
            raise reverted("finalise", "WrongStatus", status=held.status, needed=SlotStatus.SUBMITTED)
        if books.now <= held.deadline:
            raise reverted("finalise", "WindowStillOpen", deadline=held.deadline, nowTime=books.now)
        paid = pay_for(current.parameters, round_number=round_number, steps=held.steps, loss_bits=held.heldout_loss)
        books.locked[held.worker] -= current.parameters.bond
        books.credit[held.worker] = books.credit.get(held.worker, 0) + paid
        books.lineage[(task, round_number)] = Checkpoint(
            task=task,
            round=round_number,
            parent=self.base_root(task, round_number),
            state_root=state_root,
            worker=held.worker,
            steps=held.steps,
            heldout_loss=held.heldout_loss,
        )
        books.slots[(task, round_number)] = dataclasses.replace(held, status=SlotStatus.FINALISED)
        books.tasks[task] = dataclasses.replace(current, current_round=round_number + 1)
        self.ledger.writes.append(("finalise", task, round_number, attempt, state_root))


def submitted(ledger: FakeLedger) -> list[bytes]:
    return [write[4] for write in ledger.writes if write[0] == "submit"]  # type: ignore[misc]  # roots, by construction


def kinds(ledger: FakeLedger) -> list[str]:
    return [str(write[0]) for write in ledger.writes]
