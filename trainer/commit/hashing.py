"""Sealed SHA-256 Merkle trees with a number for each kind of tree (formats §1). Standard library only."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Sequence
from typing import Final

CHUNK: Final = 1024

Buffer = bytes | bytearray | memoryview


class Kind(enum.IntEnum):
    """Kinds of trees; the number enters every hash of the tree."""

    TENSOR = 1
    STATE = 2
    TRACE = 3
    PROGRAM = 4
    DATASET = 5
    BLOB = 6
    INPUTS = 7


# Gives the leaf hashes of data one after another and the Merkle root over them, as `chunk_leaves` and `merkle_root` do.
TreeHasher = Callable[[Kind, memoryview], tuple[Buffer, bytes]]

_LEAF, _NODE, _PAD, _SEAL = 0, 1, 2, 3
_DIGEST: Final = 32
_WORTH_A_CALL: Final = 4 * CHUNK  # bytes from which another hasher is asked
_tree_hasher: TreeHasher | None = None


def use_tree_hasher(hasher: TreeHasher | None) -> None:
    """Has trees over more than a few chunks hashed by a faster function in this process; None takes Python again.

    Whoever gives one has compared it with `python_tree`: roots are asked of it from now on.
    """
    global _tree_hasher
    _tree_hasher = hasher


def leaf(kind: Kind, payload: Buffer) -> bytes:
    """Hash of a leaf's payload, 32 bytes."""
    digest = hashlib.sha256(bytes((_LEAF, kind)))
    digest.update(payload)
    return digest.digest()


def node(kind: Kind, left: bytes, right: bytes) -> bytes:
    """Hash of an inner node over its children in order."""
    return hashlib.sha256(bytes((_NODE, kind)) + left + right).digest()


def pad(kind: Kind) -> bytes:
    """Hash that stands in the unused leaves."""
    return hashlib.sha256(bytes((_PAD, kind))).digest()


def seal(kind: Kind, type_number: int, size: int, merkle: bytes) -> bytes:
    """A root that binds the tree's type and size: u8 type, u64 size, big-endian."""
    header = bytes((_SEAL, kind)) + type_number.to_bytes(1, "big") + size.to_bytes(8, "big")
    return hashlib.sha256(header + merkle).digest()


def depth(count: int) -> int:
    """Height of a tree over `count` ≥ 1 leaves: ⌈log₂ count⌉."""
    if count < 1:
        raise ValueError(f"a tree needs at least one leaf, not {count}")
    return (count - 1).bit_length()


def chunk_leaves(kind: Kind, data: Buffer) -> list[bytes]:
    """Leaf hashes of data's 1,024-byte chunks, the last one filled with zero bytes.

    Raises ValueError on empty data, which has no root.
    """
    view = memoryview(data).cast("B")
    if not view:
        raise ValueError("data of no bytes has no root")
    if _tree_hasher is None or len(view) < _WORTH_A_CALL:
        return _python_leaves(kind, view)
    joined = bytes(_tree_hasher(kind, view)[0])
    return [joined[at : at + _DIGEST] for at in range(0, len(joined), _DIGEST)]


def python_tree(kind: Kind, data: memoryview) -> tuple[bytes, bytes]:
    """The tree hasher that others are compared with; data has at least one byte."""
    leaves = _python_leaves(kind, data)
    return b"".join(leaves), merkle_root(kind, leaves)


def _python_leaves(kind: Kind, view: memoryview) -> list[bytes]:
    size = len(view)
    prefix = bytes((_LEAF, kind))
    sha256 = hashlib.sha256
    whole = size - size % CHUNK
    # Joining prefix and chunk (one 1 KiB copy) is faster than a second call to update.
    join = b"".join
    leaves = [sha256(join((prefix, view[at : at + CHUNK]))).digest() for at in range(0, whole, CHUNK)]
    if whole < size:
        leaves.append(sha256(prefix + bytes(view[whole:]) + bytes(CHUNK - (size - whole))).digest())
    return leaves


def merkle_levels(kind: Kind, leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels from the leaves up to the root, pads left out: a missing right sibling is the level's pad."""
    depth(len(leaves))
    prefix = bytes((_NODE, kind))
    sha256 = hashlib.sha256
    levels = [list(leaves)]
    padding = pad(kind)
    while len(levels[-1]) > 1:
        below = levels[-1]
        joined = b"".join(below) + (padding if len(below) % 2 else b"")
        levels.append([sha256(prefix + joined[at : at + 64]).digest() for at in range(0, len(joined), 64)])
        padding = node(kind, padding, padding)
    return levels


def merkle_root(kind: Kind, leaves: Sequence[bytes]) -> bytes:
    """Unsealed root over leaf hashes."""
    return merkle_levels(kind, leaves)[-1][0]


def merkle_proof(kind: Kind, leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Siblings of a leaf from the bottom up. Raises IndexError where the index is no leaf."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of a tree with {len(leaves)} leaves")
    proof = []
    padding = pad(kind)
    for level in merkle_levels(kind, leaves)[:-1]:
        sibling = index ^ 1
        proof.append(level[sibling] if sibling < len(level) else padding)
        padding = node(kind, padding, padding)
        index >>= 1
    return proof


def verify_proof(
    kind: Kind, leaf_hash: bytes, index: int, count: int, proof: Sequence[bytes], root_unsealed: bytes
) -> bool:
    """Whether `leaf_hash` is leaf `index` of the tree of `count` leaves with this unsealed root.

    The length asked of the proof follows from `count`, never from the proof. Never raises on what a stranger sent.
    """
    if count < 1 or not 0 <= index < count or len(proof) != depth(count):
        return False
    if len(leaf_hash) != _DIGEST or any(len(sibling) != _DIGEST for sibling in proof):
        return False
    value = leaf_hash
    for sibling in proof:
        value = node(kind, sibling, value) if index & 1 else node(kind, value, sibling)
        index >>= 1
    return value == root_unsealed


def bytes_root(kind: Kind, type_number: int, data: Buffer) -> bytes:
    """Sealed root of a run of bytes. Raises ValueError on empty data."""
    view = memoryview(data).cast("B")
    if _tree_hasher is None or len(view) < _WORTH_A_CALL:
        merkle = merkle_root(kind, chunk_leaves(kind, view))
    else:
        merkle = _tree_hasher(kind, view)[1]
    return seal(kind, type_number, len(view), merkle)
