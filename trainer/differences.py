"""States as difference files: what is new in a slot's state, against the base of its round (docs/rounds.md).

Whoever reads one rebuilds the state and compares its root, so nothing in a file is believed.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import math
import shutil
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, ResourceError
from trainer.checkpoints import load_state
from trainer.commit.states import state_root
from trainer.commit.tensors import tensor_bytes
from trainer.engine.exact.reference import canonical_nan, quantise_rows
from trainer.engine.state import State, check_state
from trainer.program.layout import ANCHOR, PARAMETER, StateLayout, TensorSpec
from trainer.store import BlobStore

_MAGIC = b"TLXD\x00\x01\x00\x00"
_HEADER = struct.Struct(">8s32sI")
_BITS = 8


class Form(enum.IntEnum):
    """How a tensor stands in the file."""

    SAME = 0
    ZEROS = 1
    CODES = 2
    RAW = 3


def difference_path(root: bytes) -> str:
    """Where the difference file of a state lies in a store."""
    return f"states/{root_hex(root)}.difference"


def save_difference(
    store: BlobStore,
    state: State,
    base: State,
    layout: StateLayout,
    *,
    base_root: bytes,
    kept: Path | None = None,
) -> bytes:
    """Stores a state as a difference to a round's base, under the state's root, and gives the root. Safe to repeat.

    Args:
        base_root: the base's state root, which the file names.
        kept: a folder of this machine's where the file stays too, for `load_difference`.

    Raises:
        ResourceError: a disk is full. DataError: the store does not answer.
        ValueError: a state does not follow the layout.
    """
    check_state(state, layout)
    check_state(base, layout)
    root = state_root(state.values())
    with _temporary(store) as local:
        with _full_disk(local), local.open("wb") as file:
            file.writelines(difference_of(state, base, base_root=base_root))
        store.put_file(difference_path(root), local)
        if kept is not None:
            with _full_disk(kept):
                target = kept / difference_path(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(local, target.with_name(target.name + ".part"))
                target.with_name(target.name + ".part").replace(target)
    return root


def load_difference(
    store: BlobStore,
    root: bytes,
    base: State,
    layout: StateLayout,
    *,
    base_root: bytes,
    kept: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> State:
    """Fetches a state's difference file, rebuilds the state on its round's base, and checks its root.

    Tensors that are the base's are the base's own objects, so a merge of such states holds them once.

    Args:
        kept: a folder where the file may lie already; one that is no good is removed, and the store's taken.

    Raises:
        BlobMissing: it is not in the store. BlobCorrupt: it is no difference to this base, or of another state.
        ResourceError: a disk is full. DataError: the store does not answer.
    """
    path = difference_path(root)
    if kept is not None and (kept / path).exists():
        try:
            return _verified(kept / path, root, base, layout, base_root=base_root)
        except BlobCorrupt:
            (kept / path).unlink()
    with _temporary(store) as local:
        store.get_file(path, local, max_bytes=largest_difference(layout), progress=progress)
        return _verified(local, root, base, layout, base_root=base_root)


def _verified(local: Path, root: bytes, base: State, layout: StateLayout, *, base_root: bytes) -> State:
    path = difference_path(root)
    with local.open("rb") as file:
        state = rebuilt(file, base, layout, base_root=base_root, name=path)
    actual = state_root(state.values())
    if actual != root:
        raise BlobCorrupt(path, f"what it rebuilds has the root {root_hex(actual)}")
    return state


def load_slot_state(
    store: BlobStore, root: bytes, base: State, layout: StateLayout, *, base_root: bytes, folder: Path | None = None
) -> State:
    """A slot's state, from its difference file or, where that is missing or damaged, whole, and checked.

    Args:
        folder: for the whole state, as in `load_state`; a difference file that was kept there is taken, too.

    Raises:
        BlobMissing: neither is in the store. BlobCorrupt: what is there is damaged.
        ResourceError: a disk is full. DataError: the store does not answer.
    """
    try:
        return load_difference(store, root, base, layout, base_root=base_root, kept=folder)
    except BlobMissing:
        return load_state(store, root, layout, folder)
    except BlobCorrupt as damaged:
        try:
            return load_state(store, root, layout, folder)
        except BlobMissing:
            raise damaged from None


@contextlib.contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    """Makes a full disk of this machine's a ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"The disk is full: {path} cannot be written.",
            remedy="Free some space and run the same command again: it goes on from what was saved.",
        ) from error


@contextlib.contextmanager
def _temporary(store: BlobStore) -> Iterator[Path]:
    """A path beside the store's cache, for as long as it is needed."""
    if store.cache is not None:
        store.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.cache) as folder:
        yield Path(folder) / "state.difference"


def largest_difference(layout: StateLayout) -> int:
    """Bytes of the longest file that is read for a layout: each tensor raw."""
    return _HEADER.size + layout.total_bytes + len(layout)


