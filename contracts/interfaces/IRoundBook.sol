// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root, TaskId} from "../types/Identifiers.sol";
import {ITrainingLedger} from "./ITrainingLedger.sol";

/// @title Who may claim a slot, which slots of a round count, and what its merge takes
/// @notice docs/rounds.md. Tasks with several slots a round have training slots 0 … slots - 1 and, as number `slots`, the
/// merge slot. The book says when a round goes on, freezes what counts, and computes the root of the merge's inputs.
/// @dev No call loops over more slots than its caller names.
interface IRoundBook {
    /// @notice How the rounds of a task go. `slots` is 0 for tasks that the book does not know: those of one slot.
    /// @param quorum Submissions that a round needs once its deadline has passed.
    /// @param roundSeconds From the first claim, or the last thaw, to the deadline.
    struct Group {
        uint32 slots;
        uint32 quorum;
        uint32 roundSeconds;
    }

    /// @notice Where a round stands.
    /// @param deadline Time after which the quorum is enough; 0 until a slot is claimed.
    /// @param frozenAt When it was frozen; 0 while it is not.
    /// @param generation Grows with each thaw.
    /// @param running Training slots that are leased or submitted and not final.
    /// @param submitted Training slots whose submission stands. finalised: those of them that are final.
    /// @param counted Slots that counted when the round was last frozen; 0 before.
    /// @param collected Inputs of this generation that have been read, the base first.
    struct Round {
        uint40 deadline;
        uint40 frozenAt;
        uint32 generation;
        uint16 running;
        uint16 submitted;
        uint16 finalised;
        uint16 counted;
        uint16 collected;
    }

    event RoundOpened(TaskId indexed task, uint32 indexed round, uint256 deadline);
    event RoundFrozen(TaskId indexed task, uint32 indexed round, uint32 generation, uint256 counted);
    /// @notice All inputs are read: the merge slot can be claimed, on this root.
    event InputsCollected(TaskId indexed task, uint32 indexed round, uint32 generation, Root inputsRoot);
    /// @notice A slot that counted fell: the round has a new generation and a new deadline.
    event RoundThawed(TaskId indexed task, uint32 indexed round, uint32 slot, uint32 generation, uint256 deadline);

    /// @notice Thrown when anybody but the ledger reports what happened to a slot.
    error OnlyLedger(address caller);
    /// @notice Thrown when a task has one slot a round, or does not exist.
    error NotGrouped(TaskId task);
    /// @notice Thrown when a training slot is claimed or submitted whose round is frozen.
    error RoundIsFrozen(uint32 round, uint256 frozenAt);
    /// @notice Thrown when a slot is claimed or submitted that did not count before its round thawed; until `deadline`.
    error SlotDidNotCount(uint32 slot, uint256 deadline);
    /// @notice Thrown when inputs are collected of a round that waits for more submissions, or for its deadline.
    error RoundNotReady(uint256 submitted, uint256 needed, uint256 deadline);
    /// @notice Thrown when the generation named is not the round's.
    error WrongGeneration(uint32 generation, uint32 current);
    /// @notice Thrown when all inputs are collected: nothing is left to do.
    error AlreadyCollected(Root inputsRoot);
    /// @notice Thrown when a merge is claimed or submitted before its inputs are collected, or finalised while they are
    /// not.
    error InputsNotCollected(uint256 collected, uint256 needed);
    /// @notice Thrown when a merge is finalised before its inputs are final.
    error InputsNotFinal(uint256 finalised, uint256 counted);

    /// @notice Anybody: freezes a round that is ready, and reads the next `count` inputs of its merge (the base, then the
    /// slots in their order), fewer where fewer are left.
    function collect(TaskId task, uint32 round, uint32 generation, uint256 count) external;

    /// @notice Ledger only: a task is posted. Reverts where its parameters are not allowed (`TaskRules`).
    function opened(
        TaskId task,
        ITrainingLedger.TaskParameters calldata parameters,
        uint96 minimumBond,
        uint32 minimumWindow,
        uint32 minimumLease
    ) external;

    /// @notice Ledger only: a slot is claimed. Gives a merge's inputs and generation, and zeros for a training slot.
    function claimed(TaskId task, uint32 round, uint32 slot) external returns (Root inputsRoot, uint32 generation);

    /// @notice Ledger only: a slot is submitted. Gives what `claimed` gives.
    function submitted(TaskId task, uint32 round, uint32 slot) external returns (Root inputsRoot, uint32 generation);

    /// @notice Ledger only: a lease ends without a submission.
    /// @return free Whether the worker owes nothing, because the round went on without it or its inputs are others now.
    function released(TaskId task, uint32 round, uint32 slot, uint32 generation, uint40 leaseEnd)
        external
        returns (bool free);

    /// @notice Ledger only: a submission fell.
    function fell(TaskId task, uint32 round, uint32 slot) external;

    /// @notice Ledger only: a submission is to be finalised.
    /// @return stands False where it is a merge of other inputs than the round's.
    function finalised(TaskId task, uint32 round, uint32 slot, uint32 generation) external returns (bool stands);

    /// @notice Reverts where a claim lacks the stake or the ticket that its task asks for.
    /// @param minimumStake Wei; zero where no stake is asked for. ticketTarget: zero where no ticket is.
    function admit(ITrainingLedger.Claim calldata request, uint96 minimumStake, uint256 ticketTarget) external view;

    /// @notice What a ticket must get below the target: keccak256 of the ABI encoding of (chain id, ledger, task,
    /// round, slot, attempt, worker, base root, hash of ticketBlock, nonce).
    function ticketDigest(
        TaskId task,
        uint32 round,
        uint32 slot,
        uint32 attempt,
        address worker,
        Root base,
        uint64 ticketBlock,
        uint256 nonce
    ) external view returns (uint256);
    function ledger() external view returns (address);
    function groupOf(TaskId task) external view returns (Group memory);
    function roundOf(TaskId task, uint32 round) external view returns (Round memory);
    /// @notice Bit s is set where the submission of slot s stands, and where slot s counted when last frozen.
    function slotsOf(TaskId task, uint32 round) external view returns (uint256 submittedSlots, uint256 countedSlots);
    /// @notice Root of the merge's inputs in a generation; zero where they have not all been collected.
    function inputsOf(TaskId task, uint32 round, uint32 generation) external view returns (Root);
    /// @notice Whether `collect` would freeze the round now.
    function isReady(TaskId task, uint32 round) external view returns (bool);
}
