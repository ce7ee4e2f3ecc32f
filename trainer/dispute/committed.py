"""Bytes under a sealed root, in chunks: tensors and parts of a data set, with the proofs of what is read from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor

from trainer.commit.hashing import CHUNK, Kind, chunk_leaves, leaf, seal
from trainer.commit.tensors import DTYPE_NUMBERS, tensor_bytes
from trainer.commit.trees import Tree
from trainer.engine.batches import TokenData
from trainer.program.exact.operations import Part

_TOKENS = 6  # dtype number of uint16
# Bytes of an element by dtype number (formats.md, section 1); uint16 stands in data sets only.
WIDTHS = {1: 4, 2: 8, 3: 4, 4: 1, _TOKENS: 2, 9: 2}


class CommittedBytes:
    """Data of a known dtype under its root. Hashed when a proof, a node or the root is first asked for.

    Args:
        data: at least one byte; not copied, and not to be changed.
        leaves: hashes of the chunks where they are known.
    """

    def __init__(self, kind: Kind, dtype: int, data: memoryview, leaves: Sequence[bytes] | None = None) -> None:
        self.kind, self.dtype, self.data = kind, dtype, data
        self._leaves = leaves

    @staticmethod
    def of_tensor(tensor: Tensor) -> CommittedBytes:
        """A tensor's data; the tensor is kept, not copied, where it lies contiguous in CPU memory."""
        return CommittedBytes(Kind.TENSOR, DTYPE_NUMBERS[tensor.dtype], tensor_bytes(tensor))

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    @property
    def chunks(self) -> int:
        """Number of chunks, the last partial one counted."""
        return -(-self.size // CHUNK)

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return WIDTHS[self.dtype]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.size // self.width

    @cached_property
    def tree(self) -> Tree:
        """The tree over the chunks."""
        return Tree(self.kind, chunk_leaves(self.kind, self.data) if self._leaves is None else self._leaves)

    @property
    def root(self) -> bytes:
        """The sealed root, 32 bytes."""
        return seal(self.kind, self.dtype, self.size, self.tree.root)

    def chunk(self, index: int) -> bytes:
        """The 1,024 bytes of a chunk, zeros after the data's end. Raises IndexError where there is no such chunk."""
        if not 0 <= index < self.chunks:
            raise IndexError(f"no chunk {index} in a tensor of {self.chunks}")
        return bytes(self.data[index * CHUNK : (index + 1) * CHUNK]).ljust(CHUNK, b"\0")

    def bits(self, element: int) -> int:
        """The little-endian bytes of an element as an unsigned number. Raises IndexError where there is none."""
        if not 0 <= element < self.elements:
            raise IndexError(f"no element {element} in a tensor of {self.elements}")
        return int.from_bytes(self.data[element * self.width : (element + 1) * self.width], "little")

    def array(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """All bytes as uint8 [size], not copied."""
        return np.frombuffer(self.data, np.uint8)


class CommittedData(TokenData, Protocol):
    """What disputes need of a data set: its tokens, its root, and the chunk hashes that lie beside it."""

    @property
    def root(self) -> bytes: ...

    @property
    def digests(self) -> Sequence[PartLeaves]:
        """Of the four parts in order."""


class PartLeaves(Protocol):
    """Size in bytes and leaf hashes of one part."""

    @property
    def size(self) -> int: ...

    @property
    def leaves(self) -> list[bytes]: ...


class DatasetProofs:
    """A data set's parts under its root."""

    def __init__(self, data: CommittedData) -> None:
        self.data = data
        self._known: dict[Part, CommittedBytes] = {}

    @property
    def root(self) -> bytes:
        """The data set's root."""
        return self.data.root

    def part(self, part: Part) -> CommittedBytes:
        """The tokens of a part."""
        if part not in self._known:
            tokens = self.data.train if part is Part.TRAIN else self.data.heldout
            raw = np.ascontiguousarray(tokens).view(np.uint8).data
            self._known[part] = CommittedBytes(Kind.DATASET, _TOKENS, raw, self.data.digests[part].leaves)
        return self._known[part]

    def path(self, part: Part) -> list[bytes]:
        """Siblings that lead from the part's root to the data set's Merkle root."""
        return self._tree.path(part)

    @cached_property
    def _tree(self) -> Tree:
        types = (0, 0, _TOKENS, _TOKENS)
        roots = [
            seal(Kind.DATASET, number, one.size, Tree(Kind.DATASET, one.leaves).root)
            for number, one in zip(types, self.data.digests, strict=True)
        ]
        return Tree(Kind.DATASET, [leaf(Kind.DATASET, root) for root in roots])
