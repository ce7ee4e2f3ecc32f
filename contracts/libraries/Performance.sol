// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title Losses as numbers, and pay
/// @notice docs/formats.md, section 6. Losses are IEEE-754 binary32 bit patterns; pay is wei, rounded down.
library Performance {
    /// @notice What decides the pay of one slot.
    /// @param baseLoss Bits of a finite loss, larger than `targetLoss`.
    /// @param rounds R of the formula; `round` counts from 0 and is below it.
    /// @param stepsPerRound H of the formula, at least 1; the steps done are at most as many.
    struct Terms {
        uint256 slotReward;
        uint256 stepsPerRound;
        uint256 rounds;
        uint256 round;
        bool hasTarget;
        uint32 baseLoss;
        uint32 targetLoss;
    }

    /// @notice Magnitudes of 2**64 and more count as 2**64; in fixed point, that is 2**128.
    uint256 internal constant LARGEST = uint256(1) << 128;

    /// @notice The value of binary32 bits times 2**64, its magnitude rounded down and capped at 2**128.
    /// @return finite False for NaNs and infinities, whose `value` is 0 and means nothing.
    function fixedPoint(uint32 bits) internal pure returns (bool finite, int256 value) {
        uint256 exponent = (bits >> 23) & 0xff;
        if (exponent == 0xff) return (false, 0);
        uint256 significand = bits & 0x7fffff;
        if (exponent == 0) exponent = 1;
        else significand |= 0x800000;
        // value = significand * 2**(exponent - 150), so value * 2**64 = significand * 2**(exponent - 86).
        uint256 magnitude = exponent >= 86 ? significand << (exponent - 86) : significand >> (86 - exponent);
        if (magnitude > LARGEST) magnitude = LARGEST;
        // forge-lint: disable-next-line(unsafe-typecast)
        value = int256(magnitude); // at most 2**128
        if (bits >> 31 == 1) value = -value;
        return (true, value);
    }

    /// @notice Pay for `steps` done and a proved held-out loss.
    /// @dev Bounds: reward * steps < 2**128, gain and base - target <= 2**129, times rounds <= 2**161, so both factors
    /// and the divisor fit and only their product needs `mulDiv`'s 512 bits.
    function pay(Terms memory terms, uint256 steps, uint32 lossBits) internal pure returns (uint256) {
        uint256 full = terms.slotReward * steps;
        if (!terms.hasTarget) return full / terms.stepsPerRound;
        (bool finite, int256 loss) = fixedPoint(lossBits);
        (, int256 base) = fixedPoint(terms.baseLoss);
        if (!finite || loss >= base) return 0;
        (, int256 target) = fixedPoint(terms.targetLoss);
        // Both differences are positive: base > loss was just checked, base > target when the task was posted.
        uint256 gained = uint256(base - loss) * terms.rounds;
        uint256 need = uint256(base - target) * (terms.round + 1);
        return Math.mulDiv(full, Math.min(gained, need), need * terms.stepsPerRound);
    }
}
