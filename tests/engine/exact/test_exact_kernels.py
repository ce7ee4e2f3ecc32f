"""Primitives against the oracle, kernels against hostile bytes, functions against many digits."""

import math
import random
from collections.abc import Callable

import exact_oracle as oracle
import mpmath
import pytest
import torch
from exact_oracle import ANY, EXAMPLES
from hypothesis import given
from hypothesis import strategies as st
from program_oracle import PRIMITIVES as EXPECTED

from trainer.engine.exact.functions import FUNCTIONS, Builder, function_kernel
from trainer.engine.exact.kernels import MAXIMUM_LENGTH, Instruction, Kernel, Op, run_kernel

WORD = st.integers(0, 2**32 - 1)


def kernel_of(op: Op, inputs: int) -> Kernel:
    reads = [Instruction(Op.INPUT, number) for number in range(inputs)]
    return Kernel(inputs, (*reads, Instruction(op, *range(inputs))))


def run(op: Op, *words: int) -> int:
    result = run_kernel(kernel_of(op, len(words)), [oracle.word_tensor([word]) for word in words])
    return oracle.words_of(result)[0]


@pytest.mark.parametrize("op", EXPECTED)
def test_primitive_equals_the_oracle_on_special_values(op: Op) -> None:
    count = 1 if op in (Op.FSQRT, Op.F2I, Op.I2F) else 3 if op is Op.SELECT else 2
    words = [*oracle.SPECIAL_WORDS, 0x3F800000, 0xBF800000, 0x4F000000, 0xCF000000, 0x3F000000, 0x40200000, 31, 33]
    pairs = [(a, b) for a in words for b in words] if count > 1 else [(a, 0) for a in words]
    columns = [oracle.word_tensor([pair[0] for pair in pairs]), oracle.word_tensor([pair[1] for pair in pairs])]
    inputs = [*columns, columns[0]][:count]
    actual = oracle.words_of(run_kernel(kernel_of(op, count), inputs))
    expected = [EXPECTED[op](*(a, b, a)[:count]) for a, b in pairs]
    assert actual == expected


@pytest.mark.parametrize("op", [Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV])
@EXAMPLES
@given(a=ANY, b=ANY)
def test_float_primitive_equals_the_oracle(op: Op, a: int, b: int) -> None:
    assert run(op, a, b) == EXPECTED[op](a, b)


@pytest.mark.parametrize("op", [Op.FSQRT, Op.F2I])
@EXAMPLES
@given(a=ANY)
def test_unary_primitive_equals_the_oracle(op: Op, a: int) -> None:
    assert run(op, a) == EXPECTED[op](a)


@pytest.mark.parametrize("op", [op for op in EXPECTED if Op.IADD <= op < Op.SELECT])
@EXAMPLES
@given(a=WORD, b=WORD)
def test_integer_primitive_equals_the_oracle(op: Op, a: int, b: int) -> None:
    assert run(op, a, b) == EXPECTED[op](a, b)


@EXAMPLES
@given(a=WORD)
def test_integer_to_float_rounds_ties_to_even(a: int) -> None:
    assert run(Op.I2F, a) == EXPECTED[Op.I2F](a)


