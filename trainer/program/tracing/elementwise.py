"""Element-wise ATen operators as kernels: what each computes, and in which type."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from trainer.engine.exact import functions
from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op

_aten = torch.ops.aten
_INFINITY = 0x7F800000
_WHOLE = 2.0**23  # from here on every float32 is a whole number


class In(enum.Enum):
    """The type that operands are brought to before a kernel reads them."""

    FLOAT = "float32 always"
    EITHER = "float32 if an operand is, else int32"
    TRUTH = "1 where not zero, else 0"


@dataclass(frozen=True)
class Rule:
    """How an operator becomes a kernel: `write(build, floating, *registers)` gives the register of the result."""

    write: Callable[..., int]
    takes: In


def _plain(op: Callable[[Builder, int], int]) -> Callable[..., int]:
    return lambda build, floating, x: op(build, x)


def _two(when_float: Op, when_integer: Op) -> Callable[..., int]:
    return lambda build, floating, a, b: build.emit(when_float if floating else when_integer, a, b)


def less(build: Builder, floating: bool, a: int, b: int) -> int:
    """a < b; with NaN, no."""
    return build.emit(Op.FLT if floating else Op.ILT, a, b)


def less_or_equal(build: Builder, floating: bool, a: int, b: int) -> int:
    """a <= b; with NaN, no."""
    return build.emit(Op.FLE, a, b) if floating else negation(build, build.emit(Op.ILT, b, a))


def equal(build: Builder, floating: bool, a: int, b: int) -> int:
    """a == b; with NaN, no."""
    return build.emit(Op.FEQ if floating else Op.IEQ, a, b)


def negation(build: Builder, truth: int) -> int:
    """0 for 1, 1 for 0."""
    return build.emit(Op.XOR, truth, build.word(1))


def _maximum(build: Builder, floating: bool, a: int, b: int) -> int:
    return _passing_nan(build, floating, b, build.select(less(build, floating, a, b), b, a))


def _minimum(build: Builder, floating: bool, a: int, b: int) -> int:
    return _passing_nan(build, floating, b, build.select(less(build, floating, b, a), b, a))


def _passing_nan(build: Builder, floating: bool, b: int, chosen: int) -> int:
    """A comparison with a NaN is 0 and keeps a, which is right for a NaN in a only."""
    return build.select(build.emit(Op.FEQ, b, b), chosen, b) if floating else chosen


def clamp(build: Builder, floating: bool, x: int, least: int | None = None, greatest: int | None = None) -> int:
    """x between two bounds, either of which may be missing; a NaN stays."""
    if least is not None:
        x = _maximum(build, floating, x, least)
    return x if greatest is None else _minimum(build, floating, x, greatest)


def _relu(build: Builder, floating: bool, x: int) -> int:
    """x where it is above 0 or NaN, else +0."""
    zero = build.word(0)
    return build.select(less_or_equal(build, floating, x, zero), zero, x)


def _negative(build: Builder, floating: bool, x: int) -> int:
    return build.negate(x) if floating else build.emit(Op.ISUB, build.word(0), x)


def _magnitude(build: Builder, floating: bool, x: int) -> int:
    if floating:
        return build.magnitude(x)
    return build.select(build.emit(Op.ILT, x, build.word(0)), _negative(build, False, x), x)


def _sign(build: Builder, floating: bool, x: int) -> int:
    zero, one = build.word(0), build.number(1.0) if floating else build.word(1)
    below = build.select(less(build, floating, x, zero), _negative(build, floating, one), zero)
    return build.select(less(build, floating, zero, x), one, below)


def _reciprocal(build: Builder, x: int) -> int:
    return build.div(build.number(1.0), x)


def _log1p(build: Builder, x: int) -> int:
    """log(1 + x), the rounding of 1 + x made up for (Kahan)."""
    one = build.number(1.0)
    raised = build.add(one, x)
    value = build.div(build.mul(functions.log(build, raised), x), build.sub(raised, one))
    value = build.select(build.emit(Op.FEQ, raised, one), x, value)
    return build.select(build.emit(Op.FLT, x, build.word(_INFINITY)), value, build.add(x, x))


def _expm1(build: Builder, x: int) -> int:
    """e^x - 1, by the same idea."""
    one = build.number(1.0)
    grown = functions.exp(build, x)
    less_one = build.sub(grown, one)
    value = build.div(build.mul(less_one, x), functions.log(build, grown))
    value = build.select(build.emit(Op.FEQ, grown, one), x, value)
    extreme = build.emit(Op.FLE, build.number(32.0), build.magnitude(x))
    return build.select(extreme, less_one, value)


def power(exponent: float) -> Callable[..., int] | None:
    """x to a fixed power, as a rule's `write`: whole exponents up to 64 by squaring, and ± 1/2; else None."""
    if exponent == 0.5:
        return lambda build, floating, x: build.emit(Op.FSQRT, x)
    if exponent == -0.5:
        return lambda build, floating, x: functions.reciprocal_root(build, x)
    if exponent != int(exponent) or abs(exponent) > 64:
        return None

    def write(build: Builder, floating: bool, x: int) -> int:
        times = build.mul if floating else (lambda a, b: build.emit(Op.IMUL, a, b))
        result, square, rest = None, x, abs(int(exponent))
        while rest:
            if rest & 1:
                result = square if result is None else times(result, square)
            rest >>= 1
            square = times(square, square) if rest else square
        if result is None:
            return build.number(1.0) if floating else build.word(1)
        return _reciprocal(build, result) if exponent < 0 else result

    return write


