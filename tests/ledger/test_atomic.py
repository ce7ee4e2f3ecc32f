from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ledger.atomic import exclusive_lock, release_lock, try_lock, write_atomically
from ledger.errors import ChainError, ResourceError


def test_write_atomically_makes_folders_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a/b/file"
    write_atomically(path, b"one", mode=0o600)
    write_atomically(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["file"]


def test_write_atomically_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="The disk is full: 3 bytes"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_write_atomically_other_failure_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: str, target: Path) -> None:
        raise PermissionError(errno.EPERM, "not allowed")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == []


def test_try_lock_held_by_another_gives_none(tmp_path: Path) -> None:
    held = try_lock(tmp_path / "lock")
    assert held is not None
    assert try_lock(tmp_path / "lock") is None
    release_lock(held)
    again = try_lock(tmp_path / "lock")
    assert again is not None
    release_lock(again)


def test_exclusive_lock_says_who_waits_too_long(tmp_path: Path) -> None:
    with (
        exclusive_lock(tmp_path / "lock"),
        pytest.raises(ChainError, match=r"locked by another trainledger process for 0\.1 seconds"),
        exclusive_lock(tmp_path / "lock", timeout=0.1),
    ):
        pass


def test_try_lock_dies_with_a_killed_holder(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from ledger.atomic import try_lock; "
    code += "try_lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert try_lock(tmp_path / "lock") is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 5
    while (descriptor := try_lock(tmp_path / "lock")) is None and time.monotonic() < end:
        time.sleep(0.01)
    assert descriptor is not None
    release_lock(descriptor)