def difference_of(state: State, base: State, *, base_root: bytes) -> Iterator[bytes | memoryview]:
    """The file's bytes, piece by piece, a tensor at a time."""
    yield _HEADER.pack(_MAGIC, base_root, len(state))
    for name, tensor in state.items():
        tensor = tensor.contiguous()
        if _same(tensor, base[name]):
            yield bytes((Form.SAME,))
        elif _same(tensor, torch.zeros_like(tensor)):
            yield bytes((Form.ZEROS,))
        elif (coded := _coded(tensor, _anchor_of(name, base))) is not None:
            scales, codes = coded
            yield bytes((Form.CODES,))
            yield tensor_bytes(scales)
            yield tensor_bytes(codes)
        else:
            yield bytes((Form.RAW,))
            yield tensor_bytes(tensor)


def rebuilt(file: BufferedIOBase, base: State, layout: StateLayout, *, base_root: bytes, name: str = "") -> State:
    """The state that a difference file describes; its root is the caller's to check.

    Reads one tensor at a time, and no more bytes than the layout has use for.

    Raises:
        BlobCorrupt: not a difference file to this base, or bytes missing or left over.
    """
    check_state(base, layout)
    reader = _Reader(file, name or "The difference file")
    magic, named, count = _HEADER.unpack(reader.take(_HEADER.size))
    if magic != _MAGIC:
        reader.refuse("it is no difference file of version 1")
    if named != base_root:
        reader.refuse(f"it is a difference to the state {root_hex(named)}, and not to {root_hex(base_root)}")
    if count != len(layout):
        reader.refuse(f"it has {count} tensors, and the program {len(layout)}")
    state: State = OrderedDict()
    for spec in layout.tensors:
        state[spec.name] = _read_tensor(reader, spec, base)
    if file.read(1):
        reader.refuse("it has bytes left over")
    return state


class _Reader:
    """Takes bytes off a file; every refusal names it."""

    def __init__(self, file: BufferedIOBase, name: str) -> None:
        self._file, self.name = file, name

    def refuse(self, problem: str) -> NoReturn:
        raise BlobCorrupt(self.name, problem)

    def take(self, count: int) -> bytearray:
        data = bytearray(count)
        view, at = memoryview(data), 0
        while at < count:
            got = self._file.readinto(view[at:])
            if not got:
                self.refuse(f"it is cut short: {count - at} bytes are missing")
            at += got
        return data

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """Little-endian elements, as a tensor of its own memory."""
        return torch.frombuffer(self.take(math.prod(shape) * dtype.itemsize), dtype=dtype).reshape(shape)


def _read_tensor(reader: _Reader, spec: TensorSpec, base: State) -> Tensor:
    form = reader.take(1)[0]
    if form == Form.SAME:
        return base[spec.name]
    if form == Form.ZEROS:
        return torch.zeros(spec.shape, dtype=spec.dtype)
    if form == Form.RAW:
        return reader.tensor(spec.dtype, spec.shape)
    anchor = _anchor_of(spec.name, base)
    if form != Form.CODES or anchor is None:
        reader.refuse(f"{spec.name} stands in the form {form}, which it cannot have")
    rows, row = _rows_of(spec.shape)
    scales = reader.tensor(torch.float32, (rows, 1))
    return _unpacked(anchor, reader.tensor(torch.int8, (rows, row)), scales)


def _anchor_of(name: str, base: State) -> Tensor | None:
    return base.get(ANCHOR + name.removeprefix(PARAMETER)) if name.startswith(PARAMETER) else None


def _rows_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows of the last axis, and their length; a tensor of fewer than two axes is one row."""
    row = shape[-1] if shape else 1
    return math.prod(shape) // row, row


def _coded(tensor: Tensor, anchor: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Scales [rows, 1] and int8 codes [rows, row] that give exactly this tensor, or None where there are none.

    Quantising the difference again finds them but where storing it has rounded; then a row's scale was the next power
    of two, up or down.
    """
    rows, row = _rows_of(tuple(tensor.shape))
    if anchor is None or rows * (4 + row) >= tensor.numel() * 4:  # a scale of each number would be longer than it
        return None
    difference = tensor.reshape(rows, row) - anchor.reshape(rows, row)
    _, found = quantise_rows(difference, _BITS)
    wanted = _bits(tensor).reshape(rows, row)
    scales, codes = found.clone(), torch.zeros(rows, row, dtype=torch.int8)
    left = torch.ones(rows, dtype=torch.bool)
    for factor in (1.0, 0.5, 2.0):
        tried = found * factor
        code = torch.nan_to_num(torch.round(difference / tried), 0.0, 0.0, 0.0).clamp(-127, 127).to(torch.int8)
        right = left & (_bits(_unpacked(anchor, code, tried)).reshape(rows, row) == wanted).all(-1)
        scales[right], codes[right] = tried[right], code[right]
        left &= ~right
    return None if bool(left.any()) else (scales, codes)


def _unpacked(anchor: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """float32(anchor + code × scale), of the anchor's shape."""
    return canonical_nan(anchor + (codes.to(torch.float32) * scales).reshape(anchor.shape))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether tensors have the same bytes: zeros and NaNs told apart."""
    return torch.equal(*(one.contiguous().reshape(-1).view(torch.uint8) for one in (a, b)))
