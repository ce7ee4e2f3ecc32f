"""Trees hashed on a GPU: Python's roots bit for bit, here on the emulator."""

import random
from pathlib import Path

import pytest
import torch
from emulated_gpu import Emulated

from trainer.commit.hashing import Kind, python_tree
from trainer.engine.exact.cuda import CudaSource
from trainer.engine.exact.fast.plan import Plan
from trainer.native import CompilerError
from trainer.native import hashing as native
from trainer.native.cuda import hashing
from trainer.native.cuda.hashing import GpuTree, hashing_unit, open_gpu_hasher
from trainer.native.hashing import gives_python_s_hashes

DRAWN = random.Random(2).randbytes(300_000)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> GpuTree:
    source = CudaSource((hashing_unit(),), (), Plan((), (), (), (), {}), 0)
    return GpuTree(Emulated(source, tmp_path_factory.mktemp("hashing"), tensor=False, quickly=False), "cpu")


def test_gpu_tree_gives_python_s_hashes(tree: GpuTree) -> None:
    assert gives_python_s_hashes(tree)


@pytest.mark.parametrize("size", [1, 3, 1023, 1024, 1025, 3000, 5 * 1024, 33 * 1024 + 7, 100_000])
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_gpu_tree_of_bytes_that_lie_there_is_python_s(size: int, offset: int, tree: GpuTree) -> None:
    """Wherever they begin."""
    there = torch.frombuffer(bytearray(DRAWN), dtype=torch.uint8)[offset : offset + size]
    leaves, root = tree.tree(Kind.STATE, there)
    found = (leaves.numpy().tobytes(), root.numpy().tobytes())
    assert found == python_tree(Kind.STATE, memoryview(DRAWN)[offset : offset + size])


def test_gives_python_s_hashes_finds_one_wrong_bit(tree: GpuTree) -> None:
    def wrong(kind: Kind, data: memoryview) -> tuple[bytes, bytes]:
        leaves, root = tree(kind, data)
        return bytes(leaves), bytes([root[0] ^ (len(data) > 200_000), *root[1:]])

    assert not gives_python_s_hashes(wrong)


def test_open_gpu_hasher_is_the_one_that_hashes_right_and_faster(
    tree: GpuTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(hashing, "find_nvrtc", lambda _: None)
    monkeypatch.setattr(hashing, "build_units", lambda *_: [])
    monkeypatch.setattr(hashing, "Driver", lambda _: None)
    monkeypatch.setattr(hashing, "GpuKernels", lambda *_: None)
    monkeypatch.setattr(hashing, "GpuTree", lambda *_: tree)
    monkeypatch.setattr(hashing, "_MEASURED", 5000)
    times = {tree: 1.0, python_tree: 2.0}
    monkeypatch.setattr(hashing, "seconds_of", lambda hasher, _: times[hasher])
    assert open_gpu_hasher("cuda", tmp_path, rivals=[python_tree]) is tree
    times[tree] = 3.0
    assert open_gpu_hasher("cuda", tmp_path, rivals=[python_tree]) is None
    assert open_gpu_hasher("cuda", tmp_path, rivals=[]) is tree
    monkeypatch.setattr(hashing, "gives_python_s_hashes", lambda _: False)
    assert open_gpu_hasher("cuda", tmp_path, rivals=[]) is None


def test_open_gpu_hasher_without_what_it_needs_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: object) -> None:
        raise CompilerError("There is no NVRTC here.")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(hashing, "find_nvrtc", none)
    assert open_gpu_hasher("cuda", tmp_path, rivals=[]) is None


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_hash_natively_takes_the_gpu_where_that_is_the_device(
    device: str, tree: GpuTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    asked = []
    monkeypatch.setattr(native, "use_tree_hasher", taken.append)
    monkeypatch.setattr(native, "open_tree_hasher", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hashing, "open_gpu_hasher", lambda *given, rivals: asked.append((given[0], rivals)) or tree)
    assert native.hash_natively(tmp_path, threads=1, device=device) is (device != "cpu")
    assert taken == [None if device == "cpu" else tree]
    assert asked == ([] if device == "cpu" else [(device, [python_tree])])
