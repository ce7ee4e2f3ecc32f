"""Pay, exactly as the contracts compute it (docs/formats.md, section 6). Integers only; rounding is down."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from ledger.open.records import NO_LOSS, OpenParameters
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


@dataclass(frozen=True, kw_only=True)
class PayFactors:
    """The arithmetic of a training slot's pay, exactly: pay = ⌊numerator / denominator⌋ wei.

    Losses are in fixed point, units of 2⁻⁶⁴ nats; `loss` is None where it is not finite. Without a target all of them
    are None, gain is 0 and earned and need are 1.

    Attributes:
        steps, steps_per_round: done and asked. round_number: from 0, of `rounds`.
        gain: max(0, base − loss). need: (base − target) × (round_number + 1).
        earned: min(gain × rounds, need); earned / need is the performance.
    """

    slot_reward: int
    steps: int
    steps_per_round: int
    round_number: int
    rounds: int
    base: int | None
    target: int | None
    loss: int | None
    gain: int
    need: int

    @property
    def has_target(self) -> bool:
        return self.target is not None

    @property
    def earned(self) -> int:
        return min(self.gain * self.rounds, self.need) if self.has_target else 1

    @property
    def numerator(self) -> int:
        return self.slot_reward * self.steps * self.earned

    @property
    def denominator(self) -> int:
        return self.steps_per_round * self.need

    @property
    def pay(self) -> int:
        """In wei, rounded down."""
        return self.numerator // self.denominator

    @property
    def remainder(self) -> int:
        """What rounding down drops, in parts of a wei, each a denominator's."""
        return self.numerator % self.denominator

    @property
    def unearned(self) -> int:
        """Wei of the slot's reward that stay in the escrow."""
        return self.slot_reward - self.pay


def pay_factors(parameters: TaskParameters, *, round_number: int, steps: int, loss_bits: int) -> PayFactors:
    """The factors of a training slot's pay in round `round_number` (from 0), with `steps` done and this held-out loss.

    Raises:
        ValueError: `loss_bits` is not a number of 32 bits, or the task's base loss is not above its target.
    """
    base, target, loss, gain, need = None, None, None, 0, 1
    if parameters.has_target:
        base, target, loss = (fixed_point(bits) for bits in (parameters.base_loss, parameters.target_loss, loss_bits))
        if base is None or target is None or base <= target:
            raise ValueError(
                f"base loss {parameters.base_loss:#x} is not above target loss {parameters.target_loss:#x}"
            )
        gain = 0 if loss is None else max(0, base - loss)
        need = (base - target) * (round_number + 1)
    return PayFactors(
        slot_reward=parameters.slot_reward,
        steps=steps,
        steps_per_round=parameters.steps_per_round,
        round_number=round_number,
        rounds=parameters.rounds,
        base=base,
        target=target,
        loss=loss,
        gain=gain,
        need=need,
    )


def pay_for(parameters: TaskParameters, *, round_number: int, steps: int, loss_bits: int) -> int:
    """Pay in wei for a slot of round `round_number` (from 0) with `steps` done and this held-out loss.

    Raises:
        ValueError: `loss_bits` is not a number of 32 bits.
    """
    return pay_factors(parameters, round_number=round_number, steps=steps, loss_bits=loss_bits).pay


def pay_of(parameters: TaskParameters, slot: Slot) -> int:
    """Pay in wei for what is submitted in a slot: for training as `pay_for` has it, for a merge what the task says."""
    if parameters.is_merge(slot.slot):
        return parameters.merge_reward
    return pay_for(parameters, round_number=slot.round, steps=slot.steps, loss_bits=slot.heldout_loss)


def open_pay(parameters: OpenParameters, baseline_loss: int | None, loss: int) -> int:
    """Pay in wei of a worker's slot of an open task (docs/open-tasks.md): the floor, and more with the improvement.

    Args:
        baseline_loss: held-out loss of the round's base, binary32 bits; None where the baseline is missing.
        loss: held-out loss of the worker's state, binary32 bits.

    Raises:
        ValueError: a loss is not a number of 32 bits, or the task's full gain is not finite and above zero.
    """
    full = fixed_point(parameters.full_gain)
    if full is None or full <= 0:
        raise ValueError(f"full gain {parameters.full_gain:#x} is not finite and above zero")
    base, reached = fixed_point(NO_LOSS if baseline_loss is None else baseline_loss), fixed_point(loss)
    gain = 0 if base is None or reached is None else min(max(0, base - reached), full)
    return parameters.floor_reward + (parameters.slot_reward - parameters.floor_reward) * gain // full


def _checked(bits: int) -> int:
    if not 0 <= bits < 1 << 32:
        raise ValueError(f"{bits} is not a pattern of 32 bits")
    return bits
