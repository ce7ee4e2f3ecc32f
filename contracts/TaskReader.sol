// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IRoundBook} from "./interfaces/IRoundBook.sol";
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
    IRoundBook internal immutable _BOOK;
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
    /// @param book_ Says which slots of a round count. May have no code yet.
    /// @param minimumBond_ Least bond of any task, in wei.
    /// @param minimumWindow_ Least challenge window of any task, in seconds.
    /// @param minimumLease_ Least lease of any task, in seconds.
    constructor(
        address vault_,
        address disputeGame_,
        address committee_,
        address book_,
        uint96 minimumBond_,
        uint32 minimumWindow_,
        uint32 minimumLease_
    ) {
        require(vault_ != address(0), InvalidParameter("vault", 0));
        require(disputeGame_ != address(0), InvalidParameter("disputeGame", 0));
        require(committee_ != address(0), InvalidParameter("auditCommittee", 0));
        require(book_ != address(0), InvalidParameter("roundBook", 0));
        require(minimumBond_ > 0, InvalidParameter("minimumBond", 0));
        bool windowGood = minimumWindow_ > 0 && minimumWindow_ <= TaskRules.MAXIMUM_PERIOD;
        require(windowGood, InvalidParameter("minimumWindow", minimumWindow_));
        bool leaseGood = minimumLease_ > 0 && minimumLease_ <= TaskRules.MAXIMUM_PERIOD;
        require(leaseGood, InvalidParameter("minimumLease", minimumLease_));
        _VAULT = IStakeVault(vault_);
        _DISPUTE_GAME = disputeGame_;
        _COMMITTEE = committee_;
        _BOOK = IRoundBook(book_);
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
    function roundBook() external view returns (address) {
        return address(_BOOK);
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
        return _tasks[task].read(_BOOK.groupOf(task));
    }

    /// @inheritdoc ITrainingLedger
    function getSlot(TaskId task, uint32 round, uint32 slot) external view returns (Slot memory) {
        return _slot(task, _terms(task), round, slot);
    }

    /// @inheritdoc ITrainingLedger
    function stateRootOf(TaskId task, uint32 round, uint32 slot) external view returns (Root) {
        return _slots[slotKey(task, round, slot)].stateRoot;
    }

    /// @inheritdoc ITrainingLedger
    function nextAttempt(TaskId task, uint32 round, uint32 slot) external view returns (uint32) {
        Slot storage stored = _slot(task, _terms(task), round, slot);
        bool lapsed = stored.status == SlotStatus.Leased && block.timestamp > stored.deadline;
        return lapsed ? stored.attempt + 1 : stored.attempt;
    }

    /// @inheritdoc ITrainingLedger
    function getCheckpoint(TaskId task, uint32 round) external view returns (Checkpoint memory) {
        TaskStorage.Terms memory terms = _terms(task);
        Slot memory slot = _slots[slotKey(task, round, _lastSlot(terms))];
        require(slot.status == SlotStatus.Finalised, WrongStatus(slot.status, SlotStatus.Finalised));
        return Checkpoint({
            parent: _base(task, terms, round),
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
    function baseRoot(TaskId task, uint32 round) public view returns (Root) {
        TaskStorage.Terms memory terms = _terms(task);
        uint32 last = _lastSlot(terms);
        bool known = round == 0 || _slots[slotKey(task, round - 1, last)].status == SlotStatus.Finalised;
        return known ? _base(task, terms, round) : Root.wrap(0);
    }

    /// @dev The word of a task that every call needs. Reverts for a task that was never posted.
    function _terms(TaskId task) internal view returns (TaskStorage.Terms memory terms) {
        terms = _tasks[task].terms;
        require(terms.rounds != 0, UnknownTask(task));
    }

    function _slot(TaskId task, TaskStorage.Terms memory terms, uint32 round, uint32 slot)
        internal
        view
        returns (Slot storage)
    {
        uint32 last = _lastSlot(terms);
        require(slot <= last, WrongSlot(slot, last + 1));
        return _slots[slotKey(task, round, slot)];
    }

    /// @dev The base of a round whose predecessor is final: the current one, or one before.
    function _base(TaskId task, TaskStorage.Terms memory terms, uint32 round) internal view returns (Root) {
        if (round == 0) return _tasks[task].initialStateRoot;
        return _slots[slotKey(task, round - 1, _lastSlot(terms))].stateRoot;
    }

    /// @dev The slot whose state its round leads to: the merge, or the only one.
    function _lastSlot(TaskStorage.Terms memory terms) internal pure returns (uint32) {
        return terms.slots == 1 ? 0 : terms.slots;
    }

    function _isMerge(TaskStorage.Terms memory terms, uint32 slot) internal pure returns (bool) {
        return slot != 0 && slot == terms.slots;
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
