"""The compiled engine, and which engine a machine gets (docs/fast-path.md)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch

from ledger.errors import MachineFault, SpecificationError
from trainer.engine.devices import check_device
from trainer.engine.engines import Engine, ReferenceEngine, ReferenceRun, Run
from trainer.engine.exact.backends import admitted_backends, fastest
from trainer.engine.exact.fast import CompiledProgram, Source, write_source
from trainer.engine.exact.fast.runner import MOST_THREADS
from trainer.native.compiler import Compiler, CompilerError, find_compiler, open_library
from trainer.native.cuda import DriverError, open_cuda
from trainer.program.exact import BuiltProgram, program_root

Notice = Callable[[str], None]


class CompiledEngine:
    """Programs compiled to C for this processor; what cannot be compiled runs on the reference.

    Args:
        folder: where libraries are kept; only for files that nobody else can write.
        threads: 1 to 64; they show in the time alone.
        notice: told, once for each program, why one runs on the reference.
    """

    name = "compiled"
    is_reference = False

    def __init__(self, folder: Path, *, threads: int, compiler: Compiler, notice: Notice) -> None:
        self._folder, self._threads, self._compiler, self._notice = folder, threads, compiler, notice
        self.setting = f"{self.name} cpu {threads}"
        self._known: dict[bytes, tuple[Source, ctypes.CDLL] | None] = {}

    def open(self, built: BuiltProgram) -> Run:
        """A run of a checked program. The first one of a program takes seconds: it is compiled.

        Raises:
            ResourceError: the folder cannot be written.
        """
        root = program_root(built.program)
        if root not in self._known:
            self._known[root] = self._compiled(built)
        known = self._known[root]
        if known is None:
            return ReferenceRun(built.program, built.constants, threads=self._threads)
        return CompiledProgram(built.program, built.constants, *known, threads=self._threads)

    def _compiled(self, built: BuiltProgram) -> tuple[Source, ctypes.CDLL] | None:
        """The program's library, or None where there can be none."""
        try:
            source = write_source(built.program)
            return source, open_library(source, self._folder, self._compiler)
        except (CompilerError, SpecificationError) as error:
            self._notice(f"{error.problem} The program runs on the reference interpreter, which is slow.")
            return None


def available_threads() -> int:
    """Processors that this process may use, as many as an engine can."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(MOST_THREADS, count))


def choose_engine(
    device: str, folder: Path, *, threads: int | None = None, reference: bool = False, notice: Notice
) -> Engine:
    """The fastest engine that a device has.

    Args:
        folder: of compiled libraries. threads: None takes all processors. reference: take the reference all the same.
        notice: told why the engine is a slow one, in one sentence.

    Raises:
        SettingsError: the device is not there.
    """
    check_device(device)
    threads = threads or available_threads()
    if device != "cpu":
        return _engine_of_gpu(device, folder, reference=reference, notice=notice)
    if reference:
        return ReferenceEngine(threads=threads)
    try:
        compiler = find_compiler()
    except CompilerError as error:
        notice(f"{error.problem} That is slow: install gcc.")
        return ReferenceEngine(threads=threads)
    return CompiledEngine(folder, threads=threads, compiler=compiler, notice=notice)


def _engine_of_gpu(device: str, folder: Path, *, reference: bool, notice: Notice) -> Engine:
    target = torch.device(device)
    admitted = [name for name, fault in admitted_backends(target).items() if not fault]
    slow = ReferenceEngine(device, backend=fastest(admitted, target) if admitted else None)
    if reference:
        return slow
    try:
        return open_cuda(device, folder, slow=slow, notice=notice)
    except (CompilerError, DriverError, MachineFault) as error:
        notice(f"{error.problem} Programs run on the reference interpreter on {device}, which is slow.")
        return slow
