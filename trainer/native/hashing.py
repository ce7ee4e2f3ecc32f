"""Trees over chunks hashed in C by several threads, once the C has shown that it hashes as Python does (formats §1)."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from ledger.errors import ResourceError
from trainer.commit.hashing import CHUNK, Kind, TreeHasher, pad, python_tree, use_tree_hasher
from trainer.native.compiler import Compiler, CompilerError, Units, find_compiler, open_library

_FILES = ("sha256.h", "instructions.h", "lanes.h", "tree.c")
_DIGEST = 32
# Bytes for which another thread is worth its start, and waiting for it where the machine is busy: 0.3 ms of hashing.
_A_THREAD = 1024 * CHUNK
_TIMEOUT = 60.0  # seconds; compiling takes half of one
# Around a chunk, the chunks that are hashed at once, the 64 that a thread takes at a time, and several of these.
_TESTED = (1, 2, 1022, 1023, 1024, 1025, 2048, 3072, 15_360, 16_384, 16_385, 33_000, 65_536, 65_537, 131_073, 262_144)


@dataclass(frozen=True)
class _Text:
    key: str
    units: tuple[str, ...]


class NativeTree:
    """A tree hasher in C. Gives Python's lock back while it works; any thread may call it at any time.

    Args:
        threads: 1 to 64, the most that it starts.
    """

    def __init__(self, library: ctypes.CDLL, *, threads: int) -> None:
        self._threads = threads
        self._size, self._hash = library.tl_tree_bytes, library.tl_tree
        self._size.argtypes, self._size.restype = [ctypes.c_size_t], ctypes.c_size_t
        address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        self._hash.argtypes, self._hash.restype = [address, size, number, ctypes.c_char_p, number, address], None

    def __call__(self, kind: Kind, data: memoryview) -> tuple[memoryview, bytes]:
        """As `python_tree`: leaf hashes one after another, and the Merkle root."""
        return self.on_threads(kind, data, max(1, min(self._threads, len(data) // _A_THREAD)))

    def on_threads(self, kind: Kind, data: memoryview, threads: int) -> tuple[memoryview, bytes]:
        """The same on so many threads, however little there is for each."""
        given = np.frombuffer(data, np.uint8)  # an address of what may not be written, which ctypes does not give
        made = np.empty(self._size(given.size), np.uint8)
        self._hash(_address(given), given.size, kind, pad(kind), threads, _address(made))
        leaves = made[: -(-given.size // CHUNK) * _DIGEST]
        return leaves.data, made[-_DIGEST:].tobytes()


def hash_natively(folder: Path, *, threads: int, device: str = "cpu") -> bool:
    """Has this process hash trees in C, or on a GPU where that is faster, and in Python where neither can be had.

    Returns:
        Whether trees are not hashed in Python.
    """
    hasher: TreeHasher | None = open_tree_hasher(folder, threads=threads)
    if device != "cpu" and torch.cuda.is_available():
        from trainer.native.cuda.hashing import open_gpu_hasher  # here: it needs this module

        hasher = open_gpu_hasher(device, folder, rivals=[hasher or python_tree]) or hasher
    use_tree_hasher(hasher)
    return hasher is not None


def open_tree_hasher(folder: Path, *, threads: int, compiler: Compiler | None = None) -> NativeTree | None:
    """A hasher that gives Python's hashes in less time than Python, or None where there is none.

    Args:
        folder: where libraries are kept; only for files that nobody else can write.
        threads: 1 to 64, the most that it starts.
    """
    try:
        library = open_library(tree_text(), folder, compiler or find_compiler(), timeout=_TIMEOUT)
    except (CompilerError, ResourceError):
        # Nothing is lost but time; where the folder is at fault, the engine says so as soon as it needs it.
        return None
    hasher = NativeTree(library, threads=threads)
    return hasher if hashes_as_python_does(hasher) and _is_faster(hasher) else None


def hashes_as_python_does(hasher: NativeTree) -> bool:
    """Compares leaf hashes and roots on one thread and on three, as `gives_python_s_hashes`."""
    return all(gives_python_s_hashes(functools.partial(_on_threads, hasher, threads=threads)) for threads in (1, 3))


def _on_threads(hasher: NativeTree, kind: Kind, data: memoryview, *, threads: int) -> tuple[memoryview, bytes]:
    return hasher.on_threads(kind, data, threads)


def gives_python_s_hashes(hasher: TreeHasher) -> bool:
    """Compares leaf hashes and roots of random bytes of every size at which something could go wrong."""
    drawn = memoryview(random.Random(0).randbytes(max(_TESTED) + 1))
    for number, size in enumerate(_TESTED):
        kind = list(Kind)[number % len(Kind)]
        data = drawn[number % 2 : number % 2 + size]
        leaves, root = hasher(kind, data)
        if (bytes(leaves), root) != python_tree(kind, data):
            return False
    return True


def _is_faster(hasher: NativeTree) -> bool:
    """Whether it beats Python on one thread; where OpenSSL knows the processor and this C does not, it may not."""
    data = memoryview(bytes(max(_TESTED)))
    return seconds_of(lambda kind, data: hasher.on_threads(kind, data, 1), data) < seconds_of(python_tree, data)


def seconds_of(hasher: TreeHasher, data: memoryview) -> float:
    """Seconds that hashing data takes: the least of three times, because the machine may be busy."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        hasher(Kind.TENSOR, data)
        times.append(time.perf_counter() - began)
    return min(times)


def tree_text(change: Callable[[str], str] = str) -> Units:
    """The C of the hasher; tests change it."""
    place = resources.files("trainer.native") / "sha256"
    text = change("".join((place / name).read_text() for name in _FILES))
    return _Text(hashlib.sha256(text.encode()).hexdigest(), (text,))


def _address(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address
