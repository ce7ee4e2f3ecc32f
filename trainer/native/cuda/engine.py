"""The engine of a GPU: programs compiled for it, once it has shown that it computes as the reference does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ledger.errors import MachineFault, SpecificationError
from trainer.engine.engines import ReferenceEngine, Run
from trainer.engine.exact.cuda import CudaProgram, CudaSource, write_cuda
from trainer.engine.exact.trial import fault_of
from trainer.native.compiler import CompilerError
from trainer.native.cuda.compiler import CudaCompiler, build_units, find_nvrtc
from trainer.native.cuda.driver import Driver, DriverError, GpuKernels, Recorder, recorder
from trainer.program.exact import BuiltProgram, program_root

Notice = Callable[[str], None]


class CudaEngine:
    """Programs compiled for a GPU; what cannot be compiled runs on the reference, on the same GPU.

    Args:
        device: "cuda" or "cuda:<number>". folder: where compiled programs are kept; only for files that nobody else
            can write.
        recorder: what becomes of launches. slow: runs what cannot be compiled.
        notice: told, once for each program, why one runs there.
    """

    name = "compiled"
    is_reference = False

    def __init__(
        self,
        device: str,
        folder: Path,
        *,
        compiler: CudaCompiler,
        driver: Driver,
        recorder: Recorder,
        slow: ReferenceEngine,
        notice: Notice,
    ) -> None:
        self._device, self._folder, self._compiler = torch.device(device), folder, compiler
        self._driver, self._recorder, self.reference, self._notice = driver, recorder, slow, notice
        self.setting = f"{self.name} {device}"
        self._known: dict[bytes, tuple[CudaSource, GpuKernels] | None] = {}

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
            return self.reference.open(built)
        source, kernels = known
        return CudaProgram(built.program, built.constants, source, kernels, device=self._device)

    def _compiled(self, built: BuiltProgram) -> tuple[CudaSource, GpuKernels] | None:
        """The program's kernels, or None where there can be none."""
        try:
            source = write_cuda(built.program)
            made = build_units(source.units, self._folder, self._compiler)
            return source, GpuKernels(source.units, made, self._driver, self._recorder)
        except (CompilerError, DriverError, SpecificationError) as error:
            self._notice(f"{error.problem} The program runs on the reference interpreter, which is slow.")
            return None


def open_cuda(device: str, folder: Path, *, slow: ReferenceEngine, notice: Notice) -> CudaEngine:
    """The engine of a GPU that computes as the reference does.

    Args:
        slow: what runs programs that cannot be compiled.

    Raises:
        CompilerError, DriverError: what it needs is not there.
        MachineFault: something compiled for this GPU gives other bits than the reference on the processor.
        ResourceError: the folder cannot be written.
    """
    compiler = find_nvrtc(torch.cuda.get_device_capability(device))
    target = torch.device(device)
    engine = CudaEngine(
        device,
        folder,
        compiler=compiler,
        driver=Driver(target.index or 0),
        recorder=recorder(target),
        slow=slow,
        notice=notice,
    )
    fault = fault_of(engine)
    if fault:
        raise MachineFault(f"What is compiled for {device} does not compute exactly: {fault}.")
    return engine
