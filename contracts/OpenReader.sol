// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAvailabilityCommittee} from "./interfaces/IAvailabilityCommittee.sol";
import {IOpenLedger} from "./interfaces/IOpenLedger.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {Root, SlotKey, TaskId, openEscrow, slotKey} from "./types/Identifiers.sol";

/// @title What the ledger of open tasks keeps, and how it is read
abstract contract OpenReader is IOpenLedger {
    IStakeVault internal immutable _VAULT;
    address internal immutable _DISPUTE_GAME;
    IAvailabilityCommittee internal immutable _AVAILABILITY;

    /// @inheritdoc IOpenLedger
    uint64 public taskCount;
    /// @dev A task exists where `rounds` is not zero.
    mapping(TaskId task => Task) internal _tasks;
    mapping(TaskId task => Root[]) internal _heldOutRoots;
    mapping(TaskId task => mapping(uint32 round => Root)) internal _bases;
    mapping(TaskId task => mapping(uint32 round => Round)) internal _rounds;
    mapping(SlotKey key => OpenSlot) internal _slots;
    mapping(TaskId task => mapping(uint32 round => mapping(address worker => uint32))) internal _slotOf;

    /// @param vault_ Holder of all funds; this contract must be its open ledger.
    /// @param disputeGame_ Settles challenges of scores. May have no code yet, as the next.
    /// @param availability_ Decides whether a state can be fetched, and knows what tasks may ask for.
    constructor(address vault_, address disputeGame_, address availability_) {
        require(vault_ != address(0), ITrainingLedger.InvalidParameter("vault", 0));
        require(disputeGame_ != address(0), ITrainingLedger.InvalidParameter("disputeGame", 0));
        require(availability_ != address(0), ITrainingLedger.InvalidParameter("availabilityCommittee", 0));
        _VAULT = IStakeVault(vault_);
        _DISPUTE_GAME = disputeGame_;
        _AVAILABILITY = IAvailabilityCommittee(availability_);
    }

    function vault() external view returns (address) {
        return address(_VAULT);
    }

    /// @inheritdoc IOpenLedger
    function disputeGame() external view returns (address) {
        return _DISPUTE_GAME;
    }

    /// @inheritdoc IOpenLedger
    function availabilityCommittee() external view returns (address) {
        return address(_AVAILABILITY);
    }

    /// @inheritdoc IOpenLedger
    function getTask(TaskId task) external view returns (Task memory) {
        return _known(task);
    }

    /// @inheritdoc IOpenLedger
    function getRound(TaskId task, uint32 round) external view returns (Round memory) {
        return _rounds[task][round];
    }

    /// @inheritdoc IOpenLedger
    function getOpenSlot(TaskId task, uint32 round, uint32 slot) external view returns (OpenSlot memory) {
        return _slot(task, round, slot);
    }

    /// @notice The slot as dispute games see it: `Submitted` while its score can be challenged or waits to be final.
    function getSlot(TaskId task, uint32 round, uint32 slot) external view returns (ITrainingLedger.Slot memory) {
        OpenSlot storage stored = _slot(task, round, slot);
        ITrainingLedger.SlotStatus status = ITrainingLedger.SlotStatus.Open;
        if (stored.stage == Stage.Scored) status = ITrainingLedger.SlotStatus.Submitted;
        if (stored.stage == Stage.Finalised) status = ITrainingLedger.SlotStatus.Finalised;
        return ITrainingLedger.Slot({
            worker: stored.worker,
            attempt: stored.attempt,
            deadline: stored.deadline,
            status: status,
            openGames: stored.openGames,
            payout: stored.payout,
            steps: 0,
            heldOutLoss: stored.heldOutLoss,
            generation: 0,
            stateRoot: stored.scoredRoot
        });
    }

    /// @inheritdoc IOpenLedger
    function slotOf(TaskId task, uint32 round, address worker) external view returns (uint32) {
        return _slotOf[task][round][worker];
    }

    /// @inheritdoc IOpenLedger
    function baseRoot(TaskId task, uint32 round) external view returns (Root) {
        return _bases[task][round];
    }

    /// @inheritdoc IOpenLedger
    function heldOutRoot(TaskId task, uint32 round) external view returns (Root) {
        require(round < _known(task).rounds, ITrainingLedger.WrongRound(round, _tasks[task].currentRound));
        return _heldOutRoots[task][round];
    }

    /// @inheritdoc IOpenLedger
    function payFor(TaskId task, uint32 baselineLoss, uint32 heldOutLoss) public view returns (uint256) {
        TaskParameters storage p = _known(task).parameters;
        return _AVAILABILITY.payOf(p.slotReward, p.floorReward, p.fullGain, baselineLoss, heldOutLoss);
    }

    /// @inheritdoc IOpenLedger
    function commitmentOf(TaskId task, uint32 round, address worker, Root trainedRoot, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(block.chainid, address(this), task, round, worker, trainedRoot, salt));
    }

    function _known(TaskId task) internal view returns (Task storage stored) {
        stored = _tasks[task];
        require(stored.rounds != 0, ITrainingLedger.UnknownTask(task));
    }

    /// @dev A slot of a task: a worker's, or the baseline.
    function _slot(TaskId task, uint32 round, uint32 slot) internal view returns (OpenSlot storage) {
        uint32 last = _known(task).parameters.slotsPerRound;
        require(slot <= last, ITrainingLedger.WrongSlot(slot, last + 1));
        return _slots[slotKey(task, round, slot)];
    }

    /// @dev The round that runs: all that happens, happens in it.
    function _running(TaskId task, uint32 round) internal view returns (Round storage) {
        uint32 current = _known(task).currentRound;
        require(round == current && round < _tasks[task].rounds, ITrainingLedger.WrongRound(round, current));
        return _rounds[task][round];
    }

    function _escrow(TaskId task) internal view returns (uint256) {
        return _VAULT.escrowOf(openEscrow(task));
    }

    function _checkAuthorised(address worker) internal view {
        bool good = msg.sender == worker || _VAULT.isOperator(worker, msg.sender);
        require(good, ITrainingLedger.NotAuthorised(msg.sender, worker));
    }

    function _checkStage(OpenSlot storage stored, Stage needed) internal view {
        require(stored.stage == needed, WrongStage(stored.stage, needed));
    }

    function _checkAttempt(OpenSlot storage stored, uint32 attempt) internal view {
        require(attempt == stored.attempt, ITrainingLedger.WrongAttempt(attempt, stored.attempt));
    }

    function _checkUnquestioned(OpenSlot storage stored) internal view {
        require(stored.question != Question.Open, Questioned(stored.question));
    }

    function _checkPast(uint256 periodEnd) internal view {
        require(block.timestamp > periodEnd, TooEarly(periodEnd, block.timestamp));
    }

    function _checkRoot(Root given, Root expected) internal pure {
        require(given == expected, ITrainingLedger.WrongState(given, expected));
    }
}
