"""A trial of an engine: one program over every operation and every way to compute it, against the reference.

Its inputs are the known answers' (`selftest.inputs`), with every kind of special value, and rows so long and so many
that a GPU's kernels for large shapes run too.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.engine.engines import Engine, ReferenceRun
from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Kernel, Op
from trainer.engine.exact.selftest import inputs
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role, Value

_ROWS, _LENGTH, _DEEP, _RUN = 130, 1216, 40, 40_000
_TOKENS = 50
_PAIRS = (Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FLT, Op.FLE, Op.FEQ, Op.IMUL, Op.SAR, Op.ILT)
_SINGLES = (Op.FSQRT, Op.F2I, Op.I2F)


def trial_program() -> tuple[BuiltProgram, list[Tensor]]:
    """The program, and the state that it starts from. Each result is a state tensor of its own, named after it."""
    a, b = inputs()
    generator = torch.Generator().manual_seed(8)
    wide = torch.randn(2, _ROWS, _LENGTH, generator=generator)
    run = torch.randn(3, _RUN, generator=generator)
    run[1, 77], run[2, 5] = torch.inf, torch.nan
    given = {"a": a, "b": b, "wide": wide, "run": run, "numbers": torch.arange(-_TOKENS, _ROWS)}
    write = _Writer(given)
    x, y, wide_x, runs = (write.build.load(name) for name in ("a", "b", "wide", "run"))
    _element_wise(write, x, y)
    _products(write, x, y, wide_x)
    for name, value in (("few", x.slice(1, 0, 9)), ("some", x), ("many", runs.slice(1, 0, 9000)), ("most", runs)):
        write.result(f"sum.{name}", write.build.sum_last(value))
        for magnitudes in (False, True):
            greatest = write.build.max_last(value, magnitudes=magnitudes)
            write.result(f"maximum.{name}{'.magnitudes' * magnitudes}", greatest)
    numbers = write.build.load("numbers")
    write.result("take", write.build.take(x, numbers))
    write.result("scatter", write.build.scatter_add(x.permute((1, 0)), numbers.slice(0, 0, x.shape[0]), _TOKENS))
    write.result("join", write.build.cat([x, y], 1, extent=600))
    write.result("transposed", write.build.view(wide_x.permute((2, 0, 1))))
    return write.build.finish(), write.state


def fault_of(engine: Engine, *, runs: int = 6) -> str:
    """What an engine computes otherwise than the reference on the processor: "" or the names of the results.

    Args:
        runs: of the program, which gives the same each time. The state is in another place at every other run, and a
            GPU replays what it recorded from the third or fourth.
    """
    built, state = trial_program()
    found, wanted = engine.open(built), ReferenceRun(built.program, built.constants)
    found.load(state)
    wanted.load(state)
    wanted.step()
    for _ in range(runs):
        found.step()
    wrong = [
        one.name
        for one, here, there in zip(built.program.states, found.state(), wanted.state(), strict=True)
        if not torch.equal(*(tensor.reshape(-1).view(torch.uint8) for tensor in (here, there)))
    ]
    return f"{', '.join(wrong)} of {len(wanted.state())} results differ from the reference" if wrong else ""


class _Writer:
    """A program with a state tensor for each input and each result."""

    def __init__(self, given: dict[str, Tensor]) -> None:
        self.build = ProgramBuilder(Role.GENERATE)
        self.state: list[Tensor] = []
        for name, data in given.items():
            self.build.state(name, DType.INT64 if data.dtype == torch.int64 else DType.FLOAT32, tuple(data.shape))
            self.state.append(data)

    def result(self, name: str, value: Value) -> None:
        wide = value.dtype is not DType.FLOAT32
        if wide and value.dtype is not DType.INT32:
            kernel = Builder(1)
            value = self.build.pointwise(kernel.kernel(kernel.input(0)), value, dtype=DType.INT32)
        self.build.state(name, DType.INT64 if wide else DType.FLOAT32, value.shape)
        self.state.append(torch.zeros(value.shape, dtype=torch.int64 if wide else torch.float32))
        self.build.store(name, value)


def _kernel(op: Op, count: int) -> Kernel:
    build = Builder(count)
    return build.kernel(build.emit(op, *(build.input(n) for n in range(count))))


def _element_wise(write: _Writer, x: Value, y: Value) -> None:
    for op in _PAIRS:
        dtype = DType.FLOAT32 if op in (Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV) else DType.INT32
        write.result(op.name, write.build.pointwise(_kernel(op, 2), x, y, dtype=dtype))
    for op in _SINGLES:
        dtype = DType.INT32 if op is Op.F2I else DType.FLOAT32
        write.result(op.name, write.build.pointwise(_kernel(op, 1), x, dtype=dtype))
    build = Builder(2)
    product = build.mul(build.input(0), build.input(1))
    added = build.kernel(build.add(product, build.input(0)))
    write.result("multiplied.then.added", write.build.pointwise(added, x, y, dtype=DType.FLOAT32))


def _products(write: _Writer, x: Value, y: Value, wide: Value) -> None:
    """Small and large ones of each precision: rows of odd length, rows that are cut, one matrix for all, many tiles."""
    build = write.build
    for bits in ((8, 8), (13, 13), (8, 13), (13, 8)):
        name = ".".join(map(str, bits))
        write.result(f"product.{name}", build.matmul(x, y, bits))
        write.result(f"products.{name}", build.matmul(wide, wide, bits))
        write.result(f"product.for.all.{name}", build.matmul(wide, wide.select(0, 1), bits))
    tall = build.view(wide.slice(1, 0, _DEEP).transpose())
    write.result("product.of.many", build.matmul(tall, tall, (13, 13)))


__all__ = ["fault_of", "trial_program"]
