"""Files that are either the old or the new version, whatever dies in between; and locks that die with their holder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ledger.errors import ChainError, ResourceError

_LOCK_POLL_SECONDS = 0.05


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Writes `data` so that a reader sees the old file or the whole new one, even after a power cut.

    A temporary file in the same directory is synced to disk and renamed over `path`. Missing parent directories are
    made.

    Raises:
        ResourceError: the disk or the quota is full; the old file and no temporary file are left.
        OSError: the directory cannot be written for another reason.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException as problem:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"The disk is full: {len(data)} bytes for {path} do not fit.",
                remedy="Free some space and run the same command again: it goes on from what was saved.",
            ) from problem
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes renames in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Takes an advisory lock on `path` without waiting.

    Returns:
        A file descriptor that holds the lock until `release_lock` or the death of this process (`kill -9` too), or
        None where somebody else holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def release_lock(descriptor: int) -> None:
    """Gives back a lock taken with `try_lock`."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


@contextlib.contextmanager
def exclusive_lock(path: Path, *, timeout: float = 60.0) -> Iterator[None]:
    """Holds an advisory lock on `path` between processes; the lock file stays, only the lock comes and goes.

    Args:
        timeout: seconds to wait for whoever holds it.

    Raises:
        ChainError: the lock was not free in time.
    """
    end = time.monotonic() + timeout
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= end:
            raise ChainError(
                f"{path} has been locked by another trainledger process for {timeout:g} seconds.",
                remedy="Wait for it to end, or end it.",
            )
        time.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        release_lock(descriptor)
