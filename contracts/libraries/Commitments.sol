// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../interfaces/IStepReferee.sol";

/// @title Trees of docs/formats.md, section 1
/// @notice Leaves, nodes, pads and seals of every kind of tree, and the proofs that lead to their roots.
/// @dev INVARIANT: depths follow from committed sizes, never from the length of a proof. `climb` and `rootOfView` take
/// their sizes from their arguments, so their callers check lengths first, with `checkLength`. The SHA-256 precompile
/// is called on scratch memory behind the free memory pointer, which nothing else uses meanwhile.
library Commitments {
    uint8 internal constant TENSOR = 1;
    uint8 internal constant STATE = 2;
    uint8 internal constant TRACE = 3;
    uint8 internal constant PROGRAM = 4;
    uint8 internal constant DATASET = 5;
    uint8 internal constant INPUTS = 7;

    /// @notice Types of seals of programs: of one program, and of a task's programs.
    uint8 internal constant TYPE_PROGRAM = 1;
    uint8 internal constant TYPE_TASK_PROGRAMS = 2;

    uint256 internal constant CHUNK_BYTES = 1024;

    uint256 private constant NODE_BYTES = 66;

    /// @notice SHA-256(0x00, kind, payload).
    function leaf(uint8 kind, bytes calldata payload) internal view returns (bytes32 hash) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 0)
            mstore8(add(buffer, 1), kind)
            calldatacopy(add(buffer, 2), payload.offset, payload.length)
            if iszero(staticcall(gas(), 2, buffer, add(payload.length, 2), 0, 32)) { revert(0, 0) }
            hash := mload(0)
        }
    }

    /// @notice The leaf whose payload is one root.
    function leafOfRoot(uint8 kind, bytes32 root) internal view returns (bytes32 hash) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 0)
            mstore8(add(buffer, 1), kind)
            mstore(add(buffer, 2), root)
            if iszero(staticcall(gas(), 2, buffer, 34, 0, 32)) { revert(0, 0) }
            hash := mload(0)
        }
    }

    /// @notice SHA-256(0x01, kind, left, right).
    function node(uint8 kind, bytes32 left, bytes32 right) internal view returns (bytes32 hash) {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 1)
            mstore8(add(buffer, 1), kind)
            mstore(add(buffer, 2), left)
            mstore(add(buffer, 34), right)
            if iszero(staticcall(gas(), 2, buffer, NODE_BYTES, 0, 32)) { revert(0, 0) }
            hash := mload(0)
        }
    }

    /// @notice The node `siblings.length` heights above `hash`, which has this index at its own height. Siblings stand
    /// from the bottom up.
    function climb(uint8 kind, bytes32 hash, uint256 index, bytes32[] calldata siblings)
        internal
        view
        returns (bytes32 top)
    {
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore8(buffer, 1)
            mstore8(add(buffer, 1), kind)
            top := hash
            let end := add(siblings.offset, shl(5, siblings.length))
            for { let at := siblings.offset } lt(at, end) { at := add(at, 32) } {
                // The right child is written 32 bytes behind the left one.
                let own := shl(5, and(index, 1))
                mstore(add(add(buffer, 2), own), top)
                mstore(sub(add(buffer, 34), own), calldataload(at))
                if iszero(staticcall(gas(), 2, buffer, NODE_BYTES, 0, 32)) { revert(0, 0) }
                top := mload(0)
                index := shr(1, index)
            }
        }
    }

    /// @notice The node above a whole row of descendants.
    /// @param nodes 2**w of them, left to right.
    function rootOfView(uint8 kind, bytes32[] calldata nodes) internal view returns (bytes32 top) {
        assembly ("memory-safe") {
            // One word of room for the prefix before the nodes. Word 2 i - 1 has been hashed when node i is made, so
            // it holds the prefix that stands before words 2 i and 2 i + 1, and nothing is copied.
            let row := add(mload(0x40), 32)
            let count := nodes.length
            calldatacopy(row, nodes.offset, shl(5, count))
            for {} gt(count, 1) {} {
                count := shr(1, count)
                for { let i := 0 } lt(i, count) { i := add(i, 1) } {
                    let pair := add(row, shl(6, i))
                    mstore(sub(pair, 32), or(0x0100, and(kind, 0xff)))
                    if iszero(staticcall(gas(), 2, sub(pair, 2), NODE_BYTES, add(row, shl(5, i)), 32)) {
                        revert(0, 0)
                    }
                }
            }
            top := mload(row)
        }
    }

    /// @notice What a run begins with, from the root of one tensor of it: the root of the state before it, or of a merge
    /// the root of its inputs, which are states themselves.
    /// @param states Tensors of one state; above 0.
    /// @param inputs States that a merge takes beside its base; 0 in every other run.
    /// @param number Below `states * (inputs + 1)`: tensor number % states of state number / states; state 0 is the base.
    /// @param path From the bottom up: to the root of the tensor's state, then to that of the inputs.
    function rootBefore(uint256 states, uint256 inputs, uint256 number, bytes32 tensorRoot, bytes32[] calldata path)
        internal
        view
        returns (bytes32 root)
    {
        uint256 levels = depth(states);
        checkLength(path.length, inputs == 0 ? levels : levels + depth(inputs + 1));
        root = climb(STATE, leafOfRoot(STATE, tensorRoot), number % states, path[:levels]);
        // forge-lint: disable-start(unsafe-typecast)
        // Both are counts in a program's header.
        root = seal(STATE, 0, uint64(states), root);
        if (inputs == 0) return root;
        root = climb(INPUTS, leafOfRoot(INPUTS, root), number / states, path[levels:]);
        root = seal(INPUTS, 0, uint64(inputs + 1), root);
        // forge-lint: disable-end(unsafe-typecast)
    }

    /// @notice Leaf hashes of whole chunks of a tensor or of a part of a data set.
    /// @param chunks A multiple of 1,024 bytes; a rest is ignored.
    function chunkLeaves(uint8 kind, bytes calldata chunks) internal view returns (bytes32[] memory leaves) {
        leaves = new bytes32[](chunks.length / CHUNK_BYTES);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = leaf(kind, chunks[i * CHUNK_BYTES:(i + 1) * CHUNK_BYTES]);
        }
    }

    /// @notice The Merkle root over neighbouring leaves: height by height, `siblings` has the left one where the first
    /// index is odd, and then the right one where the last index is even.
    /// @param leaves At least one; overwritten.
    /// @param first Index of the first one; the caller has checked that all are inside the tree.
    function rangeRoot(
        uint8 kind,
        bytes32[] memory leaves,
        uint256 first,
        uint256 treeDepth,
        bytes32[] calldata siblings
    ) internal view returns (bytes32) {
        uint256 count = leaves.length;
        checkLength(siblings.length, rangeProofLength(first, count, treeDepth));
        uint256 used = 0;
        for (uint256 height = 0; height < treeDepth; ++height) {
            (uint256 from, uint256 to) = (0, 0);
            if (first & 1 == 1) leaves[to++] = node(kind, siblings[used++], leaves[from++]);
            for (; from + 1 < count; from += 2) {
                leaves[to++] = node(kind, leaves[from], leaves[from + 1]);
            }
            if (from < count) leaves[to++] = node(kind, leaves[from], siblings[used++]);
            (first, count) = (first >> 1, to);
        }
        return leaves[0];
    }

    /// @notice Depth of a tree over `leaves >= 1` leaves: the least d with 2**d >= leaves.
    function depth(uint256 leaves) internal pure returns (uint256 result) {
        while ((uint256(1) << result) < leaves) ++result;
    }

    /// @notice Number of chunks of `size >= 1` bytes.
    function chunksOf(uint256 size) internal pure returns (uint256) {
        return (size + CHUNK_BYTES - 1) / CHUNK_BYTES;
    }

    /// @notice What fills a tree of this kind behind its last leaf: SHA-256(0x02, kind).
    function pad(uint8 kind) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(2), kind));
    }

    /// @notice SHA-256(0x03, kind, type, size, Merkle root): what a root is.
    function seal(uint8 kind, uint8 sealType, uint64 size, bytes32 merkleRoot) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(3), kind, sealType, size, merkleRoot));
    }

    /// @notice Siblings in a range proof of `count` leaves from `first` on, in a tree of this depth.
    function rangeProofLength(uint256 first, uint256 count, uint256 treeDepth) internal pure returns (uint256 length) {
        uint256 last = first + count - 1;
        for (uint256 height = 0; height < treeDepth; ++height) {
            length += ((first >> height) & 1) + (~(last >> height) & 1);
        }
    }

    /// @notice Reverts where a proof has not the length that the committed sizes ask for.
    function checkLength(uint256 length, uint256 needed) internal pure {
        require(length == needed, IStepReferee.WrongProofLength(length, needed));
    }

    /// @notice Reverts where a proof does not lead to what it should.
    function checkProof(bytes32 computed, bytes32 expected) internal pure {
        require(computed == expected, IStepReferee.WrongProof(computed, expected));
    }
}
