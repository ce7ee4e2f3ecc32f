"""Pay, exactly as the contract computes it (docs/formats.md, section 6). Integers only; rounding is down."""

from __future__ import annotations

import math
import struct

from ledger.types import Slot, TaskParameters

FIXED_POINT_BITS = 64
_LARGEST = 1 << 128  # magnitudes from 2**64 on count as 2**64


def float_bits(value: float) -> int:
    """The binary32 bit pattern nearest to `value`; every NaN gives 0x7fc00000, too large a number infinity."""
    if math.isnan(value):
        return 0x7FC00000
    try:
        packed = struct.pack(">f", value)
    except OverflowError:
        packed = struct.pack(">f", math.copysign(math.inf, value))
    return int.from_bytes(packed, "big")


def bits_float(bits: int) -> float:
    """The number that a binary32 bit pattern stands for.

    Raises:
        ValueError: `bits` is not a number of 32 bits.
    """
    return float(struct.unpack(">f", _checked(bits).to_bytes(4, "big"))[0])


def fixed_point(bits: int) -> int | None:
    """A binary32 pattern as sign × ⌊|value| × 2⁶⁴⌋, magnitudes capped at 2⁶⁴; None for NaN and infinities.

    Raises:
        ValueError: `bits` is not a number of 32 bits.
    """
    _checked(bits)
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:
        return None
    significand = fraction | (0x800000 if exponent else 0)
    # value = significand × 2^(max(exponent, 1) − 150)
    shift = max(exponent, 1) - 150 + FIXED_POINT_BITS
    magnitude = significand << shift if shift >= 0 else significand >> -shift
    magnitude = min(magnitude, _LARGEST)
    return -magnitude if bits >> 31 else magnitude


def pay_for(parameters: TaskParameters, *, round_number: int, steps: int, loss_bits: int) -> int:
    """Pay in wei for a slot of round `round_number` (from 0) with `steps` done and this held-out loss.

    Raises:
        ValueError: `loss_bits` is not a number of 32 bits.
    """
    if not parameters.has_target:
        return parameters.slot_reward * steps // parameters.steps_per_round
    gain, need = _gain_and_need(parameters, round_number=round_number, loss_bits=loss_bits)
    earned = parameters.slot_reward * steps * min(gain * parameters.rounds, need)
    return earned // (parameters.steps_per_round * need)


def pay_of(parameters: TaskParameters, slot: Slot) -> int:
    """Pay in wei for what is submitted in a slot: for training as `pay_for` has it, for a merge what the task says."""
    if parameters.is_merge(slot.slot):
        return parameters.merge_reward
    return pay_for(parameters, round_number=slot.round, steps=slot.steps, loss_bits=slot.heldout_loss)


def explain_pay(
    parameters: TaskParameters, *, round_number: int, steps: int, loss_bits: int
) -> dict[str, int | float | None]:
    """Why the pay is what it is: each factor, for people. `pay` is exact; the ratios are rounded for display.

    Keys: `pay`, `slot_reward` (wei); `steps`, `steps_per_round`, `rate`; `loss`, `base_loss`, `target_loss`,
    `loss_for_full_pay` (nats, None without a target); `performance` (0 to 1).
    """
    pay = pay_for(parameters, round_number=round_number, steps=steps, loss_bits=loss_bits)
    explanation: dict[str, int | float | None] = {
        "pay": pay,
        "slot_reward": parameters.slot_reward,
        "steps": steps,
        "steps_per_round": parameters.steps_per_round,
        "rate": steps / parameters.steps_per_round,
        "loss": bits_float(loss_bits),
        "base_loss": None,
        "target_loss": None,
        "loss_for_full_pay": None,
        "performance": 1.0,
    }
    if parameters.has_target:
        gain, need = _gain_and_need(parameters, round_number=round_number, loss_bits=loss_bits)
        base, target = bits_float(parameters.base_loss), bits_float(parameters.target_loss)
        explanation |= {
            "base_loss": base,
            "target_loss": target,
            "loss_for_full_pay": base - (base - target) * (round_number + 1) / parameters.rounds,
            "performance": min(gain * parameters.rounds, need) / need,
        }
    return explanation


def _gain_and_need(parameters: TaskParameters, *, round_number: int, loss_bits: int) -> tuple[int, int]:
    base, target, loss = (fixed_point(bits) for bits in (parameters.base_loss, parameters.target_loss, loss_bits))
    if base is None or target is None or base <= target:
        raise ValueError(f"base loss {parameters.base_loss:#x} is not above target loss {parameters.target_loss:#x}")
    gain = 0 if loss is None else max(0, base - loss)
    return gain, (base - target) * (round_number + 1)


def _checked(bits: int) -> int:
    if not 0 <= bits < 1 << 32:
        raise ValueError(f"{bits} is not a pattern of 32 bits")
    return bits
