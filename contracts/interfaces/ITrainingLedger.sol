// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {AttemptKey, Root, TaskId} from "../types/Identifiers.sol";
import {IDisputeGame} from "./IDisputeGame.sol";

/// @title Tasks, rounds, slots, leases, submissions and checkpoint lineage
/// @notice A task is posted with its whole reward in escrow. Each round continues from the checkpoint of the round
/// before. A worker claims a round's slot (which locks a bond), trains, submits the root of the new state with a proof
/// of its held-out loss, and is paid when the challenge window has passed without a lost dispute.
/// @dev Every call names what it answers (specification hash, attempt, base root), so that neither a reorganisation
/// nor a race turns a right answer into a wrong one. Anybody may call `expireLease` and `finalise`. No call loops over
/// tasks, rounds or slots.
interface ITrainingLedger {
    /// @notice Who may claim: anybody with the bond; anybody with `minimumStake`; anybody with a proof-of-work ticket;
    /// or who has both.
    enum Admission {
        Open,
        Stake,
        Ticket,
        StakeAndTicket
    }

    /// @notice The life of a slot. A lost dispute or an expired lease leads back to `Open` with the next attempt.
    enum SlotStatus {
        Open,
        Leased,
        Submitted,
        Finalised
    }

    /// @notice What a requester fixes when posting. Losses are IEEE-754 binary32 bit patterns.
    /// @param specificationHash Hash of the canonical task specification.
    /// @param stateTensors Number of tensors of a state: the depth of its Merkle tree follows from it.
    /// @param slotsPerRound Training slots of a round, 1 to 255. With more than one, each round ends with a merge, whose
    /// slot has this number (docs/rounds.md).
    /// @param minimumSteps Fewest steps a submission may have done; between 1 and stepsPerRound.
    /// @param slotReward Reward of one slot in wei, for all steps at full performance.
    /// @param bond Stake locked with a claim, in wei; at least the deployment's minimum.
    /// @param leaseFee Part of the bond burned when a lease runs out, in wei; at most the bond.
    /// @param challengeWindow Seconds; at least the deployment's minimum and at least `leaseSeconds`.
    /// @param minimumStake Stake in wei that admission by stake asks for; zero otherwise.
    /// @param ticketTarget A ticket's digest must be below it; zero unless admission asks for tickets.
    /// @param hasTarget False: pay does not depend on the loss, and both losses are zero.
    /// @param baseLoss Held-out loss at which performance is 0.
    /// @param targetLoss Held-out loss at which, in the last round, performance is 1; lower than `baseLoss`.
    /// @param quorum Submissions that are enough once a round's deadline has passed; 1 to slotsPerRound.
    /// @param roundSeconds From a round's first claim to its deadline; at least `leaseSeconds`.
    /// @param mergeReward Reward of a merge in wei. It and the two before are zero with one slot a round.
    struct TaskParameters {
        Root specificationHash;
        Root programRoot;
        Root datasetRoot;
        Root initialStateRoot;
        uint32 stateTensors;
        uint32 rounds;
        uint32 slotsPerRound;
        uint32 stepsPerRound;
        uint32 minimumSteps;
        uint96 slotReward;
        uint96 bond;
        uint96 leaseFee;
        uint32 leaseSeconds;
        uint32 challengeWindow;
        Admission admission;
        uint96 minimumStake;
        uint256 ticketTarget;
        bool hasTarget;
        uint32 baseLoss;
        uint32 targetLoss;
        uint32 quorum;
        uint32 roundSeconds;
        uint96 mergeReward;
    }

    /// @notice A posted task. `currentRound` counts from 0 and equals `parameters.rounds` when all are finalised.
    struct Task {
        TaskParameters parameters;
        address requester;
        uint32 currentRound;
        bool closed;
    }

    /// @notice One slot. `deadline` is the end of the lease while leased, and of the challenge window once submitted.
    /// While the slot is open after a fall, `worker` alone, who won the game, may claim it until `deadline`.
    /// @param worker Owner of the bonded stake.
    /// @param payout Who is paid, fixed at the claim.
    /// @param heldOutLoss binary32 bits, proved against `stateRoot`.
    /// @param generation Of a merge: that of the inputs which it answers for (`IRoundBook`); 0 otherwise.
    struct Slot {
        address worker;
        uint32 attempt;
        uint40 deadline;
        SlotStatus status;
        uint16 openGames;
        address payout;
        uint32 steps;
        uint32 heldOutLoss;
        uint32 generation;
        Root stateRoot;
    }

