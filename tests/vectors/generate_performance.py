"""Writes performance.json: losses as fixed-point numbers, and pay, for every implementation of docs/formats.md §6.

The expected values come from exact fractions of the floats themselves, not from shifting bits, so that the contract and
the Python code are held against a third way of computing. Run it again after a change of the format:

    python tests/vectors/generate_performance.py

The output is deterministic; README.md beside it says what the fields are.
"""

from __future__ import annotations

import json
import math
import random
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

SCALE = 1 << 64
LARGEST_VALUE = 1 << 64
SPECIAL_BITS = {
    "zero": 0x00000000,
    "minus_zero": 0x80000000,
    "smallest_subnormal": 0x00000001,
    "largest_subnormal": 0x007FFFFF,
    "smallest_normal": 0x00800000,
    "one": 0x3F800000,
    "just_below_one": 0x3F7FFFFF,
    "minus_one": 0xBF800000,
    "two_to_minus_64": 0x1F800000,
    "just_below_two_to_minus_64": 0x1F7FFFFF,
    "two_to_minus_41": 0x2B000000,
    "two_to_63": 0x5F000000,
    "just_below_two_to_64": 0x5F7FFFFF,
    "two_to_64": 0x5F800000,
    "just_above_two_to_64": 0x5F800001,
    "minus_two_to_64": 0xDF800000,
    "largest": 0x7F7FFFFF,
    "minus_largest": 0xFF7FFFFF,
    "infinity": 0x7F800000,
    "minus_infinity": 0xFF800000,
    "canonical_nan": 0x7FC00000,
    "signalling_nan": 0x7F800001,
    "negative_nan": 0xFFC00000,
    "full_nan": 0x7FFFFFFF,
}


def fixed(bits: int) -> int | None:
    """The exact value times 2**64, magnitude capped and rounded down; None for what is not finite."""
    value = struct.unpack(">f", struct.pack(">I", bits))[0]
    if not math.isfinite(value):
        return None
    magnitude = min(abs(Fraction(value)), Fraction(LARGEST_VALUE))
    return int(math.copysign(1, value)) * math.floor(magnitude * SCALE)


def pay(case: dict[str, Any]) -> int:
    """Pay as the page writes it, over one exact fraction."""
    reward, steps, full_steps = int(case["slot_reward"]), case["steps"], case["steps_per_round"]
    if not case["has_target"]:
        return math.floor(Fraction(reward * steps, full_steps))
    base, target, loss = fixed(case["base_loss"]), fixed(case["target_loss"]), fixed(case["loss"])
    assert base is not None
    assert target is not None
    gain = 0 if loss is None else max(0, base - loss)
    line = Fraction(gain * case["rounds"], (base - target) * (case["round"] + 1))
    return math.floor(Fraction(reward * steps, full_steps) * min(line, Fraction(1)))


def bits_of(value: float) -> int:
    """binary32 bits of the nearest float."""
    return int.from_bytes(struct.pack(">f", value), "big")


def fixed_cases(rng: random.Random) -> list[dict[str, Any]]:
    """Named edge cases, one of each exponent, and random bits."""
    chosen = list(SPECIAL_BITS.items())
    chosen += [(f"exponent_{e}", (e << 23) | rng.getrandbits(23)) for e in range(0, 255, 5)]
    chosen += [(f"random_{i}", rng.getrandbits(32)) for i in range(75)]
    cases = []
    for name, bits in chosen:
        value = fixed(bits)
        cases.append({"name": name, "bits": bits, "finite": value is not None, "fixed": str(value or 0)})
    return cases


def _pay_case(rng: random.Random, name: str, base: float, target: float, loss_bits: int) -> dict[str, Any]:
    rounds = rng.choice([1, 2, 7, 100, 2**32 - 1])
    steps_per_round = rng.choice([1, 3, 100, 2**32 - 1])
    case: dict[str, Any] = {
        "name": name,
        "slot_reward": str(rng.choice([1, 10**18, 3 * 10**18 + 1, rng.getrandbits(95) + 1, 2**96 - 1])),
        "rounds": rounds,
        "round": rng.choice([0, rounds // 2, rounds - 1]),
        "steps_per_round": steps_per_round,
        "steps": rng.choice([1, steps_per_round, (steps_per_round + 1) // 2]),
        "has_target": True,
        "base_loss": bits_of(base),
        "target_loss": bits_of(target),
        "loss": loss_bits,
    }
    return case


def pay_cases(rng: random.Random) -> list[dict[str, Any]]:
    """Losses over, on and below the line, every special loss, extreme scales, and tasks without a target."""
    cases = [_pay_case(rng, f"loss_{name}", 5.5, 1.25, bits) for name, bits in SPECIAL_BITS.items()]
    scales = [(5.545, 2.0), (4.0, 3.9999998), (1e-10, -1e-10), (3.4e38, -3.4e38), (2.0**64, 0.0), (0.0, -1.5)]
    for base, target in scales:
        for i in range(16):
            share = rng.choice([-0.5, 0.0, 1e-6, 0.1, 0.5, 0.999, 1.0, 1.5]) if i % 2 else rng.random()
            loss = max(-3.4e38, min(3.4e38, base + (target - base) * share))
            cases.append(_pay_case(rng, f"scale_{base:g}_{i}", base, target, bits_of(loss)))
    for i in range(90):
        base, target = sorted((rng.uniform(-1, 12), rng.uniform(-1, 12)), reverse=True)
        cases.append(_pay_case(rng, f"random_{i}", base, target, bits_of(rng.uniform(-2, 13))))
    for i in range(20):
        case = _pay_case(rng, f"no_target_{i}", 1.0, 0.0, rng.choice(list(SPECIAL_BITS.values())))
        cases.append({**case, "has_target": False, "base_loss": 0, "target_loss": 0})
    distinct = [case for case in cases if not case["has_target"] or _is_postable(case)]
    return [{**case, "pay": str(pay(case))} for case in distinct]


def _is_postable(case: dict[str, Any]) -> bool:
    base, target = fixed(case["base_loss"]), fixed(case["target_loss"])
    return base is not None and target is not None and base > target


def main() -> None:
    """Writes performance.json beside this file."""
    rng = random.Random(20260101)
    vectors = {"format": "trainledger/vectors/performance/1", "fixed": fixed_cases(rng), "pay": pay_cases(rng)}
    path = Path(__file__).with_name("performance.json")
    path.write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(vectors['fixed'])} fixed, {len(vectors['pay'])} pay")


if __name__ == "__main__":
    main()
