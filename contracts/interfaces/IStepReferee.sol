// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root} from "../types/Identifiers.sol";

/// @title The judge of one element
/// @notice Computes one element of one operation's output (docs/programs.md), or one block of a long fold, from inputs
/// that are proved against what both parties of a dispute agree on (docs/dispute.md, "What the referee is shown").
/// @dev INVARIANT: it reverts on malformed evidence only, never on data. It has no storage and knows no parties.
interface IStepReferee {
    /// @notice What both parties agree on.
    /// @param stateBefore Root of the state before the run; of a merge, of its inputs.
    /// @param inputs States that a merge takes beside its base; 0 in every other run.
    /// @param program Root of the run's program; `states`, `constants` and `operations` count its records by kind.
    /// @param reached Number of the operation in question (`operations`: the state after the run). Outputs of the
    /// operations before it are agreed, and are proved against `frontier`.
    /// @param frontier By height, from the leaves: where bit k of `reached` is 1, the node of the trace at height k and
    /// index (reached >> k) - 1; other words are ignored. Its length is the depth of the trace.
    /// @param dataset Root of the task's data set.
    /// @param seed Seed of the task's batches.
    /// @param slot Slot of the round, which batches depend on.
    struct Scene {
        Root stateBefore;
        Root program;
        uint8 inputs;
        uint32 states;
        uint32 constants;
        uint32 operations;
        uint32 reached;
        bytes32[] frontier;
        Root dataset;
        uint64 seed;
        uint32 slot;
    }

    /// @notice Whole chunks of one committed tensor (or part of the data set), side by side, proved by a range proof.
    /// @param number What is read: an operation, a tensor of the state before (of a merge, tensor i of input j of n tensors
    /// is n * j + i), a constant, or a part of the data set.
    /// @param dtype Number of the dtype (docs/formats.md, section 1), bound by the tensor's seal.
    /// @param size Bytes of the whole tensor, bound by the tensor's seal.
    /// @param firstChunk Index of the first chunk given.
    /// @param chunks A multiple of 1,024 bytes.
    /// @param siblings Range proof of the chunks in the tensor's tree.
    /// @param path Proof of the tensor's root in the frontier, the state or the data set; of a merge, in the state and then
    /// of that in the inputs; empty for a constant.
    struct Source {
        uint32 number;
        uint8 dtype;
        uint64 size;
        uint64 firstChunk;
        bytes chunks;
        bytes32[] siblings;
        bytes32[] path;
    }

    /// @notice A record of the program with its proof.
    struct Record {
        bytes data;
        bytes32[] siblings;
    }

    /// @notice Everything shown for one question.
    /// @param record The record in question: of an operation, or of a tensor of the state. Proved by the caller.
    /// @param other CONST only: the constant's record. Empty otherwise.
    struct Evidence {
        bytes record;
        Record other;
        Source[] sources;
    }

    /// @notice Thrown when a proof does not lead to what it should.
    error WrongProof(bytes32 computed, bytes32 expected);
    /// @notice Thrown when a proof has not exactly the length that the committed sizes ask for.
    error WrongProofLength(uint256 length, uint256 needed);
    /// @notice Thrown when a source is not the one that the operation reads next.
    error WrongSource(uint256 given, uint256 needed);
    /// @notice Thrown when another number of sources is given than the question reads.
    error WrongSourceCount(uint256 given, uint256 needed);
    /// @notice Thrown when a source has another dtype than the one that is read; 0 where several may be.
    error WrongDtype(uint256 given, uint256 needed);
    /// @notice Thrown when a source gives no whole chunks, or chunks after its tensor's end.
    error NoSuchChunks(uint64 firstChunk, uint256 chunkBytes, uint64 size);
    /// @notice Thrown when the chunks given do not cover what is read.
    error MissingChunk(uint64 firstChunk, uint256 chunkBytes, uint256 neededByte);
    /// @notice Thrown when a record is not one that the question can be about.
    error WrongRecord(bytes record);
    /// @notice Thrown when an element is asked for that the tensor does not have.
    error NoSuchElement(uint64 element, uint64 elements);
    /// @notice Thrown when a fold is too long to be computed in one call, or a block is not one of the fold.
    error WrongBlock(uint64 length, uint64 first);

    /// @notice The element of an operation's output as it stands in the committed bytes: the little-endian bytes of the
    /// element, read as an unsigned integer. Folds of more than 1,024 elements are refused.
    /// @param index Number of the element, row-major.
    /// @param evidence The operation's record; a source for each operand (TAKE with an index out of range without its
    /// table, CAT with the input that covers the element or none), or for what LOAD, CONST and BATCH read.
    function element(Scene calldata scene, uint64 index, Evidence calldata evidence) external view returns (uint64 bits);

    /// @notice The element of a state's int64 tensor that an int32 operation writes, as two's complement.
    /// @param scene With `reached` = `operations`.
    /// @param evidence The tensor's record; one source, the operation's output.
    function stateElement(Scene calldata scene, uint64 index, Evidence calldata evidence)
        external
        view
        returns (uint64 bits);

    /// @notice The accumulator of a fold after one more block.
    /// @param index Number of the output's element, row-major.
    /// @param first Number of the block, counted from 0; each has 1,024 elements, the last one what is left.
    /// @param accumulator The accumulator before it (docs: contracts/libraries/Fold.sol); ignored for block 0, which
    /// starts with the fold's own start.
    /// @param evidence Sources that hold the block: MATMUL a, b; SUM x, E; MAX x; SCATTER_ADD x, index, E.
    function foldBlock(
        Scene calldata scene,
        uint64 index,
        uint64 first,
        uint256 accumulator,
        Evidence calldata evidence
    ) external view returns (uint256);

    /// @notice The element that a fold's last accumulator gives, as in `element`.
    /// @param evidence Sources: MATMUL scale_a, scale_b; SUM and SCATTER_ADD E; MAX none.
    function foldRounding(Scene calldata scene, uint64 index, uint256 accumulator, Evidence calldata evidence)
        external
        view
        returns (uint64 bits);
}