def test_products_are_never_fused_with_sums() -> None:
    build = Builder(2)
    a, b = build.input(0), build.input(1)
    kernel = build.kernel(build.add(build.mul(a, b), a))
    generator = random.Random(5)
    words = [[generator.randrange(0x3F000000, 0x40000000) for _ in range(500)] for _ in range(2)]
    expected = [oracle.add(oracle.multiply(x, y), x) for x, y in zip(*words, strict=True)]
    assert oracle.words_of(run_kernel(kernel, [oracle.word_tensor(part) for part in words])) == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kernel_encodes_and_decodes(name: str) -> None:
    kernel = function_kernel(name)
    assert Kernel.decode(kernel.encode(), 1) == kernel
    assert len(kernel.encode()) == 8 * len(kernel.instructions)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "1 to 512 instructions"),
        (bytes(7), "not a multiple"),
        (bytes(8 * (MAXIMUM_LENGTH + 1)), "too long"),
        (b"\xff" + bytes(7), "no operation 0xff"),
        (b"\x00\x00\x00\x01" + bytes(4), "input 1 of 1"),
        (b"\x10" + bytes(7), "register 0"),
        (b"\x00\x01" + bytes(6), "mean nothing"),
        (b"\x00\x00\x00\x00\x00\x05\x00\x00", "mean nothing"),
    ],
)
def test_decode_refuses_what_is_no_kernel(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Kernel.decode(data, 1)


@EXAMPLES
@given(st.binary(max_size=80))
def test_decode_accepts_only_its_own_encoding(data: bytes) -> None:
    try:
        kernel = Kernel.decode(data, 2)
    except ValueError:
        return
    assert kernel.encode() == data


def test_run_kernel_wrong_inputs_refused() -> None:
    with pytest.raises(ValueError, match="2 inputs"):
        run_kernel(kernel_of(Op.FADD, 2), [torch.zeros(1, dtype=torch.int32)])


MANY_DIGITS: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "erf": mpmath.erf,
    "reciprocal_root": lambda x: 1 / mpmath.sqrt(x),
    "gelu": lambda x: x * (1 + mpmath.erf(x / mpmath.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3))) / 2,
}
# Units in the last place of the result; of 1 for those that vanish in a tail, where only the absolute error matters.
LIMITS = {"exp": 1.0, "log": 1.0, "tanh": 1.5, "reciprocal_root": 1.5}
ABSOLUTE = {"sigmoid": 2.0, "erf": 4.0, "gelu": 8.0, "gelu_tanh": 8.0}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_close_to_many_digits(name: str) -> None:
    generator = random.Random(11)
    values = [generator.gauss(0, scale) for scale in (1e-3, 0.3, 1, 5) for _ in range(150)]
    x = torch.tensor([abs(v) for v in values] if name in ("log", "reciprocal_root") else values)
    y = run_kernel(function_kernel(name), [x.view(torch.int32)]).view(torch.float32)
    worst = 0.0
    for argument, result in zip(x.tolist(), y.tolist(), strict=True):
        true = MANY_DIGITS[name](mpmath.mpf(argument))
        unit = 2.0**-23 if name in ABSOLUTE else 2.0 ** (math.frexp(float(true))[1] - 24)
        worst = max(worst, abs(float(result - true)) / unit)
    assert worst <= {**LIMITS, **ABSOLUTE}[name]
    assert worst > 0.3  # the comparison itself works: nothing that rounds can be closer everywhere


@pytest.mark.parametrize(
    ("name", "argument", "result"),
    [
        ("exp", -math.inf, 0.0),
        ("exp", math.inf, math.inf),
        ("exp", 0.0, 1.0),
        ("exp", 89.0, math.inf),
        ("exp", -104.0, 0.0),
        ("log", 0.0, -math.inf),
        ("log", -0.0, -math.inf),
        ("log", 1.0, 0.0),
        ("log", math.inf, math.inf),
        ("tanh", math.inf, 1.0),
        ("tanh", -math.inf, -1.0),
        ("erf", -math.inf, -1.0),
        ("sigmoid", -math.inf, 0.0),
        ("sigmoid", math.inf, 1.0),
        ("reciprocal_root", math.inf, 0.0),
    ],
)
def test_function_at_special_values(name: str, argument: float, result: float) -> None:
    y = run_kernel(function_kernel(name), [torch.tensor([argument]).view(torch.int32)]).view(torch.float32)
    assert y.tolist() == [result]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_gives_the_one_nan(name: str) -> None:
    words = [0x7FC00000, 0xFFC00000, 0x7F800001]
    assert oracle.words_of(run_kernel(function_kernel(name), [oracle.word_tensor(words)])) == [oracle.NAN] * 3


def test_logarithm_below_zero_is_nan() -> None:
    y = run_kernel(function_kernel("log"), [torch.tensor([-1.0]).view(torch.int32)])
    assert oracle.words_of(y) == [oracle.NAN]
