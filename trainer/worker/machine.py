"""What this machine can do: memory and disk left, and how fast it was at programs that it has run."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import torch

from ledger.atomic import write_atomically

# Old programs' speeds are dropped beyond this many, oldest first.
_REMEMBERED = 200


def free_memory(device: str = "cpu") -> int | None:
    """Bytes that training may still take on a device, or None where the system does not tell."""
    if device.startswith("cuda") and torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return int(free)
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return min(int(line.split()[1]) * 1024, _memory_limit())
    with contextlib.suppress(OSError, ValueError, AttributeError):  # macOS has neither /proc nor the available pages
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _memory_limit() -> int:
    """Bytes that a container's limit leaves, as far as cgroups (version 2) tell."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return 2**63
    return 2**63 if limit == "max" else max(0, int(limit) - used)


class SpeedRecord:
    """Seconds per step of programs run here, kept in a small file. A damaged or missing file is an empty record."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def seconds_per_step(self, program_root: bytes, device: str) -> float | None:
        value = self._read().get(f"{device} {program_root.hex()}")
        return float(value) if isinstance(value, int | float) and 0 < value < 1e9 else None

    def note(self, program_root: bytes, device: str, *, seconds: float, steps: int) -> None:
        """Remembers a run of `steps` that took so long, evaluation included."""
        if steps < 1 or seconds <= 0:
            return
        record = self._read()
        name = f"{device} {program_root.hex()}"
        record.pop(name, None)
        record[name] = seconds / steps
        kept = dict(list(record.items())[-_REMEMBERED:])
        write_atomically(self._path, json.dumps(kept, indent=1).encode())

    def forget(self, program_root: bytes, device: str) -> None:
        """Drops what was remembered, so that the next look measures again."""
        record = self._read()
        if record.pop(f"{device} {program_root.hex()}", None) is not None:
            write_atomically(self._path, json.dumps(record, indent=1).encode())

    def _read(self) -> dict[str, object]:
        try:
            value = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
