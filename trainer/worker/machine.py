"""What this machine can do: memory and disk left, and how fast it is at programs."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import torch

from ledger.atomic import write_atomically
from trainer.engine.engines import Engine
from trainer.engine.exact.functions import function_kernel
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role, cost_of

# Old programs' speeds are dropped beyond this many, oldest first.
_REMEMBERED = 200
_PROBE, _PROBE_SECONDS = 128, 0.2
# A GPU is through with the small probe as soon as it has begun; then a large one tells how fast it is.
_LARGE_PROBE, _NO_TIME = 2048, 2e-4


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


def probe(size: int = _PROBE) -> BuiltProgram:
    """A program of products of matrices of a size and element-wise work, to learn an engine's speed with."""
    build = ProgramBuilder(Role.GENERATE)
    build.state("x", DType.FLOAT32, (size, size))
    build.state("waited.for", DType.INT64, ())
    x = build.load("x")
    for _ in range(4):
        x = build.pointwise(function_kernel("gelu"), build.matmul(x, x, (13, 13)), dtype=DType.FLOAT32)
    build.store("x", x)
    return build.finish()


def measure_flops(engine: Engine) -> float:
    """Operations a second (`Cost.flops`) of an engine at the probe: takes a moment."""
    rate, seconds = _measured(engine, _PROBE)
    begun = "cuda" not in engine.setting or seconds > _NO_TIME
    return rate if begun else max(rate, _measured(engine, _LARGE_PROBE)[0])


def _measured(engine: Engine, size: int) -> tuple[float, float]:
    """Operations a second, and seconds of a run."""
    built = probe(size)
    run = engine.open(built)
    run.load([torch.eye(size), torch.tensor(0)])
    run.step()
    run.tensor(1)
    began = time.perf_counter()
    steps = 0
    while time.perf_counter() - began < _PROBE_SECONDS:
        run.step()
        run.tensor(1)  # waits for a GPU, which works on its own
        steps += 1
    seconds = (time.perf_counter() - began) / steps
    return cost_of(built.program).flops / seconds, seconds


class SpeedRecord:
    """Seconds per step of programs run here, kept in a small file. A damaged or missing file is an empty record.

    Speeds are kept for each engine by its `Engine.setting`: on other threads or another device it has another speed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def seconds_per_step(self, program_root: bytes, engine: str) -> float | None:
        return self._seconds(f"{engine} {program_root.hex()}")

    def seconds_to_merge(self, program_root: bytes, engine: str) -> float | None:
        """Of a task's last merge here."""
        return self._seconds(f"{engine} {program_root.hex()} merge")

    def note_merge(self, program_root: bytes, engine: str, *, seconds: float) -> None:
        """Remembers how long a merge took, evaluation included."""
        self._remember(f"{engine} {program_root.hex()} merge", seconds)

    def note(self, program_root: bytes, engine: str, *, seconds: float, steps: int) -> None:
        """Remembers a run of `steps` that took so long, evaluation included."""
        if steps < 1 or seconds <= 0:
            return
        self._remember(f"{engine} {program_root.hex()}", seconds / steps)

    def _remember(self, name: str, seconds: float) -> None:
        record = self._read()
        record.pop(name, None)
        record[name] = seconds
        self._write(dict(list(record.items())[-_REMEMBERED:]))

    def _seconds(self, name: str) -> float | None:
        value = self._read().get(name)
        return float(value) if isinstance(value, int | float) and 0 < value < 1e9 else None

    def flops_per_second(self, engine: Engine) -> float:
        """How fast an engine is in general, measured the first time (`measure_flops`)."""
        name = f"{engine.setting} flops"
        known = self._read().get(name)
        if isinstance(known, int | float) and 1 <= known < 1e18:
            return float(known)
        measured = measure_flops(engine)
        self._write(self._read() | {name: measured})
        return measured

    def forget(self, program_root: bytes, engine: str) -> None:
        """Drops what was remembered, so that the next look measures again."""
        record = self._read()
        if record.pop(f"{engine} {program_root.hex()}", None) is not None:
            self._write(record)

    def _write(self, record: dict[str, object]) -> None:
        write_atomically(self._path, json.dumps(record, indent=1).encode())

    def _read(self) -> dict[str, object]:
        try:
            value = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
