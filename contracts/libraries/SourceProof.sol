// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../interfaces/IStepReferee.sol";
import {Root} from "../types/Identifiers.sol";
import {Commitments} from "./Commitments.sol";

/// @title What a source proves
/// @notice docs/dispute.md, "What the referee is shown": chunks of a tensor, against what both parties agree on.
/// @dev INVARIANT: nothing is read from a source before one of the first four functions has accepted it. dtype and size
/// are bound by the tensor's seal; every depth follows from a committed number; chunks lie inside their tensor, so no
/// index can wrap around in a tree.
library SourceProof {
    /// @notice No dtype: whatever the source has may be read.
    uint8 internal constant ANY = 0;
    uint8 internal constant FLOAT32 = 1;
    uint8 internal constant INT64 = 2;
    uint8 internal constant INT32 = 3;
    uint8 internal constant INT8 = 4;
    uint8 internal constant UINT16 = 6;
    uint8 internal constant INT16 = 9;

    uint256 private constant PARTS = 4;
    /// @dev Bytes of an element, a hexadecimal digit for each dtype, that of dtype 0 lowest; uint16 only in data sets.
    uint256 private constant WIDTHS = 0x2002014840;

    /// @notice Accepts the output of operation `number`, which comes before the one in question.
    function checkOutput(IStepReferee.Scene calldata scene, IStepReferee.Source calldata source, uint256 number)
        internal
        view
    {
        _checkNumber(source, number);
        uint256 reached = scene.reached;
        require(number < reached, IStepReferee.WrongSource(number, reached));
        // The highest bit in which the two differ: a 1 of `reached`, because it is the greater.
        uint256 height = 0;
        while ((number ^ reached) >> (height + 1) != 0) ++height;
        require(height < scene.frontier.length, IStepReferee.WrongProofLength(scene.frontier.length, height + 1));
        _checkPath(Commitments.TRACE, source, _tensorRoot(Commitments.TENSOR, source), height, scene.frontier[height]);
    }

    /// @notice Accepts tensor `number` of the state before the run; of a merge, of its inputs side by side.
    function checkState(IStepReferee.Scene calldata scene, IStepReferee.Source calldata source, uint256 number)
        internal
        view
    {
        _checkNumber(source, number);
        uint256 tensors = uint256(scene.states) * (uint256(scene.inputs) + 1);
        require(number < tensors, IStepReferee.WrongSource(number, tensors));
        bytes32 root = _tensorRoot(Commitments.TENSOR, source);
        root = Commitments.rootBefore(scene.states, scene.inputs, number, root, source.path);
        Commitments.checkProof(root, Root.unwrap(scene.stateBefore));
    }

    /// @notice Accepts constant `number` of the program, whose record is given beside it.
    function checkConstant(
        IStepReferee.Scene calldata scene,
        IStepReferee.Source calldata source,
        IStepReferee.Record calldata record,
        uint256 number
    ) internal view {
        _checkNumber(source, number);
        require(number < scene.constants, IStepReferee.WrongSource(number, scene.constants));
        uint256 records = 1 + uint256(scene.states) + scene.constants + scene.operations;
        Commitments.checkLength(record.siblings.length, Commitments.depth(records));
        bytes32 top = Commitments.climb(
            Commitments.PROGRAM,
            Commitments.leaf(Commitments.PROGRAM, record.data),
            1 + uint256(scene.states) + number,
            record.siblings
        );
        Commitments.checkProof(
            Commitments.seal(Commitments.PROGRAM, Commitments.TYPE_PROGRAM, uint64(records), top),
            Root.unwrap(scene.program)
        );
        require(record.data.length >= 32, IStepReferee.WrongRecord(record.data));
        // A constant's record ends with its root.
        Commitments.checkLength(source.path.length, 0);
        Commitments.checkProof(_tensorRoot(Commitments.TENSOR, source), bytes32(record.data[record.data.length - 32:]));
    }

    /// @notice Accepts tokens of part `number` of the data set.
    function checkPart(IStepReferee.Scene calldata scene, IStepReferee.Source calldata source, uint256 number)
        internal
        view
    {
        _checkNumber(source, number);
        checkDtype(source, UINT16);
        Commitments.checkLength(source.path.length, Commitments.depth(PARTS));
        bytes32 top = _climb(Commitments.DATASET, source, _tensorRoot(Commitments.DATASET, source));
        Commitments.checkProof(Commitments.seal(Commitments.DATASET, 0, uint64(PARTS), top), Root.unwrap(scene.dataset));
    }

    /// @notice Reverts where a source has another dtype than the one that is read.
    function checkDtype(IStepReferee.Source calldata source, uint256 needed) internal pure {
        uint256 given = source.dtype;
        require(given == needed || needed == ANY, IStepReferee.WrongDtype(given, needed));
    }

    /// @notice Bytes of an element of a dtype.
    function widthOf(uint256 dtype) internal pure returns (uint256 width) {
        width = (WIDTHS >> (4 * dtype)) & 15;
        require(width != 0, IStepReferee.WrongDtype(dtype, ANY));
    }

    /// @notice Where in the chunks given a run of elements begins, in elements; the chunks hold all of it.
    /// @param first First element, counted in the whole tensor.
    /// @param last Last element.
    function offsetOf(IStepReferee.Source calldata source, uint256 first, uint256 last)
        internal
        pure
        returns (uint256)
    {
        unchecked {
            // Elements are below 2**67, so nothing here comes near 2**256.
            uint256 width = widthOf(source.dtype);
            uint256 from = uint256(source.firstChunk) * Commitments.CHUNK_BYTES;
            uint256 length = source.chunks.length;
            if (first * width < from) revert IStepReferee.MissingChunk(source.firstChunk, length, first * width);
            uint256 lastByte = last * width + width - 1;
            if (lastByte >= from + length) revert IStepReferee.MissingChunk(source.firstChunk, length, lastByte);
            return (first * width - from) / width;
        }
    }

    /// @notice One element, sign-extended to a word: its low bits are those in the chunk.
    function read(IStepReferee.Source calldata source, uint256 element) internal pure returns (uint256 value) {
        uint256 width = widthOf(source.dtype);
        uint256 from = offsetOf(source, element, element) * width;
        bytes calldata chunks = source.chunks;
        assembly ("memory-safe") {
            let raw := calldataload(add(chunks.offset, from))
            for { let i := 0 } lt(i, width) { i := add(i, 1) } {
                value := or(value, shl(shl(3, i), byte(i, raw)))
            }
            value := signextend(sub(width, 1), value)
        }
    }

    /// @dev The root of the tensor that the chunks are part of.
    function _tensorRoot(uint8 kind, IStepReferee.Source calldata source) private view returns (bytes32) {
        uint256 chunks = Commitments.chunksOf(source.size);
        uint256 given = source.chunks.length / Commitments.CHUNK_BYTES;
        bool whole = given != 0 && source.chunks.length % Commitments.CHUNK_BYTES == 0;
        require(
            whole && uint256(source.firstChunk) + given <= chunks,
            IStepReferee.NoSuchChunks(source.firstChunk, source.chunks.length, source.size)
        );
        bytes32 top = Commitments.rangeRoot(
            kind,
            Commitments.chunkLeaves(kind, source.chunks),
            source.firstChunk,
            Commitments.depth(chunks),
            source.siblings
        );
        return Commitments.seal(kind, source.dtype, source.size, top);
    }

    function _checkPath(uint8 kind, IStepReferee.Source calldata source, bytes32 root, uint256 height, bytes32 expected)
        private
        view
    {
        Commitments.checkLength(source.path.length, height);
        Commitments.checkProof(_climb(kind, source, root), expected);
    }

    /// @dev The node above the leaf that holds a root, as far as the source's path goes.
    function _climb(uint8 kind, IStepReferee.Source calldata source, bytes32 root) private view returns (bytes32) {
        return Commitments.climb(kind, Commitments.leafOfRoot(kind, root), source.number, source.path);
    }

    function _checkNumber(IStepReferee.Source calldata source, uint256 number) private pure {
        require(source.number == number, IStepReferee.WrongSource(source.number, number));
    }
}
