"""A task of rounds of two slots, and who works on it."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.disputes.client import DisputeClient
from ledger.types import Task


@dataclass
class Rounds:
    """A task of two slots a round; `worker` does both, and the merge."""

    chain: LocalChain
    task: Task
    worker: LedgerClient
    challenger: DisputeClient

    @property
    def number(self) -> str:
        return str(self.task.number)
