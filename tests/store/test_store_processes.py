"""Stores under several processes, kills, and addresses that nobody should write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import BlobCorrupt, BlobMissing, DataError, SettingsError, ToolMissing
from trainer.store import BlobStore

SIZE = 3 * 1024 * 1024
PUTS = """
import sys
from pathlib import Path
from trainer.store import BlobStore
store, letter, count = BlobStore(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
local = Path(sys.argv[1]).parent / f"local-{sys.argv[2]}"
local.write_bytes(letter * 3145728)
print("ready", flush=True)
for turn in range(count):
    store.put_file("a/x", local) if turn % 2 else store.put_bytes("a/x", letter * 3145728)
"""
GETS = """
import sys, time
from pathlib import Path
from trainer.store import BlobStore
def slowly(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))
BlobStore(sys.argv[1]).get_file("x", Path(sys.argv[2]), progress=slowly)
print("whole", flush=True)
"""


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[BlobStore]:
    yield BlobStore(f"memory://{tmp_path.name}", pause=0.01)
    fsspec.filesystem("memory").store.clear()


def python(script: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.PIPE, text=True)


def test_put_two_processes_at_once_leave_one_whole_blob(tmp_path: Path) -> None:
    url = str(tmp_path / "s")
    writers = [python(PUTS, url, letter, "12") for letter in "ab"]
    store = BlobStore(url)
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if store.exists("a/x"):
            data = store.get_bytes("a/x", max_bytes=SIZE)
            assert len(data) == SIZE
            assert len(set(data[:: SIZE // 64])) == 1
            seen.add(data[:1])
    for writer in writers:
        assert writer.communicate()[0] == "ready\n"
        assert writer.returncode == 0
    assert seen <= {b"a", b"b"}
    assert [path.name for path in (tmp_path / "s" / "a").iterdir()] == ["x"]


def test_put_killed_leaves_the_old_blob_and_the_next_put_works(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "s"))
    store.put_bytes("a/x", b"old")
    writer = python(PUTS, str(tmp_path / "s"), "n", "1000")
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    time.sleep(0.05)
    writer.kill()
    writer.communicate()
    assert store.get_bytes("a/x", max_bytes=SIZE) in (b"old", b"n" * SIZE)
    store.put_bytes("a/x", b"new")
    assert store.get_bytes("a/x", max_bytes=3) == b"new"


def test_get_file_killed_goes_on_in_another_process(tmp_path: Path) -> None:
    store, data = BlobStore(str(tmp_path / "s")), os.urandom(9 << 20)
    store.put_bytes("x", data)
    reader = python(GETS, str(tmp_path / "s"), str(tmp_path / "t"), "60")
    assert reader.stdout is not None
    assert reader.stdout.readline() == f"{4 << 20}\n"
    os.kill(reader.pid, signal.SIGKILL)
    reader.communicate()
    assert not (tmp_path / "t").exists()
    again = python(GETS, str(tmp_path / "s"), str(tmp_path / "t"), "0")
    assert again.communicate()[0] == f"{8 << 20}\n{9 << 20}\nwhole\n"
    assert (tmp_path / "t").read_bytes() == data
    assert not (tmp_path / "t.part").exists()


@settings(max_examples=30, deadline=None)
@given(total=st.integers(0, 3000), kept=st.integers(0, 4000))
def test_get_file_any_left_over_part_ends_in_the_whole_blob(
    tmp_path_factory: pytest.TempPathFactory, total: int, kept: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    data = bytes(number % 251 for number in range(total))
    store = BlobStore(str(folder / "s"))
    store.put_bytes("x", data)
    # A part is a beginning of the blob, or, where it is longer, of another version of it.
    (folder / "t.part").write_bytes(data[:kept] if kept <= total else b"?" * kept)
    store.get_file("x", folder / "t")
    assert (folder / "t").read_bytes() == data
    assert sorted(path.name for path in folder.iterdir()) == ["s", "t"]


def test_get_file_store_cut_short_under_the_reader_refused(memory: BlobStore, tmp_path: Path) -> None:
    memory.put_bytes("x", b"d" * (5 << 20))
    real = memory._fs

    class Shrinking:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def cat_file(self, path: str, start: int, end: int) -> bytes:
            return b"" if start else bytes(real.cat_file(path, start, end))

    memory._fs = Shrinking()
    with pytest.raises(BlobCorrupt, match=f"the store says {5 << 20} bytes but sends {4 << 20}") as caught:
        memory.get_file("x", tmp_path / "t")
    assert caught.value.path == "x"
    memory._fs = real
    memory.get_file("x", tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == b"d" * (5 << 20)


HOSTILE = ["..", "../x", "a/../../x", "/x", "//x", "a/..", "..\\x", "a\\..\\x", "x\0", "", "a/../b"]


@pytest.mark.parametrize("path", HOSTILE)
def test_every_call_refuses_a_path_outside_the_store(memory: BlobStore, tmp_path: Path, path: str) -> None:
    (tmp_path / "x").write_text("not yours")
    folder = BlobStore(str(tmp_path / "s" / "deep"))
    for store in (folder, memory):
        calls: list[Callable[[], object]] = [
            lambda store=store: store.put_bytes(path, b"1"),
            lambda store=store: store.put_file(path, tmp_path / "x"),
            lambda store=store: store.get_bytes(path, max_bytes=99),
            lambda store=store: store.get_file(path, tmp_path / "t"),
            lambda store=store: store.exists(path),
            lambda store=store: store.size(path),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="is not a path inside a store"):
                call()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_folder_names_are_taken_as_they_are(tmp_path: Path) -> None:
    for number, name in enumerate(["a::b", "memory::x", "q?x=1#y", "sp ace é", "{curly}", "[1]*"]):
        store = BlobStore(str(tmp_path / name))
        store.put_bytes("x/y", bytes([number]))
        assert (tmp_path / name / "x" / "y").read_bytes() == bytes([number])
        assert BlobStore(f"file://{tmp_path / name}").get_bytes("x/y", max_bytes=1) == bytes([number])
    assert len(list(tmp_path.iterdir())) == 6


def test_memory_stores_of_other_names_are_apart(memory: BlobStore) -> None:
    other = BlobStore("memory://another")
    memory.put_bytes("x", b"1")
    with pytest.raises(BlobMissing) as caught:
        other.get_bytes("x", max_bytes=9)
    assert (caught.value.path, caught.value.store) == ("x", "memory://another")
    assert BlobStore(memory.url).get_bytes("x", max_bytes=9) == b"1"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://[x", "The store's URL cannot be read: Invalid IPv6 URL"),
        ("memory://a::file:///etc", "The store memory://a::file:///etc cannot be used: it is a chain of URLs"),
        ("simplecache::s3://b", "it is a chain of URLs"),
        ("reference://x", "The store reference://x cannot be used: "),
        ("github://who@where", "The store github://where cannot be used: "),
        ("FILE:///x", "Protocol not known: FILE"),
    ],
)
def test_store_url_that_means_nothing_is_a_setting(url: str, says: str) -> None:
    with pytest.raises((SettingsError, ToolMissing)) as caught:
        BlobStore(url)
    assert isinstance(caught.value, SettingsError)
    assert says in caught.value.problem


class Failing:
    """A remote file system whose client has errors of its own."""

    def __init__(self, inner: Any, error: Exception, times: int) -> None:
        self._inner, self._error, self.left = inner, error, times

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.left:
                self.left -= 1
                raise self._error
            return getattr(self._inner, name)(*arguments, **options)

        return call


class ClientError(Exception):
    """As in clients of S3: no OSError."""


def test_remote_clients_own_errors_are_tried_again_and_then_named(memory: BlobStore) -> None:
    memory.put_bytes("x", b"data")
    real = memory._fs
    memory._fs = Failing(real, ClientError("slow down"), times=3)
    assert memory.get_bytes("x", max_bytes=9) == b"data"
    memory._fs = Failing(real, ClientError("slow down"), times=4)
    with pytest.raises(DataError) as caught:
        memory.size("x")
    assert caught.value.problem == f"The store {memory.url} does not serve x: ClientError: slow down."
    assert memory._fs.left == 0


def test_remote_store_that_cannot_write_says_so_at_once(memory: BlobStore) -> None:
    memory._fs = Failing(memory._fs, NotImplementedError(), times=9)
    with pytest.raises(DataError, match="cannot do what x needs; it may be readable only") as caught:
        memory.put_bytes("x", b"1")
    assert type(caught.value) is DataError
    assert memory._fs.left == 8


def test_local_bugs_are_not_dressed_up(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    store._fs = Failing(store._fs, ZeroDivisionError("bug"), times=1)
    with pytest.raises(ZeroDivisionError):
        store.size("x")
