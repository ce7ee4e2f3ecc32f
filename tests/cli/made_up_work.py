"""A whole life of a task on the test chain, without any training: states are made of made-up numbers."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.performance import float_bits
from ledger.types import TaskParameters

TOKEN = 10**18


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def made_up_state(loss: float, seed: int) -> tuple[bytes, list[bytes]]:
    """Root and loss proof (docs/formats.md §1, §2) of a state of two tensors: the loss, and some number's hash."""
    chunk = struct.pack("<f", loss) + bytes(1020)
    tensor = _hash(b"\x03\x01\x01", (4).to_bytes(8, "big"), _hash(b"\x00\x01", chunk))
    first = _hash(b"\x00\x02", tensor)
    second = _hash(b"\x00\x02", _hash(seed.to_bytes(8, "big")))
    root = _hash(b"\x03\x02\x00", (2).to_bytes(8, "big"), _hash(b"\x01\x02", first, second))
    return root, [second]


def parameters(**changes: Any) -> TaskParameters:
    """Three rounds of ten steps for six tokens each, with a target."""
    values: dict[str, Any] = {
        "specification_hash": _hash(b"specification"),
        "program_root": _hash(b"program"),
        "dataset_root": _hash(b"dataset"),
        "initial_state_root": made_up_state(4.0, 0)[0],
        "state_tensors": 2,
        "rounds": 3,
        "steps_per_round": 10,
        "minimum_steps": 5,
        "slot_reward": 6 * TOKEN,
        "bond": 2 * TOKEN,
        "lease_fee": TOKEN // 2,
        "lease_seconds": 60,
        "challenge_window": 60,
        "has_target": True,
        "base_loss": float_bits(4.0),
        "target_loss": float_bits(1.0),
    }
    return TaskParameters(**(values | changes))


@dataclass
class Work:
    """Who does what: `owner` stakes, `operator` claims and submits for it."""

    chain: LocalChain
    requester: LedgerClient
    owner: LedgerClient
    operator: LedgerClient

    def claim(self, number: int, round_number: int) -> int:
        """Claims the round's slot for the owner with the operator's key; returns the attempt."""
        task = self.operator.task(number)
        attempt = self.operator.next_attempt(number, round_number)
        base = self.operator.base_root(number, round_number)
        self.operator.claim(task, round_number, base_root=base, attempt=attempt, worker=self.owner.address)
        return attempt

    def submit(self, number: int, round_number: int, attempt: int, *, loss: float, steps: int = 10) -> bytes:
        """Submits a made-up state; returns its root."""
        root, proof = made_up_state(loss, round_number + 1)
        self.operator.submit(
            number,
            round_number,
            attempt=attempt,
            base_root=self.operator.base_root(number, round_number),
            state_root=root,
            steps=steps,
            loss_bits=float_bits(loss),
            proof=proof,
        )
        return root

    def do_round(self, number: int, round_number: int, *, loss: float, steps: int = 10) -> bytes:
        """Claims, submits and finalises a round."""
        attempt = self.claim(number, round_number)
        root = self.submit(number, round_number, attempt, loss=loss, steps=steps)
        self.chain.advance(61)
        self.requester.finalise(number, round_number, attempt=attempt, state_root=root)
        return root


def start_work(chain: LocalChain, client_for: Callable[..., LedgerClient], wallets: dict[str, Any]) -> tuple[Work, int]:
    """Posts a task, stakes for the owner and authorises the operator; returns the task's number too."""
    work = Work(chain, *(client_for(wallets[name]) for name in ("requester", "owner", "operator")))
    number = work.requester.post_task(parameters(), "memory://nothing")
    work.owner.stake(10 * TOKEN)
    work.owner.set_operator(wallets["operator"].address, True)
    return work, number
