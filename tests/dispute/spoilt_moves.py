"""Moves with one thing changed: whatever a field holds, something else."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from ledger.disputes.moves import Move


def spoilt(move: Move, rng: random.Random) -> Move:
    """The move with one value changed somewhere in it, in a field drawn at random."""
    made: Move = _changed(move, rng)
    return made


def _changed(value: Any, rng: random.Random) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        field = rng.choice(dataclasses.fields(value))
        return dataclasses.replace(value, **{field.name: _changed(getattr(value, field.name), rng)})
    if isinstance(value, tuple):
        return _changed_list(value, rng)
    if isinstance(value, bytes):
        return _changed_bytes(value, rng)
    assert isinstance(value, int), value
    # 63 bits fit every number of a move but place in NarrowFold, which has more.
    return rng.choice([value + 1, max(0, value - 1), value ^ 1, 0])


def _changed_list(value: tuple[Any, ...], rng: random.Random) -> tuple[Any, ...]:
    if not value:
        return (bytes(32),)
    at = rng.randrange(len(value))
    return rng.choice(
        [
            (*value[:at], _changed(value[at], rng), *value[at + 1 :]),
            (*value[:at], _changed(value[at], rng), *value[at + 1 :]),
            (*value[:at], *value[at + 1 :]),
            (*value, value[at]),
            (*value[:at], value[-1 - at], *value[at + 1 :]),
        ]
    )


def _changed_bytes(value: bytes, rng: random.Random) -> bytes:
    if len(value) == 32:  # a word stays one
        at = rng.randrange(32)
        return value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]
    if not value:
        return b"\x01"
    at = rng.randrange(len(value))
    return rng.choice(
        [value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :], value[:-1], value + b"\x00"]
    )
