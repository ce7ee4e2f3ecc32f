import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ledger.errors import BlobCorrupt, BlobMissing, DataError, ResourceError, SettingsError, ToolMissing
from trainer.store import blobs
from trainer.store.blobs import BlobStore, masked

DATA = bytes(range(256)) * 40_000  # about 10 MB: three pieces


@pytest.fixture(params=["path", "file-url", "memory", "memory-as-plain-remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    urls = {"path": str(tmp_path / "s"), "file-url": f"file://{tmp_path}/s"}
    made = BlobStore(urls.get(request.param, f"memory://{tmp_path.name}"), pause=0.01)
    if request.param == "memory-as-plain-remote":
        made._whole = False  # the way of stores that can show half a file: temporary name, then move
    yield made
    fsspec.filesystem("memory").store.clear()


def test_put_bytes_comes_back(store: BlobStore) -> None:
    assert not store.exists("a/b/c.bin")
    store.put_bytes("a/b/c.bin", b"one")
    assert store.exists("a/b/c.bin")
    assert store.size("a/b/c.bin") == 3
    assert store.get_bytes("a/b/c.bin", max_bytes=3) == b"one"
    store.put_bytes("a/b/c.bin", b"two!")
    assert store.get_bytes("a/b/c.bin", max_bytes=10) == b"two!"


def test_put_file_and_get_file_come_back_with_progress(store: BlobStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(DATA)
    store.put_file("x.bin", source)
    store.put_file("x.bin", source)
    seen: list[tuple[int, int]] = []
    store.get_file("x.bin", target, progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == DATA
    assert [total for _, total in seen] == [len(DATA)] * 3
    assert [done for done, _ in seen] == [4 << 20, 8 << 20, len(DATA)]
    assert list(target.parent.iterdir()) == [target]


def test_missing_blob_is_named_with_the_store(store: BlobStore, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.get_bytes("no/such", max_bytes=1),
        lambda: store.get_file("no/such", tmp_path / "t"),
        lambda: store.size("no/such"),
    ]
    for call in calls:
        with pytest.raises(BlobMissing, match="no/such is not in the store") as caught:
            call()
        assert caught.value.store == store.url
    assert not (tmp_path / "t").exists()


def test_larger_blob_than_expected_refused(store: BlobStore, tmp_path: Path) -> None:
    store.put_bytes("big", b"12345")
    with pytest.raises(BlobCorrupt, match="it has 5 bytes and at most 4 are expected"):
        store.get_bytes("big", max_bytes=4)
    with pytest.raises(BlobCorrupt, match="at most 4 are expected"):
        store.get_file("big", tmp_path / "t", max_bytes=4)


def test_get_file_goes_on_from_what_arrived(store: BlobStore, tmp_path: Path) -> None:
    store.put_bytes("x", DATA)
    (tmp_path / "t.part").write_bytes(DATA[: 5 << 20])
    seen: list[int] = []
    store.get_file("x", tmp_path / "t", progress=lambda done, _: seen.append(done))
    assert seen == [9 << 20, len(DATA)]
    assert (tmp_path / "t").read_bytes() == DATA


def test_get_file_longer_left_over_starts_again(store: BlobStore, tmp_path: Path) -> None:
    store.put_bytes("x", b"short")
    (tmp_path / "t.part").write_bytes(b"much longer than that")
    store.get_file("x", tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == b"short"


def test_get_file_after_a_broken_callback_resumes(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "s"))
    store.put_bytes("x", DATA)

    def stop(done: int, _: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get_file("x", tmp_path / "t", progress=stop)
    assert not (tmp_path / "t").exists()
    assert (tmp_path / "t.part").stat().st_size == 4 << 20
    store.get_file("x", tmp_path / "t")
    assert (tmp_path / "t").read_bytes() == DATA


def test_get_file_two_at_once_give_one_whole_file(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from trainer.store import BlobStore; "
        "BlobStore(sys.argv[1]).get_file('x', Path(sys.argv[2]))"
    )
    BlobStore(str(tmp_path / "s")).put_bytes("x", DATA * 3)
    command = [sys.executable, "-c", script, str(tmp_path / "s"), str(tmp_path / "t")]
    children = [subprocess.Popen(command) for _ in range(3)]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    assert (tmp_path / "t").read_bytes() == DATA * 3


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../b", "a\\b", "a\0b"])
def test_path_outside_the_store_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="not a path inside a store"):
        BlobStore(str(tmp_path)).exists(path)


class Flaky:
    """A file system that fails as told, then goes on."""

    def __init__(self, inner: Any, failures: list[BaseException | float]) -> None:
        self._inner, self.failures, self.reads = inner, failures, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def cat_file(self, *arguments: Any) -> Any:
        self.reads += 1
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, BaseException):
                raise failure
            time.sleep(failure)
        return self._inner.cat_file(*arguments)


def flaky(name: str, failures: list[BaseException | float], timeout: float = 60.0) -> tuple[BlobStore, Flaky]:
    store = BlobStore(f"memory://{name}", pause=0.01, timeout=timeout)
    store.put_bytes("x", b"data")
    store._fs = Flaky(store._fs, failures)
    return store, store._fs


def test_get_bytes_dropped_connection_tried_again(tmp_path: Path) -> None:
    store, system = flaky(tmp_path.name, [ConnectionResetError("gone"), TimeoutError("slow")])
    assert store.get_bytes("x", max_bytes=9) == b"data"
    assert system.reads == 3


def test_get_bytes_hung_read_abandoned_and_tried_again(tmp_path: Path) -> None:
    store, system = flaky(tmp_path.name, [5.0], timeout=0.2)
    began = time.monotonic()
    assert store.get_bytes("x", max_bytes=9) == b"data"
    assert time.monotonic() - began < 3
    assert system.reads == 2


def test_get_bytes_store_that_never_answers_named(tmp_path: Path) -> None:
    store, system = flaky(tmp_path.name, [ConnectionResetError("gone") for _ in range(9)])
    with pytest.raises(DataError, match=r"does not serve x: ConnectionResetError: gone") as caught:
        store.get_bytes("x", max_bytes=9)
    assert type(caught.value) is DataError
    assert system.reads == 4


def test_get_bytes_missing_is_not_tried_again(tmp_path: Path) -> None:
    store, system = flaky(tmp_path.name, [FileNotFoundError("x"), FileNotFoundError("x")])
    with pytest.raises(BlobMissing):
        store.get_bytes("x", max_bytes=9)
    assert system.reads == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    store = BlobStore(str(tmp_path / "s"))
    store.put_bytes("x", b"old")
    source = tmp_path / "source"
    source.write_bytes(b"new")

    def full(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    for write in (lambda: store.put_bytes("x", b"new"), lambda: store.put_file("x", source)):
        with pytest.raises(ResourceError, match="disk is full") as caught:
            write()
        assert "Free some space" in caught.value.remedy
    with pytest.raises(ResourceError, match="disk is full"):
        store.get_file("x", tmp_path / "t")
    monkeypatch.undo()
    assert store.get_bytes("x", max_bytes=9) == b"old"
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["x"]


def test_full_disk_for_real(tmp_path: Path) -> None:
    """/dev/full fails every write as a full disk does."""
    store = BlobStore(str(tmp_path / "s"))
    store.put_bytes("x", b"data" * 10_000)
    (tmp_path / "t.part").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="The disk is full"):
        store.get_file("x", tmp_path / "t")


def test_unwritable_folder_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        BlobStore(str(tmp_path / "s")).put_bytes("x", b"1")


def test_unknown_kind_of_store_refused() -> None:
    with pytest.raises(SettingsError, match="gopher://host/x cannot be used"):
        BlobStore("gopher://user:secret@host/x?token=1")


def test_store_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(blobs, "url_to_fs", missing)
    with pytest.raises(ToolMissing, match="Install s3fs") as caught:
        BlobStore("s3://bucket/prefix")
    assert caught.value.remedy == "Run: pip install 'trainledger[s3]'."


def test_masked_hides_credentials() -> None:
    assert masked("s3://key:secret@host/bucket?token=1#x") == "s3://host/bucket"
    assert masked("/plain/path") == "/plain/path"


def test_put_bytes_readers_never_see_half(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    versions = [bytes([n]) * 300_000 for n in range(2)]
    store.put_bytes("x", versions[0])
    stop = threading.Event()

    def write() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            store.put_bytes("x", versions[turn % 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            assert (tmp_path / "x").read_bytes() in versions
    finally:
        stop.set()
        writer.join()
