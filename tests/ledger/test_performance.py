from __future__ import annotations

import json
import math
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.open.records import OpenParameters
from ledger.performance import bits_float, fixed_point, float_bits, open_pay, pay_factors, pay_for
from ledger.types import TaskParameters

VECTORS = json.loads((Path(__file__).parent.parent / "vectors/performance.json").read_text())
ROOT = b"\1" * 32
patterns = st.integers(0, 2**32 - 1)
finite_patterns = patterns.filter(lambda bits: bits >> 23 & 0xFF != 0xFF)


def parameters(**fields: Any) -> TaskParameters:
    defaults: dict[str, Any] = {
        "specification_hash": ROOT,
        "program_root": ROOT,
        "dataset_root": ROOT,
        "initial_state_root": ROOT,
        "state_tensors": 2,
        "rounds": 4,
        "steps_per_round": 10,
        "minimum_steps": 1,
        "slot_reward": 10**18,
        "bond": 1,
        "lease_fee": 0,
        "lease_seconds": 1,
        "challenge_window": 1,
    }
    return TaskParameters(**(defaults | fields))


def exact(bits: int) -> Fraction:
    """⌊|value| × 2⁶⁴⌋ by the definition's words, from the hardware's own reading of the bits."""
    value = Fraction(struct.unpack(">f", bits.to_bytes(4, "big"))[0])
    magnitude = min(math.floor(abs(value) * 2**64), 2**128)
    return Fraction(-magnitude if value < 0 else magnitude)


@pytest.mark.parametrize("case", VECTORS["fixed"], ids=lambda case: case["name"])
def test_fixed_point_shared_vector(case: dict[str, Any]) -> None:
    assert fixed_point(case["bits"]) == (int(case["fixed"]) if case["finite"] else None)


@pytest.mark.parametrize("case", VECTORS["pay"], ids=lambda case: case["name"])
def test_pay_for_shared_vector(case: dict[str, Any]) -> None:
    task = parameters(
        slot_reward=int(case["slot_reward"]),
        rounds=case["rounds"],
        steps_per_round=case["steps_per_round"],
        has_target=case["has_target"],
        base_loss=case["base_loss"],
        target_loss=case["target_loss"],
    )
    pay = pay_for(task, round_number=case["round"], steps=case["steps"], loss_bits=case["loss"])
    assert pay == int(case["pay"])


@given(finite_patterns)
def test_fixed_point_equals_exact_fractions(bits: int) -> None:
    assert fixed_point(bits) == exact(bits)


@given(
    base=finite_patterns,
    target=finite_patterns,
    loss=finite_patterns,
    reward=st.integers(1, 2**96 - 1),
    rounds=st.integers(1, 2**32 - 1),
    asked=st.integers(1, 2**32 - 1),
    data=st.data(),
)
def test_pay_for_equals_exact_fractions(
    base: int, target: int, loss: int, reward: int, rounds: int, asked: int, data: st.DataObject
) -> None:
    if exact(base) == exact(target):
        return
    if exact(base) < exact(target):
        base, target = target, base
    steps, number = data.draw(st.integers(1, asked)), data.draw(st.integers(0, rounds - 1))
    task = parameters(
        slot_reward=reward, rounds=rounds, steps_per_round=asked, has_target=True, base_loss=base, target_loss=target
    )
    line = (exact(base) - exact(target)) * Fraction(number + 1, rounds)
    performance = min(Fraction(1), max(Fraction(0), exact(base) - exact(loss)) / line)
    expected = math.floor(reward * Fraction(steps, asked) * performance)
    assert pay_for(task, round_number=number, steps=steps, loss_bits=loss) == expected
    assert 0 <= expected <= reward


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_pay_for_loss_not_finite_pays_nothing(value: float) -> None:
    task = parameters(has_target=True, base_loss=float_bits(4.0), target_loss=float_bits(2.0))
    assert pay_for(task, round_number=0, steps=10, loss_bits=float_bits(value)) == 0


