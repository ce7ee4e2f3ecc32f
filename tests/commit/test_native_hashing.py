"""Trees hashed in C: Python's roots bit for bit, and Python wherever that cannot be had."""

import hashlib
import mmap
import platform
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.cli.common import CommandContext
from ledger.settings import load_settings
from trainer.cli.engine import open_engine
from trainer.commit import hashing
from trainer.commit.hashing import CHUNK, Kind, bytes_root, chunk_leaves, python_tree, use_tree_hasher
from trainer.commit.states import state_root
from trainer.native.compiler import Compiler, CompilerError, find_compiler, open_library
from trainer.native.hashing import (
    NativeTree,
    hash_natively,
    hashes_as_python_does,
    open_tree_hasher,
    tree_text,
)

DRAWN = random.Random(1).randbytes(300_000)
# What other processors get: 2 messages by instructions, 8 and 4 in lanes.
PROCESSORS = {
    "this one": (),
    "without AVX-512": ("-mno-avx512f",),
    "without SHA": ("-mno-avx512f", "-mno-sha"),
    "with SSE alone": ("-mno-avx", "-mno-sha"),
}
if platform.machine() != "x86_64":
    PROCESSORS = {"this one": ()}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture
def python_again() -> Iterator[None]:
    """Whatever a test installs is gone afterwards, as is what was there before."""
    use_tree_hasher(None)
    yield
    use_tree_hasher(None)


def opened(libraries: Path, processor: str = "this one", *, threads: int = 2) -> NativeTree:
    compiler = find_compiler(options=PROCESSORS[processor])
    return NativeTree(open_library(tree_text(), libraries, compiler), threads=threads)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_native_tree_of_every_processor_hashes_as_python_does(libraries: Path, processor: str) -> None:
    hasher = opened(libraries, processor)
    assert hashes_as_python_does(hasher)
    for count in range(1, 70):  # one to four pieces' worth of lanes that are not full, levels that are odd
        data = memoryview(DRAWN)[count : count + count * CHUNK - count % 3]
        leaves, root = hasher.on_threads(Kind.TENSOR, data, 2)
        assert (bytes(leaves), root) == python_tree(Kind.TENSOR, data)


@settings(max_examples=60)
@given(st.integers(1, 290_000), st.integers(0, 9_999), st.sampled_from(Kind), st.integers(1, 5))
@example(CHUNK * 64 * 4, 0, Kind.TENSOR, 4)
@example(CHUNK * 64 * 4 + 1, 1, Kind.BLOB, 64)
@example(1, 9_999, Kind.PROGRAM, 64)
def test_native_tree_any_size_kind_and_threads_gives_pythons_tree(
    libraries: Path, size: int, at: int, kind: Kind, threads: int
) -> None:
    data = memoryview(DRAWN)[at : at + size]
    leaves, root = opened(libraries).on_threads(kind, data, threads)
    assert (bytes(leaves), root) == python_tree(kind, data)


def test_native_tree_last_chunk_is_filled_with_zeros_whatever_follows_it(libraries: Path) -> None:
    hasher, data = opened(libraries), memoryview(DRAWN)[: 5 * CHUNK + 7]
    leaves = bytes(hasher(Kind.BLOB, data)[0])
    filled = DRAWN[5 * CHUNK : 5 * CHUNK + 7] + bytes(CHUNK - 7)
    assert leaves[-32:] == hashlib.sha256(b"\x00\x06" + filled).digest()
    assert hasher(Kind.BLOB, memoryview(bytes(data) + bytes(CHUNK - 7)))[1] == hasher(Kind.BLOB, data)[1]


@pytest.mark.usefixtures("python_again")
def test_use_tree_hasher_roots_and_leaves_stay_the_same(libraries: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.zeros(1), torch.zeros(1, dtype=torch.int64)]
    tensors += [torch.randn(rows, 300, generator=generator) for rows in (1, 3, 4, 40, 2_000)]
    tensors += [tensors[-1].to(torch.bfloat16), tensors[-1].T]

    def everything() -> tuple[bytes, list[bytes], list[bytes]]:
        roots = [bytes_root(kind, 6, DRAWN[:size]) for kind in Kind for size in (1, 4_095, 4_096, 4_097, 200_000)]
        return state_root(tensors), chunk_leaves(Kind.DATASET, DRAWN[:100_001]), roots

    expected = everything()
    asked: list[int] = []
    native = opened(libraries)

    def counted(kind: Kind, data: memoryview) -> tuple[memoryview, bytes]:
        asked.append(len(data))
        return native(kind, data)

    use_tree_hasher(counted)
    assert everything() == expected
    assert min(asked) == 4_096
    assert {100_001, 200_000, 2_400_000} <= set(asked)  # the last one by two threads


