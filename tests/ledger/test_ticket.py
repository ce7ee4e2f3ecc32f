from __future__ import annotations

import time
from typing import Any

from ledger.ticket import Ticket, find_ticket, ticket_digest

FIELDS: dict[str, Any] = {
    "chain_id": 31337,
    "ledger": "0x5FbDB2315678afecb367f032d93F642f64180aa3",
    "task": 3,
    "round_number": 2,
    "slot": 0,
    "attempt": 1,
    "worker": "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512",
    "base_root": b"\7" * 32,
    "block_hash": b"\x0a" * 32,
}


def test_ticket_digest_binds_every_field() -> None:
    digests = {ticket_digest(**FIELDS, nonce=5), ticket_digest(**FIELDS, nonce=6)}
    for name, value in FIELDS.items():
        other = value + 1 if isinstance(value, int) else b"\x0b" * 32 if isinstance(value, bytes) else "0x" + "11" * 20
        digests.add(ticket_digest(**{**FIELDS, name: other}, nonce=5))
    assert len(digests) == 2 + len(FIELDS)


def test_find_ticket_is_below_the_target() -> None:
    target = 2**256 // 500
    ticket = find_ticket(**FIELDS, block=77, target=target, seconds=60)
    assert isinstance(ticket, Ticket)
    assert ticket.block == 77
    assert ticket_digest(**FIELDS, nonce=ticket.nonce) < target


def test_find_ticket_hopeless_gives_up_in_time() -> None:
    start = time.monotonic()
    assert find_ticket(**FIELDS, block=77, target=1, seconds=0.1) is None
    assert time.monotonic() - start < 5


def test_find_ticket_twice_finds_different_nonces() -> None:
    found = {find_ticket(**FIELDS, block=77, target=2**255, seconds=60) for _ in range(3)}
    assert len(found) == 3
