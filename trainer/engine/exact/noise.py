"""Random numbers as kernels: a function of a seed and counters, so that any single one can be computed again alone."""

from __future__ import annotations

from trainer.engine.exact.functions import Builder, log
from trainer.engine.exact.kernels import Op

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_ROUNDS = 20


def threefry(build: Builder, key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw 2011): two words of a key and of a counter to two.

    Each word of the result passes as uniform over all 32-bit words, whatever the counters' pattern.
    """
    keys = (*key, build.emit(Op.XOR, build.word(_PARITY), build.emit(Op.XOR, *key)))
    low, high = (build.emit(Op.IADD, word, one) for word, one in zip(counter, key, strict=True))
    for number in range(_ROUNDS):
        low = build.emit(Op.IADD, low, high)
        high = build.emit(Op.XOR, low, _rotated(build, high, _ROTATIONS[number // 4 % 2][number % 4]))
        if number % 4 == 3:  # a part of the key again after every four rounds
            turn = number // 4 + 1
            low = build.emit(Op.IADD, low, keys[turn % 3])
            high = build.emit(Op.IADD, build.emit(Op.IADD, high, keys[(turn + 1) % 3]), build.word(turn))
    return low, high


def _rotated(build: Builder, word: int, places: int) -> int:
    left = build.emit(Op.SHL, word, build.word(places))
    return build.emit(Op.OR, left, build.emit(Op.SHR, word, build.word(32 - places)))


def gumbel(build: Builder, word: int) -> int:
    """-log(-log(1 - v)), v the word as a number above 0 and below 1: from -2.82 to 21.5, never a NaN.

    v is fine near 0, where the greatest results come from: an odd multiple of 2^-31, rounded to binary32 and kept to at
    most 1 - 2^-24. The inner logarithm makes up for the rounding of 1 - v (Kahan).
    """
    one = build.number(1.0)
    odd = build.emit(Op.OR, build.emit(Op.SHR, word, build.word(1)), build.word(1))
    v = build.mul(build.emit(Op.I2F, odd), build.number(2.0**-31))
    v = build.select(build.less(v, one), v, build.number(1.0 - 2.0**-24))
    rest = build.sub(one, v)
    waiting = build.div(build.mul(log(build, rest), v), build.sub(rest, one))
    waiting = build.select(build.emit(Op.FEQ, rest, one), v, waiting)
    return build.sub(build.number(0.0), log(build, waiting))
