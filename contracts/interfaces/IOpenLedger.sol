// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root, TaskId} from "../types/Identifiers.sol";
import {IDisputedLedger} from "./IDisputedLedger.sol";

/// @title Open tasks: states however they were made, paid by verified improvement
/// @notice docs/open-tasks.md. A round's workers commit to states, reveal them, and score them on held-out data that the
/// requester shows only then. Slots 0 … W - 1 are the workers', slot W is the baseline: the base's own score.
/// @dev Every call names what it answers. Anybody may call `forfeit`, `finalise`, `expire`, `skip`, `settleDefault` and
/// `awardFall`. No call loops over tasks, rounds or slots.
interface IOpenLedger is IDisputedLedger {
    /// @notice `Complete`: every round ended. `Closed`: the requester stopped it, or did not show its held-out data.
    enum Phase {
        Running,
        Closed,
        Complete
    }

    /// @notice The life of a slot. The baseline begins as `Revealed`. `Copy`: an earlier commit had the same state.
    /// `Missing`: never revealed, never scored, or not to be fetched.
    enum Stage {
        Empty,
        Committed,
        Revealed,
        Scored,
        Finalised,
        Copy,
        Missing
    }

    /// @notice Whether the state of a slot can be fetched: nobody asked; it is being decided; it can.
    enum Question {
        None,
        Open,
        Cleared
    }

    /// @notice What a requester fixes when posting. Losses are IEEE-754 binary32 bit patterns, rewards wei, periods seconds.
    /// @param trainLeaf In every round's data set the leaf of the train part, and publicNode the node over header and
    /// tokenizer: fixed here, so that workers know before they commit that the held-out part alone is hidden from them.
    /// @param stateTensors Number of tensors of a state: the depth of its Merkle tree follows from it.
    /// @param slotsPerRound States that a round takes, 1 to 255.
    /// @param fullGain Improvement of the held-out loss for which all of `slotReward` is paid; finite and above zero.
    /// @param heldOutBytes Size of each round's held-out part, an even number of at most 65,536: workers know before they
    /// commit that the evaluation finds all that it reads.
    /// @param floorReward Paid for every scored state that is no copy; at most `slotReward`.
    /// @param scoreReward Paid for scoring the base.
    /// @param bond Stake locked with a commit or a score; at least the deployment's minimum.
    /// @param fee Part of the bond burned where a commit is not revealed, a state not scored or not to be fetched.
    /// @param minimumStake Stake that a worker needs to commit; may be zero.
    /// @param leaseSeconds For which a state can be scored by its worker only; for as long again by anybody.
    struct TaskParameters {
        Root specificationHash;
        Root programRoot;
        Root initialStateRoot;
        bytes32 trainLeaf;
        bytes32 publicNode;
        uint32 stateTensors;
        uint32 slotsPerRound;
        uint32 fullGain;
        uint32 heldOutBytes;
        uint96 slotReward;
        uint96 floorReward;
        uint96 scoreReward;
        uint96 bond;
        uint96 fee;
        uint96 minimumStake;
        uint32 commitSeconds;
        uint32 revealSeconds;
        uint32 heldOutSeconds;
        uint32 leaseSeconds;
        uint32 challengeWindow;
    }

    /// @notice A posted task. `currentRound` counts from 0 and equals `rounds` when all have ended.
    struct Task {
        TaskParameters parameters;
        address requester;
        uint32 rounds;
        uint32 currentRound;
        Phase phase;
    }

    /// @notice Where a round stands. Times are ends of periods, zero until they are known.
    /// @param commitEnd Last second for commits; zero until the first one.
    /// @param heldOutEnd Last second for the held-out data; moved forward where revealing is over early.
    /// @param heldOutAt When the held-out data was shown; zero before.
    /// @param committed Slots taken. opened: of them, commitments opened. revealed: of those, states that are no copies.
    /// @param resolved Revealed states, and the baseline, that are final or missing.
    /// @param best Slot with the lowest loss of those that are final, and one more; zero while there is none.
    struct Round {
        uint40 commitEnd;
        uint40 revealEnd;
        uint40 heldOutEnd;
        uint40 heldOutAt;
        uint16 committed;
        uint16 opened;
        uint16 revealed;
        uint16 resolved;
        uint16 best;
    }

    /// @notice One slot. `deadline` is the end of the challenge window once scored; while revealed after a fall, the end
    /// of the lease of `worker`, who won the game, and zero otherwise.
    /// @param worker Whose bond answers for it, where `bonded`.
    /// @param payout Who is paid, fixed at the commit or the score.
    /// @param commitment What was committed to; kept after revealing.
    /// @param trainedRoot The state revealed. scoredRoot: the state after evaluation, which holds the loss.
    struct OpenSlot {
        address worker;
        uint32 attempt;
        uint40 deadline;
        Stage stage;
        uint16 openGames;
        address payout;
        uint32 heldOutLoss;
        bool bonded;
        Question question;
        bytes32 commitment;
        Root trainedRoot;
        Root scoredRoot;
    }

