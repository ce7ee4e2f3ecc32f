// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {Performance} from "./libraries/Performance.sol";
import {TaskRules} from "./libraries/TaskRules.sol";
import {TaskStorage} from "./libraries/TaskStorage.sol";
import {Root, SlotKey, TaskId, slotKey} from "./types/Identifiers.sol";

/// @title What the ledger keeps, and how it is read
/// @dev The storage and everything that only looks at it; `TrainingLedger` adds all that changes it.
abstract contract TaskReader is ITrainingLedger {
    using TaskStorage for TaskStorage.StoredTask;

    IStakeVault internal immutable _VAULT;
    address internal immutable _DISPUTE_GAME;
    address internal immutable _COMMITTEE;
    uint96 internal immutable _MINIMUM_BOND;
    uint32 internal immutable _MINIMUM_WINDOW;
    uint32 internal immutable _MINIMUM_LEASE;

    /// @inheritdoc ITrainingLedger
    uint64 public taskCount;
    mapping(TaskId task => TaskStorage.StoredTask) internal _tasks;
    mapping(SlotKey key => Slot) internal _slots;

    /// @param vault_ Holder of funds; its ledger must be this contract. May have no code yet.
    /// @param disputeGame_ The only address whose verdicts count.
    /// @param committee_ The only address that may end a challenge window early.
    /// @param minimumBond_ Least bond of any task, in wei.
    /// @param minimumWindow_ Least challenge window of any task, in seconds.
    /// @param minimumLease_ Least lease of any task, in seconds.
    constructor(
        address vault_,
        address disputeGame_,
        address committee_,
        uint96 minimumBond_,
        uint32 minimumWindow_,
        uint32 minimumLease_
    ) {
        require(vault_ != address(0), InvalidParameter("vault", 0));
        require(disputeGame_ != address(0), InvalidParameter("disputeGame", 0));
        require(committee_ != address(0), InvalidParameter("auditCommittee", 0));
        require(minimumBond_ > 0, InvalidParameter("minimumBond", 0));
        bool windowGood = minimumWindow_ > 0 && minimumWindow_ <= TaskRules.MAXIMUM_PERIOD;
        require(windowGood, InvalidParameter("minimumWindow", minimumWindow_));
        bool leaseGood = minimumLease_ > 0 && minimumLease_ <= TaskRules.MAXIMUM_PERIOD;
        require(leaseGood, InvalidParameter("minimumLease", minimumLease_));
        _VAULT = IStakeVault(vault_);
        _DISPUTE_GAME = disputeGame_;
        _COMMITTEE = committee_;
        _MINIMUM_BOND = minimumBond_;
        _MINIMUM_WINDOW = minimumWindow_;
        _MINIMUM_LEASE = minimumLease_;
    }

    /// @inheritdoc ITrainingLedger
    function vault() external view returns (address) {
        return address(_VAULT);
    }

    /// @inheritdoc ITrainingLedger
    function disputeGame() external view returns (address) {
        return _DISPUTE_GAME;
    }

    /// @inheritdoc ITrainingLedger
    function auditCommittee() external view returns (address) {
        return _COMMITTEE;
    }

    /// @inheritdoc ITrainingLedger
    function minimumBond() external view returns (uint96) {
        return _MINIMUM_BOND;
    }

    /// @inheritdoc ITrainingLedger
    function minimumWindow() external view returns (uint32) {
        return _MINIMUM_WINDOW;
    }

    /// @inheritdoc ITrainingLedger
    function minimumLease() external view returns (uint32) {
        return _MINIMUM_LEASE;
    }

    /// @inheritdoc ITrainingLedger
    function getTask(TaskId task) external view returns (Task memory) {
        _terms(task);
        return _tasks[task].read();
    }

    /// @inheritdoc ITrainingLedger
    function getSlot(TaskId task, uint32 round, uint32 slot) external view returns (Slot memory) {
        _terms(task);
        return _slot(task, round, slot);
    }

    /// @inheritdoc ITrainingLedger
    function nextAttempt(TaskId task, uint32 round, uint32 slot) external view returns (uint32) {
        _terms(task);
        Slot storage stored = _slot(task, round, slot);
        bool lapsed = stored.status == SlotStatus.Leased && block.timestamp > stored.deadline;
        return lapsed ? stored.attempt + 1 : stored.attempt;
    }

    /// @inheritdoc ITrainingLedger
    function getCheckpoint(TaskId task, uint32 round) external view returns (Checkpoint memory) {
        _terms(task);
        Slot memory slot = _slots[slotKey(task, round, 0)];
        require(slot.status == SlotStatus.Finalised, WrongStatus(slot.status, SlotStatus.Finalised));
        return Checkpoint({
            parent: _base(task, round),
            stateRoot: slot.stateRoot,
            round: round,
            worker: slot.worker,
            steps: slot.steps,
            heldOutLoss: slot.heldOutLoss
        });
    }

    /// @inheritdoc ITrainingLedger
    function payFor(TaskId task, uint32 round, uint32 steps, uint32 heldOutLoss) external view returns (uint256) {
        TaskStorage.Terms memory terms = _terms(task);
        require(round < terms.rounds, WrongRound(round, terms.currentRound));
        TaskStorage.Work memory work = _tasks[task].work;
        require(steps <= terms.stepsPerRound, WrongSteps(steps, work.minimumSteps, terms.stepsPerRound));
        return _pay(work, terms, round, steps, heldOutLoss);
    }

    /// @inheritdoc ITrainingLedger
    function windowFloor(TaskId task) public view returns (uint32) {
        uint32 lease = _terms(task).leaseSeconds;
        return lease > _MINIMUM_WINDOW ? lease : _MINIMUM_WINDOW;
    }

    /// @inheritdoc ITrainingLedger
    function ticketDigest(
        TaskId task,
        uint32 round,
        uint32 slot,
        uint32 attempt,
        address worker,
        Root base,
        uint64 ticketBlock,
        uint256 nonce
    ) public view returns (uint256) {
        bytes32 blockHash = blockhash(ticketBlock);
        require(blockHash != 0, TicketBlockUnknown(ticketBlock, block.number));
        bytes memory bound =
            abi.encode(block.chainid, address(this), task, round, slot, attempt, worker, base, blockHash, nonce);
        return uint256(keccak256(bound));
    }

    /// @inheritdoc ITrainingLedger
    function baseRoot(TaskId task, uint32 round) public view returns (Root) {
        _terms(task);
        bool known = round == 0 || _slots[slotKey(task, round - 1, 0)].status == SlotStatus.Finalised;
        return known ? _base(task, round) : Root.wrap(0);
    }

    /// @dev The word of a task that every call needs. Reverts for a task that was never posted.
    function _terms(TaskId task) internal view returns (TaskStorage.Terms memory terms) {
        terms = _tasks[task].terms;
        require(terms.rounds != 0, UnknownTask(task));
    }

    function _slot(TaskId task, uint32 round, uint32 slot) internal view returns (Slot storage) {
        require(slot == 0, WrongSlot(slot, 1));
        return _slots[slotKey(task, round, 0)];
    }

    /// @dev The base of a round whose predecessor is final: the current one, or one before.
    function _base(TaskId task, uint32 round) internal view returns (Root) {
        return round == 0 ? _tasks[task].initialStateRoot : _slots[slotKey(task, round - 1, 0)].stateRoot;
    }

    function _pay(
        TaskStorage.Work memory work,
        TaskStorage.Terms memory terms,
        uint32 round,
        uint32 steps,
        uint32 heldOutLoss
    ) internal pure returns (uint256) {
        Performance.Terms memory pay = Performance.Terms({
            slotReward: work.slotReward,
            stepsPerRound: terms.stepsPerRound,
            rounds: terms.rounds,
            round: round,
            hasTarget: terms.hasTarget,
            baseLoss: work.baseLoss,
            targetLoss: work.targetLoss
        });
        return Performance.pay(pay, steps, heldOutLoss);
    }
}
