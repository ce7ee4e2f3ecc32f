"""Programs as CUDA on a processor: g++ compiles their very text with cuda_emulator.h, and fibers are the threads."""

import ctypes
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from trainer.engine.exact.cuda import CudaProgram, CudaSource, Launch, Run, Unit, write_cuda
from trainer.engine.exact.fast.plan import Base
from trainer.program.exact import Program

_EMULATOR = (Path(__file__).parent / "cuda_emulator.h").read_text()
# What a GPU faults on, words that are not where they may be, ends the process here too.
_FLAGS = ["-std=c++17", "-march=native", "-ffp-contract=off", "-fwrapv", "-fno-strict-aliasing", "-w"]
_FLAGS += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error", "-fPIC", "-shared"]


class Emulated:
    """The kernels of a source.

    Args:
        tensor: with the instruction of tensor cores, or with dp4a.
        quickly: compiled without any optimisation, which is worth its time only for much work.
    """

    def __init__(self, source: CudaSource, folder: Path, *, tensor: bool, quickly: bool) -> None:
        self._kernels = {}
        for unit in source.units:
            library = ctypes.CDLL(str(emulated_library(unit, folder, tensor=tensor, quickly=quickly)))
            for number, name in enumerate(unit.kernels):
                self._kernels[name] = (library.tl_emulate, number)

    def prepare(self, launches: Sequence[Launch], bases: Sequence[int]) -> Run:
        calls = []
        for one in launches:
            call, number = self._kernels[one.kernel]
            addresses = [bases[base] + at for base, at in one.addresses]
            given = (ctypes.c_uint64 * 41)(*addresses, *(40 - len(addresses)) * [0], one.first)
            calls.append((call, number, given, one.blocks, one.threads))

        def run() -> None:
            for call, number, given, blocks, threads in calls:
                call(number, given, blocks, threads)

        return run


def emulated_program(
    program: Program,
    constants: Sequence[torch.Tensor],
    folder: Path,
    *,
    keep: bool = False,
    tensor: bool = False,
    quickly: bool = True,
) -> CudaProgram:
    """A checked program on the emulator."""
    source = write_cuda(program, keep=keep)
    kernels = Emulated(source, folder, tensor=tensor, quickly=quickly)
    return CudaProgram(program, constants, source, kernels, device="cpu")


def emulated_library(unit: Unit, folder: Path, *, tensor: bool = False, quickly: bool = True) -> Path:
    """A unit's kernels as a library with `tl_emulate`, which launches one, and `tl_names`."""
    flags = [*_FLAGS, "-O0" if quickly else "-O1"]
    names = ", ".join(f'"{name}"' for name in unit.kernels)
    cases = "\n".join(
        f"    case {number}: tl_launch(tl_enter<{name}>, given, blocks, threads); break;"
        for number, name in enumerate(unit.kernels)
    )
    text = (
        f"{_EMULATOR}\n#define TL_TENSOR {int(tensor)}\n{unit.text}\n"
        "template <void (*kernel)(struct tl_given)> static void tl_enter(const void *given)\n"
        "{ kernel(*(const struct tl_given *)given); }\n"
        # A section that is there even where no kernel has shared memory.
        "__shared__ __attribute__((used)) char tl_some[1];\n"
        f'extern "C" const char *const tl_names[] = {{{names}, 0}};\n'
        'extern "C" void tl_emulate(int number, const void *given, unsigned blocks, unsigned threads)\n'
        f"{{\n    switch (number) {{\n{cases}\n    }}\n}}\n"
    )
    path = folder / f"{hashlib.sha256(' '.join([text, *flags]).encode()).hexdigest()[:32]}.so"
    if not path.exists():
        file = path.with_suffix(".cpp")
        file.write_text(text)
        subprocess.run(["g++", *flags, str(file), "-o", str(path)], check=True, timeout=240)
    return path


assert len(Base) == 6  # all of which a launch may name
