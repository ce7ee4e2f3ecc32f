// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAvailabilityCommittee} from "./interfaces/IAvailabilityCommittee.sol";
import {IOpenLedger} from "./interfaces/IOpenLedger.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {HeldOut} from "./libraries/HeldOut.sol";
import {OpenRules} from "./libraries/OpenRules.sol";
import {StateProof} from "./libraries/StateProof.sol";
import {TaskRules} from "./libraries/TaskRules.sol";
import {Root} from "./types/Identifiers.sol";

/// @title What an open task may ask for and what it pays, and what its roots prove
/// @dev Pure work for the ledger of open tasks, whose code has no room for it. Nothing is written.
abstract contract OpenTerms is IAvailabilityCommittee {
    uint96 private immutable _MINIMUM_BOND;
    uint32 private immutable _MINIMUM_WINDOW;
    uint32 private immutable _MINIMUM_LEASE;

    /// @param minimumBond_ Least bond of any task, in wei.
    /// @param minimumWindow_ Least challenge window of any task, in seconds.
    /// @param minimumLease_ Least of the other periods of any task, in seconds.
    constructor(uint96 minimumBond_, uint32 minimumWindow_, uint32 minimumLease_) {
        require(minimumBond_ > 0, InvalidParameter("minimumBond", 0));
        bool windowGood = minimumWindow_ > 0 && minimumWindow_ <= TaskRules.MAXIMUM_PERIOD;
        require(windowGood, InvalidParameter("minimumWindow", minimumWindow_));
        bool leaseGood = minimumLease_ > 0 && minimumLease_ <= TaskRules.MAXIMUM_PERIOD;
        require(leaseGood, InvalidParameter("minimumLease", minimumLease_));
        (_MINIMUM_BOND, _MINIMUM_WINDOW, _MINIMUM_LEASE) = (minimumBond_, minimumWindow_, minimumLease_);
    }

    /// @inheritdoc IAvailabilityCommittee
    function checkTerms(IOpenLedger.TaskParameters calldata parameters, Root[] calldata heldOutRoots) external view {
        OpenRules.check(parameters, heldOutRoots, _MINIMUM_BOND, _MINIMUM_WINDOW, _MINIMUM_LEASE);
    }

    /// @inheritdoc IAvailabilityCommittee
    function minimumBond() external view returns (uint96) {
        return _MINIMUM_BOND;
    }

    /// @inheritdoc IAvailabilityCommittee
    function minimumWindow() external view returns (uint32) {
        return _MINIMUM_WINDOW;
    }

    /// @inheritdoc IAvailabilityCommittee
    function minimumLease() external view returns (uint32) {
        return _MINIMUM_LEASE;
    }

    /// @inheritdoc IAvailabilityCommittee
    function dataSetRoot(bytes calldata tokens, uint32 size, bytes32 trainLeaf, bytes32 publicNode)
        external
        view
        returns (Root)
    {
        require(tokens.length == size, WrongHeldOutSize(tokens.length, size));
        return HeldOut.dataSetRoot(tokens, trainLeaf, publicNode);
    }

    /// @inheritdoc IAvailabilityCommittee
    function checkLoss(Root stateRoot, uint32 heldOutLoss, uint32 stateTensors, bytes32[] calldata lossProof)
        external
        view
    {
        require(Root.unwrap(stateRoot) != 0, ITrainingLedger.ZeroRoot());
        bool canonical = StateProof.isCanonical(heldOutLoss);
        require(canonical, ITrainingLedger.InvalidParameter("heldOutLoss", heldOutLoss));
        uint256 needed = StateProof.depth(stateTensors);
        require(lossProof.length == needed, ITrainingLedger.WrongProofLength(lossProof.length, needed));
        Root proved = StateProof.stateRoot(heldOutLoss, stateTensors, lossProof);
        require(stateRoot == proved, ITrainingLedger.WrongLossProof(stateRoot, proved));
    }

    /// @inheritdoc IAvailabilityCommittee
    function payOf(uint96 slotReward, uint96 floorReward, uint32 fullGain, uint32 baselineLoss, uint32 heldOutLoss)
        external
        pure
        returns (uint256)
    {
        return OpenRules.pay(slotReward, floorReward, fullGain, baselineLoss, heldOutLoss);
    }
}
