"""The fusing pass: fewer operations, the same bits."""

import random

import pytest
import torch
from torch import Tensor
from traced import bits

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.kernels import MAXIMUM_INPUTS, MAXIMUM_LENGTH, Kernel, Op
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role, Value
from trainer.program.exact.operations import Pointwise
from trainer.program.exact.validate import check_program
from trainer.program.tracing.fusing import fuse

_SPECIAL = (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-41, -1.0)


def binary(op: Op) -> Kernel:
    build = Builder(2)
    return build.kernel(build.emit(op, build.input(0), build.input(1)))


def flipped() -> Kernel:
    """The sign bit turned over: makes a NaN that is not the one NaN, which an output must not show."""
    build = Builder(1)
    return build.kernel(build.emit(Op.XOR, build.input(0), build.word(0x80000000)))


def start(*shapes: tuple[int, ...]) -> tuple[ProgramBuilder, list[Value]]:
    build = ProgramBuilder(Role.TRAIN)
    for number, shape in enumerate(shapes):
        build.state(f"x{number}", DType.FLOAT32, shape)
    return build, [build.load(f"x{number}") for number in range(len(shapes))]


def finish(build: ProgramBuilder, *results: Value) -> BuiltProgram:
    for number, result in enumerate(results):
        build.state(f"y{number}", DType.FLOAT32 if result.dtype is DType.FLOAT32 else DType.INT64, result.shape)
        build.store(f"y{number}", result)
    return build.finish()


def count(built: BuiltProgram, code: str) -> int:
    return sum(one.code.name == code for one in built.program.operations)


def fused_is_equal(built: BuiltProgram, seed: int = 0) -> BuiltProgram:
    """The fused program, once both have been checked and run on values of every kind."""
    generator = torch.Generator().manual_seed(seed)
    state: list[Tensor] = []
    for tensor in built.program.states:
        values = torch.randn(tensor.shape, generator=generator)
        flat = values.reshape(-1)
        flat[: len(_SPECIAL)] = torch.tensor(_SPECIAL)[: len(flat)]
        state.append(values if tensor.dtype is DType.FLOAT32 else torch.zeros(tensor.shape, dtype=torch.int64))
    fused = BuiltProgram(fuse(built.program), built.constants)
    assert fuse(fused.program) == fused.program
    results = []
    for one in (built, fused):
        check_program(one.program)
        results.append(run_program(one.program, state, one.constants))
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(*results, strict=True))
    return fused


def test_fuse_joins_a_chain_through_permutations_slices_and_merged_axes() -> None:
    build, (x, y) = start((4, 6, 5), (5,))
    added = build.pointwise(binary(Op.FADD), x, y, dtype=DType.FLOAT32)
    turned = build.pointwise(flipped(), added.permute((2, 0, 1)), dtype=DType.FLOAT32)
    flat = build.reshape(turned, (5, 24)).slice(0, 1, 5, 2).slice(1, 3, 20)
    built = finish(build, build.pointwise(binary(Op.FMUL), flat, flat, dtype=DType.FLOAT32))
    fused = fused_is_equal(built)
    assert (count(built, "POINTWISE"), count(fused, "POINTWISE")) == (3, 1)


def test_fuse_takes_in_views() -> None:
    build, (x,) = start((4, 6))
    turned = build.pointwise(flipped(), x, dtype=DType.FLOAT32)
    fused = fused_is_equal(finish(build, build.sum_last(build.view(turned.permute((1, 0))))))
    assert count(fused, "VIEW") == 0


def test_fuse_leaves_what_two_read_or_the_state_keeps() -> None:
    build, (x, y) = start((4, 3), (3,))
    added = build.pointwise(binary(Op.FADD), x, y, dtype=DType.FLOAT32)
    one = build.pointwise(flipped(), added, dtype=DType.FLOAT32)
    two = build.pointwise(binary(Op.FMUL), added, x, dtype=DType.FLOAT32)
    assert count(fused_is_equal(finish(build, one, two)), "POINTWISE") == 3
    build, (x, y) = start((4, 3), (3,))
    added = build.pointwise(binary(Op.FADD), x, y, dtype=DType.FLOAT32)
    built = finish(build, added, build.pointwise(flipped(), added, dtype=DType.FLOAT32))
    assert count(fused_is_equal(built), "POINTWISE") == 2


