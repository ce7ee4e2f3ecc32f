"""Writes float32.json: binary32 operations on special values and hard cases, for every implementation.

The expected results are those of this processor's own float32 arithmetic (numpy) and of Berkeley SoftFloat
(softfloatpy), which have to agree. Run it again after a change of the cases:

    python tests/vectors/generate_float32.py

The output is deterministic; README.md beside it says what the fields are. Tests take `SPECIALS`, `hard_pairs`,
`hardware` and `soft` from here.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import softfloatpy
from numpy.typing import NDArray

Words = NDArray[np.uint32]

SIGN, MAGNITUDE, INFINITY, NAN, FRACTION = 0x80000000, 0x7FFFFFFF, 0x7F800000, 0x7FC00000, 0x7FFFFF


class Operation(enum.IntEnum):
    """Codes: those of a kernel's instructions, then what folds need besides (contracts/mocks/ArithmeticProbe.sol)."""

    ADD = 0x10
    SUB = 0x11
    MUL = 0x12
    DIV = 0x13
    SQRT = 0x14
    LESS_THAN = 0x18
    LESS_OR_EQUAL = 0x19
    EQUAL = 0x1A
    TO_INT = 0x1C
    FROM_INT = 0x1D
    KEY = 0xC0
    FROM_KEY = 0xC1
    CANONICAL = 0xC2
    SCALE = 0xC3
    FROM_INT64 = 0xC4


UNARY = {
    *(Operation.SQRT, Operation.TO_INT, Operation.FROM_INT),
    *(Operation.KEY, Operation.FROM_KEY, Operation.CANONICAL),
}
HARD_CASES = 240

_POSITIVE = [
    # zeros, the ends of the subnormal and normal numbers, infinity, NaNs of every kind
    *(0, 1, 2, 3, 0x400000, 0x7FFFFE, 0x7FFFFF, 0x800000, 0x800001, 0xFFFFFF, 0x1000000),
    *(0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF, INFINITY, 0x7F800001, 0x7FBFFFFF, NAN, 0x7FFFFFFF),
    # one and its neighbours, half, two, three, 1 / 3, the root of 2; the square roots of the least numbers
    *(0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3F000000, 0x40000000, 0x40400000, 0x3EAAAAAB, 0x3FB504F3, 0x1FFFFFFF),
    # half of the last place of 1 and its neighbours; where whole numbers end; where int32 ends
    *(0x33800000, 0x33800001, 0x337FFFFF, 0x4B000000, 0x4B000001, 0x4B7FFFFF, 0x4B800000, 0x4EFFFFFF, 0x4F000000),
]
SPECIALS = np.array([*_POSITIVE, *(word | SIGN for word in _POSITIVE)], dtype=np.uint32)


