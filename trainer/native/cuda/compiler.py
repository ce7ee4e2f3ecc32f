"""CUDA C++ to cubins: NVRTC as PyTorch brings it, and a folder by what decides the result (docs/fast-path.md)."""

from __future__ import annotations

import ctypes.util
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.engine.exact.cuda import Unit
from trainer.native.compiler import CompilerError, folder_fault
from trainer.native.kept import keep, whole

# Every float operation of the text says its own rounding; these say the same once more.
OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "-default-device", "-w")
_PROGRAM = Path(__file__).with_name("nvrtc.py")
_SHOWN = 2_000  # characters of a compiler's complaint
_LIBRARY = re.compile(r"libnvrtc(-[0-9a-f]+)?\.so\.(\d+)[\d.]*")


@dataclass(frozen=True)
class CudaCompiler:
    """NVRTC for one architecture.

    Attributes:
        library: path or name of NVRTC. version: of it.
        architecture: compute capability times ten, such as 90. kind: "cubin", or "ptx" for a GPU newer than NVRTC.
    """

    library: str
    version: tuple[int, int]
    architecture: int
    kind: str = "cubin"

    @property
    def options(self) -> tuple[str, ...]:
        """All that it is asked."""
        return (f"--gpu-architecture={'sm' if self.kind == 'cubin' else 'compute'}_{self.architecture}", *OPTIONS)

    @property
    def identity(self) -> str:
        """A hash of what decides what it makes of a text."""
        told = "\0".join([".".join(map(str, self.version)), self.kind, *self.options])
        return hashlib.sha256(told.encode()).hexdigest()


def find_nvrtc(capability: tuple[int, int], *, ptx: bool = False) -> CudaCompiler:
    """The NVRTC that PyTorch brings, or else one of the system.

    Args:
        capability: of the GPU. ptx: text for the driver to compile, not machine code.

    Raises:
        CompilerError: there is none that runs, or it is too old for the GPU.
    """
    library = next(_libraries(), None)
    if library is None:
        raise CompilerError("There is no NVRTC here, which compiles programs for NVIDIA GPUs.")
    told = json.loads(_output([library], b"", 60))
    wanted = capability[0] * 10 + capability[1]
    fitting = [one for one in told["architectures"] if one <= wanted]
    if not fitting:
        raise CompilerError(f"{Path(library).name} compiles for no GPU as old as this one, {capability}.")
    kind = "cubin" if max(fitting) == wanted and not ptx else "ptx"
    major, minor = told["version"]
    return CudaCompiler(library, (major, minor), max(fitting), kind)


def _libraries() -> Iterator[str]:
    """Those that belong to PyTorch's own version of CUDA first."""
    places = [Path(torch.__file__).parent / "lib"]
    packages = importlib.util.find_spec("nvidia")
    for package in (packages.submodule_search_locations or ()) if packages is not None else ():
        places += sorted(Path(package).glob("*/lib"))
    found = []
    for place in places:
        for path in sorted(place.glob("libnvrtc*.so*")):
            name = _LIBRARY.fullmatch(path.name)
            if name is not None:
                found.append((f"{name[2]}." in f"{torch.version.cuda}", int(name[2]), str(path)))
    yield from (path for _, _, path in sorted(found, reverse=True))
    system = ctypes.util.find_library("nvrtc")
    if system is not None:
        yield system


def build_units(units: Sequence[Unit], folder: Path, compiler: CudaCompiler, *, timeout: float = 600.0) -> list[bytes]:
    """What each unit compiles to, from the folder where that has it.

    Raises:
        CompilerError: the compiler failed or took too long. ResourceError: the folder cannot be written.
    """
    deadline = time.monotonic() + timeout
    with ThreadPoolExecutor(max(1, min(len(units), os.cpu_count() or 1))) as pool:
        return list(pool.map(lambda unit: _built(unit, folder, compiler, deadline), units))


def _built(unit: Unit, folder: Path, compiler: CudaCompiler, deadline: float) -> bytes:
    target = folder / f"{unit.key}-{compiler.identity[:16]}.{compiler.kind}"
    try:
        made = whole(target)
        if made is None:
            made = _compiled(unit, compiler, deadline)
            keep(target, made)
    except OSError as error:
        raise folder_fault(folder, error) from error
    return made


def _compiled(unit: Unit, compiler: CudaCompiler, deadline: float) -> bytes:
    with tempfile.TemporaryDirectory(prefix="trainledger-") as place:
        made = Path(place) / "made"
        command = [compiler.library, compiler.kind, str(made), *compiler.options]
        _output(command, unit.text.encode(), deadline - time.monotonic())
        return made.read_bytes()


def _output(arguments: Sequence[str], text: bytes, timeout: float) -> bytes:
    """What NVRTC's process prints; it is killed at the end of its time."""
    if timeout <= 0:
        raise CompilerError("Compiling the program for the GPU took too long.")
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(_PROGRAM), *arguments],
            input=text,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CompilerError("Compiling the program for the GPU took too long.") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-_SHOWN:].strip() or f"exit status {done.returncode}"
        raise CompilerError(f"NVRTC, which compiles programs for NVIDIA GPUs, failed: {said}")
    return done.stdout