    /// @notice A commitment in the name of `worker`, sent by it or by one of its operators.
    struct Commit {
        TaskId task;
        uint32 round;
        Root specificationHash;
        Root baseRoot;
        address worker;
        bytes32 commitment;
    }

    /// @notice A score of a revealed state, or of the base.
    /// @param worker Whose stake answers for it; the caller, or whose operator the caller is.
    /// @param heldOutLoss binary32 bits of tensor 0 of the scored state.
    /// @param lossProof Siblings from the state leaf 0 up to the state's root, lowest first.
    struct Score {
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        address worker;
        Root trainedRoot;
        Root scoredRoot;
        uint32 heldOutLoss;
        bytes32[] lossProof;
    }

    event OpenTaskPosted(
        TaskId indexed task,
        address indexed requester,
        Root indexed specificationHash,
        TaskParameters parameters,
        Root[] heldOutRoots,
        string storeUrl
    );
    event OpenTaskClosed(TaskId indexed task, uint256 refunded);
    event OpenTaskCompleted(TaskId indexed task, uint256 refunded);
    event StateCommitted(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        address operator,
        address payout,
        Root baseRoot,
        bytes32 commitment,
        uint256 commitEnd
    );
    event StateRevealed(
        TaskId indexed task, uint32 indexed round, address indexed worker, uint32 slot, uint32 attempt, Root trainedRoot
    );
    /// @notice The state of `slot` is also that of `original`, which was committed to before; 255 and more: the base's.
    event StateCopied(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 original,
        Root trainedRoot
    );
    event CommitForfeited(
        TaskId indexed task, uint32 indexed round, address indexed worker, uint32 slot, uint256 feeBurned
    );
    event HeldOutRevealed(TaskId indexed task, uint32 indexed round, Root heldOutRoot, bytes tokens);
    event StateScored(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        Root trainedRoot,
        Root scoredRoot,
        uint32 heldOutLoss,
        uint256 windowEnd
    );
    /// @notice A bond left a slot that its worker did not score in time.
    event ScoreMissed(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        uint256 feeBurned
    );
    /// @notice A slot can bring nothing any more: not scored by anybody, or not to be fetched.
    event SlotMissing(TaskId indexed task, uint32 indexed round, uint32 slot, uint32 attempt);
    event ScoreFinalised(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        uint32 attempt,
        address payout,
        Root scoredRoot,
        uint32 heldOutLoss,
        uint256 paid
    );
    /// @notice The requester did not show the held-out data: a revealed state was paid in full.
    event DefaultPaid(
        TaskId indexed task,
        uint32 indexed round,
        address indexed worker,
        uint32 slot,
        address payout,
        Root trainedRoot,
        uint256 paid
    );
    /// @notice A round ended; `best` is the slot that its next base is from, and one more, or zero where the base stays.
    event RoundEnded(TaskId indexed task, uint32 indexed round, uint32 best, Root nextBase);
    event GameOpened(TaskId indexed task, uint32 indexed round, uint32 slot, uint32 attempt, uint256 openGames);
    event GameSettled(
        TaskId indexed task, uint32 indexed round, uint32 slot, uint32 attempt, bool submissionFell, uint256 openGames
    );
    event SubmissionFell(
        TaskId indexed task, uint32 indexed round, address indexed worker, uint32 slot, uint32 attempt, Root stateRoot
    );
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

    /// @notice Thrown when anybody but the availability committee reports on a state.
    error OnlyAvailabilityCommittee(address caller);
    /// @notice Thrown when a slot is not in the stage that a call needs.
    error WrongStage(Stage stage, Stage needed);
    /// @notice Thrown when a worker commits twice in a round.
    error AlreadyCommitted(address worker, uint32 slot);
    /// @notice Thrown when exactly this is already done: nothing is left to do.
    error AlreadyDone(Root root);
    /// @notice Thrown when a round takes no more commits.
    error CommitsOver(uint256 commitEnd, uint256 committed, uint256 slots);
    /// @notice Thrown when something waits for the end of a period of its round.
    error TooEarly(uint256 periodEnd, uint256 nowTime);
    /// @notice Thrown when the period for something is over.
    error TooLate(uint256 periodEnd, uint256 nowTime);
    /// @notice Thrown when what is opened is not what was committed to.
    error WrongCommitment(bytes32 opened, bytes32 committed);
    /// @notice Thrown when held-out tokens are not those that the task was posted with.
    error WrongHeldOut(Root computed, Root expected);
    /// @notice Thrown when the held-out data of a round has been shown already, or has not been.
    error HeldOutShown(uint256 heldOutAt);
    /// @notice Thrown when somebody scores a state that only `worker` may score until `deadline`.
    error NotYourScore(address worker, uint256 deadline);
    /// @notice Thrown when a slot cannot be final because the baseline is not.
    error BaselineNotFinal(Stage stage);
    /// @notice Thrown when a slot cannot be final, or be asked about, because it was asked whether its state is there.
    error Questioned(Question question);
    /// @notice Thrown when a round is skipped that has states to score.
    error RoundHasStates(uint256 revealed);

