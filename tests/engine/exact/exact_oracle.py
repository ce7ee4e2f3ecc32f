"""Binary32 from the text of IEEE 754, in exact fractions: no float takes part."""

import math
from fractions import Fraction

import torch
from hypothesis import settings
from hypothesis import strategies as st

NAN = 0x7FC00000
INFINITY = 0x7F800000
SIGN = 0x80000000
SPECIAL_WORDS = [0, SIGN, 1, SIGN | 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0xFF7FFFFF, INFINITY, SIGN | INFINITY, NAN]

FINITE = st.integers(0, 0x7F7FFFFF).flatmap(lambda word: st.sampled_from([word, word | SIGN]))
SPECIAL = st.sampled_from(SPECIAL_WORDS)
NEAR_ONE = st.integers(0x3B000000, 0x43000000).flatmap(lambda word: st.sampled_from([word, word | SIGN]))
ANY = st.one_of(FINITE, SPECIAL, NEAR_ONE)
EXAMPLES = settings(max_examples=200, deadline=None)


def tensor(words: list[int]) -> torch.Tensor:
    """float32 tensor of these bits."""
    return word_tensor(words).view(torch.float32)


def word_tensor(words: list[int]) -> torch.Tensor:
    """int32 tensor of these words."""
    return torch.tensor([value - (1 << 32) if value >> 31 else value for value in words], dtype=torch.int32)


def words_of(x: torch.Tensor) -> list[int]:
    """The bits of a float32 or int32 tensor."""
    return [value & 0xFFFFFFFF for value in x.contiguous().view(torch.int32).flatten().tolist()]


def exact(word: int) -> Fraction:
    """The value of finite bits."""
    exponent, significand = word >> 23 & 0xFF, word & 0x7FFFFF
    value = Fraction(significand | (0x800000 if exponent else 0)) * Fraction(2) ** (max(exponent, 1) - 150)
    return -value if word >> 31 else value


def nearest(value: Fraction, *, negative_zero: bool = False) -> int:
    """Bits of the binary32 nearest to a fraction, ties to even."""
    if value == 0:
        return SIGN if negative_zero else 0
    sign, size = (SIGN, -value) if value < 0 else (0, value)
    exponent = max(size.numerator.bit_length() - size.denominator.bit_length(), -126)
    if exponent > -126 and size < Fraction(2) ** exponent:
        exponent -= 1
    significand = round(size / Fraction(2) ** (exponent - 23))  # Python rounds fractions half to even
    if significand == 1 << 24:
        exponent, significand = exponent + 1, 1 << 23
    if exponent > 127:
        return sign | INFINITY
    return sign | (significand if significand < 1 << 23 else (exponent + 127 << 23) | (significand & 0x7FFFFF))


def is_nan(word: int) -> bool:
    return word & 0x7FFFFFFF > INFINITY


def is_infinite(word: int) -> bool:
    return word & 0x7FFFFFFF == INFINITY


def is_zero(word: int) -> bool:
    return word & 0x7FFFFFFF == 0


def add(a: int, b: int) -> int:
    """IEEE 754 addition, rounding to nearest."""
    if is_nan(a) or is_nan(b) or (is_infinite(a) and is_infinite(b) and a != b):
        return NAN
    if is_infinite(a) or is_infinite(b):
        return a if is_infinite(a) else b
    # A zero sum is +0 unless both are -0.
    return nearest(exact(a) + exact(b), negative_zero=a == b == SIGN)


def multiply(a: int, b: int) -> int:
    sign = (a ^ b) & SIGN
    if is_nan(a) or is_nan(b) or (is_infinite(a) and is_zero(b)) or (is_zero(a) and is_infinite(b)):
        return NAN
    if is_infinite(a) or is_infinite(b):
        return sign | INFINITY
    # Also where it underflows, a product has the sign of its factors.
    return nearest(abs(exact(a) * exact(b))) | sign


def divide(a: int, b: int) -> int:
    sign = (a ^ b) & SIGN
    if is_nan(a) or is_nan(b) or (is_infinite(a) and is_infinite(b)) or (is_zero(a) and is_zero(b)):
        return NAN
    if is_infinite(a) or is_zero(b):
        return sign | INFINITY
    if is_infinite(b):
        return sign
    return nearest(abs(exact(a) / exact(b))) | sign


def square_root(a: int) -> int:
    if is_nan(a) or (a >> 31 and not is_zero(a)):
        return NAN
    if is_zero(a) or is_infinite(a):
        return a
    # The root of value * 2^300, to so many digits that no tie is possible, with a sticky last bit.
    scaled = exact(a) * 2**300
    root = math.isqrt(scaled.numerator)
    return nearest(Fraction(2 * root + (root * root != scaled.numerator), 2) / 2**150)


def less(a: int, b: int) -> int:
    return int(not is_nan(a) and not is_nan(b) and _place(a) < _place(b))


def equal(a: int, b: int) -> int:
    return int(not is_nan(a) and not is_nan(b) and _place(a) == _place(b))


def _place(word: int) -> Fraction:
    if is_infinite(word):
        return Fraction(-(10**50) if word >> 31 else 10**50)
    return exact(word)


def to_integer(a: int) -> int:
    """F2I: nearest integer, clamped; NaN gives 0."""
    if is_nan(a):
        return 0
    whole = round(_place(a))
    return min(max(whole, -(2**31)), 2**31 - 128) & 0xFFFFFFFF


def signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