class Bits:
    """A stream of random words that is the same with every version of numpy."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.PCG64(seed)

    def words(self, count: int) -> Words:
        """`count` random words."""
        return (self._generator.random_raw(count) >> 32).astype(np.uint32)

    def below(self, limit: int, count: int) -> Words:
        """`count` numbers from 0 to limit - 1, near enough to uniform."""
        return self.words(count) % np.uint32(limit)

    def fractions(self, count: int) -> Words:
        """Fraction fields: any, of few bits, of few zeros, and near the ends."""
        plain = self.words(count) & FRACTION
        few = (np.uint32(1) << self.below(23, count)) | (np.uint32(1) << self.below(23, count))
        near = self.below(4, count)
        choices = [plain, plain, few, ~few & FRACTION, near, FRACTION - near]
        return np.choose(self.below(6, count).astype(np.int64), choices).astype(np.uint32)

    def values(self, least: int, greatest: int, count: int) -> Words:
        """Values of either sign whose exponent fields are from `least` to `greatest`."""
        fields = (least + self.below(greatest - least + 1, count)).astype(np.uint32)
        return (self.words(count) & SIGN) | fields << 23 | self.fractions(count)


def hard_pairs(operation: Operation, bits: Bits, count: int) -> tuple[Words, Words]:
    """About `count` pairs for an operation, a third of them any bits at all, the others where rounding is hard."""
    part = -(-count // 9)
    anything = 3 * part
    pieces = [(bits.words(anything), bits.words(anything))]
    special = SPECIALS[bits.below(len(SPECIALS), part)]
    other = np.where(bits.words(part) & 1, bits.words(part), bits.values(0, 254, part))
    swap = (bits.words(part) & 1).astype(bool)
    pieces.append((np.where(swap, special, other), np.where(swap, other, special)))
    pieces.extend(_HARD.get(operation, _close)(bits, part) for _ in range(5))
    a, b = (np.concatenate([piece[side] for piece in pieces]).astype(np.uint32) for side in (0, 1))
    return a, b


def _close(bits: Bits, count: int) -> tuple[Words, Words]:
    """Sums that round in every place, that tie, and that cancel to a few bits; results at both ends of the range."""
    a = bits.values(0, 254, count)
    field = (a >> 23 & 0xFF).astype(np.int64) - bits.below(28, count)
    apart = (bits.words(count) & SIGN) | np.clip(field, 0, 254).astype(np.uint32) << 23 | bits.fractions(count)
    nearly = a ^ (np.uint32(1) << bits.below(5, count)) ^ bits.below(2, count) ^ (bits.words(count) & SIGN)
    return a, np.where(bits.below(3, count) == 0, nearly, apart).astype(np.uint32)


def _products(bits: Bits, count: int) -> tuple[Words, Words]:
    """Exponents whose sum is in the middle, near overflow and near the subnormal numbers; subnormal factors."""
    a = bits.values(0, 254, count)
    targets = np.array([127, 1, 0, -10, -22, -23, 254, 255])[bits.below(8, count)]
    field = np.clip(targets + 127 - (a >> 23 & 0xFF).astype(np.int64) + bits.below(3, count) - 1, 0, 254)
    b = (bits.words(count) & SIGN) | field.astype(np.uint32) << 23 | bits.fractions(count)
    return a, b


def _quotients(bits: Bits, count: int) -> tuple[Words, Words]:
    """a / b next to the middle between two values, in the normal range and where the quotient is subnormal."""
    b = bits.values(1, 254, count)
    divisor = (b & FRACTION | 0x800000).astype(np.uint64)
    middle = (bits.words(count) & 0xFFFFFF | 0x1000001).astype(np.uint64)  # 25 bits, the last one set
    product = middle * divisor  # 48 or 49 bits
    places = np.where(product >> np.uint64(48) != 0, 25, 24).astype(np.uint64)
    dividend = (product >> places) + bits.below(2, count)
    targets = np.array([127, 0, -10, -23, 254])[bits.below(5, count)]
    field = np.clip(targets + (b >> 23 & 0xFF).astype(np.int64) - 127 + bits.below(3, count), 1, 254)
    a = (bits.words(count) & SIGN) | field.astype(np.uint32) << 23 | (dividend.astype(np.uint32) & FRACTION)
    sparse = bits.values(0, 254, count)  # exact quotients of few bits: ties among the subnormal ones
    return np.where(bits.below(3, count) == 0, sparse, a).astype(np.uint32), b


def _squares(bits: Bits, count: int) -> tuple[Words, Words]:
    """Values next to the square of a middle between two values, exact squares, and subnormal ones."""
    middle = (bits.words(count) & 0xFFFFFF | 0x1000001).astype(np.uint64)
    square = middle * middle
    places = np.where(square >> np.uint64(49) != 0, 26, 25).astype(np.uint64)
    near = ((square >> places) + bits.below(2, count)).astype(np.uint32) & FRACTION
    root = (bits.below(0x1000, count) | 0x800).astype(np.float32)
    field = 1 + bits.below(254, count)
    exact = (root * root).view(np.uint32) + ((bits.below(100, count) * 2) << 23)
    choice = bits.below(3, count)
    a = np.where(choice == 0, field << 23 | near, np.where(choice == 1, exact, bits.fractions(count)))
    return a.astype(np.uint32), np.zeros(count, dtype=np.uint32)


def _halves(bits: Bits, count: int) -> tuple[Words, Words]:
    """Values between two integers, and around 2^31."""
    return bits.values(124, 160, count), bits.words(count)


def _long_integers(bits: Bits, count: int) -> tuple[Words, Words]:
    """Integers of every length up to 64 bits, of which many lie in the middle between two values."""
    top = bits.words(count).astype(np.uint64) & 0x1FFFFFF | np.uint64(0x1000000)  # 25 bits
    places = bits.below(40, count).astype(np.uint64)
    near = (top << places) + bits.below(3, count).astype(np.uint64) - np.uint64(1)
    near = np.where(bits.words(count) & 1, near, np.uint64(0) - near)
    return (near >> np.uint64(32)).astype(np.uint32), near.astype(np.uint32)


def _short_integers(bits: Bits, count: int) -> tuple[Words, Words]:
    top = bits.words(count) & 0x1FFFFFF | 0x1000000
    near = (top << bits.below(7, count)) + bits.below(3, count) - np.uint32(1)
    return np.where(bits.words(count) & 1, near, np.uint32(0) - near).astype(np.uint32), bits.words(count)


def _scalings(bits: Bits, count: int) -> tuple[Words, Words]:
    """Values times 2^n where the result is near either end, and n far beyond it."""
    a = bits.values(0, 254, count)
    field = (a >> 23 & 0xFF).astype(np.int64)
    targets = np.array([0, -12, -23, 254, 127])[bits.below(5, count)] - field + bits.below(5, count) - 2
    return a, targets.astype(np.int32).view(np.uint32)


_HARD: dict[Operation, Callable[[Bits, int], tuple[Words, Words]]] = {
    Operation.MUL: _products,
    Operation.DIV: _quotients,
    Operation.SQRT: _squares,
    Operation.TO_INT: _halves,
    Operation.FROM_INT: _short_integers,
    Operation.FROM_INT64: _long_integers,
    Operation.SCALE: _scalings,
}


def hardware(operation: Operation, a: Words, b: Words) -> Words:
    """Results of this processor, every NaN the one NaN."""
    x, y = a.view(np.float32), b.view(np.float32)
    with np.errstate(all="ignore"):
        match operation:
            case Operation.ADD | Operation.SUB | Operation.MUL | Operation.DIV:
                function = {
                    Operation.ADD: np.add,
                    Operation.SUB: np.subtract,
                    Operation.MUL: np.multiply,
                    Operation.DIV: np.divide,
                }[operation]
                return _one_nan(function(x, y).view(np.uint32))
            case Operation.SQRT:
                return _one_nan(np.sqrt(x).view(np.uint32))
            case Operation.LESS_THAN | Operation.LESS_OR_EQUAL | Operation.EQUAL:
                compare = {
                    Operation.LESS_THAN: np.less,
                    Operation.LESS_OR_EQUAL: np.less_equal,
                    Operation.EQUAL: np.equal,
                }[operation]
                return compare(x, y).astype(np.uint32)
            case Operation.TO_INT:
                whole = np.rint(np.where(np.isnan(x), np.float32(0), x))
                return np.clip(whole, -(2.0**31), 2.0**31 - 128).astype(np.int32).view(np.uint32)
            case Operation.FROM_INT:
                return a.view(np.int32).astype(np.float32).view(np.uint32)
            case Operation.KEY:
                signed = _one_nan(a).view(np.int32)
                return (signed ^ (signed >> 31 & MAGNITUDE)).view(np.uint32)
            case Operation.FROM_KEY:
                signed = a.view(np.int32)
                return _one_nan((signed ^ (signed >> 31 & MAGNITUDE)).view(np.uint32))
            case Operation.CANONICAL:
                return _one_nan(a)
            case Operation.SCALE:
                # Exact in float64, whose conversion rounds once.
                places = np.clip(b.view(np.int32), -400, 400)
                return _one_nan(np.ldexp(x.astype(np.float64), places).astype(np.float32).view(np.uint32))
            case Operation.FROM_INT64:
                return (a.astype(np.uint64) << np.uint64(32) | b).view(np.int64).astype(np.float32).view(np.uint32)
    raise ValueError(f"there is no operation {operation:#x}")


def _one_nan(words: Words) -> Words:
    return np.where(words & MAGNITUDE > INFINITY, NAN, words).astype(np.uint32)


def soft(operation: Operation, a: Words, b: Words) -> Words:
    """The same by Berkeley SoftFloat, a case at a time; for ADD to FROM_INT and FROM_INT64."""
    return np.array([_soft(operation, *pair) for pair in zip(a.tolist(), b.tolist(), strict=True)], dtype=np.uint32)


def _soft(operation: Operation, a: int, b: int) -> int:
    if operation == Operation.FROM_INT:
        return _bits(softfloatpy.i32_to_f32(softfloatpy.Int32.from_bytes(a.to_bytes(4, "big"))))
    if operation == Operation.FROM_INT64:
        return _bits(softfloatpy.i64_to_f32(softfloatpy.Int64.from_bytes((a << 32 | b).to_bytes(8, "big"))))
    x, y = (softfloatpy.Float32.from_bytes(word.to_bytes(4, "big")) for word in (a, b))
    match operation:
        case Operation.ADD | Operation.SUB | Operation.MUL | Operation.DIV:
            names = {
                Operation.ADD: "f32_add",
                Operation.SUB: "f32_sub",
                Operation.MUL: "f32_mul",
                Operation.DIV: "f32_div",
            }
            return _bits(getattr(softfloatpy, names[operation])(x, y))
        case Operation.SQRT:
            return _bits(softfloatpy.f32_sqrt(x))
        case Operation.LESS_THAN | Operation.LESS_OR_EQUAL | Operation.EQUAL:
            names = {
                Operation.LESS_THAN: "f32_lt_quiet",
                Operation.LESS_OR_EQUAL: "f32_le_quiet",
                Operation.EQUAL: "f32_eq",
            }
            return int(getattr(softfloatpy, names[operation])(x, y))
        case Operation.TO_INT:
            # Ours clamps first, and NaN is 0: SoftFloat has other answers to what does not fit.
            if a & MAGNITUDE > INFINITY:
                return 0
            if a & MAGNITUDE >= 0x4F000000:
                return SIGN if a & SIGN else MAGNITUDE - 127
            whole: int = softfloatpy.f32_to_i32(x).to_int()
            return whole & 0xFFFFFFFF
    raise ValueError(f"SoftFloat has no operation {operation:#x}")


def _bits(value: softfloatpy.Float32) -> int:
    word = int.from_bytes(value.to_bytes(), "big")
    return NAN if word & MAGNITUDE > INFINITY else word


def special_pairs(operation: Operation) -> tuple[Words, Words]:
    """All pairs of special values, the first varying slowest; all special values beside 0 for what takes only one."""
    if operation in UNARY:
        return SPECIALS, np.zeros_like(SPECIALS)
    return np.repeat(SPECIALS, len(SPECIALS)), np.tile(SPECIALS, len(SPECIALS))


def expected(operation: Operation, a: Words, b: Words) -> Words:
    """What both oracles say.

    Raises:
        ArithmeticError: they disagree.
    """
    results = hardware(operation, a, b)
    if operation <= Operation.FROM_INT or operation == Operation.FROM_INT64:
        others = soft(operation, a, b)
        if not np.array_equal(results, others):
            at = int(np.flatnonzero(results != others)[0])
            case = f"{operation.name.lower()}({a[at]:#x}, {b[at]:#x})"
            raise ArithmeticError(f"{case} is {results[at]:#x} here and {others[at]:#x} in SoftFloat")
    return results


def hexadecimal(words: Words) -> str:
    """0x and eight digits a word."""
    return "0x" + words.astype(">u4").tobytes().hex()


def vectors() -> dict[str, object]:
    """The content of the file."""
    bits, operations = Bits(32), []
    for operation in Operation:
        a, b = hard_pairs(operation, bits, HARD_CASES)
        operations.append(
            {
                "name": operation.name.lower(),
                "code": int(operation),
                "specials": hexadecimal(expected(operation, *special_pairs(operation))),
                "pairs": hexadecimal(np.stack([a, b], axis=1)),
                "results": hexadecimal(expected(operation, a, b)),
            }
        )
    return {"specials": hexadecimal(SPECIALS), "operations": operations}


if __name__ == "__main__":
    target = Path(__file__).with_name("float32.json")
    target.write_text(json.dumps(vectors(), indent=1) + "\n")
