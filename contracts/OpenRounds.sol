// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {OpenReader} from "./OpenReader.sol";
import {OpenRules} from "./libraries/OpenRules.sol";
import {Root, TaskId, openEscrow, slotKey} from "./types/Identifiers.sol";

/// @title How slots of open tasks leave their rounds, and how rounds end
/// @dev INVARIANT: each bond leaves once: `bonded` says whether a slot's is still locked, and for a fall its record.
abstract contract OpenRounds is OpenReader, ReentrancyGuardTransient {
    /// @dev Binary32 bits of a loss that is none.
    uint32 private constant NO_LOSS = 0x7fc00000;

    /// @dev A revealed slot that can bring nothing any more. The next attempt, so that games about it are void.
    function _drop(TaskId task, uint32 round, uint32 slot) internal {
        OpenSlot storage stored = _slots[slotKey(task, round, slot)];
        uint32 attempt = stored.attempt;
        (stored.stage, stored.attempt, stored.openGames) = (Stage.Missing, attempt + 1, 0);
        emit SlotMissing(task, round, slot, attempt);
        Round storage state = _rounds[task][round];
        if (slot == _tasks[task].parameters.slotsPerRound) ++state.resolved;
        else --state.revealed;
        _afterSlot(task, round, state);
    }

    /// @dev Burns the fee of a slot's bond and frees the rest.
    function _takeFee(TaskId task, OpenSlot storage stored) internal returns (uint256 fee) {
        TaskParameters storage p = _tasks[task].parameters;
        fee = p.fee;
        stored.bonded = false;
        // The fee never goes to the requester, who could otherwise earn with tasks that nobody can do.
        _take(stored.worker, p.bond, fee, address(0));
    }

    /// @dev Takes `taken` of a bond; half of it goes to `winner`, unless that is zero, the rest is burned.
    function _take(address owner, uint256 bond, uint256 taken, address winner) internal {
        _VAULT.takeBond(owner, bond, taken, winner, winner == address(0) ? 0 : taken / 2);
    }

    /// @dev Pays from a task's escrow, and frees a bond.
    function _settle(TaskId task, address to, uint256 amount, address owner) internal {
        _VAULT.settle(openEscrow(task), to, amount, owner, _tasks[task].parameters.bond);
    }

    /// @dev What follows from a slot that is final or missing: the end of the round with the last one.
    function _afterSlot(TaskId task, uint32 round, Round storage state) internal {
        if (state.heldOutAt == 0) {
            // Only the default of its requester makes slots final without held-out data; nothing is to come but these.
            if (_tasks[task].phase == Phase.Closed && state.heldOutEnd < block.timestamp) {
                uint256 running = uint256(state.revealed) - state.resolved;
                _refund(task, running * _tasks[task].parameters.slotReward);
            }
            return;
        }
        if (state.resolved == state.revealed + 1) _endRound(task, round, state);
    }

    /// @dev The best state becomes the next base, where it is better than the base.
    function _endRound(TaskId task, uint32 round, Round storage state) internal {
        Task storage stored = _tasks[task];
        Root base = _bases[task][round];
        uint32 best = state.best;
        if (best != 0) {
            OpenSlot storage first = _slots[slotKey(task, round, best - 1)];
            OpenSlot storage baseline = _slots[slotKey(task, round, stored.parameters.slotsPerRound)];
            bool scored = baseline.stage == Stage.Finalised;
            bool improved = scored && OpenRules.rank(first.heldOutLoss) < OpenRules.rank(baseline.heldOutLoss);
            if (improved) base = first.scoredRoot;
            else best = 0;
        }
        _bases[task][round + 1] = base;
        stored.currentRound = round + 1;
        emit RoundEnded(task, round, best, base);
        if (stored.phase == Phase.Closed) {
            _refund(task, 0);
        } else if (round + 1 == stored.rounds) {
            stored.phase = Phase.Complete;
            emit OpenTaskCompleted(task, _refund(task, 0));
        }
    }

    function _refund(TaskId task, uint256 keep) internal returns (uint256) {
        uint256 held = _escrow(task);
        return _VAULT.refundEscrow(openEscrow(task), _tasks[task].requester, keep < held ? keep : held);
    }

    /// @dev The loss that a worker's is compared with; not finite where the baseline is missing.
    function _baselineLoss(TaskId task, uint32 round) internal view returns (uint32) {
        OpenSlot storage baseline = _slots[slotKey(task, round, _tasks[task].parameters.slotsPerRound)];
        bool there = baseline.stage == Stage.Finalised;
        require(there || baseline.stage == Stage.Missing, BaselineNotFinal(baseline.stage));
        return there ? baseline.heldOutLoss : NO_LOSS;
    }
}
