"""A program that takes no time to compile, and engines to run it on."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.native.compiler import Compiler, find_compiler
from trainer.native.engine import CompiledEngine
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role

ODD_NANS = [0x7FC00000, 0x7F800001, -0x400000, -1, 0x3F800000, -0x80000000]  # as int32: NaNs, 1 and −0


def bits(state: Sequence[Tensor]) -> list[list[int]]:
    return [one.reshape(-1).view(torch.uint8).tolist() for one in state]


def counting(word: int = 1) -> BuiltProgram:
    """Adds a number to a counter, and leaves a tensor of floats alone which it also reads."""
    build = ProgramBuilder(Role.TRAIN)
    build.state("counter", DType.INT64, ())
    build.state("kept", DType.FLOAT32, (6,))
    build.state("read", DType.INT64, (6,))
    kernel = Kernel(1, (Instruction(Op.INPUT), Instruction(Op.CONST, word=word), Instruction(Op.IADD, 0, 1)))
    build.store("counter", build.pointwise(kernel, build.load("counter"), dtype=DType.INT32))
    same = Kernel(1, (Instruction(Op.INPUT),))
    build.store("read", build.pointwise(same, build.load("kept"), dtype=DType.INT32))
    return build.finish()


def counting_state() -> list[Tensor]:
    odd = torch.tensor(ODD_NANS, dtype=torch.int32).view(torch.float32)
    return [torch.tensor(0), odd, torch.zeros(6, dtype=torch.int64)]


class Notices(list[str]):
    """What an engine had to say."""

    def __call__(self, text: str) -> None:
        self.append(text)


def compiled_engine(
    folder: Path, *, compiler: Compiler | None = None, notice: Callable[[str], None] | None = None
) -> CompiledEngine:
    return CompiledEngine(
        folder, threads=1, compiler=compiler or find_compiler(), notice=Notices() if notice is None else notice
    )
