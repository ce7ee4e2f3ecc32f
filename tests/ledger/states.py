"""States made up of hashes alone, by docs/formats.md sections 1 and 2: a root and a loss proof without any tensor."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TENSOR, STATE = 1, 2


def _sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _seal(kind: int, number: int, size: int, root: bytes) -> bytes:
    return _sha(b"\3", bytes([kind, number]), size.to_bytes(8, "big"), root)


@dataclass(frozen=True)
class MadeUpState:
    """A state root and the siblings of leaf 0, lowest first."""

    root: bytes
    loss_proof: list[bytes]


def make_state(loss_bits: int, tensors: int, seed: int = 0) -> MadeUpState:
    """A state whose tensor 0 is the loss, and whose other tensor roots are drawn from `seed`."""
    chunk = loss_bits.to_bytes(4, "little") + bytes(1020)
    loss_root = _seal(TENSOR, 1, 4, _sha(b"\0", bytes([TENSOR]), chunk))
    roots = [loss_root] + [_sha(b"made up", seed.to_bytes(8, "big"), bytes([index])) for index in range(1, tensors)]
    level = [_sha(b"\0", bytes([STATE]), root) for root in roots]
    while len(level) & (len(level) - 1):
        level.append(_sha(b"\2", bytes([STATE])))
    proof = []
    while len(level) > 1:
        proof.append(level[1])
        level = [_sha(b"\1", bytes([STATE]), *level[index : index + 2]) for index in range(0, len(level), 2)]
    return MadeUpState(_seal(STATE, 0, tensors, level[0]), proof)
