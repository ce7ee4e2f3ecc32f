"""Watching one's lease from a second thread, so that training never waits for the chain."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType

from ledger.errors import ChainError, ChainUnreachable, ContractReverted
from ledger.types import Round, Slot, SlotStatus
from trainer.worker.policy import mine
from trainer.worker.ports import ChainReader
from trainer.worker.progress import Reporter, duration

# While the chain does not answer it is asked ever less often, up to this many seconds apart.
LONGEST_PAUSE = 15.0
# A chain that goes back in time between two reads contradicts itself for a moment; that often in a row it is an error.
ODD_ANSWERS = 4


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A claim that stands: whose, on what, and until when (chain time).

    `merges`: the task's rounds have several slots, so that a round may go on without this one. `inputs_root` is that of
    a merge.
    """

    task: int
    round: int
    slot: int
    attempt: int
    worker: str
    deadline: int
    merges: bool = False
    inputs_root: bytes | None = None


def lease_problem(lease: Lease, slot: Slot, now: int) -> str | None:
    """In words, why a lease no longer stands; None while it does."""
    where = f"round {lease.round} of task {lease.task}"
    if slot.status is SlotStatus.LEASED and mine(slot, lease.worker) and slot.attempt == lease.attempt:
        if now > slot.deadline:
            return f"The lease of {where} ran out {duration(now - slot.deadline)} ago."
        return None
    if slot.status is SlotStatus.OPEN:
        return f"The claim of {where} is no longer on the chain, which must have lost its last blocks."
    if mine(slot, lease.worker):
        return (
            f"Another claim or submission of yours holds {where} (attempt {slot.attempt}, {slot.status.name.lower()})."
        )
    return f"The lease of {where} ran out, and {slot.worker} has taken the slot."


def round_problem(lease: Lease, state: Round, now: int) -> str | None:
    """In words, why the round does not take the lease's work any more at chain time `now`; None while it does."""
    where = f"round {lease.round} of task {lease.task}"
    if lease.inputs_root is not None:
        return (
            None if state.inputs_root == lease.inputs_root else f"The states that the merge of {where} takes changed."
        )
    thawed = state.counted > 0 and now <= state.deadline and lease.slot not in state.counted_slots
    return f"{where[0].upper()}{where[1:]} went on without slot {lease.slot}." if state.frozen_at or thawed else None


def is_outage(error: ChainError) -> bool:
    """Whether an error may pass by itself: no answer, or a node that refuses or lags. Nothing that names a cause."""
    return type(error) in (ChainUnreachable, ChainError)


class LeaseWatch:
    """Asks for the slot every `poll_seconds` while the block it guards runs. `problem` is set once and for all.

    A chain that does not answer is no problem of the lease: training goes on, and the chain is asked again.
    """

    def __init__(self, chain: ChainReader, lease: Lease, reporter: Reporter, *, poll_seconds: float) -> None:
        self._chain = chain
        self._lease = lease
        self._reporter = reporter
        self._poll_seconds = self._pause = poll_seconds
        self._silent = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lease-watch", daemon=True)
        self.problem: str | None = None

    def __enter__(self) -> LeaseWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> None:
        """Asks once, and says where the chain does not answer, or answers again."""
        try:
            slot = self._chain.slot(self._lease.task, self._lease.round, self._lease.slot)
            now = self._chain.chain_time()
            self.problem = lease_problem(self._lease, slot, now)
            if self.problem is None and self._lease.merges:
                state = self._chain.round(self._lease.task, self._lease.round)
                self.problem = round_problem(self._lease, state, now)
        except ContractReverted:
            self.problem = f"Task {self._lease.task} is gone: the chain must have lost its last blocks."
        except ChainError as error:
            if not is_outage(error):
                self.problem = str(error)
                return
            if not self._silent:
                self._reporter.say("chain-lost", f"{error.problem} Training goes on.", task=self._lease.task)
            self._silent, self._pause = True, min(LONGEST_PAUSE, self._pause * 2)
            return
        if self._silent:
            self._reporter.say("chain-back", "The chain answers again.", task=self._lease.task)
            self._silent, self._pause = False, self._poll_seconds

    def _watch(self) -> None:
        while self.problem is None and not self._over.wait(self._pause):
            self.look()
