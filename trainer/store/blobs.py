"""Blobs under paths that hold their own roots, on anything that fsspec reaches: a folder, S3, HDFS, memory.

A store vouches for nothing: whoever reads a blob checks it against the root in its path.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec
from fsspec.core import url_to_fs

from ledger.atomic import sync_directory, write_atomically
from ledger.errors import (
    BlobCorrupt,
    BlobMissing,
    DataError,
    ResourceError,
    SettingsError,
    ToolMissing,
    TrainledgerError,
)

_PIECE = 4 * 1024 * 1024
_ATTEMPTS = 4
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Stores that show an object only once it is whole; elsewhere a temporary name and a move do that.
_WHOLE_OBJECT_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "az", "memory"})
_EXTRAS = {"s3": "s3", "s3a": "s3", "hdfs": "hdfs"}

Progress = Callable[[int, int], None]
_T = TypeVar("_T")


class BlobStore:
    """A place for blobs.

    Args:
        url: where: a path, `file:///…`, `s3://bucket/prefix`, `hdfs://host/path`, `memory://name`.
        cache: local folder for temporary files and downloads; the system's temporary folder without.
        timeout: seconds for one piece (4 MiB) of a remote transfer before it is tried again.
        pause: seconds before the second attempt; doubles each time.

    Attributes:
        sent_bytes, received_bytes: of blobs, since this object was made.

    Raises:
        SettingsError: the URL's kind is unknown. ToolMissing: the package for it is not installed.
    """

    def __init__(self, url: str, *, cache: Path | None = None, timeout: float = 60.0, pause: float = 0.5) -> None:
        try:
            self.url = masked(url)
        except ValueError as error:
            raise SettingsError(f"The store's URL cannot be read: {error}.") from error
        self.cache = cache
        self.sent_bytes = self.received_bytes = 0
        self._timeout = timeout
        self._pause = pause
        protocol = url.split("://", 1)[0] if "://" in url else "file"
        try:
            if protocol == "file":
                # Not parsed any further: a folder's name may hold what would be a chain of URLs elsewhere.
                self._fs, self._root = fsspec.filesystem("file"), os.path.abspath(url.removeprefix("file://"))
            elif "::" in url:
                raise ValueError("it is a chain of URLs")
            else:
                self._fs, self._root = url_to_fs(url)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            raise ToolMissing(
                f"Stores at {protocol}:// need a package that is not installed: {error}.",
                remedy=f"Run: pip install 'trainledger[{extra}]'." if extra else "Install it.",
            ) from error
        except Exception as error:  # every kind of store has errors of its own for URLs that it does not like
            raise SettingsError(f"The store {self.url} cannot be used: {error}.") from error
        self._local = protocol == "file"
        self._whole = protocol in _WHOLE_OBJECT_PROTOCOLS

    def put_bytes(self, path: str, data: bytes) -> None:
        """Store bytes; readers see all or nothing. Storing again replaces (and so repairs) what is there.

        Raises ResourceError where the disk is full, DataError where the store does not answer.
        """
        target = self._path(path)
        if self._local:
            with _writing(Path(target)):
                write_atomically(Path(target), data)
        else:
            self._retried(path, lambda: self._upload(target, lambda name: self._fs.pipe_file(name, data)))
        self.sent_bytes += len(data)

    def put_file(self, path: str, local: Path) -> None:
        """Store a local file under `path`; as `put_bytes` otherwise."""
        target = self._path(path)
        if self._local:
            with _writing(Path(target)):
                _copy_atomically(local, Path(target))
        else:
            self._retried(path, lambda: self._upload(target, lambda name: self._fs.put_file(str(local), name)))
        self.sent_bytes += local.stat().st_size

    def get_bytes(self, path: str, *, max_bytes: int) -> bytes:
        """All bytes of a blob.

        Raises BlobMissing; BlobCorrupt where it is longer than `max_bytes` (a stranger's store may send anything).
        """
        size = self.size(path)
        if size > max_bytes:
            raise BlobCorrupt(path, f"it has {size} bytes and at most {max_bytes} are expected")
        target = self._path(path)
        data: bytes = self._retried(path, lambda: self._fs.cat_file(target, 0, max_bytes + 1))
        self.received_bytes += len(data)
        if len(data) > max_bytes:
            raise BlobCorrupt(path, f"it has more than {max_bytes} bytes")
        return data

    def get_file(
        self, path: str, local: Path, *, max_bytes: int | None = None, progress: Progress | None = None
    ) -> None:
        """Download a blob to `local`, which is there only once it is whole.

        What arrived is kept beside it in `<local>.part`, so that the same call goes on after a break or a kill; of
        two processes that ask for the same file one downloads and the other waits. `progress` is given (bytes so
        far, bytes in all). Raises as `get_bytes`, and ResourceError on a full disk.
        """
        size = self.size(path)
        if max_bytes is not None and size > max_bytes:
            raise BlobCorrupt(path, f"it has {size} bytes and at most {max_bytes} are expected")
        part = local.with_name(local.name + ".part")
        with _writing(local):
            local.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "ab") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                if not _still(part, stream):  # another process has just finished it
                    return
                self._download(path, stream, size, progress)
                os.replace(part, local)
            sync_directory(local.parent)

    def _download(self, path: str, stream: BinaryIO, size: int, progress: Progress | None) -> None:
        target = self._path(path)
        done = stream.tell()
        if done > size:  # left over from another, longer version
            stream.truncate(0)
            done = 0
        while done < size:
            piece = self._retried(path, self._reader(target, done, min(done + _PIECE, size)))
            if not piece:
                raise BlobCorrupt(path, f"the store says {size} bytes but sends {done}")
            self.received_bytes += len(piece)
            stream.write(piece)
            stream.flush()
            done += len(piece)
            if progress is not None:
                progress(done, size)
        os.fsync(stream.fileno())

    def exists(self, path: str) -> bool:
        """Whether something is stored there."""
        target = self._path(path)
        return bool(self._retried(path, lambda: self._fs.exists(target)))

    def size(self, path: str) -> int:
        """Bytes of a blob. Raises BlobMissing."""
        target = self._path(path)
        size = self._retried(path, lambda: self._fs.info(target))["size"]
        if size is None:
            raise DataError(f"The store {self.url} does not tell the size of {path}.")
        return int(size)

    def _path(self, path: str) -> str:
        pure = PurePosixPath(path)
        if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path:
            raise ValueError(f"{path!r} is not a path inside a store")
        return f"{self._root.rstrip('/')}/{pure}"

    def _reader(self, target: str, start: int, end: int) -> Callable[[], bytes]:
        return lambda: bytes(self._fs.cat_file(target, start, end))

    def _upload(self, target: str, write: Callable[[str], Any]) -> None:
        if self._whole:
            write(target)
            return
        self._fs.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        temporary = f"{target}.{uuid.uuid4().hex}.part"
        try:
            write(temporary)
            if self._fs.exists(target):
                self._fs.rm_file(target)
            self._fs.mv(temporary, target)
        except BaseException:
            # The first error is what the caller needs; a left-over part is harmless.
            with contextlib.suppress(OSError):
                self._fs.rm_file(temporary)
            raise

    def _retried(self, path: str, action: Callable[[], _T]) -> _T:
        """Run an action again after errors of the connection; missing files and full disks are final."""
        pause = self._pause
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._errors(path):
                    return action() if self._local else _within(self._timeout, action)
            except _Unreachable as error:
                if attempt == _ATTEMPTS or self._local:
                    raise DataError(
                        f"The store {self.url} does not serve {path}: {error}.",
                        remedy="Check the store's address and access, then run the same command again.",
                    ) from error
                time.sleep(pause)
                pause *= 2
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BlobMissing(path, self.url) from error
        except OSError as error:
            if error.errno in _FULL:
                raise ResourceError(
                    f"The store {self.url} is full: {path} does not fit.",
                    remedy="Free some space there and run the same command again: it goes on from what was saved.",
                ) from error
            raise _Unreachable(f"{type(error).__name__}: {error}") from error
        except NotImplementedError as error:
            raise DataError(
                f"The store {self.url} cannot do what {path} needs; it may be readable only.",
                remedy="Name another store with --store.",
            ) from error
        except Exception as error:  # clients of remote stores have errors of their own, which are no OSError
            if self._local or isinstance(error, TrainledgerError):
                raise
            raise _Unreachable(f"{type(error).__name__}: {error}") from error


class _Unreachable(DataError):
    """The store failed in a way that may pass."""


@contextlib.contextmanager
def _writing(local: Path) -> Iterator[None]:
    """Faults of this machine's own disk, in words."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(
                f"The disk is full: {local} cannot be written.",
                remedy="Free some space and run the same command again: it goes on from what was saved.",
            ) from error
        raise DataError(f"{local} cannot be written: {error.strerror or error}.") from error


def _still(path: Path, stream: BinaryIO) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.stat(path).st_ino == os.fstat(stream.fileno()).st_ino
    except FileNotFoundError:
        return False


def masked(url: str) -> str:
    """The URL without user, password and query, for messages."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _copy_atomically(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with open(source, "rb") as reader, open(temporary, "xb") as writer:
            shutil.copyfileobj(reader, writer, _PIECE)
            writer.flush()
            os.fsync(writer.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def _within(seconds: float, action: Callable[[], _T]) -> _T:
    """Run an action in a thread of its own and give up waiting after `seconds` (TimeoutError).

    The thread is left behind then: not every file system has timeouts of its own, and a hung read must not hang us.
    """
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(action())
        except BaseException as error:  # handed to the caller below, not dropped
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"no answer in {seconds:g} seconds")
    return outcome[0]
