"""What the loops over open tasks need of a chain: the part of `ledger.open.client.OpenClient` that they call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ledger.audits.records import Ballot
from ledger.open.records import Inquiry
from ledger.types import StakeAccount
from trainer.open.policy import RoundView
from trainer.open.source import OpenReads


class OpenChain(OpenReads, Protocol):
    """Reads and writes. A write that already landed is success, whoever repeats it.

    Reads raise `ChainUnreachable` without an answer and `ContractReverted` for a task that is not there.
    """

    def task_count(self) -> int: ...

    def slot_of(self, task: int, round_number: int, worker: str, /) -> int | None: ...

    def chain_time(self) -> int: ...

    def stake_account(self, owner: str, /) -> StakeAccount: ...

    def commitment(self, task: int, round_number: int, worker: str, trained_root: bytes, salt: bytes, /) -> bytes: ...

    def commit(
        self,
        task: int,
        round_number: int,
        specification_hash: bytes,
        base_root: bytes,
        worker: str,
        commitment: bytes,
        /,
    ) -> int: ...

    def reveal(self, task: int, round_number: int, slot: int, trained_root: bytes, salt: bytes, /) -> object: ...

    def reveal_held_out(self, task: int, round_number: int, tokens: bytes, /) -> object: ...

    def score(
        self,
        task: int,
        round_number: int,
        slot: int,
        attempt: int,
        worker: str,
        trained_root: bytes,
        scored_root: bytes,
        loss_bits: int,
        loss_proof: Sequence[bytes],
        /,
    ) -> object: ...

    def forfeit(self, task: int, round_number: int, slot: int, /) -> object: ...

    def expire(self, task: int, round_number: int, slot: int, attempt: int, /) -> object: ...

    def finalise(self, task: int, round_number: int, slot: int, attempt: int, scored_root: bytes, /) -> object: ...

    def skip(self, task: int, round_number: int, /) -> object: ...

    def settle_default(self, task: int, round_number: int, slot: int, trained_root: bytes, /) -> object: ...

    def unavailable(self, task: int, round_number: int, slot: int, trained_root: bytes, asker: str, /) -> object: ...

    def acknowledge(self, task: int, round_number: int, slot: int, /) -> object: ...


class InquiryChain(Protocol):
    """What whoever is drawn into questions needs of `OpenClient`."""

    def inquiry(self, task: int, round_number: int, slot: int, /) -> Inquiry: ...

    def votes_of(self, task: int, round_number: int, slot: int, auditor: str, /) -> int: ...

    def ballot(self, task: int, round_number: int, slot: int, auditor: str, /) -> Ballot: ...

    def draw(self, task: int, round_number: int, slot: int, /) -> object: ...

    def commit_finding(
        self, task: int, round_number: int, slot: int, seed: bytes, auditor: str, commitment: bytes, /
    ) -> object: ...

    def reveal_finding(
        self, task: int, round_number: int, slot: int, auditor: str, salted_root: bytes, salt: bytes, /
    ) -> object: ...

    def collect_share(self, task: int, round_number: int, slot: int, auditor: str, /) -> int: ...

    def close_inquiry(self, task: int, round_number: int, slot: int, /) -> object: ...


def look(chain: OpenChain, number: int, worker: str | None, round_number: int | None = None) -> RoundView:
    """A task's current round, or another one, as `worker` sees it; of a task that is complete, its last one."""
    task = chain.task(number)
    at = min(task.current_round, task.rounds - 1) if round_number is None else round_number
    state = chain.round(number, at)
    taken = [*range(state.committed), task.parameters.baseline]
    return RoundView(
        task=task,
        state=state,
        slots=tuple(chain.slot(number, at, slot) for slot in taken),
        own=None if worker is None else chain.slot_of(number, at, worker),
        now=chain.chain_time(),
    )