@pytest.mark.usefixtures("python_again")
def test_chunk_leaves_natively_leaves_a_mapped_file_free(libraries: Path, tmp_path: Path) -> None:
    use_tree_hasher(opened(libraries))
    (tmp_path / "part").write_bytes(DRAWN)
    with (
        open(tmp_path / "part", "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,  # closing fails while anybody looks at it
        memoryview(mapped) as view,
    ):
        leaves = chunk_leaves(Kind.DATASET, view)
    assert b"".join(leaves) == python_tree(Kind.DATASET, memoryview(DRAWN))[0]


def test_native_tree_called_by_several_threads_at_once(libraries: Path) -> None:
    hasher = opened(libraries)
    expected = python_tree(Kind.TENSOR, memoryview(DRAWN))[1]
    roots: list[bytes] = []

    def again() -> None:
        roots.extend(hasher.on_threads(Kind.TENSOR, memoryview(DRAWN), 3)[1] for _ in range(20))

    callers = [threading.Thread(target=again) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert roots == [expected] * 80


# ---- What is admitted ----


def replaced(old: str, new: str) -> Callable[[str], str]:
    def changed(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return changed


@pytest.mark.parametrize(
    "fault",
    [
        replaced("0x428a2f98", "0x428a2f99"),  # another function altogether
        replaced("last[CHUNK] = {0}", "last[CHUNK] = {[CHUNK - 1] = 1}"),  # wrong in a last chunk that is not full
        replaced("{mark, kind}", "{mark, kind == 4 ? 5 : kind}"),  # wrong for one kind
        replaced("2 * to > tree->counts[below]", "to > 32"),  # pads only in trees that are large
        replaced("atomic_fetch_add(&tree->next, 1)", "tree->next++ + (tree->pieces > 2)"),  # leaves a piece out
    ],
)
def test_hashes_as_python_does_finds_a_fault(libraries: Path, fault: Callable[[str], str]) -> None:
    wrong = tree_text(fault)
    hasher = NativeTree(open_library(wrong, libraries, find_compiler()), threads=2)
    assert not hashes_as_python_does(hasher)


@pytest.mark.usefixtures("python_again")
def test_hash_natively_wrong_library_leaves_python_at_work(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tree_text(replaced("0x6a09e667", "0x6a09e668"))
    monkeypatch.setattr("trainer.native.hashing.tree_text", lambda: wrong)
    use_tree_hasher(opened(libraries))
    assert not hash_natively(libraries, threads=1)
    assert hashing._tree_hasher is None


def test_open_tree_hasher_slower_than_python_is_not_admitted(libraries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_tree_hasher(libraries, threads=1) is not None
    monkeypatch.setattr("trainer.native.hashing.seconds_of", lambda hasher, data: float(hasher is not python_tree))
    assert open_tree_hasher(libraries, threads=1) is None


def test_open_tree_hasher_without_a_compiler_or_a_folder_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert open_tree_hasher(tmp_path / "file" / "libraries", threads=1) is None
    assert open_tree_hasher(tmp_path, threads=1, compiler=Compiler("/nowhere/gcc", "0" * 64)) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CompilerError):
        find_compiler()
    assert open_tree_hasher(tmp_path / "libraries", threads=1) is None


@pytest.mark.usefixtures("python_again")
def test_open_engine_hashes_natively_unless_the_reference_is_asked_for(tmp_path: Path, libraries: Path) -> None:
    def chosen(engine: str) -> None:
        places = {"TRAINLEDGER_HOME": str(tmp_path), "TRAINLEDGER_LIBRARIES": str(libraries)}
        settings = load_settings({}, {**places, "TRAINLEDGER_ENGINE": engine})
        open_engine(CommandContext(settings=settings, command="trainledger verify"))

    chosen("compiled")
    assert isinstance(hashing._tree_hasher, NativeTree)
    chosen("reference")
    assert hashing._tree_hasher is None
