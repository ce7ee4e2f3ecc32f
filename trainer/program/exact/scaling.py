"""Kernels that turn a row's greatest magnitude into exponents, scales and quantised values (docs/arithmetic.md)."""

from __future__ import annotations

import functools

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Kernel, Op
from trainer.program.exact.operations import GREATEST_EXPONENT, LEAST_EXPONENT

_INFINITY = 0x7F800000
_NAN = 0x7FC00000


@functools.cache
def exponent_kernel() -> Kernel:
    """E, a word, of the greatest magnitude of a row (a float: what MAX of magnitudes gives)."""
    build = Builder(1)
    return build.kernel(_exponent(build, build.input(0)))


@functools.cache
def scale_kernel(bits: int) -> Kernel:
    """2^(E-p+1), a float, of the greatest magnitude; NaN where that is an infinity or a NaN."""
    build = Builder(1)
    greatest = build.input(0)
    scale = _power(build, build.emit(Op.ISUB, _exponent(build, greatest), build.word(bits - 1)))
    return build.kernel(build.select(_finite(build, greatest), scale, build.word(_NAN)))


@functools.cache
def quantise_kernel(bits: int) -> Kernel:
    """q, a word, of an element (input 0) and its row's greatest magnitude (input 1)."""
    if not 3 <= bits <= 13:
        raise ValueError(f"a row is quantised to 3 to 13 bits, not {bits}")
    build = Builder(2)
    x, greatest = build.input(0), build.input(1)
    factor = _power(build, build.emit(Op.ISUB, build.word(bits - 1), _exponent(build, greatest)))
    largest = 2 ** (bits - 1) - 1
    q = _clamp(build, build.emit(Op.F2I, build.mul(x, factor)), -largest, largest)
    return build.kernel(build.select(_finite(build, greatest), q, build.word(0)))


@functools.cache
def remainder_kernel() -> Kernel:
    """x - q * scale, a float: what quantising an element (input 0) to q (input 1) left out. It is exact."""
    build = Builder(3)
    x, q, scale = (build.input(number) for number in range(3))
    return build.kernel(build.sub(x, build.mul(build.emit(Op.I2F, q), scale)))


def _exponent(build: Builder, greatest: int) -> int:
    raised = build.emit(Op.SHR, greatest, build.word(23))
    return _clamp(build, build.emit(Op.ISUB, raised, build.word(126)), LEAST_EXPONENT, GREATEST_EXPONENT)


def _finite(build: Builder, greatest: int) -> int:
    return build.emit(Op.ILT, greatest, build.word(_INFINITY))


def _clamp(build: Builder, word: int, least: int, greatest: int) -> int:
    low, high = build.word(least), build.word(greatest)
    word = build.select(build.emit(Op.ILT, word, low), low, word)
    return build.select(build.emit(Op.ILT, high, word), high, word)


def _power(build: Builder, exponent: int) -> int:
    """2^exponent for a word from -126 to 127, made of bits."""
    return build.emit(Op.SHL, build.emit(Op.IADD, exponent, build.word(127)), build.word(23))
