"""Trees over chunks hashed on a GPU, once it has shown that it hashes as Python does (formats §1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ledger.errors import ResourceError
from trainer.commit.hashing import CHUNK, Kind, TreeHasher, node, pad
from trainer.engine.exact.cuda import Kernels, Launch, Run, Unit
from trainer.engine.exact.fast.plan import Base
from trainer.native.compiler import CompilerError
from trainer.native.cuda.compiler import build_units, find_nvrtc
from trainer.native.cuda.driver import Driver, DriverError, GpuKernels, Launching, Recorder
from trainer.native.hashing import gives_python_s_hashes, seconds_of

_DIGEST, _THREADS, _MOST_BLOCKS = 32, 128, 2**20
_LEAF, _NODE = 0, 1
_MEASURED = 2**26  # bytes that are hashed to see who is faster


def hashing_unit() -> Unit:
    """The kernels, as CUDA."""
    engine, here = resources.files("trainer.engine.exact.native"), resources.files("trainer.native") / "sha256"
    text = (engine / "device.h").read_text() + (here / "tree.cuh").read_text()
    return Unit(hashlib.sha256(text.encode()).hexdigest(), text, ("tl_hash_chunks", "tl_hash_pairs"))


class GpuTree:
    """A tree hasher on a GPU, for data there and elsewhere. Not for two threads at a time.

    Args:
        kernels: those of `hashing_unit`, whose launches follow each other.
    """

    def __init__(self, kernels: Kernels, device: torch.device | str) -> None:
        self._kernels, self._device = kernels, torch.device(device)

    def __call__(self, kind: Kind, data: memoryview) -> tuple[memoryview, bytes]:
        """As `python_tree`: leaf hashes one after another, and the Merkle root."""
        given = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
        leaves, root = self.tree(kind, given.to(self._device))
        return leaves.cpu().numpy().data, root.cpu().numpy().tobytes()

    def tree(self, kind: Kind, data: Tensor) -> tuple[Tensor, Tensor]:
        """Of bytes on the GPU, uint8 [n] with n ≥ 1: leaf hashes, uint8 [32 · leaves], and the root, uint8 [32]."""
        count = -(-data.numel() // CHUNK)
        if data.numel() % CHUNK or data.data_ptr() % 16:
            whole = torch.zeros(count * CHUNK, dtype=torch.uint8, device=self._device)
            whole[: data.numel()] = data
            data = whole
        leaves = self._hashed("tl_hash_chunks", data, count, _LEAF, kind)
        level, padding = leaves, pad(kind)
        while count > 1:
            if count % 2:
                last = torch.frombuffer(bytearray(padding), dtype=torch.uint8).to(self._device)
                level = torch.cat([level, last])
            count = (count + 1) // 2
            level = self._hashed("tl_hash_pairs", level, count, _NODE, kind)
            padding = node(kind, padding, padding)
        return leaves, level

    def _hashed(self, kernel: str, payloads: Tensor, count: int, mark: int, kind: Kind) -> Tensor:
        digests = torch.empty(count * _DIGEST, dtype=torch.uint8, device=self._device)
        blocks = min(-(-count // _THREADS), _MOST_BLOCKS)
        # What a kernel is given are words, addresses or not; here two of them are numbers.
        words = [digests.data_ptr(), payloads.data_ptr(), count, mark | kind << 8]
        launch = Launch(kernel, blocks, _THREADS, tuple((base, 0) for base in list(Base)[: len(words)]), 0)
        self._kernels.prepare([launch], words)()
        return digests


def at_once(device: torch.device) -> Recorder:
    """A recorder that records nothing: launches go to the stream that is PyTorch's at the time."""

    def recorded(launch: Launching) -> Run:
        def run() -> None:
            with torch.cuda.device(device):
                launch(torch.cuda.current_stream().cuda_stream)

        return run

    return recorded


def open_gpu_hasher(device: str, folder: Path, *, rivals: Sequence[TreeHasher]) -> GpuTree | None:
    """A hasher on a GPU that gives Python's hashes, in less time than the rivals for data that is not there yet.

    Args:
        folder: where compiled programs are kept; only for files that nobody else can write.
    """
    target = torch.device(device)
    try:
        units = [hashing_unit()]
        made = build_units(units, folder, find_nvrtc(torch.cuda.get_device_capability(target)))
        kernels = GpuKernels(units, made, Driver(target.index or 0), at_once(target))
    except (CompilerError, DriverError, ResourceError):
        # Nothing is lost but time; where the folder is at fault, the engine says so as soon as it needs it.
        return None
    hasher = GpuTree(kernels, target)
    data = memoryview(bytes(_MEASURED))
    if not gives_python_s_hashes(hasher):
        return None
    return hasher if all(seconds_of(hasher, data) < seconds_of(rival, data) for rival in rivals) else None