    /// @notice One entry of a task's lineage: the state that a finalised slot led to.
    struct Checkpoint {
        Root parent;
        Root stateRoot;
        uint32 round;
        address worker;
        uint32 steps;
        uint32 heldOutLoss;
    }

    /// @notice A claim on the stake of `worker`, sent by it or by one of its operators.
    /// @param attempt The slot's attempt number that the caller saw (an expired lease counts as given up: see
    /// `nextAttempt`).
    /// @param ticketBlock Number of the recent block whose hash the ticket binds; ignored without tickets.
    /// @param ticketNonce The number found; ignored without tickets.
    struct Claim {
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        Root specificationHash;
        Root baseRoot;
        address worker;
        uint64 ticketBlock;
        uint256 ticketNonce;
    }

    /// @notice The result of a claim.
    /// @param steps Steps done.
    /// @param heldOutLoss binary32 bits of tensor 0 of the state, the held-out loss.
    /// @param lossProof Siblings from the state leaf 0 up to the state's root, lowest first.
    struct Submission {
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        Root baseRoot;
        Root stateRoot;
        uint32 steps;
        uint32 heldOutLoss;
        bytes32[] lossProof;
    }

    /// @notice What a game has to know of the submission that it is about.
    /// @param merge Whether it is a merge: its base is the root of its inputs, and its step one of the merge program.
    struct Disputed {
        address worker;
        uint32 steps;
        uint32 leaseSeconds;
        Root baseRoot;
        Root programRoot;
        Root datasetRoot;
        bool merge;
    }

    event TaskPosted(
        TaskId indexed task,
        address indexed requester,
        Root indexed specificationHash,
        TaskParameters parameters,
        string storeUrl
    );
    event TaskClosed(TaskId indexed task, uint256 refunded);
    event SlotClaimed(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        address operator,
        address payout,
        Root baseRoot,
        uint256 leaseEnd
    );
    event LeaseExpired(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        uint256 feeBurned
    );
    event Submitted(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        Root baseRoot,
        Root stateRoot,
        uint32 steps,
        uint32 heldOutLoss,
        uint256 windowEnd
    );
    /// @notice A submission became a checkpoint; `paid` wei were credited to `payout`.
    event Finalised(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        address payout,
        Root stateRoot,
        uint32 steps,
        uint32 heldOutLoss,
        uint256 paid
    );
    /// @notice A merge had taken inputs that the round does not have any more: nothing is paid, and the slot is open.
    event MergeVoid(
        TaskId indexed task, uint32 indexed round, address indexed worker, uint32 slot, uint32 attempt, Root stateRoot
    );
    event TaskCompleted(TaskId indexed task, uint256 refunded);
    event GameOpened(TaskId indexed task, uint32 indexed round, uint32 slot, uint32 attempt, uint256 openGames);
    event GameSettled(
        TaskId indexed task, uint32 indexed round, uint32 slot, uint32 attempt, bool submissionFell, uint256 openGames
    );
    event SubmissionFell(
        TaskId indexed task, uint32 indexed round, address indexed worker, uint32 slot, uint32 attempt, Root stateRoot
    );
    /// @notice The bond of a fallen submission left the stake of `worker`: `awarded` was credited to `winner` (zero:
    /// nobody), `burned` destroyed.
    event FallAwarded(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        address winner,
        uint256 awarded,
        uint256 burned
    );

    /// @notice Drawn auditors agreed with a submission: its challenge window now ends at `windowEnd`.
    event WindowShortened(TaskId indexed task, uint32 indexed round, uint32 slot, uint32 attempt, uint256 windowEnd);

