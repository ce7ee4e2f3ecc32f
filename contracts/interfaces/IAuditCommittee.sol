// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {AttemptKey, Root, TaskId} from "../types/Identifiers.sol";

/// @title Auditors who are drawn by stake, prove their work and are paid for it
/// @notice docs/auditors.md has the rules. Auditors lock stake for seats. For an audit of a submission nine seats are
/// drawn by the hash of a later block; their owners replay the segment, commit to what they found, and reveal. Six
/// votes for the state submitted end its challenge window early, at the floor at the earliest. A committee can do
/// nothing else: it neither makes a submission fall nor stand.
/// @dev An audit's key is that of the attempt that it is about. Every call names what it answers (state root, seed), so
/// that a reorganisation turns no right answer into a wrong one. No call loops over seats, audits or auditors.
interface IAuditCommittee {
    /// @notice A fixed amount of stake that can be drawn.
    /// @param since Time at which it was taken.
    /// @param placed Time at which it came to its place in the register.
    struct Seat {
        address owner;
        uint48 since;
        uint48 placed;
    }

    /// @notice The audit of one attempt. Times are in seconds; all that follows from the draw is zero before it.
    /// @param requestedAt Zero: nobody has asked for it. Only seats that were there, and aged, at this time count.
    /// @param seedBlock Number of the block whose hash is the seed.
    /// @param seats Number of seats at `requestedAt`: what is drawn from.
    /// @param commitEnd Last moment to commit. @param revealEnd Last moment to reveal.
    /// @param windowEnd End of the challenge window as it was when the audit was asked for.
    /// @param committed Votes whose auditors have committed.
    /// @param closed What is not owed of its nine fees is free again.
    /// @param fee Wei for each vote. @param steps Runs of the training program that the submission has done.
    /// @param stateRoot The state submitted.
    /// @param agreed The finding that six votes share, or zero.
    struct Audit {
        uint40 requestedAt;
        uint40 seedBlock;
        uint32 seats;
        uint40 commitEnd;
        uint40 revealEnd;
        uint40 windowEnd;
        uint8 committed;
        bool closed;
        uint96 fee;
        uint32 steps;
        bytes32 seed;
        Root stateRoot;
        bytes32 agreed;
    }

    /// @notice One auditor's part in an audit.
    /// @param commitment Zero: none. @param finding Zero: not revealed yet. @param votes Drawn seats that count.
    struct Ballot {
        bytes32 commitment;
        bytes32 finding;
        uint8 votes;
        bool paid;
    }

    /// @notice What a task pays for audits: `fee` wei for each vote; `reserved` wei are spoken for by audits.
    struct Budget {
        uint96 fee;
        uint128 reserved;
    }

    event SeatsTaken(address indexed owner, uint256 firstIndex, uint256 count);
    /// @notice A seat left the register; the last one, if it was another, came to its index.
    event SeatGivenUp(address indexed owner, uint256 index, bool evicted);
    event BudgetFunded(TaskId indexed task, address indexed from, uint256 amount, uint256 fee);
    event BudgetRefunded(TaskId indexed task, address indexed requester, uint256 amount);
    event AuditRequested(AttemptKey indexed audit, Root stateRoot, uint256 seedBlock, uint256 seats);
    event AuditDrawn(AttemptKey indexed audit, bytes32 seed, uint256 commitEnd, uint256 revealEnd);
    event Committed(AttemptKey indexed audit, address indexed auditor, uint256 votes);
    event Revealed(AttemptKey indexed audit, address indexed auditor, bytes32 traceRoot, Root stateRoot, uint256 votes);
    /// @notice Six votes share a finding. Where `stateRoot` is the state submitted, the window ends early.
    event Agreed(AttemptKey indexed audit, bytes32 traceRoot, Root stateRoot);
    event FeePaid(AttemptKey indexed audit, address indexed auditor, address payout, uint256 amount);
    event AuditClosed(AttemptKey indexed audit, uint256 released);

