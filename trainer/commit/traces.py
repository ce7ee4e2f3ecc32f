"""Traces: what one run of a program computes, committed operation by operation (docs/dispute.md, "Trees")."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.commit.hashing import Kind, leaf, merkle_root, seal


def trace_leaf(root: bytes) -> bytes:
    """Leaf hash of an operation's output, from its tensor root; of the last leaf, from the root of the state after."""
    return leaf(Kind.TRACE, root)


def trace_leaves(outputs: Sequence[bytes], state_after: bytes) -> list[bytes]:
    """Leaf hashes of a trace: the outputs' tensor roots in order, then the state after the run."""
    return [trace_leaf(root) for root in (*outputs, state_after)]


def trace_root(leaves: Sequence[bytes]) -> bytes:
    """Sealed root of a trace, 32 bytes, from what `trace_leaves` gives."""
    return seal(Kind.TRACE, 0, len(leaves), merkle_root(Kind.TRACE, leaves))
