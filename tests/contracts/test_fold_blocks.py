"""Fold.sol, cut into random blocks, against the accumulators of trainer/engine/exact/folds.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pytest
from generate_float32 import SPECIALS, Bits, Operation, hard_pairs
from web3.exceptions import ContractCustomError

from trainer.engine.exact import folds

pytestmark = pytest.mark.chain

LENGTHS = [1, 7, 8, 9, 16, 31, 33, 64, 100, 257]
# The last ones are clamped; the middle ones are where elements near 1 round.
EXPONENTS = [4, 5, 20, 33, -20, 0, 128, -96, 129, -97, 2**31 - 1, -(2**31)]
LARGEST = {1: 127, 2: 4095}
INTEGERS = {1: "i1", 2: "<i2"}


class Probe(Protocol):
    def call(self, name: str, *arguments: Any) -> Any: ...


def runs(seed: int) -> Iterator[tuple[folds.Words, int, np.random.Generator]]:
    """Words of a run, the block it is cut into, and randomness for the rest."""
    rng = np.random.default_rng(seed)
    for turn, length in enumerate(LENGTHS * 3):
        near = (rng.normal(size=length) * 2.0 ** rng.integers(-30, 30)).astype(np.float32).view(np.uint32)
        hard, _ = hard_pairs(Operation.ADD, Bits(seed + turn), length)
        special = np.where(rng.random(length) < 0.05, rng.choice(SPECIALS, length), near)
        yield [near, hard[-length:], special][turn % 3].astype(np.uint32), int(rng.integers(1, length + 1)), rng


def blocks(length: int, block: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, block):
        yield start, min(block, length - start)


def placed(data: bytes, width: int, rng: np.random.Generator) -> tuple[bytes, int]:
    """The elements with others before and after them, and where they begin."""
    before, after = (int(count) * width for count in rng.integers(0, 9, 2))
    return rng.bytes(before) + data + rng.bytes(after), before // width


def word(exponent: int) -> int:
    return exponent % 2**32


def signed(accumulator: int) -> int:
    return accumulator - (1 << 256) if accumulator >> 255 else accumulator


@pytest.mark.parametrize(("a_width", "b_width"), [(2, 2), (1, 1), (1, 2), (2, 1)])
def test_dot_equals_the_reference_block_by_block(probe: Probe, a_width: int, b_width: int) -> None:
    rng = np.random.default_rng(a_width * 10 + b_width)
    for length in LENGTHS:
        a, b = (rng.integers(-LARGEST[width], LARGEST[width], length, endpoint=True) for width in (a_width, b_width))
        if length == 64:
            a, b = np.full(length, -LARGEST[a_width]), np.full(length, LARGEST[b_width])
        (left, at), (right, other) = (
            placed(values.astype(INTEGERS[width]).tobytes(), width, rng)
            for values, width in ((a, a_width), (b, b_width))
        )
        block, accumulator, scales = int(rng.integers(1, length + 1)), folds.START, rng.integers(0, 2**32, 2)
        wanted = folds.product_accumulators(a.tolist(), b.tolist(), block)
        for (start, count), expected in zip(blocks(length, block), wanted, strict=True):
            accumulator, _ = probe.call(
                *("dot", signed(accumulator), left, at + start, a_width, right, other + start, b_width, count)
            )
            accumulator %= 1 << 256
            assert accumulator == expected, (length, start, count)
        rounded = folds.round_product(accumulator, *scales.astype(np.uint32).view(np.float32))
        assert probe.call("roundProduct", signed(accumulator), *scales.tolist()) == rounded


def test_sum_equals_the_reference_block_by_block(probe: Probe) -> None:
    for turn, (x, block, rng) in enumerate(runs(1)):
        exponent = EXPONENTS[turn % len(EXPONENTS)]
        data, at = placed(x.astype("<u4").tobytes(), 4, rng)
        accumulator = folds.START
        wanted = folds.sum_accumulators(x, exponent, block)
        for (start, count), expected in zip(blocks(len(x), block), wanted, strict=True):
            accumulator, _ = probe.call("sum", accumulator, data, at + start, count, word(exponent))
            assert accumulator == expected, (turn, start, count)
        assert probe.call("roundSum", accumulator, word(exponent)) == folds.round_sum(accumulator, exponent)


def test_scatter_equals_the_reference_block_by_block(probe: Probe) -> None:
    for turn, (x, block, rng) in enumerate(runs(2)):
        exponent, row = EXPONENTS[turn % len(EXPONENTS)], [0, 2, 2**31 - 1][turn % 3]
        index = rng.choice(np.array([0, 1, 2, -1, -(2**31), 2**31 - 1]), len(x))
        (data, at), (places, other) = (
            placed(values.tobytes(), 4, rng) for values in (x.astype("<u4"), index.astype("<i4"))
        )
        accumulator = folds.START
        wanted = folds.scatter_accumulators(x, index.tolist(), row, exponent, block)
        for (start, count), expected in zip(blocks(len(x), block), wanted, strict=True):
            accumulator, _ = probe.call(
                *("scatter", accumulator, data, at + start, places, other + start, count, row, word(exponent))
            )
            assert accumulator == expected, (turn, start, count)


def test_scatter_no_negative_index_is_a_row(probe: Probe) -> None:
    """As words -1 and 2^32 - 1 are equal; as rows they are not."""
    one, index = np.array([0x3F800000], dtype="<u4").tobytes(), np.array([-1], dtype="<i4").tobytes()
    assert probe.call("scatter", 0, one, 0, index, 0, 1, 2**32 - 1, 1)[0] == 0
    assert probe.call("scatter", 0, one, 0, bytes(4), 0, 1, 2**32, 1)[0] == 0
    assert probe.call("scatter", 0, one, 0, bytes(4), 0, 1, 0, 1)[0] == 1 << 29


@pytest.mark.parametrize("magnitudes", [False, True])
def test_maximum_equals_the_reference_block_by_block(probe: Probe, magnitudes: bool) -> None:
    for turn, (x, block, rng) in enumerate(runs(3)):
        # All below zero every other time, where the key turns the order round.
        x = x | np.uint32(0x80000000) if turn % 2 else x
        data, at = placed(x.astype("<u4").tobytes(), 4, rng)
        accumulator = folds.START
        wanted = folds.maximum_accumulators(x, magnitudes, block)
        for (start, count), expected in zip(blocks(len(x), block), wanted, strict=True):
            accumulator, _ = probe.call("maximum", accumulator, data, at + start, count, magnitudes)
            assert accumulator == expected, (turn, start, count)
        assert probe.call("roundMaximum", accumulator, magnitudes) == folds.round_maximum(accumulator, magnitudes)


def test_folds_of_garbage_accumulators_give_a_word(probe: Probe) -> None:
    """What a dishonest party posts may be anything; the answer is the same word each time, never a revert."""
    rng, one = np.random.default_rng(4), np.array([0x3F800000], dtype="<u4").tobytes()
    for garbage in (int.from_bytes(rng.bytes(32), "big") | bit for bit in (1 << 255, 0, 7 << 64)):
        summed, _ = probe.call("sum", garbage, one, 0, 1, 1)
        assert summed == folds.SUM_NAN or summed in (folds.SUM_ABOVE, folds.SUM_BELOW) or summed < 1 << 64
        product, _ = probe.call("dot", signed(garbage), b"\2\0", 0, 2, b"\3\0", 0, 2, 1)
        assert product % (1 << 256) == (garbage + 6) % (1 << 256)
        assert probe.call("maximum", garbage, one, 0, 1, False)[0] == garbage
        for name, options in (("roundSum", (1,)), ("roundMaximum", (True,)), ("roundMaximum", (False,))):
            assert probe.call(name, garbage, *options) & 0x7FFFFFFF <= 0x7FC00000
    huge = 2**255 - 1
    assert probe.call("roundProduct", huge, 0x3F800000, 0x3F800000) == 0x7F800000
    assert probe.call("roundProduct", -huge - 1, 0x3F800000, 0x3F800000) == 0xFF800000


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("sum", (0, bytes(12), 0, 4, 0)),
        ("sum", (0, bytes(12), 3, 1, 0)),
        ("sum", (0, bytes(12), 2**256 - 1, 2, 0)),
        ("sum", (0, bytes(12), 1, 2**256 - 1, 0)),
        ("maximum", (0, bytes(11), 0, 3, True)),
        ("scatter", (0, bytes(12), 0, bytes(8), 0, 3, 0, 0)),
        ("dot", (0, bytes(4), 0, 2, bytes(4), 1, 2, 2)),
        ("dot", (0, bytes(4), 0, 1, bytes(3), 0, 1, 4)),
        ("dot", (0, bytes(4), 0, 0, bytes(4), 0, 2, 1)),
        ("dot", (0, bytes(4), 0, 2, bytes(4), 0, 3, 1)),
    ],
)
def test_folds_past_the_end_are_refused(probe: Probe, name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ContractCustomError):
        probe.call(name, *arguments)