    /// @notice Thrown at deployment; `field` is the parameter's name and `value` what it was.
    error InvalidParameter(string field, uint256 value);
    /// @notice Thrown when no seats, or more than `most`, are asked for at once.
    error WrongSeatCount(uint256 count, uint256 most);
    /// @notice Thrown when there is no seat of that index.
    error UnknownSeat(uint256 index, uint256 seats);
    /// @notice Thrown when somebody gives up a seat of somebody else's. Indexes move when seats are given up.
    error NotYourSeat(uint256 index, address owner);
    /// @notice Thrown when a seat is given up or evicted whose owner has committed in an audit: it stays until then.
    error SeatBusy(address owner, uint256 untilTime);
    /// @notice Thrown when anybody but the task's requester opens its audit budget.
    error OnlyRequesterOpensBudget(address caller, address requester);
    /// @notice Thrown when a fee is named that is not the budget's.
    error WrongFee(uint256 given, uint256 expected);
    /// @notice Thrown when a task's audit budget is asked back before the task has ended.
    error TaskStillRuns(TaskId task);
    /// @notice Thrown when the budget, less what audits have reserved, does not hold the fees of an audit.
    error BudgetTooSmall(uint256 free, uint256 needed);
    /// @notice Thrown when an audit could not end before the challenge window does.
    error NoTimeForAudit(uint256 auditEnd, uint256 windowEnd);
    /// @notice Thrown when there are fewer seats than votes.
    error TooFewSeats(uint256 seats, uint256 needed);
    /// @notice Thrown when a second audit of one attempt is asked for.
    error AlreadyRequested(AttemptKey audit);
    /// @notice Thrown when the attempt named is not what the slot has submitted.
    error NotSubmitted(AttemptKey audit, Root stateRoot);
    /// @notice Thrown when an audit is not in the part of its life that a call needs.
    error UnknownAudit(AttemptKey audit);
    error AlreadyDrawn(AttemptKey audit);
    error NotDrawn(AttemptKey audit);
    /// @notice Thrown when the seed's block is not there yet, or no longer known (there is no second draw).
    error SeedUnavailable(uint256 seedBlock, uint256 nowBlock);
    /// @notice Thrown when a seed is named that is not the audit's.
    error WrongSeed(bytes32 given, bytes32 expected);
    /// @notice Thrown when the caller is neither the auditor nor an operator of its.
    error NotAuthorisedFor(address caller, address auditor);
    /// @notice Thrown when none of an account's seats was drawn, or none that counts.
    error NotDrawnInto(AttemptKey audit, address auditor);
    error EmptyCommitment();
    error AlreadyCommitted(AttemptKey audit, address auditor);
    error CommitOver(uint256 commitEnd, uint256 nowTime);
    /// @notice Thrown when an auditor reveals while others may still commit.
    error CommitStillOpen(uint256 commitEnd, uint256 nowTime);
    error RevealOver(uint256 revealEnd, uint256 nowTime);
    error AlreadyRevealed(AttemptKey audit, address auditor);
    /// @notice Thrown when what is revealed is not what was committed to.
    error WrongOpening(bytes32 commitment, bytes32 opened);
    /// @notice Thrown when nothing is owed: no agreement, another finding, or paid already.
    error NothingToCollect(AttemptKey audit, address auditor);
    error AuditStillRuns(AttemptKey audit);
    error AlreadyClosed(AttemptKey audit);
    /// @notice Thrown when the seat of a vote cannot be evicted: it has left its place, did not count, or has revealed.
    error NothingToEvict(AttemptKey audit, uint256 vote);

    /// @notice Takes `count` seats and locks their stake, which has to be free in the vault.
    function enrol(uint32 count) external;

    /// @notice Gives up the caller's seat of that index; its stake is free again. The last seat comes to its place.
    function resign(uint256 index) external;

    /// @notice Adds `amount` wei to a task's audit budget (allowance to the vault needed). The requester opens it and
    /// fixes the fee for each vote; everybody else names that fee.
    function fund(TaskId task, uint96 fee, uint256 amount) external;

    /// @notice Sends what no audit has reserved of an ended task's budget back to its requester.
    function refund(TaskId task) external;

    /// @notice Asks for the audit of a submission, once for each attempt. Reserves nine fees.
    function request(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot) external;

    /// @notice Records the seed while the chain still knows its block, and starts the time to commit.
    function draw(AttemptKey audit) external;

    /// @notice Commits an auditor, who is the caller or lets the caller operate for it, to its finding.
    /// @param commitment See `commitmentOf`.
    function commit(AttemptKey audit, bytes32 seed, address auditor, bytes32 commitment) external;

    /// @notice Opens an auditor's commitment: the root of the trace of the run drawn, and of the state at the end of its
    /// own replay. From the end of the time to commit, or from when all nine votes have committed.
    function reveal(AttemptKey audit, address auditor, bytes32 traceRoot, Root stateRoot, bytes32 salt) external;

    /// @notice Credits the fees of an auditor who has the finding agreed on. Anybody may call.
    function collect(AttemptKey audit, address auditor) external;

    /// @notice Frees what an audit has reserved and does not owe: after the time to reveal, or where its seed was missed.
    function close(AttemptKey audit) external;

    /// @notice Takes the seat of a drawn vote whose auditor did not reveal off the register, after the time to reveal.
    function evict(AttemptKey audit, uint256 vote) external;

    function vault() external view returns (address);
    function ledger() external view returns (address);
    function seatStake() external view returns (uint96);
    /// @notice Seconds for which a seat must have been taken before it counts.
    function seatAge() external view returns (uint32);
    /// @notice Seconds to reveal in, after those to commit.
    function revealSeconds() external view returns (uint32);
    function seatCount() external view returns (uint256);
    function seatAt(uint256 index) external view returns (Seat memory);
    function seatsOf(address owner) external view returns (uint256);
    /// @notice Until when the seats of an owner cannot be given up.
    function busyUntil(address owner) external view returns (uint256);
    function budgetOf(TaskId task) external view returns (Budget memory);
    function getAudit(AttemptKey audit) external view returns (Audit memory);
    function ballotOf(AttemptKey audit, address auditor) external view returns (Ballot memory);
    /// @notice The index of the seat that a vote (0 to 8) of a drawn audit fell on, its owner, and whether it counts.
    function drawnSeat(AttemptKey audit, uint256 vote) external view returns (uint256 index, address owner, bool counts);
    /// @notice Votes of an auditor in a drawn audit.
    function votesOf(AttemptKey audit, address auditor) external view returns (uint256);
    /// @notice The run of the training program, counted from 0, whose trace root a drawn audit asks for.
    function drawnRun(AttemptKey audit) external view returns (uint256);
    /// @notice keccak256 of the ABI encoding of (auditor, audit, seed, keccak256(traceRoot, stateRoot), salt).
    function commitmentOf(
        AttemptKey audit,
        bytes32 seed,
        address auditor,
        bytes32 traceRoot,
        Root stateRoot,
        bytes32 salt
    ) external pure returns (bytes32);
}
