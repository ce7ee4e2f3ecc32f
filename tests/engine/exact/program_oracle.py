"""Any single element of any operation, in Python integers and fractions: what a contract computes.

Float elements are their bits, integers are signed. Nothing here uses torch, nor any of the program's own code but the
records themselves.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

import exact_oracle as oracle
from exact_oracle import INFINITY, NAN, signed

from trainer.engine.exact.kernels import Kernel, Op
from trainer.program.exact.operations import (
    Batch,
    Cat,
    Constant,
    DType,
    Load,
    Matmul,
    Max,
    Operand,
    Operation,
    Pointwise,
    ScatterAdd,
    Sum,
    Take,
    View,
)

MASK = 0xFFFFFFFF
PRIMITIVES: dict[Op, Callable[..., int]] = {
    Op.FADD: oracle.add,
    Op.FSUB: lambda a, b: oracle.add(a, oracle.NAN if oracle.is_nan(b) else b ^ oracle.SIGN),
    Op.FMUL: oracle.multiply,
    Op.FDIV: oracle.divide,
    Op.FSQRT: oracle.square_root,
    Op.FLT: oracle.less,
    Op.FLE: lambda a, b: oracle.less(a, b) | oracle.equal(a, b),
    Op.FEQ: oracle.equal,
    Op.F2I: oracle.to_integer,
    Op.I2F: lambda a: oracle.nearest(Fraction(signed(a))),
    Op.IADD: lambda a, b: (a + b) & MASK,
    Op.ISUB: lambda a, b: (a - b) & MASK,
    Op.IMUL: lambda a, b: (a * b) & MASK,
    Op.AND: lambda a, b: a & b,
    Op.OR: lambda a, b: a | b,
    Op.XOR: lambda a, b: a ^ b,
    Op.SHL: lambda a, b: (a << (b & 31)) & MASK,
    Op.SHR: lambda a, b: a >> (b & 31),
    Op.SAR: lambda a, b: (signed(a) >> (b & 31)) & MASK,
    Op.ILT: lambda a, b: int(signed(a) < signed(b)),
    Op.IEQ: lambda a, b: int(a == b),
    Op.SELECT: lambda a, b, c: b if a else c,
}

Elements = Sequence[int]
# Where LOAD, CONST and BATCH find what they read: (operation, index of the element) to the raw element.
Given = Callable[[Operation, tuple[int, ...]], int]


def element(one: Operation, index: tuple[int, ...], outputs: Sequence[Elements], given: Given) -> int:
    """The operation's element at an index, from the elements of earlier outputs."""

    def at(place: int, k: int = 0) -> int:
        return outputs[one.operands[place].source][_named(one.operands[place], index) + k]

    match one.attributes:
        case Load() | Constant():
            return _canonical(given(one, index), one.dtype)
        case Batch():
            return given(one, index)
        case View():
            return at(0)
        case Pointwise(kernel):
            words = [at(place) & MASK for place in range(len(one.operands))]
            return written(kernel_word(kernel, words), one.dtype)
        case Matmul(length):
            total = sum(at(0, k) * at(1, k) for k in range(length))
            return oracle.multiply(oracle.multiply(oracle.nearest(Fraction(total)), at(2)), at(3))
        case Sum(length):
            return fixed_point_sum([at(0, k) for k in range(length)], at(1))
        case Max(length, magnitudes):
            row = [at(0, k) for k in range(length)]
            return max(word & 0x7FFFFFFF for word in row) if magnitudes else max(row, key=_rank)
        case Take(rows, row_stride):
            row_number = at(1)
            inside = 0 <= row_number < rows
            return at(0, row_number * row_stride) if inside else 0
        case ScatterAdd(length):
            return fixed_point_sum([at(0, k) for k in range(length) if at(1, k) == index[0]], at(2))
        case Cat():
            return _joined(one, one.attributes, index, outputs)


def kernel_word(kernel: Kernel, words: Sequence[int]) -> int:
    """A kernel's result, instruction by instruction."""
    registers: list[int] = []
    for one in kernel.instructions:
        if one.op is Op.INPUT:
            registers.append(words[one.a])
        elif one.op is Op.CONST:
            registers.append(one.word)
        else:
            count = {Op.FSQRT: 1, Op.F2I: 1, Op.I2F: 1, Op.SELECT: 3}.get(one.op, 2)
            registers.append(PRIMITIVES[one.op](*(registers[r] for r in (one.a, one.b, one.c)[:count])))
    return registers[-1]


def written(word: int, dtype: DType) -> int:
    """A word as an element: the one NaN, a signed integer, or a saturated one."""
    if dtype is DType.FLOAT32:
        return _canonical(word, dtype)
    limit = {DType.INT8: 127, DType.INT16: 4095, DType.INT32: 2**31}[dtype]
    return min(max(signed(word), -limit), limit)


def fixed_point_sum(row: Sequence[int], exponent: int) -> int:
    """SUM of bits with an exponent."""
    exponent = min(max(exponent, -96), 128)
    infinities = {word for word in row if oracle.is_infinite(word)}
    if len(infinities) == 2 or any(map(oracle.is_nan, row)):
        return NAN
    if infinities:
        return infinities.pop()
    scale = Fraction(2) ** (30 - exponent)
    total = sum(min(max(round(oracle.exact(word) * scale), -(2**30)), 2**30) for word in row)
    return oracle.multiply(oracle.nearest(Fraction(total)), oracle.nearest(1 / scale))


def _named(operand: Operand, index: tuple[int, ...]) -> int:
    return operand.offset + sum(i * stride for i, stride in zip(index, operand.strides, strict=True))


def _canonical(value: int, dtype: DType) -> int:
    """NaN made the one NaN; integers cut to 32 bits."""
    if dtype is DType.FLOAT32:
        return NAN if oracle.is_nan(value) else value
    return signed(value & MASK)


def _rank(word: int) -> tuple[int, Fraction, int]:
    """A place in the total order -inf < … < -0 < +0 < … < +inf < NaN."""
    if oracle.is_nan(word):
        return (2, Fraction(0), 0)
    if word & 0x7FFFFFFF == INFINITY:
        return (-1 if word >> 31 else 1, Fraction(0), 0)
    return (0, oracle.exact(word), 0 if word >> 31 else 1)


def _joined(one: Operation, cat: Cat, index: tuple[int, ...], outputs: Sequence[Elements]) -> int:
    rest = index[cat.axis]
    for operand, extent in zip(one.operands, cat.extents, strict=True):
        if rest < extent:
            place = (*index[: cat.axis], rest, *index[cat.axis + 1 :])
            return outputs[operand.source][_named(operand, place)]
        rest -= extent
    return cat.padding if one.dtype is DType.FLOAT32 else signed(cat.padding)
