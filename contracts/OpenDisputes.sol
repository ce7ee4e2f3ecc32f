// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {OpenRounds} from "./OpenRounds.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {IOpenLedger} from "./interfaces/IOpenLedger.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {TaskStorage} from "./libraries/TaskStorage.sol";
import {AttemptKey, Root, TaskId, attemptKey} from "./types/Identifiers.sol";

/// @title Open tasks' side of disputes about scores, and of questions about states
abstract contract OpenDisputes is OpenRounds {
    mapping(AttemptKey key => TaskStorage.Fall) private _falls;

    modifier onlyDisputeGame() {
        require(msg.sender == _DISPUTE_GAME, ITrainingLedger.OnlyDisputeGame(msg.sender));
        _;
    }

    modifier onlyAvailability() {
        require(msg.sender == address(_AVAILABILITY), OnlyAvailabilityCommittee(msg.sender));
        _;
    }

    function gameOpened(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot, address challenger)
        external
        onlyDisputeGame
        nonReentrantView
        returns (ITrainingLedger.Disputed memory)
    {
        OpenSlot storage stored = _slot(task, round, slot);
        _checkAttempt(stored, attempt);
        _checkStage(stored, Stage.Scored);
        _checkRoot(stateRoot, stored.scoredRoot);
        uint40 deadline = stored.deadline;
        require(block.timestamp <= deadline, ITrainingLedger.WindowOver(deadline, block.timestamp));

        uint16 openGames = stored.openGames + 1;
        stored.openGames = openGames;
        emit GameOpened(task, round, slot, attempt, openGames);
        TaskParameters storage p = _tasks[task].parameters;
        // slither-disable-next-line unused-return -- challengers are credited themselves, not at a payout address
        _VAULT.lockBond(challenger, p.bond);
        // No step of training: run 0 is the evaluation, on the data of this round.
        return ITrainingLedger.Disputed({
            worker: stored.worker,
            steps: 0,
            leaseSeconds: p.leaseSeconds,
            baseRoot: stored.trainedRoot,
            programRoot: p.programRoot,
            datasetRoot: _heldOutRoots[task][round],
            merge: false
        });
    }

    function gameSettled(
        TaskId task,
        uint32 round,
        uint32 slot,
        uint32 attempt,
        IDisputeGame.Outcome outcome,
        address challenger
    ) external onlyDisputeGame nonReentrant {
        OpenSlot storage stored = _slot(task, round, slot);
        TaskParameters storage p = _tasks[task].parameters;
        address worker = stored.worker;
        bool stands = attempt == stored.attempt && stored.stage == Stage.Scored;
        bool fell = stands && outcome == IDisputeGame.Outcome.ChallengerWon;
        uint16 openGames = stands ? stored.openGames - 1 : 0;
        if (fell) {
            _falls[attemptKey(task, round, slot, attempt)] = TaskStorage.Fall(worker, challenger);
            emit SubmissionFell(task, round, worker, slot, attempt, stored.scoredRoot);
            _reopen(stored, challenger, uint40(block.timestamp) + p.leaseSeconds);
        } else if (stands) {
            stored.openGames = openGames;
        }
        if (stands) emit GameSettled(task, round, slot, attempt, fell, openGames);

        if (stands && outcome == IDisputeGame.Outcome.DefenderWon) {
            _take(challenger, p.bond, p.bond, worker);
        } else {
            _settle(task, challenger, 0, challenger);
        }
    }

    /// @inheritdoc IOpenLedger
    function awardFall(TaskId task, uint32 round, uint32 slot, uint32 attempt) external nonReentrant {
        AttemptKey key = attemptKey(task, round, slot, attempt);
        TaskStorage.Fall memory fall = _falls[key];
        require(fall.worker != address(0), ITrainingLedger.NothingToAward(task, round, slot, attempt));
        OpenSlot storage redone = _slot(task, round, slot);
        address winner = fall.winner;
        if (redone.stage == Stage.Finalised) {
            winner = IDisputeGame(_DISPUTE_GAME).earliest(task, round, slot, attempt, redone.scoredRoot);
        } else {
            // Nobody knows the right score of a slot that is missing: the prize is that of whoever proved the wrong one.
            require(redone.stage == Stage.Missing, WrongStage(redone.stage, Stage.Finalised));
        }

        delete _falls[key];
        uint256 bond = _tasks[task].parameters.bond;
        uint256 awarded = winner == address(0) ? 0 : bond / 2;
        emit FallAwarded(task, round, fall.worker, slot, attempt, winner, awarded, bond - awarded);
        _take(fall.worker, bond, bond, winner);
    }

    /// @inheritdoc IOpenLedger
    function questioned(TaskId task, uint32 round, uint32 slot, Root trainedRoot, address asker)
        external
        onlyAvailability
        nonReentrantView
        returns (uint96 bond, uint96 fee)
    {
        _running(task, round);
        OpenSlot storage stored = _slot(task, round, slot);
        TaskParameters storage p = _tasks[task].parameters;
        // The base has been public for a round.
        require(slot < p.slotsPerRound, ITrainingLedger.WrongSlot(slot, p.slotsPerRound));
        Stage stage = stored.stage;
        require(stage == Stage.Revealed || stage == Stage.Scored, WrongStage(stage, Stage.Revealed));
        _checkRoot(trainedRoot, stored.trainedRoot);
        require(stored.question == Question.None, Questioned(stored.question));
        bool over = stage == Stage.Scored && block.timestamp > stored.deadline;
        require(!over, ITrainingLedger.WindowOver(stored.deadline, block.timestamp));
        stored.question = Question.Open;
        (bond, fee) = (p.bond, p.fee);
        // slither-disable-next-line unused-return -- a deposit goes back to where it came from
        _VAULT.lockBond(asker, bond);
    }

    /// @inheritdoc IOpenLedger
    function answered(TaskId task, uint32 round, uint32 slot, bool available) external onlyAvailability nonReentrant {
        OpenSlot storage stored = _slot(task, round, slot);
        stored.question = Question.Cleared;
        Stage stage = stored.stage;
        // Its state was found to be another's meanwhile.
        if (stage == Stage.Copy) return;
        if (!available) {
            if (stored.bonded) {
                emit ScoreMissed(task, round, stored.worker, slot, stored.attempt, _takeFee(task, stored));
            }
            _drop(task, round, slot);
        } else if (stage == Stage.Scored) {
            // INVARIANT: whoever could not fetch the state has a whole window from when it was there.
            uint40 deadline = uint40(block.timestamp) + _tasks[task].parameters.challengeWindow;
            if (deadline > stored.deadline) stored.deadline = deadline;
        }
    }

    /// @inheritdoc IOpenLedger
    function takeDeposit(address asker, uint256 part, uint256 taken, address winner)
        external
        onlyAvailability
        nonReentrant
    {
        _take(asker, part, taken, winner);
    }

    /// @dev The next attempt at the score of a revealed state, until `deadline` for `winner` only.
    function _reopen(OpenSlot storage stored, address winner, uint40 deadline) private {
        (stored.worker, stored.payout, stored.bonded) = (winner, address(0), false);
        (stored.attempt, stored.deadline, stored.openGames) = (stored.attempt + 1, deadline, 0);
        (stored.stage, stored.heldOutLoss, stored.scoredRoot) = (Stage.Revealed, 0, Root.wrap(0));
    }
}