    /// @notice Posts a task of as many rounds as held-out roots, and escrows
    /// `rounds * (slotsPerRound * slotReward + scoreReward)` of the caller's tokens (allowance to the vault needed).
    /// @param storeUrl Where the specification, data and first state can be fetched; a hint, kept only in the log.
    function postTask(TaskParameters calldata parameters, Root[] calldata heldOutRoots, string calldata storeUrl)
        external
        returns (TaskId task);

    /// @notice Requester: the round that runs is the last one; where none runs, the task ends now.
    function closeTask(TaskId task) external;

    /// @notice Commits to a state; locks the bond.
    function commit(Commit calldata request) external returns (uint32 slot);

    /// @notice Opens a commitment; by anybody who can.
    function reveal(TaskId task, uint32 round, uint32 slot, Root trainedRoot, bytes32 salt) external;

    /// @notice Shows the round's held-out tokens; by anybody who can.
    /// @param tokens The held-out part of the round's data set: as many bytes as posted.
    function revealHeldOut(TaskId task, uint32 round, bytes calldata tokens) external;

    /// @notice Scores a revealed state, or the base; locks the bond of whoever has none in the slot.
    function score(Score calldata result) external;

    /// @notice Frees a commit that was not revealed in time, less the fee.
    function forfeit(TaskId task, uint32 round, uint32 slot) external;

    /// @notice Gives up a state that nobody has scored.
    function expire(TaskId task, uint32 round, uint32 slot, uint32 attempt) external;

    /// @notice Pays a score after its window and releases its bond; ends the round with the last one.
    function finalise(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root scoredRoot) external;

    /// @notice Ends a round in which nobody revealed anything new.
    function skip(TaskId task, uint32 round) external;

    /// @notice Pays a revealed state in full whose round's held-out data was not shown in time; closes the task.
    function settleDefault(TaskId task, uint32 round, uint32 slot, Root trainedRoot) external;

    /// @notice Takes the bond of a fallen score once its slot is final or missing; see `ITrainingLedger.awardFall`.
    function awardFall(TaskId task, uint32 round, uint32 slot, uint32 attempt) external;

    /// @notice Availability committee only: somebody asks whether a revealed state can be fetched. Locks the bond in the stake
    /// of `asker`.
    /// @return bond What was locked. fee: what an acknowledgement burns of it.
    function questioned(TaskId task, uint32 round, uint32 slot, Root trainedRoot, address asker)
        external
        returns (uint96 bond, uint96 fee);

    /// @notice Availability committee only: the end of a question. Where the state is there, the window is at least a whole
    /// one from now; otherwise the slot is missing.
    function answered(TaskId task, uint32 round, uint32 slot, bool available) external;

    /// @notice Availability committee only: takes `taken` of `part` of an asker's deposit; half of it goes to `winner`, unless
    /// that is zero, and the rest of `part` is free.
    function takeDeposit(address asker, uint256 part, uint256 taken, address winner) external;

    function disputeGame() external view returns (address);
    function availabilityCommittee() external view returns (address);
    function taskCount() external view returns (uint64);
    function getTask(TaskId task) external view returns (Task memory);
    function getRound(TaskId task, uint32 round) external view returns (Round memory);
    function getOpenSlot(TaskId task, uint32 round, uint32 slot) external view returns (OpenSlot memory);
    /// @notice The slot that a worker has committed to in a round, and one more; zero for none.
    function slotOf(TaskId task, uint32 round, address worker) external view returns (uint32);
    /// @notice The state that a round's workers start from; zero while the round before has not ended.
    function baseRoot(TaskId task, uint32 round) external view returns (Root);
    function heldOutRoot(TaskId task, uint32 round) external view returns (Root);
    function commitmentOf(TaskId task, uint32 round, address worker, Root trainedRoot, bytes32 salt)
        external
        view
        returns (bytes32);
    /// @notice Pay in wei of a worker's slot with this loss, where the baseline has that one.
    function payFor(TaskId task, uint32 baselineLoss, uint32 heldOutLoss) external view returns (uint256);
}