def open_parameters(reward: int, floor: int, full_gain: int) -> OpenParameters:
    return OpenParameters(
        specification_hash=ROOT, program_root=ROOT, initial_state_root=ROOT, train_leaf=ROOT, public_node=ROOT,
        held_out_bytes=2, state_tensors=2, slots_per_round=1,
        full_gain=full_gain, slot_reward=reward, floor_reward=floor, score_reward=1, bond=1, fee=0, commit_seconds=1,
        reveal_seconds=1, held_out_seconds=1, lease_seconds=1, challenge_window=1,
    )  # fmt: skip


@given(
    base=finite_patterns, loss=finite_patterns, full=finite_patterns, reward=st.integers(1, 2**96 - 1), data=st.data()
)
def test_open_pay_equals_exact_fractions(base: int, loss: int, full: int, reward: int, data: st.DataObject) -> None:
    floor = data.draw(st.integers(0, reward))
    task = open_parameters(reward, floor, full)
    if exact(full) <= 0:
        with pytest.raises(ValueError, match="is not finite and above zero"):
            open_pay(task, base, loss)
        return
    share = min(Fraction(1), max(Fraction(0), exact(base) - exact(loss)) / exact(full))
    paid = open_pay(task, base, loss)
    assert paid == floor + math.floor((reward - floor) * share)
    assert floor <= paid <= reward


@pytest.mark.parametrize(
    ("base", "loss", "paid"),
    [
        (4.0, 4.0, 10),
        (4.0, 5.0, 10),
        (4.0, 3.0, 55),
        (4.0, 2.0, 100),
        (4.0, -8.0, 100),
        (4.0, math.nan, 10),
        (math.inf, 3.0, 10),
        (None, 3.0, 10),
    ],
)
def test_open_pay_by_hand(base: float | None, loss: float, paid: int) -> None:
    task = open_parameters(100, 10, float_bits(2.0))
    assert open_pay(task, None if base is None else float_bits(base), float_bits(loss)) == paid


@given(patterns)
def test_float_bits_inverts_bits_float(bits: int) -> None:
    value = bits_float(bits)
    assert float_bits(value) == (0x7FC00000 if math.isnan(value) else bits)


def test_float_bits_beyond_binary32_is_infinity() -> None:
    assert float_bits(1e300) == 0x7F800000
    assert float_bits(-1e300) == 0xFF800000


@pytest.mark.parametrize("bits", [-1, 2**32])
def test_fixed_point_more_than_32_bits_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"{bits} is not a pattern of 32 bits"):
        fixed_point(bits)


def test_pay_factors_are_exact() -> None:
    task = parameters(has_target=True, base_loss=float_bits(4.0), target_loss=float_bits(2.0), slot_reward=1001)
    factors = pay_factors(task, round_number=1, steps=5, loss_bits=float_bits(3.5))
    unit = 1 << 64
    assert (factors.base, factors.target, factors.loss) == (4 * unit, 2 * unit, 7 * unit // 2)
    # Half a nat of the two that four rounds ask; two rounds' part is due.
    assert (factors.gain, factors.need, factors.earned) == (unit // 2, 4 * unit, 2 * unit)
    assert (factors.numerator, factors.denominator) == (1001 * 5 * 2 * unit, 10 * 4 * unit)
    assert (factors.pay, factors.remainder, factors.unearned) == (250, 10 * unit, 751)


def test_pay_factors_without_target_depend_on_steps_alone() -> None:
    factors = pay_factors(parameters(slot_reward=7), round_number=3, steps=5, loss_bits=float_bits(math.nan))
    assert (factors.has_target, factors.base, factors.target, factors.loss) == (False, None, None, None)
    assert (factors.numerator, factors.denominator, factors.pay, factors.remainder) == (35, 10, 3, 5)


@given(finite_patterns, st.integers(0, 10), st.integers(0, 3), st.integers(1, 2**96 - 1))
def test_pay_and_remainder_make_up_the_fraction(loss: int, steps: int, number: int, reward: int) -> None:
    task = parameters(has_target=True, base_loss=float_bits(4.0), target_loss=float_bits(2.0), slot_reward=reward)
    factors = pay_factors(task, round_number=number, steps=steps, loss_bits=loss)
    exact = reward * Fraction(steps, 10) * Fraction(factors.earned, factors.need)
    assert factors.pay + Fraction(factors.remainder, factors.denominator) == exact
    assert factors.pay + factors.unearned == reward
    assert factors.pay == pay_for(task, round_number=number, steps=steps, loss_bits=loss)