    /// @notice Thrown when a task number was never given out.
    error UnknownTask(TaskId task);
    /// @notice Thrown at posting; `field` is the parameter's name and `value` what it was.
    error InvalidParameter(string field, uint256 value);
    /// @notice Thrown when somebody but the requester closes a task.
    error OnlyRequester(address caller, address requester);
    /// @notice Thrown when anybody but the dispute game reports a game.
    error OnlyDisputeGame(address caller);
    /// @notice Thrown when anybody but the audit committee ends a window early.
    error OnlyAuditCommittee(address caller);
    /// @notice Thrown when a task takes no more claims.
    error TaskIsClosed(TaskId task);
    /// @notice Thrown when a round is claimed whose turn it is not (`current` equals the number of rounds at the end).
    error WrongRound(uint32 round, uint32 current);
    /// @notice Thrown when a slot number is not below `slots`: slotsPerRound, and one more where there is a merge.
    error WrongSlot(uint32 slot, uint32 slots);
    /// @notice Thrown when the attempt named is not the slot's.
    error WrongAttempt(uint32 attempt, uint32 current);
    /// @notice Thrown when the specification named is not the task's.
    error WrongSpecification(Root given, Root expected);
    /// @notice Thrown when the base named is not the state that the round starts from.
    error WrongBase(Root given, Root expected);
    /// @notice Thrown when a slot is claimed that is leased until `deadline`, submitted or finalised; or open, but until
    /// `deadline` only for `worker`, who won the game about the attempt before.
    error SlotTaken(address worker, SlotStatus status, uint256 deadline);
    /// @notice Thrown when the caller is neither the worker nor an operator of its.
    error NotAuthorised(address caller, address worker);
    /// @notice Thrown when admission by stake is asked for and the worker has too little.
    error StakeTooSmall(address worker, uint256 staked, uint256 minimumStake);
    /// @notice Thrown when a ticket's digest is not below the target.
    error TicketTooWeak(uint256 digest, uint256 target);
    /// @notice Thrown when the ticket's block is not one of the 256 before this one.
    error TicketBlockUnknown(uint256 ticketBlock, uint256 nowBlock);
    /// @notice Thrown when a slot is not in the state that a call needs.
    error WrongStatus(SlotStatus status, SlotStatus needed);
    /// @notice Thrown when a submission comes after the lease's end.
    error LeaseOver(uint256 deadline, uint256 nowTime);
    /// @notice Thrown when a lease is expired before its end.
    error LeaseStillRunning(uint256 deadline, uint256 nowTime);
    /// @notice Thrown when exactly this submission is already in the slot: nothing is left to do.
    error AlreadySubmitted(Root stateRoot);
    /// @notice Thrown when a slot is finalised that already is: nothing is left to do.
    error AlreadyFinalised(Root stateRoot);
    /// @notice Thrown when steps are below minimumSteps or above stepsPerRound.
    error WrongSteps(uint32 steps, uint32 minimumSteps, uint32 stepsPerRound);
    /// @notice Thrown when a root is zero.
    error ZeroRoot();
    /// @notice Thrown when the proof has not exactly the length that the number of tensors asks for.
    error WrongProofLength(uint256 length, uint256 needed);
    /// @notice Thrown when the held-out loss is not in the state whose root is submitted.
    error WrongLossProof(Root stateRoot, Root proved);
    /// @notice Thrown when the state root named is not the one that the slot's submission has.
    error WrongState(Root given, Root expected);
    /// @notice Thrown when a game is opened after the challenge window.
    error WindowOver(uint256 deadline, uint256 nowTime);
    /// @notice Thrown when a slot is finalised inside its challenge window.
    error WindowStillOpen(uint256 deadline, uint256 nowTime);
    /// @notice Thrown when a slot is finalised while games about it are open.
    error GamesStillOpen(uint256 openGames);
    /// @notice Thrown when no bond is held for this attempt: it did not fall, or its bond has left.
    error NothingToAward(TaskId task, uint32 round, uint32 slot, uint32 attempt);

    /// @notice Posts a task and escrows `rounds * (slotsPerRound * slotReward + mergeReward)` of the caller's tokens
    /// (allowance to the vault needed).
    /// @param storeUrl Where the specification, data set and first state can be fetched; a hint, kept only in the log.
    function postTask(TaskParameters calldata parameters, string calldata storeUrl) external returns (TaskId task);

