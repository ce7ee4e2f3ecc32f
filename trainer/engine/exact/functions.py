"""exp, log, tanh and their like as kernels of primitives: the same bits everywhere, close to the true values.

Range reduction and minimax polynomials in the style of Cephes (Moshier); the error function after Numerical Recipes
(Press et al., 6.2), with an odd polynomial near zero. What counts as the function is the kernel, to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from trainer.engine.exact.kernels import Instruction, Kernel, Op, float_word

_NAN = 0x7FC00000
_INFINITY = 0x7F800000
_SIGN = 0x80000000
_MAGNITUDE = 0x7FFFFFFF


class Builder:
    """Writes a kernel. Registers are plain integers; constants are shared.

    Example::

        build = Builder(2)
        product = build.mul(build.input(0), build.input(1))
        kernel = build.kernel(product)
    """

    def __init__(self, inputs: int) -> None:
        self._inputs = inputs
        self._instructions: list[Instruction] = []
        self._known: dict[Instruction, int] = {}

    def emit(self, op: Op, *registers: int) -> int:
        """Adds an instruction, or finds the same one earlier; returns its register."""
        return self._add(Instruction(op, *registers))

    def _add(self, instruction: Instruction) -> int:
        if instruction not in self._known:
            self._known[instruction] = len(self._instructions)
            self._instructions.append(instruction)
        return self._known[instruction]

    def input(self, number: int) -> int:
        return self._add(Instruction(Op.INPUT, number))

    def word(self, value: int) -> int:
        """A constant of 32 bits."""
        return self._add(Instruction(Op.CONST, word=value & 0xFFFFFFFF))

    def number(self, value: float) -> int:
        """A binary32 constant, nearest to `value`."""
        return self.word(float_word(value))

    def add(self, a: int, b: int) -> int:
        return self.emit(Op.FADD, a, b)

    def sub(self, a: int, b: int) -> int:
        return self.emit(Op.FSUB, a, b)

    def mul(self, a: int, b: int) -> int:
        return self.emit(Op.FMUL, a, b)

    def div(self, a: int, b: int) -> int:
        return self.emit(Op.FDIV, a, b)

    def less(self, a: int, b: int) -> int:
        return self.emit(Op.FLT, a, b)

    def select(self, condition: int, yes: int, no: int) -> int:
        return self.emit(Op.SELECT, condition, yes, no)

    def magnitude(self, a: int) -> int:
        """|a|: the sign bit cleared."""
        return self.emit(Op.AND, a, self.word(_MAGNITUDE))

    def negate(self, a: int) -> int:
        """-a, but a NaN stays the one NaN."""
        return self.select(self.emit(Op.FEQ, a, a), self.emit(Op.XOR, a, self.word(_SIGN)), self.word(_NAN))

    def with_sign(self, a: int, of: int) -> int:
        """a, which is not negative, with the sign of another; a NaN stays the one NaN."""
        signed = self.emit(Op.OR, a, self.emit(Op.AND, of, self.word(_SIGN)))
        return self.select(self.emit(Op.FEQ, a, a), signed, self.word(_NAN))

    def polynomial(self, x: int, coefficients: Sequence[float]) -> int:
        """Horner's scheme, highest power first; each step a rounded product and a rounded sum."""
        value = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            value = self.add(self.mul(value, x), self.number(coefficient))
        return value

    def kernel(self, result: int) -> Kernel:
        """The kernel whose result is a register; instructions that it does not need are left out."""
        needed, stack = set(), [result]
        while stack:
            register = stack.pop()
            if register not in needed:
                needed.add(register)
                stack += self._reads(self._instructions[register])
        order = sorted(needed)
        place = {register: index for index, register in enumerate(order)}
        instructions = [self._moved(self._instructions[register], place) for register in order]
        return Kernel(self._inputs, tuple(instructions))

    @staticmethod
    def _reads(one: Instruction) -> list[int]:
        if one.op in (Op.INPUT, Op.CONST):
            return []
        count = {Op.FSQRT: 1, Op.F2I: 1, Op.I2F: 1, Op.SELECT: 3}.get(one.op, 2)
        return [one.a, one.b, one.c][:count]

    @classmethod
    def _moved(cls, one: Instruction, place: dict[int, int]) -> Instruction:
        reads = cls._reads(one)
        return Instruction(one.op, *(place[register] for register in reads)) if reads else one


def exp(build: Builder, x: int) -> int:
    """e^x. Above 88.73 infinity, below -103.98 zero, NaN for NaN."""
    count = build.emit(Op.F2I, build.mul(x, build.number(math.log2(math.e))))
    whole = build.emit(Op.I2F, count)
    # ln 2 in two parts, the first of so few bits that its product with `whole` is exact.
    rest = build.sub(x, build.mul(whole, build.number(0.693359375)))
    rest = build.sub(rest, build.mul(whole, build.number(-2.12194440e-4)))
    tail = build.polynomial(
        rest, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    )
    value = build.add(build.add(build.mul(build.mul(tail, rest), rest), rest), build.number(1.0))
    # 2^count in two factors, so that results below the normal numbers round once.
    half = build.emit(Op.SAR, count, build.word(1))
    value = build.mul(build.mul(value, _power(build, half)), _power(build, build.emit(Op.ISUB, count, half)))
    value = build.select(build.less(build.number(88.7228394), x), build.word(_INFINITY), value)
    value = build.select(build.less(x, build.number(-103.972084)), build.word(0), value)
    return build.select(build.emit(Op.FEQ, x, x), value, build.word(_NAN))


