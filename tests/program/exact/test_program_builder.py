"""The builder: views without copies, folds in rows, shared operations, and kernels equal to the reference."""

import random

import pytest
import torch

from trainer.engine.exact import reference
from trainer.engine.exact.functions import function_kernel
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.kernels import run_kernel
from trainer.program.exact import (
    DType,
    ProgramBuilder,
    Quantised,
    Role,
    Value,
    check_constants,
    check_program,
)
from trainer.program.exact.operations import Code
from trainer.program.exact.scaling import exponent_kernel, quantise_kernel, scale_kernel
from trainer.program.exact.views import contiguous_strides, whole

SPECIAL = [0, -(2**31), 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, -8388609, 0x7F800000, -8388608, 0x7FC00000]


def special_rows() -> torch.Tensor:
    """float32 [60, 9]: every exponent, in half of the rows with special values."""
    rng = random.Random(4)
    words = [[rng.getrandbits(32) - 2**31 for _ in range(9)] for _ in range(20)]
    words += [[rng.randrange(0x3B000000, 0x43000000) for _ in range(9)] for _ in range(10)]
    words += [[rng.choice(SPECIAL[:7]) for _ in range(9)] for _ in range(10)]
    words += [[rng.choice(SPECIAL) for _ in range(9)] for _ in range(10)]
    words += [[rng.choice([0, -(2**31), 1, 5]) for _ in range(9)] for _ in range(10)]
    return reference.canonical_nan(torch.tensor(words, dtype=torch.int32).view(torch.float32))


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype == torch.float32:
        a, b = a.view(torch.int32), b.view(torch.int32)
    return torch.equal(a, b)


def run_to_state(build: ProgramBuilder, value: Value, *inputs: torch.Tensor) -> torch.Tensor:
    """The value, float32, as a program of these constants makes it."""
    build.state("result", DType.FLOAT32, value.shape)
    build.store("result", value)
    built = build.finish()
    check_program(built.program)
    check_constants(built.program, built.constants)
    return run_program(built.program, [torch.zeros(value.shape)], built.constants)[0]


@pytest.mark.parametrize("bits", range(3, 14))
def test_quantise_kernels_equal_the_reference(bits: int) -> None:
    x = special_rows()
    q, scale = reference.quantise_rows(x, bits)
    exponent, _ = reference.exponent_of(x)
    greatest = (x.view(torch.int32) & 0x7FFFFFFF).amax(-1, keepdim=True)
    assert same_bits(run_kernel(quantise_kernel(bits), [x.view(torch.int32), greatest]), q.to(torch.int32))
    assert same_bits(run_kernel(scale_kernel(bits), [greatest]).view(torch.float32), scale)
    assert same_bits(run_kernel(exponent_kernel(), [greatest]), exponent)


@pytest.mark.parametrize("bits", [2, 14])
def test_quantise_kernel_bits_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="3 to 13 bits"):
        quantise_kernel(bits)


@pytest.mark.parametrize("bits", [(8, 8), (13, 13), (8, 13)])
def test_matmul_equals_the_reference(bits: tuple[int, int]) -> None:
    x = special_rows()
    a, b = x[:40], x[20:]
    build = ProgramBuilder(Role.TRAIN)
    actual = run_to_state(build, build.matmul(build.constant(a), build.constant(b), bits))
    expected = reference.matmul(reference.quantise_rows(a, bits[0]), reference.quantise_rows(b, bits[1]), bits=bits)
    assert same_bits(actual, expected)


def test_matmul_batches_broadcast_and_permuted_rows_are_written_out() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(3, 2, 5, 7, generator=generator), torch.randn(2, 7, 4, generator=generator)
    build = ProgramBuilder(Role.TRAIN)
    product = build.matmul(build.constant(a), build.constant(b).transpose(), (13, 13))
    actual = run_to_state(build, product)
    assert actual.shape == (3, 2, 5, 4)
    assert torch.allclose(actual, a @ b, atol=0.01)
    left, right = reference.quantise_rows(a[2, 1], 13), reference.quantise_rows(b[1].mT, 13)
    assert same_bits(actual[2, 1], reference.matmul(left, right, bits=(13, 13)))


