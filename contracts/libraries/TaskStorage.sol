// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IRoundBook} from "../interfaces/IRoundBook.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root} from "../types/Identifiers.sol";

/// @title How a task is kept
/// @notice One storage slot holds what claims, submissions and payments all read, a second what the latter two read,
/// so that no call loads a word for one field. See docs/contracts.md for the layout.
library TaskStorage {
    /// @notice `Complete`: every round is finalised. `Closed`: the requester stopped new claims.
    enum Phase {
        Running,
        Closed,
        Complete
    }

    /// @dev 256 bits: one storage slot. `slots` are training slots of a round.
    struct Terms {
        uint96 bond;
        uint32 leaseSeconds;
        uint32 currentRound;
        uint32 rounds;
        uint32 stepsPerRound;
        ITrainingLedger.Admission admission;
        Phase phase;
        bool hasTarget;
        uint8 slots;
    }

    /// @dev 256 bits: one storage slot.
    struct Work {
        uint96 slotReward;
        uint32 baseLoss;
        uint32 targetLoss;
        uint32 challengeWindow;
        uint32 minimumSteps;
        uint32 stateTensors;
    }

    /// @dev A task exists where `terms.rounds` is not zero.
    struct StoredTask {
        Terms terms;
        Work work;
        address requester;
        uint96 minimumStake;
        uint96 leaseFee;
        uint96 mergeReward;
        Root specificationHash;
        Root programRoot;
        Root datasetRoot;
        Root initialStateRoot;
        uint256 ticketTarget;
    }

    /// @dev A fallen submission whose bond is still locked in the stake of `worker`. `winner` won the game.
    struct Fall {
        address worker;
        address winner;
    }

    /// @notice Keeps the parameters of a new task; they have been checked.
    function write(StoredTask storage task, ITrainingLedger.TaskParameters calldata p, address requester) internal {
        task.terms = Terms({
            bond: p.bond,
            leaseSeconds: p.leaseSeconds,
            currentRound: 0,
            rounds: p.rounds,
            stepsPerRound: p.stepsPerRound,
            admission: p.admission,
            phase: Phase.Running,
            hasTarget: p.hasTarget,
            // forge-lint: disable-next-line(unsafe-typecast)
            slots: uint8(p.slotsPerRound) // at most 255
        });
        task.work = Work({
            slotReward: p.slotReward,
            baseLoss: p.baseLoss,
            targetLoss: p.targetLoss,
            challengeWindow: p.challengeWindow,
            minimumSteps: p.minimumSteps,
            stateTensors: p.stateTensors
        });
        task.requester = requester;
        task.minimumStake = p.minimumStake;
        task.leaseFee = p.leaseFee;
        task.mergeReward = p.mergeReward;
        task.specificationHash = p.specificationHash;
        task.programRoot = p.programRoot;
        task.datasetRoot = p.datasetRoot;
        task.initialStateRoot = p.initialStateRoot;
        task.ticketTarget = p.ticketTarget;
    }

    /// @notice Writes the first word of a slot at once, with no open games. Field by field, it would be loaded and
    /// stored for each.
    function writeHead(
        ITrainingLedger.Slot storage slot,
        address worker,
        uint32 attempt,
        uint40 deadline,
        ITrainingLedger.SlotStatus status
    ) internal {
        // Fields of a word stand in the order of the struct, from its low bits up: 160, 32, 40, 8, 16 bits.
        uint256 word = uint256(uint160(worker)) | (uint256(attempt) << 160) | (uint256(deadline) << 192)
            | (uint256(status) << 232);
        assembly ("memory-safe") {
            sstore(slot.slot, word)
        }
    }

    /// @notice Writes the second word of a slot at once.
    function writePay(
        ITrainingLedger.Slot storage slot,
        address payout,
        uint32 steps,
        uint32 heldOutLoss,
        uint32 generation
    ) internal {
        // 160, 32, 32, 32 bits.
        uint256 word = uint256(uint160(payout)) | (uint256(steps) << 160) | (uint256(heldOutLoss) << 192)
            | (uint256(generation) << 224);
        assembly ("memory-safe") {
            sstore(add(slot.slot, 1), word)
        }
    }

    /// @notice The task as the interface shows it. `group` is the round book's.
    function read(StoredTask storage task, IRoundBook.Group memory group)
        internal
        view
        returns (ITrainingLedger.Task memory)
    {
        Terms memory terms = task.terms;
        return ITrainingLedger.Task({
            parameters: _parameters(task, terms, group),
            requester: task.requester,
            currentRound: terms.currentRound,
            closed: terms.phase == Phase.Closed
        });
    }

    function _parameters(StoredTask storage task, Terms memory terms, IRoundBook.Group memory group)
        private
        view
        returns (ITrainingLedger.TaskParameters memory)
    {
        Work memory work = task.work;
        return ITrainingLedger.TaskParameters({
            specificationHash: task.specificationHash,
            programRoot: task.programRoot,
            datasetRoot: task.datasetRoot,
            initialStateRoot: task.initialStateRoot,
            stateTensors: work.stateTensors,
            rounds: terms.rounds,
            slotsPerRound: terms.slots,
            stepsPerRound: terms.stepsPerRound,
            minimumSteps: work.minimumSteps,
            slotReward: work.slotReward,
            bond: terms.bond,
            leaseFee: task.leaseFee,
            leaseSeconds: terms.leaseSeconds,
            challengeWindow: work.challengeWindow,
            admission: terms.admission,
            minimumStake: task.minimumStake,
            ticketTarget: task.ticketTarget,
            hasTarget: terms.hasTarget,
            baseLoss: work.baseLoss,
            targetLoss: work.targetLoss,
            quorum: group.quorum,
            roundSeconds: group.roundSeconds,
            mergeReward: task.mergeReward
        });
    }
}
