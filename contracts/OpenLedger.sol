// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {OpenDisputes} from "./OpenDisputes.sol";
import {OpenReader} from "./OpenReader.sol";
import {IOpenLedger} from "./interfaces/IOpenLedger.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {OpenRules} from "./libraries/OpenRules.sol";
import {Root, TaskId, openEscrow, slotKey} from "./types/Identifiers.sol";

/// @title Open tasks: states however they were made, paid by verified improvement
/// @dev The ledger calls its vault, which calls only the token, and looks at its game; all are fixed at deployment.
contract OpenLedger is OpenDisputes {
    mapping(TaskId task => mapping(uint32 round => mapping(Root trained => uint32))) private _makers;

    /// @notice See `OpenReader` for the parameters.
    constructor(address vault_, address disputeGame_, address availability_)
        OpenReader(vault_, disputeGame_, availability_)
    {}

    /// @inheritdoc IOpenLedger
    function postTask(TaskParameters calldata parameters, Root[] calldata heldOutRoots, string calldata storeUrl)
        external
        nonReentrant
        returns (TaskId task)
    {
        _AVAILABILITY.checkTerms(parameters, heldOutRoots);
        task = TaskId.wrap(++taskCount);
        Task storage stored = _tasks[task];
        (stored.parameters, stored.requester) = (parameters, msg.sender);
        // forge-lint: disable-next-line(unsafe-typecast)
        stored.rounds = uint32(heldOutRoots.length); // at most 256
        _heldOutRoots[task] = heldOutRoots;
        _bases[task][0] = parameters.initialStateRoot;
        emit OpenTaskPosted(task, msg.sender, parameters.specificationHash, parameters, heldOutRoots, storeUrl);
        uint256 each = uint256(parameters.slotReward) * parameters.slotsPerRound + parameters.scoreReward;
        _VAULT.openEscrow(openEscrow(task), msg.sender, each * heldOutRoots.length);
    }

    /// @inheritdoc IOpenLedger
    function closeTask(TaskId task) external nonReentrantView {
        Task storage stored = _known(task);
        TaskParameters storage p = stored.parameters;
        require(msg.sender == stored.requester, ITrainingLedger.OnlyRequester(msg.sender, stored.requester));
        require(stored.phase == Phase.Running, ITrainingLedger.TaskIsClosed(task));
        stored.phase = Phase.Closed;
        bool runs = _rounds[task][stored.currentRound].commitEnd != 0;
        // INVARIANT: what has been committed to keeps its rewards.
        uint256 keep = runs ? uint256(p.slotReward) * p.slotsPerRound + p.scoreReward : 0;
        emit OpenTaskClosed(task, _refund(task, keep));
    }

    /// @inheritdoc IOpenLedger
    function commit(Commit calldata request) external nonReentrantView returns (uint32 slot) {
        (TaskId task, uint32 round, address worker) = (request.task, request.round, request.worker);
        Round storage state = _running(task, round);
        TaskParameters storage p = _tasks[task].parameters;
        _checkCommit(request, p);
        slot = state.committed;
        uint40 commitEnd = state.commitEnd == 0 ? uint40(block.timestamp) + p.commitSeconds : state.commitEnd;
        bool open = slot < p.slotsPerRound && block.timestamp <= commitEnd;
        require(open, CommitsOver(commitEnd, slot, p.slotsPerRound));
        uint32 mine = _slotOf[task][round][worker];
        if (mine != 0) revert AlreadyCommitted(worker, mine - 1);

        // forge-lint: disable-next-line(unsafe-typecast)
        state.committed = uint16(slot + 1); // at most 255
        _slotOf[task][round][worker] = slot + 1;
        if (slot + 1 == p.slotsPerRound) commitEnd = uint40(block.timestamp);
        _setPeriods(state, p, commitEnd);
        address payout = _VAULT.lockBond(worker, p.bond);
        OpenSlot storage stored = _slots[slotKey(task, round, slot)];
        (stored.worker, stored.payout, stored.bonded) = (worker, payout, true);
        (stored.stage, stored.commitment) = (Stage.Committed, request.commitment);
        emit StateCommitted(
            task, round, worker, slot, 0, msg.sender, payout, request.baseRoot, request.commitment, commitEnd
        );
    }

    /// @inheritdoc IOpenLedger
    function reveal(TaskId task, uint32 round, uint32 slot, Root trainedRoot, bytes32 salt) external nonReentrantView {
        Round storage state = _running(task, round);
        OpenSlot storage stored = _slot(task, round, slot);
        address worker = stored.worker;
        if (stored.stage != Stage.Committed && stored.trainedRoot == trainedRoot) revert AlreadyDone(trainedRoot);
        _checkStage(stored, Stage.Committed);
        bool full = state.committed == _tasks[task].parameters.slotsPerRound;
        require(full || block.timestamp > state.commitEnd, TooEarly(state.commitEnd, block.timestamp));
        require(block.timestamp <= state.revealEnd, TooLate(state.revealEnd, block.timestamp));
        require(Root.unwrap(trainedRoot) != 0, ITrainingLedger.ZeroRoot());
        bytes32 opened = commitmentOf(task, round, worker, trainedRoot, salt);
        require(opened == stored.commitment, WrongCommitment(opened, stored.commitment));

        (stored.stage, stored.trainedRoot) = (Stage.Revealed, trainedRoot);
        emit StateRevealed(task, round, worker, slot, stored.attempt, trainedRoot);
        if (++state.opened == state.committed) {
            // Nobody is left to wait for.
            state.heldOutEnd = uint40(block.timestamp) + _tasks[task].parameters.heldOutSeconds;
            state.revealEnd = uint40(block.timestamp);
        }
        _place(task, round, slot, trainedRoot, state);
    }

    /// @inheritdoc IOpenLedger
    function revealHeldOut(TaskId task, uint32 round, bytes calldata tokens) external nonReentrantView {
        Round storage state = _running(task, round);
        require(state.heldOutAt == 0, HeldOutShown(state.heldOutAt));
        _checkRevealed(task, state);
        require(block.timestamp <= state.heldOutEnd, TooLate(state.heldOutEnd, block.timestamp));
        // Without a state there is nothing to score: `skip` ends such a round.
        require(state.revealed != 0, WrongStage(Stage.Empty, Stage.Revealed));
        Root expected = _heldOutRoots[task][round];
        TaskParameters storage p = _tasks[task].parameters;
        Root computed = _AVAILABILITY.dataSetRoot(tokens, p.heldOutBytes, p.trainLeaf, p.publicNode);
        require(computed == expected, WrongHeldOut(computed, expected));

        state.heldOutAt = uint40(block.timestamp);
        OpenSlot storage baseline = _slots[slotKey(task, round, p.slotsPerRound)];
        (baseline.stage, baseline.trainedRoot) = (Stage.Revealed, _bases[task][round]);
        emit HeldOutRevealed(task, round, expected, tokens);
    }

    /// @inheritdoc IOpenLedger
    function score(Score calldata result) external nonReentrant {
        (TaskId task, uint32 round, uint32 slot) = (result.task, result.round, result.slot);
        Round storage state = _running(task, round);
        OpenSlot storage stored = _slot(task, round, slot);
        TaskParameters storage p = _tasks[task].parameters;
        _checkAuthorised(result.worker);
        _checkScore(result, stored, p.stateTensors);
        require(state.heldOutAt != 0, HeldOutShown(0));

        if (stored.worker != result.worker) _takeOver(task, round, slot, result.worker);
        if (!stored.bonded) (stored.payout, stored.bonded) = (_VAULT.lockBond(result.worker, p.bond), true);
        uint40 windowEnd = uint40(block.timestamp) + p.challengeWindow;
        (stored.stage, stored.deadline) = (Stage.Scored, windowEnd);
        (stored.scoredRoot, stored.heldOutLoss) = (result.scoredRoot, result.heldOutLoss);
        emit StateScored(
            task,
            round,
            result.worker,
            slot,
            result.attempt,
            result.trainedRoot,
            result.scoredRoot,
            result.heldOutLoss,
            windowEnd
        );
    }

    /// @inheritdoc IOpenLedger
    function forfeit(TaskId task, uint32 round, uint32 slot) external nonReentrant {
        OpenSlot storage stored = _slot(task, round, slot);
        _checkStage(stored, Stage.Committed);
        uint40 revealEnd = _rounds[task][round].revealEnd;
        _checkPast(revealEnd);
        stored.stage = Stage.Missing;
        emit CommitForfeited(task, round, stored.worker, slot, _takeFee(task, stored));
    }

    /// @inheritdoc IOpenLedger
    function expire(TaskId task, uint32 round, uint32 slot, uint32 attempt) external nonReentrant {
        Round storage state = _running(task, round);
        OpenSlot storage stored = _slot(task, round, slot);
        _checkAttempt(stored, attempt);
        _checkStage(stored, Stage.Revealed);
        require(state.heldOutAt != 0, HeldOutShown(0));
        _checkUnquestioned(stored);
        uint256 end = uint256(_ownersEnd(task, state, stored)) + _tasks[task].parameters.leaseSeconds;
        _checkPast(end);
        if (stored.bonded) emit ScoreMissed(task, round, stored.worker, slot, attempt, _takeFee(task, stored));
        _drop(task, round, slot);
    }

    /// @inheritdoc IOpenLedger
    function finalise(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root scoredRoot)
        external
        nonReentrantView
    {
        OpenSlot storage stored = _slot(task, round, slot);
        _checkAttempt(stored, attempt);
        if (stored.stage == Stage.Finalised && scoredRoot == stored.scoredRoot) revert AlreadyDone(scoredRoot);
        _checkStage(stored, Stage.Scored);
        _checkRoot(scoredRoot, stored.scoredRoot);
        // INVARIANT: nothing is final inside its challenge window, with open games, or while its state is in question.
        uint40 deadline = stored.deadline;
        require(block.timestamp > deadline, ITrainingLedger.WindowStillOpen(deadline, block.timestamp));
        require(stored.openGames == 0, ITrainingLedger.GamesStillOpen(stored.openGames));
        _checkUnquestioned(stored);

        Round storage state = _running(task, round);
        TaskParameters storage p = _tasks[task].parameters;
        uint256 paid = p.scoreReward;
        if (slot < p.slotsPerRound) {
            paid = payFor(task, _baselineLoss(task, round), stored.heldOutLoss);
            _compare(task, round, slot, state);
        }
        (stored.stage, stored.bonded) = (Stage.Finalised, false);
        ++state.resolved;
        emit ScoreFinalised(
            task, round, stored.worker, slot, attempt, stored.payout, scoredRoot, stored.heldOutLoss, paid
        );
        _settle(task, stored.payout, paid, stored.worker);
        _afterSlot(task, round, state);
    }

    /// @inheritdoc IOpenLedger
    function skip(TaskId task, uint32 round) external nonReentrantView {
        Round storage state = _running(task, round);
        require(state.revealed == 0 && state.heldOutAt == 0, RoundHasStates(state.revealed));
        _checkRevealed(task, state);
        _endRound(task, round, state);
    }

    /// @inheritdoc IOpenLedger
    function settleDefault(TaskId task, uint32 round, uint32 slot, Root trainedRoot) external nonReentrantView {
        Round storage state = _running(task, round);
        OpenSlot storage stored = _slot(task, round, slot);
        _checkRoot(trainedRoot, stored.trainedRoot);
        if (stored.stage == Stage.Finalised) revert AlreadyDone(trainedRoot);
        _checkStage(stored, Stage.Revealed);
        require(state.heldOutAt == 0, HeldOutShown(state.heldOutAt));
        _checkPast(state.heldOutEnd);
        _checkUnquestioned(stored);

        TaskParameters storage p = _tasks[task].parameters;
        (stored.stage, stored.bonded) = (Stage.Finalised, false);
        ++state.resolved;
        bool first = _tasks[task].phase == Phase.Running;
        if (first) _tasks[task].phase = Phase.Closed;
        emit DefaultPaid(task, round, stored.worker, slot, stored.payout, trainedRoot, p.slotReward);
        _settle(task, stored.payout, p.slotReward, stored.worker);
        uint256 held = _escrow(task);
        _afterSlot(task, round, state);
        if (first) emit OpenTaskClosed(task, held - _escrow(task));
    }

    /// @dev Who has this state: the earliest commit. Everybody else with it is a copy, and free.
    function _place(TaskId task, uint32 round, uint32 slot, Root trainedRoot, Round storage state) private {
        if (trainedRoot == _bases[task][round]) {
            _copied(task, round, slot, type(uint32).max, trainedRoot);
            return;
        }
        uint32 maker = _makers[task][round][trainedRoot];
        if (maker != 0 && maker - 1 < slot) {
            _copied(task, round, slot, maker - 1, trainedRoot);
            return;
        }
        _makers[task][round][trainedRoot] = slot + 1;
        bool takes = maker != 0 && _slots[slotKey(task, round, maker - 1)].stage == Stage.Revealed;
        if (takes) _copied(task, round, maker - 1, slot, trainedRoot);
        else ++state.revealed;
    }

    function _copied(TaskId task, uint32 round, uint32 slot, uint32 original, Root trainedRoot) private {
        OpenSlot storage stored = _slots[slotKey(task, round, slot)];
        (stored.stage, stored.bonded) = (Stage.Copy, false);
        emit StateCopied(task, round, stored.worker, slot, original, trainedRoot);
        _settle(task, stored.worker, 0, stored.worker);
    }

    /// @dev Somebody else scores what its worker has not; or somebody the base, or what the winner of a game has not.
    function _takeOver(TaskId task, uint32 round, uint32 slot, address worker) private {
        OpenSlot storage stored = _slots[slotKey(task, round, slot)];
        address before = stored.worker;
        if (before != address(0)) {
            uint40 end = _ownersEnd(task, _rounds[task][round], stored);
            require(block.timestamp > end, NotYourScore(before, end));
            if (stored.bonded) emit ScoreMissed(task, round, before, slot, stored.attempt, _takeFee(task, stored));
        }
        stored.worker = worker;
    }

    /// @dev Keeps the lowest loss; of equal ones the lower slot, so that the order of calls does not matter.
    function _compare(TaskId task, uint32 round, uint32 slot, Round storage state) private {
        uint32 best = state.best;
        if (best != 0) {
            uint32 known = OpenRules.rank(_slots[slotKey(task, round, best - 1)].heldOutLoss);
            uint32 rank = OpenRules.rank(_slots[slotKey(task, round, slot)].heldOutLoss);
            if (rank > known || (rank == known && slot >= best)) return;
        }
        // forge-lint: disable-next-line(unsafe-typecast)
        state.best = uint16(slot + 1); // at most 255
    }

    function _setPeriods(Round storage state, TaskParameters storage p, uint40 commitEnd) private {
        uint40 revealEnd = commitEnd + p.revealSeconds;
        (state.commitEnd, state.revealEnd, state.heldOutEnd) = (commitEnd, revealEnd, revealEnd + p.heldOutSeconds);
    }

    function _checkCommit(Commit calldata request, TaskParameters storage p) private view {
        _checkAuthorised(request.worker);
        Task storage stored = _tasks[request.task];
        require(stored.phase == Phase.Running, ITrainingLedger.TaskIsClosed(request.task));
        Root specification = p.specificationHash;
        bool asked = request.specificationHash == specification;
        require(asked, ITrainingLedger.WrongSpecification(request.specificationHash, specification));
        Root base = _bases[request.task][request.round];
        require(request.baseRoot == base, ITrainingLedger.WrongBase(request.baseRoot, base));
        require(request.commitment != 0, ITrainingLedger.ZeroRoot());
        if (p.minimumStake != 0) _AVAILABILITY.checkStake(request.worker, p.minimumStake);
    }

    /// @dev INVARIANT: the loss that pay is computed from is in the scored state.
    function _checkScore(Score calldata result, OpenSlot storage stored, uint32 stateTensors) private view {
        _checkAttempt(stored, result.attempt);
        if (stored.stage != Stage.Revealed && stored.scoredRoot == result.scoredRoot) {
            revert AlreadyDone(result.scoredRoot);
        }
        _checkStage(stored, Stage.Revealed);
        _checkRoot(result.trainedRoot, stored.trainedRoot);
        _AVAILABILITY.checkLoss(result.scoredRoot, result.heldOutLoss, stateTensors, result.lossProof);
    }

    /// @dev Until when only the slot's own worker may score its state.
    function _ownersEnd(TaskId task, Round storage state, OpenSlot storage stored) private view returns (uint40) {
        if (stored.deadline != 0) return stored.deadline;
        return state.heldOutAt + _tasks[task].parameters.leaseSeconds;
    }

    /// @dev Whether revealing is over: by time, or because nobody is left to wait for.
    function _checkRevealed(TaskId task, Round storage state) private view {
        uint256 committed = state.committed;
        bool full = committed == _tasks[task].parameters.slotsPerRound;
        bool opened = state.opened == committed && (full || block.timestamp > state.commitEnd);
        bool over = committed != 0 && (opened || block.timestamp > state.revealEnd);
        require(over, TooEarly(state.revealEnd, block.timestamp));
    }
}