def test_fuse_computes_nothing_twice() -> None:
    build, (x, y) = start((4, 3), (4, 1))
    small = build.pointwise(flipped(), y, dtype=DType.FLOAT32)
    built = finish(build, build.pointwise(binary(Op.FMUL), x, small, dtype=DType.FLOAT32))
    assert count(fused_is_equal(built), "POINTWISE") == 2


def test_fuse_leaves_two_views_of_one_operation() -> None:
    build, (x,) = start((4, 4))
    turned = build.pointwise(flipped(), x, dtype=DType.FLOAT32)
    built = finish(build, build.pointwise(binary(Op.FADD), turned, turned.transpose(), dtype=DType.FLOAT32))
    assert count(fused_is_equal(built), "POINTWISE") == 2


def test_fuse_leaves_views_that_strides_cannot_follow() -> None:
    build, (x, y) = start((4, 6), (4, 1))
    added = build.pointwise(binary(Op.FADD), x, y, dtype=DType.FLOAT32)  # y stands still along axis 1, so no merging
    built = finish(build, build.pointwise(flipped(), build.reshape(added, (24,)), dtype=DType.FLOAT32))
    assert count(fused_is_equal(built), "POINTWISE") == 2


def test_fuse_leaves_saturating_operations() -> None:
    build, (x,) = start((4, 6))
    quantised = build.quantise(x, 8)
    built = finish(build, build.pointwise(flipped(), quantised.values, dtype=DType.INT32))
    fused = fused_is_equal(built)
    assert any(one.dtype is DType.INT8 for one in fused.program.operations)


def test_fuse_keeps_nan_canonical_between_kernels() -> None:
    build, (x,) = start((8,))
    turned = build.pointwise(flipped(), x, dtype=DType.FLOAT32)
    reads_bits = Builder(1)
    kernel = reads_bits.kernel(reads_bits.emit(Op.SHR, reads_bits.input(0), reads_bits.word(31)))
    built = finish(build, build.pointwise(kernel, turned, dtype=DType.INT32))
    assert count(fused_is_equal(built), "POINTWISE") == 1


def test_fuse_stays_within_the_limits_of_kernels() -> None:
    build, values = start(*((3,) for _ in range(40)))
    total = values[0]
    for value in values[1:]:
        total = build.pointwise(binary(Op.FADD), total, value, dtype=DType.FLOAT32)
    fused = fused_is_equal(finish(build, total))
    assert count(fused, "POINTWISE") == 3
    assert max(len(one.operands) for one in fused.program.operations) == MAXIMUM_INPUTS
    build, (x,) = start((3,))
    step = Builder(1)
    long = step.input(0)
    for n in range(300):
        long = step.add(step.mul(long, long), step.number(float(n)))
        if n == 120:
            kernel = step.kernel(long)
            break
    for _ in range(4):
        x = build.pointwise(kernel, x, dtype=DType.FLOAT32)
    fused = fused_is_equal(finish(build, x))
    kernels = [one.attributes.kernel for one in fused.program.operations if isinstance(one.attributes, Pointwise)]
    lengths = [len(kernel.instructions) for kernel in kernels]
    assert len(lengths) > 1
    assert max(lengths) <= MAXIMUM_LENGTH


@pytest.mark.parametrize("seed", range(24))
def test_fuse_gives_the_same_bits_for_random_programs(seed: int) -> None:
    choose = random.Random(seed)
    build, values = start((2, 3, 4), (3, 4), (4,), (2, 1, 4))
    for _ in range(25):
        value = choose.choice(values[-8:])
        if value.shape and choose.random() < 0.5:
            value = value.permute(choose.sample(range(len(value.shape)), len(value.shape)))
        if value.shape and value.shape[0] > 1 and choose.random() < 0.3:
            value = value.slice(0, 1, value.shape[0])
        if choose.random() < 0.3:
            value = build.reshape(value, (value.elements,))
        kind = choose.randrange(4)
        if kind == 0:
            values.append(build.pointwise(flipped(), value, dtype=DType.FLOAT32))
        elif kind == 1:
            values.append(build.view(value))
        elif kind == 2 and value.shape:
            values.append(build.max_last(value))
        else:
            other = build.pointwise(flipped(), value, dtype=DType.FLOAT32)
            operation = choose.choice([Op.FADD, Op.FMUL, Op.FDIV, Op.AND, Op.FLT])
            values.append(build.pointwise(binary(operation), value, other, dtype=DType.FLOAT32))
    fused_is_equal(finish(build, *values[-3:]), seed)