    /// @notice As `postTask`, with an EIP-2612 permit of the caller for the vault.
    function postTaskWithPermit(
        TaskParameters calldata parameters,
        string calldata storeUrl,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (TaskId task);

    /// @notice Stops new claims and refunds what no running slot can still earn. A leased or submitted slot keeps its
    /// escrow; what is left of that is refunded when the slot ends.
    function closeTask(TaskId task) external;

    /// @notice Leases a slot. A lease of somebody else that ran out is expired first.
    function claim(Claim calldata request) external;

    /// @notice Submits the result of the caller's lease.
    function submit(Submission calldata result) external;

    /// @notice Pays a submission after its window and releases its bond. That of the slot that ends its round (the merge, or
    /// the only one) becomes a checkpoint and opens the next round. A merge of inputs that the round does not have any
    /// more is void: unpaid, its slot open again.
    function finalise(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot) external;

    /// @notice Reopens a slot whose lease ran out and burns the lease fee; at once and without a fee where the round went
    /// on without it, or a merge's inputs are others now.
    function expireLease(TaskId task, uint32 round, uint32 slot, uint32 attempt) external;

    /// @notice Anybody: takes the bond of a fallen submission once its slot has found its state. Half is burned; half is
    /// credited to the earliest challenger of that attempt who had committed to that state (`IDisputeGame.earliest`), or
    /// burned too. Where the task was closed, or the round ended without it, the half is that of the winner of the game.
    function awardFall(TaskId task, uint32 round, uint32 slot, uint32 attempt) external;

    /// @notice Dispute game only: a game about a submission began. Locks the task's bond in the challenger's stake.
    function gameOpened(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot, address challenger)
        external
        returns (Disputed memory);

    /// @notice Dispute game only: a game about a submission ended.
    /// @param outcome `ChallengerWon`: the submission falls, the slot reopens with the next attempt, for one lease for
    /// the challenger only, and the worker's bond waits for `awardFall`. `DefenderWon`: of the challenger's bond half is
    /// burned and half credited to the worker. In every other case the challenger's bond is free again; also, whatever
    /// the outcome, where the attempt is no longer the slot's.
    function gameSettled(
        TaskId task,
        uint32 round,
        uint32 slot,
        uint32 attempt,
        IDisputeGame.Outcome outcome,
        address challenger
    ) external;

    /// @notice Audit committee only: ends the challenge window of a submission at its floor, or now where that is over;
    /// once for each attempt. Without effect where the slot has no such submission any more.
    function shortenWindow(AttemptKey attempt, Root stateRoot) external;

    function vault() external view returns (address);
    function disputeGame() external view returns (address);
    function auditCommittee() external view returns (address);
    function roundBook() external view returns (address);
    /// @notice Seconds after a submission before which its window never ends: the task's lease, or the deployment's
    /// least window where that is longer.
    function windowFloor(TaskId task) external view returns (uint32);
    function minimumBond() external view returns (uint96);
    function minimumWindow() external view returns (uint32);
    function minimumLease() external view returns (uint32);
    function taskCount() external view returns (uint64);
    function getTask(TaskId task) external view returns (Task memory);
    function getSlot(TaskId task, uint32 round, uint32 slot) external view returns (Slot memory);
    /// @notice The state submitted in a slot; zero where there is none.
    function stateRootOf(TaskId task, uint32 round, uint32 slot) external view returns (Root);
    /// @notice The attempt number that a claim would have to name now, counting a lease that has run out as expired.
    function nextAttempt(TaskId task, uint32 round, uint32 slot) external view returns (uint32);
    /// @notice The state that a round's training slots start from; zero while the round before is not finalised.
    function baseRoot(TaskId task, uint32 round) external view returns (Root);
    /// @notice The lineage entry of a finalised round; reverts with `WrongStatus` before.
    function getCheckpoint(TaskId task, uint32 round) external view returns (Checkpoint memory);
    /// @notice Pay in wei for a slot of `task` in `round` with these steps and held-out loss.
    function payFor(TaskId task, uint32 round, uint32 steps, uint32 heldOutLoss) external view returns (uint256);
}
