"""Accumulators of one element of a fold, block by block, as the contracts keep them (contracts/libraries/Fold.sol).

A fold too long for one transaction is disputed by its partial accumulators: after each block of elements, one word of
256 bits says everything about the elements so far.

==================== ================================================================================================
product              the sum of products, in two's complement
sum                  bits 0-63: the sum of q in two's complement; or, with these bits 0, bit 64: NaN, 65: +inf, 66: -inf
maximum of values    the greatest order key + 2^31
maximum of magnitudes the greatest bits without their sign
==================== ================================================================================================

Everything starts at 0. A sum has one word for each way in which it can still go on: what is finite is forgotten beside
an infinity, and infinities of both signs are NaN. Clear before fast: Python's integers, an element at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.engine.exact.reference import CANONICAL_NAN
from trainer.program.exact.operations import GREATEST_EXPONENT, LEAST_EXPONENT

Words = NDArray[np.uint32]

START = 0
SUM_NAN, SUM_ABOVE, SUM_BELOW = 1 << 64, 1 << 65, 1 << 66
_WORD = 1 << 256
_SIGN, _MAGNITUDE, _INFINITY = 0x80000000, 0x7FFFFFFF, 0x7F800000
_SUM_BITS = 30


def product_accumulators(a: Sequence[int], b: Sequence[int], block: int) -> list[int]:
    """Of an element of MATMUL: the words after each `block` pairs of quantised values, the last block maybe shorter."""
    _demand(len(a) == len(b), f"rows of {len(a)} and {len(b)} values")
    total, words = 0, []
    for start in _starts(len(a), block):
        pairs = zip(a[start : start + block], b[start : start + block], strict=True)
        total += sum(int(left) * int(right) for left, right in pairs)
        words.append(total % _WORD)
    return words


def round_product(word: int, scale_a: np.float32, scale_b: np.float32) -> np.uint32:
    """The bits of the element: (f32(sum) x scale_a) x scale_b."""
    with np.errstate(all="ignore"):
        return _canonical(np.float32(_float(_signed(word, 256)) * scale_a) * scale_b)


def sum_accumulators(x: Words, exponent: int, block: int) -> list[int]:
    """Of an element of SUM: x are the bits of its run, `exponent` its E as an int32."""
    total, flags, words = 0, 0, []
    for start in _starts(len(x), block):
        for bits in x[start : start + block].tolist():
            if bits & _INFINITY == _INFINITY:
                flags |= _flag(bits)
            else:
                total += _quantised(bits, exponent)
        words.append(_packed(total, flags))
    return words


def scatter_accumulators(x: Words, index: Sequence[int], row: int, exponent: int, block: int) -> list[int]:
    """Of an element of SCATTER_ADD in `row`: `sum_accumulators` of what `index`, int32, names the row beside.

    A block is one of the run, whatever part of it belongs to the row.
    """
    _demand(len(x) == len(index), f"{len(x)} values and {len(index)} places")
    chosen = np.asarray(index, dtype=np.int64) == row
    kept = np.where(chosen, x, 0).astype(np.uint32)  # +0 adds nothing
    return sum_accumulators(kept, exponent, block)


def round_sum(word: int, exponent: int) -> np.uint32:
    """The bits of the element: f32(sum) x 2^(E - 30), or what the flags say."""
    special = {SUM_NAN: CANONICAL_NAN, SUM_ABOVE: _INFINITY, SUM_BELOW: _SIGN | _INFINITY}
    if word in special:
        return np.uint32(special[word])
    with np.errstate(over="ignore"):
        return _canonical(_float(_signed(word, 64)) * np.float32(2.0 ** (_clamped(exponent) - _SUM_BITS)))


def maximum_accumulators(x: Words, magnitudes: bool, block: int) -> list[int]:
    """Of an element of MAX: x are the bits of its run; `magnitudes` leaves their signs out."""
    greatest, words = START, []
    for start in _starts(len(x), block):
        greatest = max([greatest, *(_rank(bits, magnitudes) for bits in x[start : start + block].tolist())])
        words.append(greatest)
    return words


def round_maximum(word: int, magnitudes: bool) -> np.uint32:
    """The bits of the element. A word that no fold gives, which a dispute may hold, is read as contracts read it: its
    low 32 bits, and the one NaN for what no value has."""
    word &= 0xFFFFFFFF
    unsigned = word ^ _SIGN if word & _SIGN else word ^ _SIGN ^ _MAGNITUDE
    bits = word & _MAGNITUDE if magnitudes else unsigned
    return np.uint32(CANONICAL_NAN if bits & _MAGNITUDE > _INFINITY else bits)


def _starts(length: int, block: int) -> range:
    _demand(length >= 1, "a run of no elements")
    _demand(block >= 1, f"blocks of {block} elements")
    return range(0, length, block)


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} cannot be folded")


def _quantised(bits: int, exponent: int) -> int:
    """q of a finite element: x * 2^(30 - E) to the nearest integer, ties to even, and clamped."""
    field, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    m = fraction | 0x800000 if field else fraction
    places = max(field, 1) - 150 + _SUM_BITS - _clamped(exponent)
    if places >= 0:
        q = m << places
    else:
        q, rest = divmod(m, 1 << -places)
        half = 1 << (-places - 1)
        q += rest > half or (rest == half and q % 2 == 1)
    q = min(q, 1 << _SUM_BITS)
    return -q if bits & _SIGN else q


def _clamped(exponent: int) -> int:
    return min(max(exponent, LEAST_EXPONENT), GREATEST_EXPONENT)


def _flag(bits: int) -> int:
    if bits & _MAGNITUDE != _INFINITY:
        return SUM_NAN
    return SUM_BELOW if bits & _SIGN else SUM_ABOVE


def _packed(total: int, flags: int) -> int:
    if flags & SUM_NAN or flags == SUM_ABOVE | SUM_BELOW:
        return SUM_NAN
    return flags or total % (1 << 64)


def _rank(bits: int, magnitudes: bool) -> int:
    if bits & _MAGNITUDE > _INFINITY:
        bits = CANONICAL_NAN
    if magnitudes:
        return bits & _MAGNITUDE
    return bits ^ (_SIGN | _MAGNITUDE if bits & _SIGN else _SIGN)


def _signed(word: int, bits: int) -> int:
    return word - (1 << bits) if word >> (bits - 1) else word


def _float(n: int) -> np.float32:
    """f32(n). The sums of a fold fit 64 bits, whose conversion rounds once, to nearest, ties to even."""
    return np.int64(n).astype(np.float32)


def _canonical(x: np.float32) -> np.uint32:
    return np.uint32(CANONICAL_NAN) if np.isnan(x) else x.view(np.uint32)