def rounded(build: Builder, x: int) -> int:
    """The nearest whole number as a float, ties to even; what has no fraction (and NaN) passes."""
    whole = build.with_sign(build.emit(Op.I2F, build.emit(Op.F2I, build.magnitude(x))), x)
    return build.select(build.less(build.magnitude(x), build.number(_WHOLE)), whole, x)


def floor(build: Builder, x: int) -> int:
    """The greatest whole number that is not above x."""
    near = rounded(build, x)
    return build.select(build.less(x, near), build.sub(near, build.number(1.0)), near)


def _ceil(build: Builder, x: int) -> int:
    near = rounded(build, x)
    return build.select(build.less(near, x), build.add(near, build.number(1.0)), near)


def truncated(build: Builder, x: int) -> int:
    """x without its fraction."""
    return build.with_sign(floor(build, build.magnitude(x)), x)


def truth(build: Builder, floating: bool, x: int) -> int:
    """1 where x is not zero (a NaN is not), else 0."""
    return negation(build, equal(build, floating, x, build.word(0)))


def _rules() -> dict[Any, Rule]:
    rules: dict[Any, Rule] = {}

    def put(takes: In, write: Callable[..., int], *operators: Any) -> None:
        rules.update(dict.fromkeys(operators, Rule(write, takes)))

    for name, op in (("exp", functions.exp), ("log", functions.log), ("tanh", functions.tanh)):
        put(In.FLOAT, _plain(op), getattr(_aten, name).default)
    put(In.FLOAT, _plain(_log1p), _aten.log1p.default)
    put(In.FLOAT, _plain(_expm1), _aten.expm1.default)
    put(In.FLOAT, _plain(functions.sigmoid), _aten.sigmoid.default)
    put(In.FLOAT, _plain(functions.erf), _aten.erf.default)
    put(In.FLOAT, _plain(functions.reciprocal_root), _aten.rsqrt.default)
    put(In.FLOAT, _plain(_reciprocal), _aten.reciprocal.default)
    put(In.FLOAT, lambda build, floating, x: build.emit(Op.FSQRT, x), _aten.sqrt.default)
    put(In.FLOAT, _plain(rounded), _aten.round.default)
    put(In.FLOAT, _plain(floor), _aten.floor.default)
    put(In.FLOAT, _plain(_ceil), _aten.ceil.default)
    put(In.FLOAT, _plain(truncated), _aten.trunc.default)
    put(In.FLOAT, lambda build, floating, a, b: build.div(a, b), _aten.div.Tensor, _aten.div.Scalar)
    put(In.EITHER, _two(Op.FMUL, Op.IMUL), _aten.mul.Tensor, _aten.mul.Scalar)
    put(In.EITHER, _negative, _aten.neg.default)
    put(In.EITHER, _magnitude, _aten.abs.default)
    put(In.EITHER, _sign, _aten.sign.default)
    put(In.EITHER, _relu, _aten.relu.default)
    put(In.EITHER, _maximum, _aten.maximum.default)
    put(In.EITHER, _minimum, _aten.minimum.default)
    put(In.EITHER, less, _aten.lt.Tensor, _aten.lt.Scalar)
    put(In.EITHER, less_or_equal, _aten.le.Tensor, _aten.le.Scalar)
    put(In.EITHER, lambda build, floating, a, b: less(build, floating, b, a), _aten.gt.Tensor, _aten.gt.Scalar)
    put(In.EITHER, lambda b, floating, x, y: less_or_equal(b, floating, y, x), _aten.ge.Tensor, _aten.ge.Scalar)
    put(In.EITHER, equal, _aten.eq.Tensor, _aten.eq.Scalar)
    put(In.EITHER, lambda b, f, x, y: negation(b, equal(b, f, x, y)), _aten.ne.Tensor, _aten.ne.Scalar)
    put(In.EITHER, lambda b, f, x: negation(b, b.emit(Op.FEQ, x, x)) if f else b.word(0), _aten.isnan.default)
    put(In.EITHER, _isinf, _aten.isinf.default)
    put(In.TRUTH, lambda build, floating, x: negation(build, x), _aten.logical_not.default)
    for name, code in (("and", Op.AND), ("or", Op.OR), ("xor", Op.XOR)):
        put(In.TRUTH, _two(code, code), getattr(_aten, f"logical_{name}").default)
        put(In.EITHER, _two(code, code), getattr(_aten, f"bitwise_{name}").Tensor)
        put(In.EITHER, _two(code, code), getattr(_aten, f"bitwise_{name}").Scalar)
    return rules


def _isinf(build: Builder, floating: bool, x: int) -> int:
    return build.emit(Op.IEQ, build.magnitude(x), build.word(_INFINITY)) if floating else build.word(0)


RULES: dict[Any, Rule] = _rules()
"""Operators whose tensor and number arguments are a kernel's operands, one for one."""
