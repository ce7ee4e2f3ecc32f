"""Reading GGUF files: the format of llama.cpp's models (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

Only what models given as plain or block-quantised numbers need; every number comes out as float32.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ledger.errors import BlobCorrupt, SpecificationError

_MAGIC, _VERSION = b"GGUF", 3
_MOST_ENTRIES = 2**20  # of a table or a list; far above any real file's, far below what would fill the memory
_MOST_DIMENSIONS = 4
# Value types of the metadata: 8 is a string, 9 a list, the others one number each.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _LIST = 8, 9

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Blocks:
    """A tensor type: numbers in a block, bytes of a block, and what makes float32 of blocks [n, bytes] uint8."""

    name: str
    numbers: int
    size: int
    decode: Callable[[Array], Array]


def _half(blocks: Array) -> Array:
    return blocks.copy().view("<f2").astype(np.float32)


def _four_bits(blocks: Array) -> Array:
    """Scale and least value as float16, then 16 bytes: the low halves are numbers 0 to 15, the high ones 16 to 31."""
    scale, least, packed = _half(blocks[:, :2]), _half(blocks[:, 2:4]), blocks[:, 4:]
    return scale * np.concatenate((packed & 15, packed >> 4), axis=1).astype(np.float32) + least


def _eight_bits(blocks: Array) -> Array:
    """Scale as float16, then 32 signed bytes."""
    return _half(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


_TYPES = {
    0: _Blocks("F32", 1, 4, lambda blocks: blocks.copy().view("<f4")),
    1: _Blocks("F16", 1, 2, _half),
    3: _Blocks("Q4_1", 32, 20, _four_bits),
    8: _Blocks("Q8_0", 32, 34, _eight_bits),
}


@dataclass(frozen=True)
class _Entry:
    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """A file's metadata and tensors; tensors are read when they are asked for.

    Attributes:
        metadata: by key: numbers, truth values, strings, or lists of them.
    """

    def __init__(self, path: Path) -> None:
        """Reads the tables.

        Raises:
            BlobCorrupt: the file is no GGUF file of version 3, or ends too early. OSError: it cannot be opened.
        """
        self._name = path.name
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                raise BlobCorrupt(self._name, "it is empty")
            self._bytes = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        if self._take(4) != _MAGIC:
            raise BlobCorrupt(self._name, "it does not begin as a GGUF file does")
        version = self._number(4)
        if version != _VERSION:
            raise BlobCorrupt(self._name, f"it has version {version} of the format, and only {_VERSION} is read")
        tensors, entries = self._count(), self._count()
        self.metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self._string()
            self.metadata[key] = self._value(self._number(4))
        self._entries = dict(self._entry() for _ in range(tensors))
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise BlobCorrupt(self._name, f"its alignment is {alignment!r}")
        self._data = -(-self._at // alignment) * alignment

    @property
    def names(self) -> list[str]:
        """The tensors' names."""
        return list(self._entries)

    def tensor(self, name: str) -> Tensor:
        """A tensor as float32, dimensions in PyTorch's order (the file has them the other way round).

        Raises:
            BlobCorrupt: there is none of that name, it reaches past the file's end, or has half a block.
            SpecificationError: its numbers are of a type that is not read here.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise BlobCorrupt(self._name, f"it has no tensor {name}")
        kind = _TYPES.get(entry.kind)
        if kind is None:
            raise SpecificationError(
                f"The tensor {name} of {self._name} has the GGUF type {entry.kind}, which is not read here.",
                remedy=f"Use a file whose tensors are {', '.join(one.name for one in _TYPES.values())}.",
            )
        elements = math.prod(entry.shape)
        blocks, rest = divmod(elements, kind.numbers)
        first, size = self._data + entry.offset, blocks * kind.size
        if rest or first + size > len(self._bytes):
            raise BlobCorrupt(self._name, f"the tensor {name} does not fit into it")
        data = np.frombuffer(self._bytes, dtype=np.uint8, count=size, offset=first).reshape(blocks, kind.size)
        return torch.from_numpy(kind.decode(data).reshape(entry.shape))

    def _take(self, count: int) -> bytes:
        taken = self._bytes[self._at : self._at + count]
        if len(taken) != count:
            raise BlobCorrupt(self._name, "it ends too early")
        self._at += count
        return taken

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _count(self) -> int:
        count = self._number(8)
        if count > _MOST_ENTRIES:
            raise BlobCorrupt(self._name, f"a table of it has {count} entries")
        return count

    def _string(self) -> str:
        length = self._number(8)
        try:
            return self._take(min(length, len(self._bytes))).decode()
        except UnicodeDecodeError as error:
            raise BlobCorrupt(self._name, "a name in it is not UTF-8") from error

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _LIST:
            inner = self._number(4)
            if inner == _LIST:
                raise BlobCorrupt(self._name, "a list in it holds lists")
            return [self._value(inner) for _ in range(self._count())]
        letter = _NUMBERS.get(kind)
        if letter is None:
            raise BlobCorrupt(self._name, f"a value in it has the unknown type {kind}")
        return struct.unpack("<" + letter, self._take(struct.calcsize("<" + letter)))[0]

    def _entry(self) -> tuple[str, _Entry]:
        name, dimensions = self._string(), self._number(4)
        if dimensions > _MOST_DIMENSIONS:
            raise BlobCorrupt(self._name, f"the tensor {name} has {dimensions} dimensions")
        shape = tuple(self._number(8) for _ in range(dimensions))
        kind, offset = self._number(4), self._number(8)
        return name, _Entry(shape[::-1], kind, offset)
