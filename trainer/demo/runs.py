"""Where a demonstration keeps its files, so that one that was killed goes on and one that ended starts afresh."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ledger.atomic import write_atomically

_RECORD = "demo.json"


@dataclass(frozen=True)
class Run:
    """One run: `folder` is the home of all its commands. `resumed` tells whether an earlier start made it."""

    folder: Path
    resumed: bool

    @property
    def password_file(self) -> Path:
        """A random password for this run's throw-away keys."""
        return self.folder / "password"

    def read(self) -> dict[str, Any]:
        """What earlier starts noted."""
        path = self.folder / _RECORD
        notes: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return notes

    def note(self, **values: Any) -> None:
        """Adds to the run's notes, atomically."""
        write_atomically(self.folder / _RECORD, json.dumps(self.read() | values, indent=2).encode())


def open_run(home: Path, *, prefix: str = "run-") -> Run:
    """The newest run under `home` if it has not finished, else a new one. `prefix` tells kinds of runs apart."""
    home.mkdir(parents=True, exist_ok=True)
    numbers = sorted(
        int(place) for path in home.glob(f"{prefix}*") if (place := path.name.removeprefix(prefix)).isdigit()
    )
    if numbers:
        newest = Run(home / f"{prefix}{numbers[-1]}", resumed=True)
        if newest.password_file.exists() and not newest.read().get("finished"):
            return newest
    run = Run(home / f"{prefix}{(numbers or [0])[-1] + 1}", resumed=False)
    run.folder.mkdir()
    write_atomically(run.password_file, secrets.token_hex(16).encode(), mode=0o600)
    return run


def short_path(path: Path) -> str:
    """The path as a user would type it: relative where it lies below the current folder."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
