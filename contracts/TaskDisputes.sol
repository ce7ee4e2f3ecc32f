// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {TaskReader} from "./TaskReader.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {TaskStorage} from "./libraries/TaskStorage.sol";
import {AttemptKey, Root, TaskId, attemptKey, attemptOf, slotKey} from "./types/Identifiers.sol";

/// @title The ledger's side of disputes: bonds, falls and what follows from them
/// @dev INVARIANT: each bond leaves once. A challenger's ends with its game; a worker's with `finalise`, with its lease,
/// or, after a fall, with `awardFall`.
abstract contract TaskDisputes is TaskReader, ReentrancyGuardTransient {
    using TaskStorage for ITrainingLedger.Slot;

    mapping(AttemptKey key => TaskStorage.Fall) private _falls;
    mapping(AttemptKey key => bool) private _shortened;

    modifier onlyDisputeGame() {
        require(msg.sender == _DISPUTE_GAME, OnlyDisputeGame(msg.sender));
        _;
    }

    /// @inheritdoc ITrainingLedger
    function gameOpened(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot, address challenger)
        external
        onlyDisputeGame
        nonReentrantView
        returns (Disputed memory)
    {
        TaskStorage.Terms memory terms = _terms(task);
        Slot storage stored = _slot(task, terms, round, slot);
        Slot memory disputed = stored;
        require(attempt == disputed.attempt, WrongAttempt(attempt, disputed.attempt));
        require(disputed.status == SlotStatus.Submitted, WrongStatus(disputed.status, SlotStatus.Submitted));
        require(stateRoot == disputed.stateRoot, WrongState(stateRoot, disputed.stateRoot));
        require(block.timestamp <= disputed.deadline, WindowOver(disputed.deadline, block.timestamp));

        uint16 openGames = disputed.openGames + 1;
        stored.openGames = openGames;
        emit GameOpened(task, round, slot, attempt, openGames);
        // slither-disable-next-line unused-return -- challengers are credited themselves, not at a payout address
        _VAULT.lockBond(challenger, terms.bond);
        bool merge = _isMerge(terms, slot);
        return Disputed({
            worker: disputed.worker,
            steps: disputed.steps,
            leaseSeconds: terms.leaseSeconds,
            baseRoot: merge ? _BOOK.inputsOf(task, round, disputed.generation) : _base(task, terms, round),
            programRoot: _tasks[task].programRoot,
            datasetRoot: _tasks[task].datasetRoot,
            merge: merge
        });
    }

    /// @inheritdoc ITrainingLedger
    function gameSettled(
        TaskId task,
        uint32 round,
        uint32 slot,
        uint32 attempt,
        IDisputeGame.Outcome outcome,
        address challenger
    ) external onlyDisputeGame nonReentrant {
        TaskStorage.Terms memory terms = _terms(task);
        Slot storage stored = _slot(task, terms, round, slot);
        Slot memory disputed = stored;
        bool stands = attempt == disputed.attempt && disputed.status == SlotStatus.Submitted;
        bool fell = stands && outcome == IDisputeGame.Outcome.ChallengerWon;
        if (fell) {
            _falls[attemptKey(task, round, slot, attempt)] = TaskStorage.Fall(disputed.worker, challenger);
            _reopen(stored, attempt, challenger, uint40(block.timestamp) + terms.leaseSeconds);
            emit SubmissionFell(task, round, disputed.worker, slot, attempt, disputed.stateRoot);
            if (terms.slots > 1) _BOOK.fell(task, round, slot);
        } else if (stands) {
            stored.openGames = disputed.openGames - 1;
        }
        if (stands) emit GameSettled(task, round, slot, attempt, fell, disputed.openGames - 1);

        if (stands && outcome == IDisputeGame.Outcome.DefenderWon) {
            _VAULT.takeBond(challenger, terms.bond, terms.bond, disputed.worker, terms.bond / 2);
        } else {
            _VAULT.settle(task, challenger, 0, challenger, terms.bond);
        }
        if (fell && terms.phase == TaskStorage.Phase.Closed) _refundRest(task, terms);
    }

    /// @inheritdoc ITrainingLedger
    function awardFall(TaskId task, uint32 round, uint32 slot, uint32 attempt) external nonReentrant {
        TaskStorage.Terms memory terms = _terms(task);
        AttemptKey key = attemptKey(task, round, slot, attempt);
        TaskStorage.Fall memory fall = _falls[key];
        require(fall.worker != address(0), NothingToAward(task, round, slot, attempt));
        Slot storage redone = _slot(task, terms, round, slot);
        SlotStatus status = redone.status;
        address winner = fall.winner;
        if (status == SlotStatus.Finalised) {
            winner = IDisputeGame(_DISPUTE_GAME).earliest(task, round, slot, attempt, redone.stateRoot);
        } else {
            // A closed task takes no more claims, and nor does a round that ended: its open slot is never redone.
            bool over = terms.phase == TaskStorage.Phase.Closed || round < terms.currentRound;
            bool given = over && status == SlotStatus.Open;
            require(given, WrongStatus(status, SlotStatus.Finalised));
        }

        delete _falls[key];
        uint256 awarded = winner == address(0) ? 0 : terms.bond / 2;
        emit FallAwarded(task, round, fall.worker, slot, attempt, winner, awarded, terms.bond - awarded);
        _VAULT.takeBond(fall.worker, terms.bond, terms.bond, winner, awarded);
    }

    /// @inheritdoc ITrainingLedger
    function shortenWindow(AttemptKey key, Root stateRoot) external {
        require(msg.sender == _COMMITTEE, OnlyAuditCommittee(msg.sender));
        (TaskId task, uint32 round, uint32 number, uint32 attempt) = attemptOf(key);
        Slot storage slot = _slots[slotKey(task, round, number)];
        bool stands = slot.attempt == attempt && slot.status == SlotStatus.Submitted && slot.stateRoot == stateRoot;
        // INVARIANT: once for each attempt, because the floor is reckoned from the window's full length.
        if (!stands || _shortened[key]) return;
        _shortened[key] = true;
        uint256 windowEnd = slot.deadline - _tasks[task].work.challengeWindow + windowFloor(task);
        if (windowEnd < block.timestamp) windowEnd = block.timestamp;
        if (windowEnd >= slot.deadline) return;
        slot.deadline = uint40(windowEnd);
        emit WindowShortened(task, round, number, attempt, windowEnd);
    }

    /// @dev The next attempt of a slot, until `deadline` for `winner` only.
    function _reopen(Slot storage slot, uint32 attempt, address winner, uint40 deadline) internal {
        slot.writeHead(winner, attempt + 1, deadline, SlotStatus.Open);
        slot.writePay(address(0), 0, 0, 0);
        slot.stateRoot = Root.wrap(0);
    }

    /// @dev Refunds what no running slot can still earn: slots run in the current round only.
    function _refundRest(TaskId task, TaskStorage.Terms memory terms) internal returns (uint256) {
        TaskStorage.StoredTask storage stored = _tasks[task];
        (uint256 keep, uint256 reward) = (0, uint256(stored.work.slotReward));
        if (terms.slots > 1) {
            keep = reward * _BOOK.roundOf(task, terms.currentRound).running;
            reward = stored.mergeReward;
        }
        // INVARIANT: a slot that is leased or submitted keeps its escrow, also one whose lease nobody has expired yet.
        SlotStatus status = _slots[slotKey(task, terms.currentRound, _lastSlot(terms))].status;
        if (status == SlotStatus.Leased || status == SlotStatus.Submitted) keep += reward;
        return _refund(task, keep);
    }

    function _refund(TaskId task, uint256 keep) internal returns (uint256) {
        return _VAULT.refundEscrow(task, _tasks[task].requester, keep);
    }
}
