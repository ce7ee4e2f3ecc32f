"""What the worker and the verifier need of a chain: the part of `ledger.client.LedgerClient` that they call.

Kept as protocols so that the loop can be driven through whole lives of a task by an in-memory chain in milliseconds.
Argument names before the star are positional only here: an implementation may call them what it likes.
"""

from __future__ import annotations

from typing import Protocol

from ledger.ticket import Ticket
from ledger.types import Checkpoint, Round, Slot, StakeAccount, Task


class ChainReader(Protocol):
    """Reads. Each raises `ChainUnreachable` without an answer and `ContractReverted` for a task that is not there."""

    def task_count(self) -> int: ...

    def task(self, number: int, /) -> Task: ...

    def slot(self, task: int, round_number: int, slot: int = 0, /) -> Slot: ...

    def next_attempt(self, task: int, round_number: int, slot: int = 0, /) -> int: ...

    def base_root(self, task: int, round_number: int, /) -> bytes: ...

    def round(self, task: int, round_number: int, /) -> Round:
        """Where a round of several slots stands."""
        ...

    def inputs_root(self, task: int, round_number: int, generation: int, /) -> bytes: ...

    def merge_inputs(self, task: int, round_number: int, inputs_root: bytes, /) -> tuple[bytes, ...]:
        """State roots that a merge takes: the base's, then each slot's; empty where the round never took these."""
        ...

    def checkpoint(self, task: int, round_number: int, /) -> Checkpoint: ...

    def leases(self, worker: str, /) -> list[Slot]:
        """Slots that are leased to a worker, in any round."""
        ...

    def stake_account(self, owner: str, /) -> StakeAccount: ...

    def is_operator(self, owner: str, operator: str, /) -> bool: ...

    def chain_time(self) -> int: ...

    def block_number(self) -> int: ...

    def block_hash(self, number: int, /) -> bytes:
        """No bytes where the chain has no such block."""
        ...

    def store_url(self, task: int, /) -> str: ...


class WorkerChain(ChainReader, Protocol):
    """Reads and the writes of a worker. A write that already landed is success, whoever repeats it."""

    def mine_ticket(
        self,
        task: Task,
        round_number: int,
        /,
        *,
        attempt: int,
        worker: str,
        base_root: bytes,
        seconds: float,
        slot: int = 0,
    ) -> Ticket | None:
        """A proof-of-work ticket, or None if none was found in that many seconds."""
        ...

    def claim(
        self,
        task: Task,
        round_number: int,
        /,
        *,
        base_root: bytes,
        attempt: int,
        worker: str,
        ticket: Ticket | None = None,
        slot: int = 0,
    ) -> object: ...

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
    ) -> object: ...

    def finalise(
        self, task: int, round_number: int, /, *, attempt: int, state_root: bytes, slot: int = 0
    ) -> object: ...

    def collect(self, task: int, round_number: int, generation: int, /) -> object: ...

    def expire_lease(self, task: int, round_number: int, attempt: int, slot: int = 0, /) -> object: ...
