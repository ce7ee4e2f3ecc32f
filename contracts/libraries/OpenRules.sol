// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IOpenLedger} from "../interfaces/IOpenLedger.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root} from "../types/Identifiers.sol";
import {HeldOut} from "./HeldOut.sol";
import {Performance} from "./Performance.sol";
import {TaskRules} from "./TaskRules.sol";

/// @title What an open task may ask for, and what improvement is paid
library OpenRules {
    /// @notice Most rounds of a task: each has a held-out root in storage.
    uint256 internal constant MAXIMUM_ROUNDS = 256;

    /// @notice Reverts with `ZeroRoot` or with `InvalidParameter`, which names the first field that is wrong.
    /// @param minimumBond The deployment's, as are the other two.
    function check(
        IOpenLedger.TaskParameters calldata p,
        Root[] calldata heldOutRoots,
        uint96 minimumBond,
        uint32 minimumWindow,
        uint32 minimumLease
    ) internal pure {
        bool anyZero =
            _isZero(p.specificationHash) || _isZero(p.programRoot) || _isZero(p.initialStateRoot);
        for (uint256 i = 0; i < heldOutRoots.length; ++i) {
            anyZero = anyZero || _isZero(heldOutRoots[i]);
        }
        require(!anyZero, ITrainingLedger.ZeroRoot());
        _need(heldOutRoots.length > 0 && heldOutRoots.length <= MAXIMUM_ROUNDS, "rounds", heldOutRoots.length);
        _need(p.stateTensors >= 2 && p.stateTensors <= TaskRules.MAXIMUM_TENSORS, "stateTensors", p.stateTensors);
        bool slotsGood = p.slotsPerRound > 0 && p.slotsPerRound <= TaskRules.MAXIMUM_SLOTS;
        _need(slotsGood, "slotsPerRound", p.slotsPerRound);
        (bool finite, int256 full) = Performance.fixedPoint(p.fullGain);
        _need(finite && full > 0, "fullGain", p.fullGain);
        bool sizeGood = p.heldOutBytes > 0 && p.heldOutBytes <= HeldOut.MAXIMUM_BYTES && p.heldOutBytes % 2 == 0;
        _need(sizeGood, "heldOutBytes", p.heldOutBytes);
        _need(p.slotReward > 0, "slotReward", p.slotReward);
        _need(p.floorReward <= p.slotReward, "floorReward", p.floorReward);
        _need(p.scoreReward > 0, "scoreReward", p.scoreReward);
        _need(p.bond >= minimumBond, "bond", p.bond);
        _need(p.fee <= p.bond, "fee", p.fee);
        _checkPeriods(p, minimumWindow, minimumLease);
    }

    /// @notice Pay of a worker's slot; losses are binary32 bits.
    /// @dev Bounds: rewards are below 2**96, gains at most 2**129, so the product fits.
    function pay(uint96 slotReward, uint96 floorReward, uint32 fullGain, uint32 baselineLoss, uint32 heldOutLoss)
        internal
        pure
        returns (uint256)
    {
        (bool baseFinite, int256 base) = Performance.fixedPoint(baselineLoss);
        (bool finite, int256 loss) = Performance.fixedPoint(heldOutLoss);
        if (!baseFinite || !finite || loss >= base) return floorReward;
        (, int256 full) = Performance.fixedPoint(fullGain);
        uint256 gain = Math.min(uint256(base - loss), uint256(full)); // both above zero
        return floorReward + (uint256(slotReward) - floorReward) * gain / uint256(full);
    }

    /// @notice A number that is larger for larger losses; what is not finite is above everything finite.
    /// @dev The order of binary32 is that of its bits, those of negative numbers inverted.
    function rank(uint32 loss) internal pure returns (uint32) {
        if ((loss >> 23) & 0xff == 0xff) return type(uint32).max;
        return loss >> 31 == 1 ? ~loss : loss | 0x80000000;
    }

    function _checkPeriods(IOpenLedger.TaskParameters calldata p, uint32 minimumWindow, uint32 minimumLease)
        private
        pure
    {
        // INVARIANT: a commit in the last second can be revealed, and held-out data shown, by whoever is there at all.
        _checkPeriod(p.commitSeconds, minimumLease, "commitSeconds");
        _checkPeriod(p.revealSeconds, minimumLease, "revealSeconds");
        _checkPeriod(p.heldOutSeconds, minimumLease, "heldOutSeconds");
        _checkPeriod(p.leaseSeconds, minimumLease, "leaseSeconds");
        // INVARIANT: whoever watches has at least as long to score a state as its worker had.
        uint32 least = p.leaseSeconds > minimumWindow ? p.leaseSeconds : minimumWindow;
        _checkPeriod(p.challengeWindow, least, "challengeWindow");
    }

    function _checkPeriod(uint32 period, uint32 least, string memory field) private pure {
        _need(period >= least && period <= TaskRules.MAXIMUM_PERIOD, field, period);
    }

    function _isZero(Root root) private pure returns (bool) {
        return Root.unwrap(root) == 0;
    }

    function _need(bool good, string memory field, uint256 value) private pure {
        require(good, ITrainingLedger.InvalidParameter(field, value));
    }
}
