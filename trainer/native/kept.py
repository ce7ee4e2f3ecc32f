"""Files that end with the SHA-256 of the rest: what is damaged is found before it is used."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

DIGEST = 32  # bytes at the end


def whole(path: Path) -> bytes | None:
    """A file's content without its hash, or None where there is no such file or it is damaged.

    Raises:
        OSError: the file is there and cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return data[:-DIGEST] if hashlib.sha256(data[:-DIGEST]).digest() == data[-DIGEST:] else None


def seal(path: Path) -> None:
    """Puts a file's hash behind it. Raises OSError."""
    with path.open("r+b") as file:
        digest = hashlib.sha256(file.read()).digest()
        file.write(digest)


def own_folder(folder: Path) -> None:
    """Makes a folder that nobody else can write, because what is in it is run. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def keep(path: Path, data: bytes) -> None:
    """Writes a sealed file, whole or not at all. Raises OSError."""
    own_folder(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as place:
        made = Path(place) / path.name
        made.write_bytes(data)
        seal(made)
        os.replace(made, path)
