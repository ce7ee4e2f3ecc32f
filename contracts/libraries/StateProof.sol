// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root} from "../types/Identifiers.sol";

/// @title Held-out loss against a state root
/// @notice docs/formats.md, sections 1 and 2: tensor 0 of every state is one binary32, its held-out loss, so the state
/// root can be computed again from the loss and the siblings of state leaf 0.
/// @dev INVARIANT: the length of a proof follows from the number of tensors that the task fixed, never from the proof.
library StateProof {
    uint8 internal constant KIND_TENSOR = 1;
    uint8 internal constant KIND_STATE = 2;
    uint8 internal constant TYPE_FLOAT32 = 1;

    /// @notice Bits of the one NaN that a state may hold as its loss.
    uint32 internal constant CANONICAL_NAN = 0x7fc00000;

    uint8 private constant LEAF = 0;
    uint8 private constant NODE = 1;
    uint8 private constant SEAL = 3;
    uint256 private constant CHUNK_BYTES = 1024;

    /// @notice Depth of a tree over `leaves >= 1` leaves: the least d with 2**d >= leaves.
    function depth(uint32 leaves) internal pure returns (uint256 result) {
        while ((uint256(1) << result) < leaves) ++result;
    }

    /// @notice False for NaNs other than the canonical one: one loss must have one root.
    function isCanonical(uint32 lossBits) internal pure returns (bool) {
        return lossBits & 0x7fffffff <= 0x7f800000 || lossBits == CANONICAL_NAN;
    }

    /// @notice Leaf 0 of a state with this held-out loss.
    function lossLeaf(uint32 lossBits) internal pure returns (bytes32) {
        bytes32 chunk = sha256(abi.encodePacked(LEAF, KIND_TENSOR, _littleEndian(lossBits), new bytes(CHUNK_BYTES - 4)));
        bytes32 tensorRoot = sha256(abi.encodePacked(SEAL, KIND_TENSOR, TYPE_FLOAT32, uint64(4), chunk));
        return sha256(abi.encodePacked(LEAF, KIND_STATE, tensorRoot));
    }

    /// @notice Root of the state of `stateTensors` tensors whose leaf 0 is `lossBits` and has these siblings, lowest
    /// first. The caller checks that `siblings.length == depth(stateTensors)`.
    function stateRoot(uint32 lossBits, uint32 stateTensors, bytes32[] calldata siblings) internal pure returns (Root) {
        bytes32 hash = lossLeaf(lossBits);
        for (uint256 height = 0; height < siblings.length; ++height) {
            // Index 0 is a left child at every height.
            hash = sha256(abi.encodePacked(NODE, KIND_STATE, hash, siblings[height]));
        }
        return Root.wrap(sha256(abi.encodePacked(SEAL, KIND_STATE, uint8(0), uint64(stateTensors), hash)));
    }

    function _littleEndian(uint32 value) private pure returns (uint32) {
        return (value >> 24) | ((value >> 8) & 0xff00) | ((value << 8) & 0xff0000) | (value << 24);
    }
}
