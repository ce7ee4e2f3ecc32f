"""Proofs as those check them who do not hold the tree (docs/dispute.md, "Trees" and "What the referee is shown").

Nothing here takes a length from a proof: it follows from sizes that a root binds, and another length is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from trainer.commit.hashing import Kind, depth, leaf, node, seal


def view_root(kind: Kind, nodes: Sequence[bytes]) -> bytes:
    """The node that a view hashes up to. Raises ValueError where the view is not a power of two of nodes."""
    if not nodes or len(nodes) & (len(nodes) - 1):
        raise ValueError(f"a view has a power of two of nodes, not {len(nodes)}")
    level = list(nodes)
    while len(level) > 1:
        level = [node(kind, *level[at : at + 2]) for at in range(0, len(level), 2)]
    return level[0]


def view_siblings(kind: Kind, nodes: Sequence[bytes], place: int) -> list[bytes]:
    """Siblings of one of a view's nodes, from the bottom up. Raises IndexError where the view has no such place."""
    if not 0 <= place < len(nodes):
        raise IndexError(f"no node {place} in a view of {len(nodes)}")
    level, siblings = list(nodes), []
    while len(level) > 1:
        siblings.append(level[place ^ 1])
        level = [node(kind, *level[at : at + 2]) for at in range(0, len(level), 2)]
        place >>= 1
    return siblings


def climb(kind: Kind, hashed: bytes, index: int, siblings: Sequence[bytes]) -> bytes:
    """The node so many heights above, of which `hashed` at `index` is a descendant."""
    for sibling in siblings:
        hashed = node(kind, sibling, hashed) if index & 1 else node(kind, hashed, sibling)
        index >>= 1
    return hashed


def range_proof_length(first: int, last: int, depth: int) -> int:
    """How many siblings a range proof of the leaves first … last has."""
    count = 0
    for _ in range(depth):
        count += (first & 1) + (not last & 1)
        first, last = first >> 1, last >> 1
    return count


def range_root(kind: Kind, leaves: Sequence[bytes], first: int, depth: int, siblings: Sequence[bytes]) -> bytes:
    """The Merkle root that consecutive leaves and their range proof lead to.

    Args:
        leaves: hashes of the leaves first, first + 1, … inside a tree of this depth, at least one.

    Raises:
        ValueError: no leaves, leaves outside the tree, or a proof of another length than this range's.
    """
    last = first + len(leaves) - 1
    if not 0 <= first <= last < 1 << depth:
        raise ValueError(f"no leaves {first} to {last} in a tree of depth {depth}")
    if len(siblings) != (needed := range_proof_length(first, last, depth)):
        raise ValueError(f"a proof of {len(siblings)} siblings, where the range needs {needed}")
    level, rest = list(leaves), iter(siblings)
    for _ in range(depth):
        if first & 1:
            level.insert(0, next(rest))
        if not last & 1:
            level.append(next(rest))
        level = [node(kind, *level[at : at + 2]) for at in range(0, len(level), 2)]
        first, last = first >> 1, last >> 1
    return level[0]


def before_depth(states: int, inputs: int) -> int:
    """Siblings that lead from a tensor to the root that a run begins with (see `root_before`)."""
    return depth(states) + (depth(inputs + 1) if inputs else 0)


def root_before(states: int, inputs: int, number: int, tensor_root: bytes, siblings: Sequence[bytes]) -> bytes:
    """What a run begins with, from the root of one tensor of it: a state's root, or of a merge that of its inputs.

    Args:
        states: tensors of one state. inputs: states that a merge takes beside its base; 0 in every other run.
        number: below states · (inputs + 1): tensor number mod states of state number div states; state 0 is the base.
        siblings: to the root of the tensor's state, then to that of the inputs; as many as `before_depth` says.
    """
    state, tensor = divmod(number, states)
    levels = depth(states)
    merkle = climb(Kind.STATE, leaf(Kind.STATE, tensor_root), tensor, siblings[:levels])
    root = seal(Kind.STATE, 0, states, merkle)
    if not inputs:
        return root
    merkle = climb(Kind.INPUTS, leaf(Kind.INPUTS, root), state, siblings[levels:])
    return seal(Kind.INPUTS, 0, inputs + 1, merkle)


def parting_height(earlier: int, reached: int) -> int:
    """The highest bit in which an earlier leaf differs from `reached`: the place of the frontier that covers it.

    Raises:
        ValueError: the leaf is not earlier.
    """
    if not 0 <= earlier < reached:
        raise ValueError(f"leaf {earlier} is not before leaf {reached}")
    return (earlier ^ reached).bit_length() - 1
