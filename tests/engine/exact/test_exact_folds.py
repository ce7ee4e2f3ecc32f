"""The last accumulator of every element of a fold rounds to the element that the interpreter gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact_oracle import SPECIAL_WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.engine.exact import folds
from trainer.engine.exact.interpreter import run_program
from trainer.program.exact import DType, ProgramBuilder, Role, Value
from trainer.program.exact.operations import Matmul, Max, Operation, ScatterAdd, Sum

EXPONENTS = st.one_of(st.integers(-100, 130), st.sampled_from([-(2**31), 2**31 - 1, 0, 1]))
# What makes flags is rare, so that most sums have none.
ORDINARY = [word for word in SPECIAL_WORDS if word & 0x7F800000 != 0x7F800000]
MIXES = ["ordinary", "near one", "any bits", "specials"]


def words_of_mix(mix: str, rng: np.random.Generator, shape: tuple[int, ...]) -> folds.Words:
    anything = rng.integers(0, 2**32, shape, dtype=np.uint32)
    near = rng.normal(scale=4, size=shape).astype(np.float32).view(np.uint32)
    if mix == "any bits":
        return anything
    if mix == "specials":
        return np.where(rng.random(shape) < 0.1, rng.choice(np.array(SPECIAL_WORDS, dtype=np.uint32), shape), near)
    if mix == "ordinary":
        return np.where(rng.random(shape) < 0.3, rng.choice(np.array(ORDINARY, dtype=np.uint32), shape), near)
    return near


def floats(words: folds.Words) -> torch.Tensor:
    return torch.from_numpy(words.view(np.int32).copy()).view(torch.float32)


def folded(build: ProgramBuilder, value: Value) -> tuple[Operation, list[torch.Tensor], torch.Tensor]:
    """The operation that made a value, its operands as the interpreter read them, and its output."""
    build.state("unused", DType.FLOAT32, (1,))
    built = build.finish(prune=False)
    outputs: list[torch.Tensor] = []
    run_program(
        built.program,
        [torch.zeros(1)],
        built.constants,
        observe=lambda number, output: outputs.append(output.clone()),
    )
    one = built.program.operations[value.source]
    return one, [outputs[operand.source] for operand in one.operands], outputs[value.source]


def bits_of(x: torch.Tensor) -> folds.Words:
    return x.contiguous().view(torch.int32).numpy().view(np.uint32)


@pytest.mark.parametrize("mix", MIXES)
@settings(max_examples=25)
@given(data=st.data())
def test_sum_accumulators_round_to_the_interpreters_element(mix: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, length, block = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 50)), data.draw(st.integers(1, 60))
    x = words_of_mix(mix, rng, (rows, length))
    exponents = [data.draw(EXPONENTS) for _ in range(rows)]
    build = ProgramBuilder(Role.TRAIN)
    value = build.sum_last(build.constant(floats(x)), build.constant(torch.tensor(exponents, dtype=torch.int32)))
    one, (read, _), output = folded(build, value)
    assert isinstance(one.attributes, Sum)
    for row in range(rows):
        words = folds.sum_accumulators(bits_of(read)[row], exponents[row], block)
        assert len(words) == -(-length // block)
        assert folds.round_sum(words[-1], exponents[row]) == bits_of(output)[row]


@pytest.mark.parametrize("mix", MIXES)
@settings(max_examples=25)
@given(data=st.data())
def test_scatter_accumulators_round_to_the_interpreters_element(mix: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    width, length, block = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 45))
    x, index = words_of_mix(mix, rng, (width, length)), rng.integers(-2, 5, length).astype(np.int32)
    exponent = data.draw(EXPONENTS)
    build = ProgramBuilder(Role.TRAIN)
    scale = build.constant(torch.full((width,), exponent, dtype=torch.int32))
    value = build.scatter_add(build.constant(floats(x)), build.constant(torch.from_numpy(index)), 3, scale)
    one, (read, _, _), output = folded(build, value)
    assert isinstance(one.attributes, ScatterAdd)
    for row in range(3):
        for column in range(width):
            words = folds.scatter_accumulators(bits_of(read)[column], index.tolist(), row, exponent, block)
            assert len(words) == -(-length // block)
            assert folds.round_sum(words[-1], exponent) == bits_of(output)[row, column]


@pytest.mark.parametrize("magnitudes", [False, True])
@pytest.mark.parametrize("mix", MIXES)
@settings(max_examples=15)
@given(data=st.data())
def test_maximum_accumulators_round_to_the_interpreters_element(
    mix: str, magnitudes: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    length, block = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 35))
    x = words_of_mix(mix, rng, (2, length)) | np.uint32(0x80000000 if data.draw(st.booleans()) else 0)
    build = ProgramBuilder(Role.TRAIN)
    value = build.max_last(build.constant(floats(x)), magnitudes=magnitudes)
    one, _, output = folded(build, value)
    assert isinstance(one.attributes, Max)
    for row in range(2):
        words = folds.maximum_accumulators(x[row], magnitudes, block)
        assert words == sorted(words)
        assert folds.round_maximum(words[-1], magnitudes) == bits_of(output)[row]


@settings(max_examples=60)
@given(data=st.data())
def test_product_accumulators_round_to_the_interpreters_element(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    bits = (data.draw(st.sampled_from([8, 13])), data.draw(st.sampled_from([8, 13])))
    length, block = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 45))
    mix = data.draw(st.sampled_from(MIXES))
    build = ProgramBuilder(Role.TRAIN)
    a, b = (build.constant(floats(words_of_mix(mix, rng, (rows, length)))) for rows in (2, 3))
    one, operands, output = folded(build, build.matmul(a, b, bits))
    assert isinstance(one.attributes, Matmul)
    left, right, scale_left, scale_right = operands
    for row in range(2):
        for column in range(3):
            words = folds.product_accumulators(left[row].tolist(), right[column].tolist(), block)
            assert len(words) == -(-length // block)
            scales = scale_left.flatten()[row].numpy()[()], scale_right.flatten()[column].numpy()[()]
            assert folds.round_product(words[-1], *scales) == bits_of(output)[row, column]


def test_sum_accumulators_are_words_of_the_documented_form() -> None:
    one, minus, infinity, below = (np.uint32(word) for word in (0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000))
    zero = np.uint32(0x80000000)
    assert folds.sum_accumulators(np.array([one, minus, minus]), 1, 1) == [1 << 29, 0, (1 << 64) - (1 << 29)]
    assert folds.sum_accumulators(np.array([one, infinity, one]), 1, 1) == [1 << 29, 1 << 65, 1 << 65]
    assert folds.sum_accumulators(np.array([below, one, infinity]), 1, 1) == [1 << 66, 1 << 66, 1 << 64]
    assert folds.sum_accumulators(np.array([zero, np.uint32(0xFFC00001), below]), 1, 1) == [0, 1 << 64, 1 << 64]


@pytest.mark.parametrize(("length", "block"), [(0, 1), (3, 0), (3, -1)])
def test_accumulators_of_no_blocks_are_refused(length: int, block: int) -> None:
    with pytest.raises(ValueError, match="cannot be folded"):
        folds.sum_accumulators(np.zeros(length, dtype=np.uint32), 0, block)


def test_accumulators_of_runs_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 3 values"):
        folds.product_accumulators([1, 2], [1, 2, 3], 4)
    with pytest.raises(ValueError, match="1 values and 2 places"):
        folds.scatter_accumulators(np.zeros(1, dtype=np.uint32), [0, 0], 0, 0, 4)
