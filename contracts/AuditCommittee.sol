// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {SeatRegister} from "./SeatRegister.sol";
import {IAuditCommittee} from "./interfaces/IAuditCommittee.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {AttemptKey, Root, TaskId, attemptKey, attemptOf, auditBudget} from "./types/Identifiers.sol";

/// @title Auditors who are drawn by stake, prove their work and are paid for it
/// @dev Calls its vault and its ledger only, both fixed at deployment and neither calling back; state is written first.
contract AuditCommittee is SeatRegister {
    /// @notice Votes drawn in an audit.
    uint256 public constant VOTES = 9;
    /// @notice Votes that make an agreement: two thirds of those drawn, whether they were cast or not.
    uint256 public constant AGREEMENT = 6;
    /// @notice Blocks from a request to the one whose hash is the seed.
    uint256 public constant SEED_DELAY = 2;

    ITrainingLedger private immutable _LEDGER;
    uint32 private immutable _REVEAL_SECONDS;

    mapping(AttemptKey audit => Audit) private _audits;
    mapping(AttemptKey audit => mapping(address auditor => Ballot)) private _ballots;
    mapping(AttemptKey audit => mapping(bytes32 finding => uint256)) private _votesFor;
    mapping(TaskId task => Budget) private _budgets;

    /// @param vault_ Holder of funds; its committee must be this contract.
    /// @param ledger_ Whose submissions are audited. May have no code yet.
    /// @param seatStake_ Stake of a seat in wei.
    /// @param seatAge_ Seconds for which a seat must have been taken before it counts.
    /// @param revealSeconds_ Seconds to reveal in.
    constructor(address vault_, address ledger_, uint96 seatStake_, uint32 seatAge_, uint32 revealSeconds_)
        SeatRegister(vault_, seatStake_, seatAge_)
    {
        require(ledger_ != address(0), InvalidParameter("ledger", 0));
        require(revealSeconds_ > 0, InvalidParameter("revealSeconds", 0));
        _LEDGER = ITrainingLedger(ledger_);
        _REVEAL_SECONDS = revealSeconds_;
    }

    /// @inheritdoc IAuditCommittee
    function fund(TaskId task, uint96 fee, uint256 amount) external {
        Budget storage budget = _budgets[task];
        uint96 known = budget.fee;
        if (known == 0) {
            address requester = _LEDGER.getTask(task).requester;
            require(msg.sender == requester, OnlyRequesterOpensBudget(msg.sender, requester));
            require(fee > 0, WrongFee(0, 1));
            budget.fee = fee;
        } else {
            require(fee == known, WrongFee(fee, known));
        }
        emit BudgetFunded(task, msg.sender, amount, fee);
        _VAULT.openEscrow(auditBudget(task), msg.sender, amount);
    }

    /// @inheritdoc IAuditCommittee
    function refund(TaskId task) external {
        ITrainingLedger.Task memory told = _LEDGER.getTask(task);
        require(told.closed || told.currentRound == told.parameters.rounds, TaskStillRuns(task));
        uint256 amount = _VAULT.refundEscrow(auditBudget(task), told.requester, _budgets[task].reserved);
        emit BudgetRefunded(task, told.requester, amount);
    }

    /// @inheritdoc IAuditCommittee
    function request(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot) external {
        AttemptKey key = attemptKey(task, round, slot, attempt);
        Audit storage audit = _audits[key];
        require(audit.requestedAt == 0, AlreadyRequested(key));
        ITrainingLedger.Slot memory submitted = _LEDGER.getSlot(task, round, slot);
        bool there = submitted.status == ITrainingLedger.SlotStatus.Submitted && submitted.attempt == attempt
            && submitted.stateRoot == stateRoot;
        require(there, NotSubmitted(key, stateRoot));
        _checkTime(task, submitted.deadline);
        uint256 seats = seatCount();
        require(seats >= VOTES, TooFewSeats(seats, VOTES));

        audit.requestedAt = uint40(block.timestamp);
        audit.seedBlock = uint40(block.number + SEED_DELAY);
        // forge-lint: disable-next-line(unsafe-typecast)
        audit.seats = uint32(seats); // each has cost stake: there are never 2^32
        audit.windowEnd = submitted.deadline;
        audit.fee = _reserve(task);
        audit.steps = submitted.steps;
        audit.stateRoot = stateRoot;
        emit AuditRequested(key, stateRoot, audit.seedBlock, seats);
    }

    /// @inheritdoc IAuditCommittee
    function draw(AttemptKey key) external {
        Audit storage audit = _known(key);
        require(audit.seed == 0, AlreadyDrawn(key));
        bytes32 seed = blockhash(audit.seedBlock);
        require(seed != 0, SeedUnavailable(audit.seedBlock, block.number));
        (uint256 commitEnd, uint256 revealEnd) = _checkTime(_taskOf(key), audit.windowEnd);
        audit.seed = seed;
        audit.commitEnd = uint40(commitEnd);
        audit.revealEnd = uint40(revealEnd);
        emit AuditDrawn(key, seed, commitEnd, revealEnd);
    }

    /// @inheritdoc IAuditCommittee
    function commit(AttemptKey key, bytes32 seed, address auditor, bytes32 commitment) external {
        Audit storage audit = _drawn(key);
        require(seed == audit.seed, WrongSeed(seed, audit.seed));
        _checkAuthorised(auditor);
        require(commitment != 0, EmptyCommitment());
        require(block.timestamp <= audit.commitEnd, CommitOver(audit.commitEnd, block.timestamp));
        Ballot storage ballot = _ballots[key][auditor];
        require(ballot.commitment == 0, AlreadyCommitted(key, auditor));
        uint256 votes = votesOf(key, auditor);
        require(votes > 0, NotDrawnInto(key, auditor));

        ballot.commitment = commitment;
        // forge-lint: disable-next-line(unsafe-typecast)
        ballot.votes = uint8(votes); // at most nine
        audit.committed += uint8(votes);
        _keepSeats(auditor, audit.windowEnd);
        emit Committed(key, auditor, votes);
    }

    /// @inheritdoc IAuditCommittee
    function reveal(AttemptKey key, address auditor, bytes32 traceRoot, Root stateRoot, bytes32 salt) external {
        Audit storage audit = _drawn(key);
        Ballot storage ballot = _ballots[key][auditor];
        _checkReveal(key, auditor, audit, ballot);
        bytes32 opened = commitmentOf(key, audit.seed, auditor, traceRoot, stateRoot, salt);
        require(opened == ballot.commitment, WrongOpening(ballot.commitment, opened));

        bytes32 finding = _findingOf(traceRoot, stateRoot);
        uint256 votes = _votesFor[key][finding] + ballot.votes;
        ballot.finding = finding;
        _votesFor[key][finding] = votes;
        emit Revealed(key, auditor, traceRoot, stateRoot, ballot.votes);
        if (votes < AGREEMENT || audit.agreed != 0) return;
        audit.agreed = finding;
        emit Agreed(key, traceRoot, stateRoot);
        if (stateRoot == audit.stateRoot) _LEDGER.shortenWindow(key, stateRoot);
    }

    /// @inheritdoc IAuditCommittee
    function collect(AttemptKey key, address auditor) external {
        Audit storage audit = _audits[key];
        Ballot storage ballot = _ballots[key][auditor];
        bytes32 finding = ballot.finding;
        bool owed = finding != 0 && finding == audit.agreed && !ballot.paid;
        require(owed, NothingToCollect(key, auditor));
        ballot.paid = true;
        uint256 amount = uint256(audit.fee) * ballot.votes;
        TaskId task = _taskOf(key);
        _release(task, amount);
        address payout = _VAULT.payoutOf(auditor);
        emit FeePaid(key, auditor, payout, amount);
        uint256 held = _VAULT.escrowOf(auditBudget(task));
        // slither-disable-next-line unused-return -- it is `amount`: what is held less what is kept
        _VAULT.refundEscrow(auditBudget(task), payout, held - amount);
    }

    /// @inheritdoc IAuditCommittee
    function close(AttemptKey key) external {
        Audit storage audit = _known(key);
        require(!audit.closed, AlreadyClosed(key));
        // Without a seed it is over once none can be had, and once it could no longer end in its window.
        bool over = audit.seed == 0
            ? block.number > uint256(audit.seedBlock) + 256 || block.timestamp > audit.windowEnd
            : block.timestamp > audit.revealEnd;
        require(over, AuditStillRuns(key));
        audit.closed = true;
        bytes32 agreed = audit.agreed;
        uint256 owed = agreed == 0 ? 0 : _votesFor[key][agreed];
        uint256 released = audit.fee * (VOTES - owed);
        _release(_taskOf(key), released);
        emit AuditClosed(key, released);
    }

    /// @inheritdoc IAuditCommittee
    function evict(AttemptKey key, uint256 vote) external {
        Audit storage audit = _drawn(key);
        require(block.timestamp > audit.revealEnd, AuditStillRuns(key));
        (uint256 index, address owner, bool counts) = drawnSeat(key, vote);
        require(counts && _ballots[key][owner].finding == 0, NothingToEvict(key, vote));
        _remove(index, owner, true);
    }

    /// @inheritdoc IAuditCommittee
    function ledger() external view returns (address) {
        return address(_LEDGER);
    }

    /// @inheritdoc IAuditCommittee
    function revealSeconds() external view returns (uint32) {
        return _REVEAL_SECONDS;
    }

    /// @inheritdoc IAuditCommittee
    function budgetOf(TaskId task) external view returns (Budget memory) {
        return _budgets[task];
    }

    /// @inheritdoc IAuditCommittee
    function getAudit(AttemptKey key) external view returns (Audit memory) {
        return _audits[key];
    }

    /// @inheritdoc IAuditCommittee
    function ballotOf(AttemptKey key, address auditor) external view returns (Ballot memory) {
        return _ballots[key][auditor];
    }

    /// @inheritdoc IAuditCommittee
    function drawnRun(AttemptKey key) external view returns (uint256) {
        Audit storage audit = _drawn(key);
        return uint256(audit.seed) % audit.steps;
    }

    /// @inheritdoc IAuditCommittee
    function votesOf(AttemptKey key, address auditor) public view returns (uint256 votes) {
        for (uint256 vote = 0; vote < VOTES; ++vote) {
            (, address owner, bool counts) = drawnSeat(key, vote);
            if (counts && owner == auditor) ++votes;
        }
    }

    /// @inheritdoc IAuditCommittee
    function drawnSeat(AttemptKey key, uint256 vote) public view returns (uint256 index, address owner, bool counts) {
        Audit storage audit = _drawn(key);
        require(vote < VOTES, NothingToEvict(key, vote));
        index = uint256(keccak256(abi.encode(audit.seed, vote))) % audit.seats;
        (owner, counts) = _seatAtTime(index, audit.requestedAt);
    }

    /// @inheritdoc IAuditCommittee
    function commitmentOf(
        AttemptKey key,
        bytes32 seed,
        address auditor,
        bytes32 traceRoot,
        Root stateRoot,
        bytes32 salt
    ) public pure returns (bytes32) {
        return keccak256(abi.encode(auditor, key, seed, _findingOf(traceRoot, stateRoot), salt));
    }

    /// @dev INVARIANT: budget - reserved >= 0, so every audit can pay whatever it comes to owe.
    function _reserve(TaskId task) private returns (uint96 fee) {
        Budget storage budget = _budgets[task];
        fee = budget.fee;
        uint256 needed = uint256(fee) * VOTES;
        uint256 free = _VAULT.escrowOf(auditBudget(task)) - budget.reserved;
        require(needed > 0 && needed <= free, BudgetTooSmall(free, needed));
        // forge-lint: disable-next-line(unsafe-typecast)
        budget.reserved += uint128(needed); // at most what the vault holds
    }

    function _release(TaskId task, uint256 amount) private {
        // forge-lint: disable-next-line(unsafe-typecast)
        _budgets[task].reserved -= uint128(amount); // at most nine fees
    }

    /// @dev The ends of an audit that is drawn now; it must end inside the window, or it could not shorten it.
    function _checkTime(TaskId task, uint256 windowEnd) private view returns (uint256 commitEnd, uint256 revealEnd) {
        uint256 floor = _LEDGER.windowFloor(task);
        commitEnd = block.timestamp + floor;
        revealEnd = commitEnd + _REVEAL_SECONDS;
        require(revealEnd <= windowEnd, NoTimeForAudit(revealEnd, windowEnd));
    }

    function _checkReveal(AttemptKey key, address auditor, Audit storage audit, Ballot storage ballot) private view {
        require(ballot.commitment != 0, NotDrawnInto(key, auditor));
        require(ballot.finding == 0, AlreadyRevealed(key, auditor));
        // INVARIANT: nobody can still commit once anybody has revealed.
        bool over = block.timestamp > audit.commitEnd || audit.committed == VOTES;
        require(over, CommitStillOpen(audit.commitEnd, block.timestamp));
        require(block.timestamp <= audit.revealEnd, RevealOver(audit.revealEnd, block.timestamp));
    }

    function _checkAuthorised(address auditor) private view {
        bool good = msg.sender == auditor || _VAULT.isOperator(auditor, msg.sender);
        require(good, NotAuthorisedFor(msg.sender, auditor));
    }

    function _known(AttemptKey key) private view returns (Audit storage audit) {
        audit = _audits[key];
        require(audit.requestedAt != 0, UnknownAudit(key));
    }

    function _drawn(AttemptKey key) private view returns (Audit storage audit) {
        audit = _audits[key];
        require(audit.seed != 0, NotDrawn(key));
    }

    function _taskOf(AttemptKey key) private pure returns (TaskId) {
        (TaskId task,,,) = attemptOf(key);
        return task;
    }

    function _findingOf(bytes32 traceRoot, Root stateRoot) private pure returns (bytes32) {
        return keccak256(abi.encode(traceRoot, stateRoot));
    }
}
