"""Roots of whole states, and the proof of a state's held-out loss (formats §2)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from torch import Tensor

from trainer.commit.hashing import Kind, leaf, merkle_proof, merkle_root, seal
from trainer.commit.tensors import tensor_bytes, tensor_root

_AVAILABLE = b"trainledger/available/1\x00"


def state_leaves(tensors: Iterable[Tensor]) -> list[bytes]:
    """Leaf hashes of a state: one for each tensor, in layout order."""
    return [leaf(Kind.STATE, tensor_root(tensor)) for tensor in tensors]


def root_of_leaves(leaves: list[bytes]) -> bytes:
    """State root from the leaves that `state_leaves` gave; saves hashing twice where a proof is needed too."""
    return seal(Kind.STATE, 0, len(leaves), merkle_root(Kind.STATE, leaves))


def state_root(tensors: Iterable[Tensor]) -> bytes:
    """Sealed root of a state's tensors in layout order (`state.values()`), 32 bytes."""
    return root_of_leaves(state_leaves(tensors))


def inputs_root(base: bytes, slots: Sequence[bytes | None]) -> bytes:
    """Sealed root of what a merge takes, 32 bytes: the state roots of the base and of each slot in order.

    None stands for a missing slot, which is the base (docs/rounds.md).
    """
    leaves = [leaf(Kind.INPUTS, base if root is None else root) for root in (base, *slots)]
    return seal(Kind.INPUTS, 0, len(leaves), merkle_root(Kind.INPUTS, leaves))


def loss_proof(tensors: Iterable[Tensor]) -> list[bytes]:
    """Siblings that prove tensor 0, the held-out loss, against the state root; what `submit` takes."""
    return merkle_proof(Kind.STATE, state_leaves(tensors), 0)


def salted_root(tensors: Iterable[Tensor], seed: bytes) -> bytes:
    """What only who has every byte of a state can compute for a seed, 32 bytes (docs/open-tasks.md)."""
    digest = hashlib.sha256(_AVAILABLE + seed)
    for tensor in tensors:
        digest.update(tensor_bytes(tensor))
    return digest.digest()