def test_product_of_head_slices_copies_nothing() -> None:
    build = ProgramBuilder(Role.TRAIN)
    x = build.constant(torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(2)))
    heads = build.reshape(x, (2, 6, 2, 4)).permute((0, 2, 1, 3))
    build.product(build.quantise(heads, 8), build.quantise(heads, 8))
    codes = [one.code for one in build.finish(prune=False).program.operations]
    assert Code.VIEW not in codes
    assert codes.count(Code.POINTWISE) == 2  # the second quantise is the first


def test_product_wrong_rows_refused() -> None:
    build = ProgramBuilder(Role.TRAIN)
    rows = [build.quantise(build.constant(torch.ones(2, k)), 8) for k in (3, 4)]
    with pytest.raises(ValueError, match=r"rows of \[2, 3\] and \[2, 4\]"):
        build.product(*rows)
    assert isinstance(rows[0], Quantised)


def test_sum_last_equals_the_reference() -> None:
    x = special_rows()
    build = ProgramBuilder(Role.TRAIN)
    actual = run_to_state(build, build.sum_last(build.constant(x)))
    assert same_bits(actual, reference.sum_rows(x, reference.exponent_of(x)[0]).squeeze(-1))


def test_scatter_add_is_the_gradient_of_take() -> None:
    generator = torch.Generator().manual_seed(3)
    gradient, tokens = torch.randn(6, 4, generator=generator), torch.tensor([1, 0, 1, 7, -1, 3], dtype=torch.int32)
    build = ProgramBuilder(Role.TRAIN)
    added = build.scatter_add(build.constant(gradient).transpose(), build.constant(tokens), 5)
    expected = torch.zeros(5, 4)
    expected.index_add_(0, tokens[[0, 1, 2, 5]].long(), gradient[[0, 1, 2, 5]])
    assert torch.allclose(run_to_state(build, added), expected, atol=1e-6)


def test_take_and_gather_read_zero_outside() -> None:
    table = torch.arange(12.0).reshape(3, 4) + 1
    index = torch.tensor([2, -1, 3], dtype=torch.int32)
    build = ProgramBuilder(Role.TRAIN)
    taken = build.take(build.constant(table), build.constant(index))
    gathered = build.gather_last(build.constant(table), build.constant(index))
    both = build.cat([taken, gathered.unsqueeze(-1)], 1)
    expected = torch.tensor([[9.0, 10, 11, 12, 3], [0, 0, 0, 0, 0], [0, 0, 0, 0, 12]])
    assert torch.equal(run_to_state(build, both), expected)


def test_cat_and_pad_equal_torch() -> None:
    parts = [torch.randn(2, n, generator=torch.Generator().manual_seed(n)) for n in range(1, 20)]
    build = ProgramBuilder(Role.TRAIN)
    joined = build.cat([build.constant(part) for part in parts], -1)
    one = build.constant(torch.tensor(1.5))
    padded = build.pad(build.pad(joined, 1, 2, 0, one), 0, 1, 1, one)
    expected = torch.nn.functional.pad(torch.cat(parts, 1), (2, 0, 1, 1), value=1.5)
    assert torch.equal(run_to_state(build, padded), expected)


@pytest.mark.parametrize("seed", range(40))
def test_views_equal_torch(seed: int) -> None:
    rng = random.Random(seed)
    shape = [rng.randint(1, 4) for _ in range(rng.randint(1, 4))]
    data = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    build = ProgramBuilder(Role.TRAIN)
    value = build.constant(data)
    for _ in range(6):
        value, data = step(rng, build, value, data)
        assert value.shape == tuple(data.shape)
    assert torch.equal(run_to_state(build, value), data)


