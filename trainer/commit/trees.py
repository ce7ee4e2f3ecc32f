"""A tree that is walked down in a dispute: views of its nodes, proofs of leaves and of ranges (docs/dispute.md)."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.commit.hashing import Kind, merkle_levels, node, pad


class Tree:
    """All nodes of a Merkle tree, from its leaf hashes. Twice the memory of the leaves.

    A node is named by its height above the leaves and its index from the left at that height. Nodes over pads alone
    are not held, but given like all others.

    Args:
        leaves: hashes of at least one leaf.
    """

    def __init__(self, kind: Kind, leaves: Sequence[bytes]) -> None:
        self.kind = kind
        self._levels = merkle_levels(kind, leaves)
        self._pads = [pad(kind)]
        for _ in self._levels[1:]:
            self._pads.append(node(kind, self._pads[-1], self._pads[-1]))

    @property
    def leaves(self) -> int:
        """Number of leaves without pads."""
        return len(self._levels[0])

    @property
    def depth(self) -> int:
        """Height of the root."""
        return len(self._levels) - 1

    @property
    def root(self) -> bytes:
        """The Merkle root, unsealed."""
        return self._levels[-1][0]

    def node(self, height: int, index: int) -> bytes:
        """The node's hash. Raises IndexError where the padded tree has none there."""
        if not 0 <= height <= self.depth or not 0 <= index < 1 << (self.depth - height):
            raise IndexError(f"no node {index} at height {height} of a tree of depth {self.depth}")
        level = self._levels[height]
        return level[index] if index < len(level) else self._pads[height]

    def view(self, height: int, index: int, width: int) -> list[bytes]:
        """The node's 2^width descendants at height - width, from the left.

        Raises:
            IndexError: there is no such node, or it has no descendants so far down.
        """
        if not 0 <= width <= height:
            raise IndexError(f"a node at height {height} has no descendants {width} below it")
        self.node(height, index)
        first = index << width
        return [self.node(height - width, at) for at in range(first, first + (1 << width))]

    def path(self, index: int, *, low: int = 0, high: int | None = None) -> list[bytes]:
        """Siblings that lead from the node `index` at height `low` up to height `high` (the root's without)."""
        high = self.depth if high is None else high
        return [self.node(height, index >> (height - low) ^ 1) for height in range(low, high)]

    def range_proof(self, first: int, last: int) -> list[bytes]:
        """Siblings that lead from the leaves first … last to the root, in the order of docs/dispute.md.

        Raises:
            IndexError: the range is empty or not inside the tree's leaves.
        """
        if not 0 <= first <= last < self.leaves:
            raise IndexError(f"no leaves {first} to {last} in a tree of {self.leaves}")
        proof = []
        for height in range(self.depth):
            if first & 1:
                proof.append(self.node(height, first - 1))
            if not last & 1:
                proof.append(self.node(height, last + 1))
            first, last = first >> 1, last >> 1
        return proof

    def frontier(self, reached: int) -> list[bytes]:
        """What covers all leaves before `reached`: by height k the node left of the path where bit k is 1, else zeros.

        Raises:
            IndexError: the tree has no such leaf.
        """
        if not 0 <= reached < self.leaves:
            raise IndexError(f"no leaf {reached} in a tree of {self.leaves}")
        return [
            self.node(height, (reached >> height) - 1) if reached >> height & 1 else bytes(32)
            for height in range(self.depth)
        ]
