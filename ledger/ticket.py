"""Proof-of-work tickets (docs/formats.md, section 7): bound to one attempt at one slot and to a recent block."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak

# The EVM's BLOCKHASH reaches back 256 blocks; a ticket found late must still be good when its claim is mined.
BLOCK_REACH = 256
_TRIES_A_LOOK = 2000
_FIELDS = ["uint256", "address", "uint64", "uint32", "uint32", "uint32", "address", "bytes32", "bytes32", "uint256"]


@dataclass(frozen=True)
class Ticket:
    """Number of the block whose hash is bound, and the nonce found."""

    block: int
    nonce: int


def ticket_digest(
    *,
    chain_id: int,
    ledger: str,
    task: int,
    round_number: int,
    slot: int,
    attempt: int,
    worker: str,
    base_root: bytes,
    block_hash: bytes,
    nonce: int,
) -> int:
    """What must be below the task's target. Addresses in hex, root and hash of 32 bytes."""
    words = [chain_id, ledger, task, round_number, slot, attempt, worker, base_root, block_hash, nonce]
    return int.from_bytes(keccak(abi_encode(_FIELDS, words)), "big")


def find_ticket(
    *,
    chain_id: int,
    ledger: str,
    task: int,
    round_number: int,
    slot: int = 0,
    attempt: int,
    worker: str,
    base_root: bytes,
    block: int,
    block_hash: bytes,
    target: int,
    seconds: float,
) -> Ticket | None:
    """Searches for a nonce for at most about `seconds`; None where there was none in that time.

    The search starts at a random number, so that two workers of one stake do not find the same.
    """
    nonce = secrets.randbits(255)
    words = [chain_id, ledger, task, round_number, slot, attempt, worker, base_root, block_hash, 0]
    prefix = abi_encode(_FIELDS, words)[:-32]
    end = time.monotonic() + seconds
    while True:
        for candidate in range(nonce, nonce + _TRIES_A_LOOK):
            if int.from_bytes(keccak(prefix + candidate.to_bytes(32, "big")), "big") < target:
                return Ticket(block=block, nonce=candidate)
        nonce += _TRIES_A_LOOK
        if time.monotonic() >= end:
            return None