def step(rng: random.Random, build: ProgramBuilder, value: Value, data: torch.Tensor) -> tuple[Value, torch.Tensor]:
    """One random change of a view, in both worlds."""
    rank = data.dim()
    axis = rng.randrange(rank) if rank else 0
    what = rng.choice(["permute", "slice", "reshape", "expand", "unsqueeze", "select"])
    if what == "permute":
        order = rng.sample(range(rank), rank)
        return value.permute(order), data.permute(order)
    if what == "slice" and rank:
        start = rng.randrange(data.shape[axis])
        stop, jump = rng.randint(start + 1, data.shape[axis]), rng.randint(1, 3)
        return value.slice(axis, start, stop, jump), data[(slice(None),) * axis + (slice(start, stop, jump),)]
    if what == "reshape":
        shape = [*data.shape[:axis], -1] if rng.random() < 0.5 else [-1]
        return build.reshape(value, shape), data.reshape(shape)
    if what == "expand" and rank < 5:
        return value.expand((2, *data.shape)), data.expand(2, *data.shape)
    if what == "unsqueeze" and rank < 5:
        return value.unsqueeze(axis), data.unsqueeze(axis)
    if what == "select" and rank:
        place = rng.randrange(data.shape[axis])
        return value.select(axis, place), data.select(axis, place)
    return value, data


def test_diagonal_equals_torch() -> None:
    data = torch.arange(24.0).reshape(2, 3, 4)[:, :, :3]
    build = ProgramBuilder(Role.TRAIN)
    value = build.constant(torch.arange(24.0).reshape(2, 3, 4)).slice(2, 0, 3).diagonal(1, 2)
    assert torch.equal(run_to_state(build, value), data.diagonal(0, 1, 2))


def test_reshape_copies_only_what_strides_cannot_say() -> None:
    value = whole(0, DType.FLOAT32, (2, 3, 4))
    assert value.reshaped((6, 4)) == whole(0, DType.FLOAT32, (6, 4))
    assert value.transpose().reshaped((24,)) is None
    assert value.expand((5, 2, 3, 4)).reshaped((5, 24)) is not None
    assert value.expand((5, 2, 3, 4)).reshaped((120,)) is None
    assert contiguous_strides((2, 1, 3)) == (3, 0, 1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda v: v.permute((0, 0)), "no order of 2 axes"),
        (lambda v: v.expand((3, 3)), "does not broadcast"),
        (lambda v: v.expand((3,)), "does not broadcast"),
        (lambda v: v.slice(0, 1, 1), "1:1:1 of an axis of 2"),
        (lambda v: v.squeeze(0), "more than one element"),
        (lambda v: v.diagonal(0, 1), "have no diagonal"),
        (lambda v: v.reshaped((5,)), "have not as many elements"),
    ],
)
def test_view_that_does_not_fit_refused(change: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        change(whole(0, DType.FLOAT32, (2, 3)))  # type: ignore[operator]


def test_builder_misuse_refused() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("x", DType.FLOAT32, (2,))
    x = build.load("x")
    with pytest.raises(ValueError, match="already"):
        build.state("x", DType.FLOAT32, (2,))
    with pytest.raises(ValueError, match="float32 and int64"):
        build.state("y", DType.INT8, (2,))
    with pytest.raises(ValueError, match="stored to x"):
        build.store("x", x.unsqueeze(0))
    with pytest.raises(ValueError, match="float32 or int32"):
        build.constant(torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="takes 1 inputs, not 2"):
        build.pointwise(function_kernel("exp"), x, x, dtype=DType.FLOAT32)
    with pytest.raises(ValueError, match="no rows to fold"):
        build.max_last(x.select(0, 0))


def test_finish_leaves_out_what_nobody_needs() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("x", DType.FLOAT32, (2,))
    build.constant(torch.ones(2))
    kept = build.constant(torch.zeros(2))
    build.max_last(build.load("x"))
    build.store("x", kept)
    built = build.finish()
    assert [one.code for one in built.program.operations] == [Code.CONST]
    assert [data.tolist() for data in built.constants] == [[0, 0]]
    assert len(build.finish(prune=False).program.operations) == 4
    check_program(built.program)
