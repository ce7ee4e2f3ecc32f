// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root} from "../types/Identifiers.sol";
import {Performance} from "./Performance.sol";

/// @title What a task may ask for
/// @notice Checked once, when a task is posted, so that no later call can overflow, divide by zero or get stuck.
library TaskRules {
    /// @notice Longest lease and challenge window, in seconds: escrow and bonds must come free some day.
    uint32 internal constant MAXIMUM_PERIOD = 365 days;

    /// @notice Most tensors of a state: the depth of a loss proof is at most 20.
    uint32 internal constant MAXIMUM_TENSORS = 1 << 20;

    /// @notice Most training slots of a round: a merge program's header counts its inputs in a byte.
    uint32 internal constant MAXIMUM_SLOTS = 255;

    /// @notice Reverts with `ZeroRoot` or with `InvalidParameter`, which names the first field that is wrong.
    /// @param minimumBond The deployment's, as are the other two.
    function check(
        ITrainingLedger.TaskParameters calldata p,
        uint96 minimumBond,
        uint32 minimumWindow,
        uint32 minimumLease
    ) internal pure {
        _checkRoots(p);
        _need(p.stateTensors >= 2 && p.stateTensors <= MAXIMUM_TENSORS, "stateTensors", p.stateTensors);
        _need(p.rounds > 0, "rounds", p.rounds);
        _need(p.stepsPerRound > 0, "stepsPerRound", p.stepsPerRound);
        _need(p.minimumSteps > 0 && p.minimumSteps <= p.stepsPerRound, "minimumSteps", p.minimumSteps);
        _need(p.slotReward > 0, "slotReward", p.slotReward);
        _need(p.bond >= minimumBond, "bond", p.bond);
        _need(p.leaseFee <= p.bond, "leaseFee", p.leaseFee);
        _need(p.leaseSeconds >= minimumLease && p.leaseSeconds <= MAXIMUM_PERIOD, "leaseSeconds", p.leaseSeconds);
        // INVARIANT: whoever watches has at least as long to replay a round as its worker had to do it.
        bool windowGood = p.challengeWindow >= minimumWindow && p.challengeWindow >= p.leaseSeconds;
        _need(windowGood && p.challengeWindow <= MAXIMUM_PERIOD, "challengeWindow", p.challengeWindow);
        _checkRound(p);
        _checkAdmission(p);
        _checkLosses(p);
    }

    /// @notice Whether claims need `minimumStake`.
    function needsStake(ITrainingLedger.Admission admission) internal pure returns (bool) {
        return admission == ITrainingLedger.Admission.Stake || admission == ITrainingLedger.Admission.StakeAndTicket;
    }

    /// @notice Whether claims need a ticket.
    function needsTicket(ITrainingLedger.Admission admission) internal pure returns (bool) {
        return admission == ITrainingLedger.Admission.Ticket || admission == ITrainingLedger.Admission.StakeAndTicket;
    }

    function _checkRoots(ITrainingLedger.TaskParameters calldata p) private pure {
        bool anyZero = _isZero(p.specificationHash) || _isZero(p.programRoot) || _isZero(p.datasetRoot)
            || _isZero(p.initialStateRoot);
        require(!anyZero, ITrainingLedger.ZeroRoot());
    }

    /// @dev With one slot a round nothing is merged, and the three fields mean nothing.
    function _checkRound(ITrainingLedger.TaskParameters calldata p) private pure {
        _need(p.slotsPerRound > 0 && p.slotsPerRound <= MAXIMUM_SLOTS, "slotsPerRound", p.slotsPerRound);
        bool merges = p.slotsPerRound > 1;
        bool quorumGood = merges ? p.quorum > 0 && p.quorum <= p.slotsPerRound : p.quorum == 0;
        _need(quorumGood, "quorum", p.quorum);
        // Whoever claims first has a whole lease before its round can go on without it.
        bool timeGood = p.roundSeconds >= p.leaseSeconds && p.roundSeconds <= MAXIMUM_PERIOD;
        _need(merges ? timeGood : p.roundSeconds == 0, "roundSeconds", p.roundSeconds);
        _need(merges == (p.mergeReward > 0), "mergeReward", p.mergeReward);
    }

    function _checkAdmission(ITrainingLedger.TaskParameters calldata p) private pure {
        _need((p.minimumStake > 0) == needsStake(p.admission), "minimumStake", p.minimumStake);
        _need((p.ticketTarget > 0) == needsTicket(p.admission), "ticketTarget", p.ticketTarget);
    }

    function _checkLosses(ITrainingLedger.TaskParameters calldata p) private pure {
        if (!p.hasTarget) {
            _need(p.baseLoss == 0, "baseLoss", p.baseLoss);
            _need(p.targetLoss == 0, "targetLoss", p.targetLoss);
            return;
        }
        (bool baseFinite, int256 base) = Performance.fixedPoint(p.baseLoss);
        (bool targetFinite, int256 target) = Performance.fixedPoint(p.targetLoss);
        _need(baseFinite, "baseLoss", p.baseLoss);
        _need(targetFinite && target < base, "targetLoss", p.targetLoss);
    }

    function _isZero(Root root) private pure returns (bool) {
        return Root.unwrap(root) == 0;
    }

    function _need(bool good, string memory field, uint256 value) private pure {
        require(good, ITrainingLedger.InvalidParameter(field, value));
    }
}
