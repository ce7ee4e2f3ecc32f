"""A task's life in short calls, for tests of the client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from states import MadeUpState

from ledger.client import LedgerClient
from ledger.keys import Wallet
from ledger.performance import float_bits
from ledger.types import Task, TaskParameters

ETHER = 10**18
LOSS = float_bits(2.5)
TENSORS = 7
BOND, FEE = 10**17, 10**16
LEASE = WINDOW = 600  # never over by itself within a test
ClientFor = Callable[[Wallet], LedgerClient]
WalletFactory = Callable[..., Wallet]


def parameters(**fields: Any) -> TaskParameters:
    defaults: dict[str, Any] = {
        "specification_hash": b"\1" * 32,
        "program_root": b"\2" * 32,
        "dataset_root": b"\3" * 32,
        "initial_state_root": b"\4" * 32,
        "state_tensors": TENSORS,
        "rounds": 2,
        "steps_per_round": 10,
        "minimum_steps": 5,
        "slot_reward": 10 * ETHER,
        "bond": BOND,
        "lease_fee": FEE,
        "lease_seconds": LEASE,
        "challenge_window": WINDOW,
        "has_target": True,
        "base_loss": float_bits(4.0),
        "target_loss": float_bits(1.0),
    }
    return TaskParameters(**(defaults | fields))


def claim(worker: LedgerClient, task: Task, round_number: int = 0) -> int:
    attempt = worker.next_attempt(task.number, round_number)
    base = worker.base_root(task.number, round_number)
    worker.claim(task, round_number, base_root=base, attempt=attempt, worker=worker.address)
    return attempt


def submit(
    worker: LedgerClient, task: Task, round_number: int, attempt: int, state: MadeUpState, **changes: Any
) -> Any:
    fields: dict[str, Any] = {
        "attempt": attempt,
        "base_root": worker.base_root(task.number, round_number),
        "state_root": state.root,
        "steps": 10,
        "loss_bits": LOSS,
        "proof": state.loss_proof,
    }
    return worker.submit(task.number, round_number, **(fields | changes))
