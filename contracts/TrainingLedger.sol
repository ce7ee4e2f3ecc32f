// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

import {TaskDisputes} from "./TaskDisputes.sol";
import {TaskReader} from "./TaskReader.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {StateProof} from "./libraries/StateProof.sol";
import {TaskStorage} from "./libraries/TaskStorage.sol";
import {Root, TaskId, slotKey} from "./types/Identifiers.sol";

/// @title Tasks, rounds, slots, leases, submissions and checkpoint lineage
/// @dev The ledger calls its vault, which calls only the token, and looks at its game; all are fixed at deployment. Calls that reach the
/// token are guarded, so that even a token with hooks meets no half-done call.
contract TrainingLedger is TaskDisputes {
    using TaskStorage for TaskStorage.StoredTask;
    using TaskStorage for ITrainingLedger.Slot;

    /// @notice See `TaskReader` for the parameters.
    constructor(
        address vault_,
        address disputeGame_,
        address committee_,
        address book_,
        uint96 minimumBond_,
        uint32 minimumWindow_,
        uint32 minimumLease_
    ) TaskReader(vault_, disputeGame_, committee_, book_, minimumBond_, minimumWindow_, minimumLease_) {}

    /// @inheritdoc ITrainingLedger
    function postTask(TaskParameters calldata parameters, string calldata storeUrl)
        external
        nonReentrant
        returns (TaskId task)
    {
        return _post(parameters, storeUrl);
    }

    /// @inheritdoc ITrainingLedger
    function postTaskWithPermit(
        TaskParameters calldata parameters,
        string calldata storeUrl,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant returns (TaskId task) {
        uint256 total = _totalReward(parameters);
        // Whoever saw the permit in the mempool may have used it first: only the allowance counts.
        try IERC20Permit(_VAULT.token()).permit(msg.sender, address(_VAULT), total, deadline, v, r, s) {} catch {}
        return _post(parameters, storeUrl);
    }

    /// @inheritdoc ITrainingLedger
    function closeTask(TaskId task) external nonReentrant {
        TaskStorage.StoredTask storage stored = _tasks[task];
        TaskStorage.Terms memory terms = _terms(task);
        require(msg.sender == stored.requester, OnlyRequester(msg.sender, stored.requester));
        require(terms.phase == TaskStorage.Phase.Running, TaskIsClosed(task));

        stored.terms.phase = TaskStorage.Phase.Closed;
        emit TaskClosed(task, _refundRest(task, terms));
    }

    /// @inheritdoc ITrainingLedger
    function claim(Claim calldata request) external nonReentrantView {
        TaskStorage.StoredTask storage stored = _tasks[request.task];
        TaskStorage.Terms memory terms = _terms(request.task);
        _checkClaim(request, stored, terms);

        Slot storage slot = _slot(request.task, terms, request.round, request.slot);
        (SlotStatus status, uint40 deadline, uint32 attempt) = (slot.status, slot.deadline, slot.attempt);
        bool lapsed = status == SlotStatus.Leased && block.timestamp > deadline;
        // After a fall, an open slot waits for the winner of the game until its deadline; otherwise that is zero.
        bool free = status == SlotStatus.Open && (block.timestamp > deadline || request.worker == slot.worker);
        require(free || lapsed, SlotTaken(slot.worker, status, deadline));
        if (lapsed) ++attempt;
        require(request.attempt == attempt, WrongAttempt(request.attempt, attempt));
        if (lapsed) _expire(request.task, request.round, request.slot, terms);
        uint32 generation = _checkBase(request, terms);
        if (terms.admission != Admission.Open) _BOOK.admit(request, stored.minimumStake, stored.ticketTarget);

        address payout = _VAULT.lockBond(request.worker, terms.bond);
        deadline = uint40(block.timestamp) + terms.leaseSeconds;
        slot.writeHead(request.worker, attempt, deadline, SlotStatus.Leased);
        // slither-disable-next-line reentrancy-no-eth -- the vault calls the token in `_expire` only, which is guarded
        slot.writePay(payout, 0, 0, generation);
        emit SlotClaimed(
            request.task,
            request.round,
            request.worker,
            request.slot,
            attempt,
            msg.sender,
            payout,
            request.baseRoot,
            deadline
        );
    }

    /// @inheritdoc ITrainingLedger
    function submit(Submission calldata result) external {
        TaskStorage.Terms memory terms = _terms(result.task);
        TaskStorage.Work memory work = _tasks[result.task].work;
        Slot storage slot = _slot(result.task, terms, result.round, result.slot);
        address worker = _checkSubmitter(result, slot);
        Root base = _base(result.task, terms, result.round);
        (uint32 least, uint32 most, uint32 generation) = (work.minimumSteps, terms.stepsPerRound, 0);
        if (terms.slots > 1) {
            Root inputs;
            (inputs, generation) = _BOOK.submitted(result.task, result.round, result.slot);
            if (_isMerge(terms, result.slot)) (base, least, most) = (inputs, 1, 1);
        }
        require(result.baseRoot == base, WrongBase(result.baseRoot, base));
        require(result.steps >= least && result.steps <= most, WrongSteps(result.steps, least, most));
        _checkState(result, work.stateTensors);

        uint40 deadline = uint40(block.timestamp) + work.challengeWindow;
        slot.writeHead(worker, result.attempt, deadline, SlotStatus.Submitted);
        slot.writePay(slot.payout, result.steps, result.heldOutLoss, generation);
        slot.stateRoot = result.stateRoot;
        emit Submitted(
            result.task,
            result.round,
            worker,
            result.slot,
            result.attempt,
            base,
            result.stateRoot,
            result.steps,
            result.heldOutLoss,
            deadline
        );
    }

    /// @inheritdoc ITrainingLedger
    function finalise(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot)
        external
        nonReentrantView
    {
        TaskStorage.Terms memory terms = _terms(task);
        Slot storage stored = _slot(task, terms, round, slot);
        Slot memory done = stored;
        require(attempt == done.attempt, WrongAttempt(attempt, done.attempt));
        if (done.status == SlotStatus.Finalised && stateRoot == done.stateRoot) revert AlreadyFinalised(stateRoot);
        require(done.status == SlotStatus.Submitted, WrongStatus(done.status, SlotStatus.Submitted));
        require(stateRoot == done.stateRoot, WrongState(stateRoot, done.stateRoot));
        // INVARIANT: nothing is final inside its challenge window or with open games.
        require(block.timestamp > done.deadline, WindowStillOpen(done.deadline, block.timestamp));
        require(done.openGames == 0, GamesStillOpen(done.openGames));

        bool stands = terms.slots == 1 || _BOOK.finalised(task, round, slot, done.generation);
        if (!stands) {
            _reopen(stored, attempt, address(0), 0);
            emit MergeVoid(task, round, done.worker, slot, attempt, stateRoot);
            _VAULT.settle(task, done.payout, 0, done.worker, terms.bond);
            if (terms.phase == TaskStorage.Phase.Closed) _refundRest(task, terms);
            return;
        }
        stored.writeHead(done.worker, attempt, done.deadline, SlotStatus.Finalised);
        uint256 paid = _isMerge(terms, slot)
            ? _tasks[task].mergeReward
            : _pay(_tasks[task].work, terms, round, done.steps, done.heldOutLoss);
        bool ended = slot == _lastSlot(terms);
        if (ended) _advance(_tasks[task], terms);
        emit Finalised(
            task, round, done.worker, slot, attempt, done.payout, stateRoot, done.steps, done.heldOutLoss, paid
        );
        _VAULT.settle(task, done.payout, paid, done.worker, terms.bond);
        if (ended && terms.currentRound == terms.rounds) emit TaskCompleted(task, _refund(task, 0));
        else if (terms.phase == TaskStorage.Phase.Closed) _refundRest(task, terms);
    }

    /// @inheritdoc ITrainingLedger
    function expireLease(TaskId task, uint32 round, uint32 slot, uint32 attempt) external nonReentrantView {
        TaskStorage.Terms memory terms = _terms(task);
        Slot storage leased = _slot(task, terms, round, slot);
        require(attempt == leased.attempt, WrongAttempt(attempt, leased.attempt));
        require(leased.status == SlotStatus.Leased, WrongStatus(leased.status, SlotStatus.Leased));
        _expire(task, round, slot, terms);
    }

    function _post(TaskParameters calldata parameters, string calldata storeUrl) private returns (TaskId task) {
        task = TaskId.wrap(++taskCount);
        _BOOK.opened(task, parameters, _MINIMUM_BOND, _MINIMUM_WINDOW, _MINIMUM_LEASE);
        _tasks[task].write(parameters, msg.sender);
        emit TaskPosted(task, msg.sender, parameters.specificationHash, parameters, storeUrl);
        _VAULT.openEscrow(task, msg.sender, _totalReward(parameters));
    }

    /// @dev A lease that ends without a submission: reopens the slot and burns the fee.
    function _expire(TaskId task, uint32 round, uint32 slot, TaskStorage.Terms memory terms) private nonReentrant {
        Slot storage leased = _slots[slotKey(task, round, slot)];
        (address worker, uint32 attempt, uint40 deadline) = (leased.worker, leased.attempt, leased.deadline);
        bool free = terms.slots > 1 && _BOOK.released(task, round, slot, leased.generation, deadline);
        require(free || block.timestamp > deadline, LeaseStillRunning(deadline, block.timestamp));
        uint256 fee = free ? 0 : _tasks[task].leaseFee;
        _reopen(leased, attempt, address(0), 0);
        emit LeaseExpired(task, round, worker, slot, attempt, fee);
        // The fee never goes to the requester, who could otherwise earn with leases that nobody can keep.
        _VAULT.takeBond(worker, terms.bond, fee, address(0), 0);
        if (terms.phase == TaskStorage.Phase.Closed) _refundRest(task, terms);
    }

    /// @dev The next round's turn, in `terms` too.
    function _advance(TaskStorage.StoredTask storage stored, TaskStorage.Terms memory terms) private {
        ++terms.currentRound;
        stored.terms.currentRound = terms.currentRound;
        if (terms.currentRound == terms.rounds) stored.terms.phase = TaskStorage.Phase.Complete;
    }

    /// @dev INVARIANT: a claim names the state that its slot starts from. Gives the generation of a merge's inputs.
    function _checkBase(Claim calldata request, TaskStorage.Terms memory terms) private returns (uint32 generation) {
        Root base = _base(request.task, terms, request.round);
        if (terms.slots > 1) {
            Root inputs;
            (inputs, generation) = _BOOK.claimed(request.task, request.round, request.slot);
            if (_isMerge(terms, request.slot)) base = inputs;
        }
        require(request.baseRoot == base, WrongBase(request.baseRoot, base));
    }

    function _checkClaim(Claim calldata request, TaskStorage.StoredTask storage stored, TaskStorage.Terms memory terms)
        private
        view
    {
        _checkAuthorised(request.worker);
        require(terms.phase != TaskStorage.Phase.Closed, TaskIsClosed(request.task));
        bool ourTurn = request.round == terms.currentRound && request.round < terms.rounds;
        require(ourTurn, WrongRound(request.round, terms.currentRound));
        Root specification = stored.specificationHash;
        require(
            request.specificationHash == specification, WrongSpecification(request.specificationHash, specification)
        );
    }

    /// @dev INVARIANT: only the leaseholder's side submits, before the lease ends, for the attempt it holds.
    function _checkSubmitter(Submission calldata result, Slot storage slot) private view returns (address worker) {
        (SlotStatus status, uint32 attempt, uint40 deadline) = (slot.status, slot.attempt, slot.deadline);
        worker = slot.worker;
        require(result.attempt == attempt, WrongAttempt(result.attempt, attempt));
        require(status != SlotStatus.Open, WrongStatus(status, SlotStatus.Leased));
        _checkAuthorised(worker);
        if (status != SlotStatus.Leased) {
            require(result.stateRoot != slot.stateRoot, AlreadySubmitted(result.stateRoot));
            revert WrongStatus(status, SlotStatus.Leased);
        }
        require(block.timestamp <= deadline, LeaseOver(deadline, block.timestamp));
    }

    function _checkAuthorised(address worker) private view {
        bool good = msg.sender == worker || _VAULT.isOperator(worker, msg.sender);
        require(good, NotAuthorised(msg.sender, worker));
    }

    /// @dev INVARIANT: the loss that pay is computed from is in the state. Proved here and not when paid, so that a
    /// root of garbage never takes up a slot and `finalise` needs no data that only the worker has.
    function _checkState(Submission calldata result, uint32 stateTensors) private view {
        require(Root.unwrap(result.stateRoot) != 0, ZeroRoot());
        require(StateProof.isCanonical(result.heldOutLoss), InvalidParameter("heldOutLoss", result.heldOutLoss));
        uint256 needed = StateProof.depth(stateTensors);
        require(result.lossProof.length == needed, WrongProofLength(result.lossProof.length, needed));
        Root proved = StateProof.stateRoot(result.heldOutLoss, stateTensors, result.lossProof);
        require(result.stateRoot == proved, WrongLossProof(result.stateRoot, proved));
    }

    function _totalReward(TaskParameters calldata parameters) private pure returns (uint256) {
        uint256 each = uint256(parameters.slotReward) * parameters.slotsPerRound + parameters.mergeReward;
        return each * parameters.rounds;
    }
}
