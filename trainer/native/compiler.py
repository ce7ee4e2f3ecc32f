"""C text to a loaded library: found compiler, cache by what decides the result, checked files (docs/fast-path.md)."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ledger.errors import ResourceError, ToolMissing
from trainer.engine.exact.fast import CompiledProgram, write_source
from trainer.native.kept import own_folder, seal, whole
from trainer.program.exact import Program

# No contraction and nothing that reassociates; what is switched off can only change flags that nobody reads.
FLAGS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-fno-fast-math",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-fPIC",
    "-w",
)
_SHOWN = 2_000  # characters of a compiler's complaint


class Units(Protocol):
    """C to be compiled, such as a program's `Source`."""

    @property
    def key(self) -> str:
        """Names it: a hash of its text, in hexadecimal digits."""

    @property
    def units(self) -> tuple[str, ...]:
        """The texts of C files, each compiled on its own and linked together."""


class CompilerError(ToolMissing):
    """There is no usable C compiler, or it failed; programs still run on the reference interpreter."""


@dataclass(frozen=True)
class Compiler:
    """A C compiler.

    Attributes:
        path: of the program.
        identity: a hash of what decides what it makes of a text: version, processor, options.
        options: given after FLAGS.
    """

    path: str
    identity: str
    options: tuple[str, ...] = ()


def find_compiler(path: str = "gcc", *, options: tuple[str, ...] = ()) -> Compiler:
    """The machine's compiler, asked to take more options than FLAGS.

    Raises:
        CompilerError: there is none, or it does not run.
    """
    found = shutil.which(path)
    if found is None:
        raise CompilerError(f"There is no C compiler {path} here; programs run on the reference interpreter.")
    version = _output([found, "--version"], 60)
    # What -march=native stands for here: a folder may be shared by machines with different processors.
    target = _output([found, "-march=native", "-Q", "--help=target"], 60)
    told = "\0".join([platform.machine(), version, target, *FLAGS, *options])
    return Compiler(found, hashlib.sha256(told.encode()).hexdigest(), options)


def compiled_program(
    program: Program,
    constants: Sequence[Tensor],
    folder: Path,
    *,
    threads: int = 1,
    compiler: Compiler | None = None,
    timeout: float = 600.0,
    keep: bool = False,
) -> CompiledProgram:
    """A checked program, compiled or taken from the folder, ready to run.

    Args:
        folder: where libraries are kept; only for files that nobody else can write, because they are run.
        timeout: seconds that compiling may take in all.
        keep: for `CompiledProgram.output`.

    Raises:
        CompilerError: no compiler, or it failed or took too long. SpecificationError: too large to be compiled.
    """
    source = write_source(program, keep=keep)
    library = open_library(source, folder, compiler or find_compiler(), timeout=timeout)
    return CompiledProgram(program, constants, source, library, threads=threads)


def open_library(source: Units, folder: Path, compiler: Compiler, *, timeout: float = 600.0) -> ctypes.CDLL:
    """The library of a source, built where the folder does not have it, and loaded.

    Raises:
        CompilerError: as `build_library`, or the system refuses to load what was built. ResourceError: as there.
    """
    path = build_library(source, folder, compiler, timeout=timeout)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:  # a disk mounted without execution, say
        raise CompilerError(f"The compiled program {path} cannot be loaded: {error}.") from None


def build_library(source: Units, folder: Path, compiler: Compiler, *, timeout: float = 600.0) -> Path:
    """The shared library of a source: that of the folder, or a new one where that is missing or damaged.

    Raises:
        CompilerError: the compiler failed or took too long. ResourceError: the folder cannot be written.
    """
    target = folder / f"{source.key}-{compiler.identity[:16]}.so"
    try:
        if whole(target) is None:
            _build(source, target, compiler, time.monotonic() + timeout)
    except OSError as error:
        raise folder_fault(folder, error) from error
    return target


def folder_fault(folder: Path, error: OSError) -> ResourceError:
    """What is told of a folder that cannot be read or written."""
    return ResourceError(
        f"Compiled programs cannot be kept in {folder}: {error.strerror}.",
        remedy="Free some space there, or name another folder with TRAINLEDGER_LIBRARIES.",
    )


def _build(source: Units, target: Path, compiler: Compiler, deadline: float) -> None:
    folder = target.parent
    own_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as place:
        objects = []
        for number, text in enumerate(source.units):
            unit, made = Path(place) / f"unit{number}.c", Path(place) / f"unit{number}.o"
            unit.write_text(text)
            _output(
                [compiler.path, *FLAGS, *compiler.options, "-c", str(unit), "-o", str(made)],
                deadline - time.monotonic(),
            )
            objects.append(str(made))
        library = Path(place) / "program.so"
        linked = [compiler.path, "-shared", "-pthread", *objects, "-o", str(library), "-lm"]
        _output(linked, deadline - time.monotonic())
        seal(library)
        os.replace(library, target)


def _output(command: Sequence[str], timeout: float) -> str:
    """What a command prints; it is killed at the end of its time."""
    if timeout <= 0:
        raise CompilerError("Compiling the program took too long.")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise CompilerError("Compiling the program took too long.") from None
    except OSError as error:
        raise CompilerError(f"The C compiler does not run: {error.strerror}.") from None
    if done.returncode:
        raise CompilerError(f"The C compiler failed: {done.stderr[-_SHOWN:].strip()}")
    return done.stdout
