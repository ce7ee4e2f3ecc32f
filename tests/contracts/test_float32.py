"""Float32.sol against this processor's float32, Berkeley SoftFloat and exact fractions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Protocol

import generate_float32
import numpy as np
import pytest
from generate_float32 import Bits, Operation, Words, expected, hard_pairs, hardware, special_pairs
from program_oracle import PRIMITIVES

from trainer.engine.exact.kernels import Op

VECTORS = Path(__file__).parents[1] / "vectors" / "float32.json"
# Millions of cases for make test-full: more where rounding is hard.
WEIGHTS = {
    **dict.fromkeys(Operation, 0.3),
    Operation.ADD: 2.0,
    Operation.SUB: 1.0,
    Operation.MUL: 2.0,
    Operation.DIV: 2.0,
    Operation.SQRT: 1.5,
    Operation.TO_INT: 0.5,
    Operation.FROM_INT: 0.5,
    Operation.FROM_INT64: 0.5,
    Operation.SCALE: 0.5,
}


class Probe(Protocol):
    def evaluate(self, operation: Operation, a: Words, b: Words) -> Words: ...


def demand_equal(operation: Operation, a: Words, b: Words, actual: Words, wanted: Words) -> None:
    wrong = np.flatnonzero(actual != wanted)
    shown = [f"{a[at]:08x} {b[at]:08x}: {actual[at]:08x}, not {wanted[at]:08x}" for at in wrong[:3]]
    assert not len(wrong), f"{operation.name}: {len(wrong)} of {len(a)} are wrong: {shown}"


def test_vectors_file_is_what_the_generator_writes() -> None:
    assert json.loads(VECTORS.read_text()) == generate_float32.vectors()


@pytest.mark.chain
@pytest.mark.parametrize("operation", list(Operation), ids=lambda operation: operation.name.lower())
def test_evaluate_equals_both_oracles(probe: Probe, operation: Operation) -> None:
    specials, hard = special_pairs(operation), hard_pairs(operation, Bits(operation), 4000)
    a, b = (np.concatenate([left, right]) for left, right in zip(specials, hard, strict=True))
    demand_equal(operation, a, b, probe.evaluate(operation, a, b), expected(operation, a, b))


def test_hard_pairs_reach_every_class_of_result() -> None:
    for operation in (Operation.ADD, Operation.MUL, Operation.DIV, Operation.SCALE):
        results = hardware(operation, *hard_pairs(operation, Bits(3), 4000)) & 0x7FFFFFFF
        classes = [
            results == 0,
            (results > 0) & (results < 0x800000),
            (results >= 0x800000) & (results < 0x7F800000),
            results == 0x7F800000,
            results == 0x7FC00000,
        ]
        assert [bool(one.sum() >= 10) for one in classes] == [True] * 5, operation.name


def test_hardware_equals_exact_fractions() -> None:
    """The oracle of the millions of cases is itself held against the text of IEEE 754."""
    for op in (Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FSQRT, Op.FLT, Op.FLE, Op.FEQ, Op.F2I, Op.I2F):
        operation = Operation(op)
        a, b = hard_pairs(operation, Bits(7), 300)
        count = 1 if operation in generate_float32.UNARY else 2
        wanted = [PRIMITIVES[op](*pair[:count]) for pair in zip(a.tolist(), b.tolist(), strict=True)]
        assert hardware(operation, a, b).tolist() == wanted, op.name


@pytest.mark.chain
@pytest.mark.full
@pytest.mark.timeout(1800)
def test_evaluate_equals_hardware_in_ten_million_cases(probe: Probe, capsys: pytest.CaptureFixture[str]) -> None:
    bits, cases, start = Bits(10_000_000), 0, time.monotonic()
    for operation, millions in WEIGHTS.items():
        left = int(millions * 1_000_000)
        while left > 0:
            a, b = hard_pairs(operation, bits, 100_000)
            demand_equal(operation, a, b, probe.evaluate(operation, a, b), hardware(operation, a, b))
            left, cases = left - len(a), cases + len(a)
        # Of every operation a part is held against SoftFloat too.
        a, b = hard_pairs(operation, bits, 50_000)
        demand_equal(operation, a, b, probe.evaluate(operation, a, b), expected(operation, a, b))
        cases += len(a)
    with capsys.disabled():
        print(f"\n{cases:,} cases of Float32.sol in {time.monotonic() - start:.0f} s, all right")
    assert cases >= 10_000_000