def _power(build: Builder, exponent: int) -> int:
    """2^exponent for an integer register from -126 to 127."""
    return build.emit(Op.SHL, build.emit(Op.IADD, exponent, build.word(127)), build.word(23))


def log(build: Builder, x: int) -> int:
    """Natural logarithm; -infinity at both zeros, NaN below and for NaN."""
    tiny = build.less(x, build.number(2.0**-126))
    scaled = build.select(tiny, build.mul(x, build.number(2.0**23)), x)
    # The significand from sqrt(1/2) to sqrt(2): adding to the bits carries the exponent where it has to.
    shifted = build.emit(Op.ISUB, scaled, build.word(0x3F3504F3))
    exponent = build.emit(Op.SAR, shifted, build.word(23))
    significand = build.emit(Op.ISUB, scaled, build.emit(Op.SHL, exponent, build.word(23)))
    exponent = build.emit(Op.ISUB, exponent, build.select(tiny, build.word(23), build.word(0)))
    whole = build.emit(Op.I2F, exponent)
    r = build.sub(significand, build.number(1.0))
    square = build.mul(r, r)
    tail = build.polynomial(
        r,
        (
            7.0376836292e-2,
            -1.1514610310e-1,
            1.1676998740e-1,
            -1.2420140846e-1,
            1.4249322787e-1,
            -1.6668057665e-1,
            2.0000714765e-1,
            -2.4999993993e-1,
            3.3333331174e-1,
        ),
    )
    value = build.mul(build.mul(tail, r), square)
    value = build.add(value, build.mul(whole, build.number(-2.12194440e-4)))
    value = build.sub(value, build.mul(build.number(0.5), square))
    value = build.add(build.add(r, value), build.mul(whole, build.number(0.693359375)))
    value = build.select(build.emit(Op.IEQ, x, build.word(_INFINITY)), x, value)
    zero = build.emit(Op.FEQ, x, build.number(0.0))
    value = build.select(zero, build.word(_INFINITY | _SIGN), value)
    return build.select(build.emit(Op.FLE, build.number(0.0), x), value, build.word(_NAN))


def tanh(build: Builder, x: int) -> int:
    """Hyperbolic tangent: an odd polynomial near zero, 1 - 2 / (e^2|x| + 1) beyond."""
    size = build.magnitude(x)
    square = build.mul(x, x)
    tail = build.polynomial(
        square, (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
    )
    near = build.add(build.mul(build.mul(tail, square), x), x)
    growth = build.add(exp(build, build.add(size, size)), build.number(1.0))
    far = build.with_sign(build.sub(build.number(1.0), build.div(build.number(2.0), growth)), x)
    value = build.select(build.less(size, build.number(0.625)), near, far)
    return build.select(build.emit(Op.FEQ, x, x), value, build.word(_NAN))


def sigmoid(build: Builder, x: int) -> int:
    """1 / (1 + e^-x)."""
    return build.div(build.number(1.0), build.add(build.number(1.0), exp(build, build.negate(x))))


def erf(build: Builder, x: int) -> int:
    """Error function: an odd series below 1/2, 1 - t e^(P(t) - x²) with t = 1 / (1 + |x|/2) beyond."""
    size = build.magnitude(x)
    square = build.mul(x, x)
    series = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(7)]
    near = build.mul(build.polynomial(square, series[::-1]), x)
    t = build.div(build.number(1.0), build.add(build.number(1.0), build.mul(build.number(0.5), size)))
    tail = build.polynomial(
        t,
        (
            0.17087277,
            -0.82215223,
            1.48851587,
            -1.13520398,
            0.27886807,
            -0.18628806,
            0.09678418,
            0.37409196,
            1.00002368,
            -1.26551223,
        ),
    )
    complement = build.mul(t, exp(build, build.sub(tail, square)))
    far = build.with_sign(build.sub(build.number(1.0), complement), x)
    value = build.select(build.less(size, build.number(0.5)), near, far)
    return build.select(build.emit(Op.FEQ, x, x), value, build.word(_NAN))


def reciprocal_root(build: Builder, x: int) -> int:
    """1 / sqrt(x), in two correctly rounded steps."""
    return build.div(build.number(1.0), build.emit(Op.FSQRT, x))


def gelu(build: Builder, x: int) -> int:
    """x Φ(x) with the error function (Hendrycks and Gimpel 2016)."""
    inner = build.add(build.number(1.0), erf(build, build.mul(x, build.number(math.sqrt(0.5)))))
    return build.mul(build.mul(build.number(0.5), x), inner)


def gelu_tanh(build: Builder, x: int) -> int:
    """The tanh form of GELU that GPT-2 uses."""
    cube = build.mul(build.mul(x, x), x)
    inner = build.mul(build.number(math.sqrt(2 / math.pi)), build.add(x, build.mul(build.number(0.044715), cube)))
    return build.mul(build.mul(build.number(0.5), x), build.add(build.number(1.0), tanh(build, inner)))


FUNCTIONS: dict[str, Callable[[Builder, int], int]] = {
    "exp": exp,
    "log": log,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "reciprocal_root": reciprocal_root,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
}


def function_kernel(name: str) -> Kernel:
    """The kernel of one input that computes a function of FUNCTIONS."""
    build = Builder(1)
    return build.kernel(FUNCTIONS[name](build, build.input(0)))
