// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root} from "../types/Identifiers.sol";
import {Commitments} from "./Commitments.sol";

/// @title Held-out loss against a state root
/// @notice docs/formats.md, sections 1 and 2: tensor 0 of every state is one binary32, its held-out loss, so the state
/// root can be computed again from the loss and the siblings of state leaf 0.
/// @dev INVARIANT: the length of a proof follows from the number of tensors that the task fixed, never from the proof.
library StateProof {
    uint8 internal constant TYPE_FLOAT32 = 1;

    /// @notice Bits of the one NaN that a state may hold as its loss.
    uint32 internal constant CANONICAL_NAN = 0x7fc00000;

    /// @notice Leaf 0 of a state with this held-out loss.
    function lossLeaf(uint32 lossBits) internal view returns (bytes32) {
        bytes memory rest = new bytes(Commitments.CHUNK_BYTES - 4);
        bytes32 chunk = sha256(abi.encodePacked(uint8(0), Commitments.TENSOR, _littleEndian(lossBits), rest));
        bytes32 tensorRoot = Commitments.seal(Commitments.TENSOR, TYPE_FLOAT32, 4, chunk);
        return Commitments.leafOfRoot(Commitments.STATE, tensorRoot);
    }

    /// @notice Root of the state of `stateTensors` tensors whose leaf 0 is `lossBits` and has these siblings, lowest
    /// first. The caller checks that `siblings.length == depth(stateTensors)`.
    function stateRoot(uint32 lossBits, uint32 stateTensors, bytes32[] calldata siblings) internal view returns (Root) {
        bytes32 merkleRoot = Commitments.climb(Commitments.STATE, lossLeaf(lossBits), 0, siblings);
        return Root.wrap(Commitments.seal(Commitments.STATE, 0, stateTensors, merkleRoot));
    }

    /// @notice Depth of a tree over `leaves >= 1` leaves: the least d with 2**d >= leaves.
    function depth(uint32 leaves) internal pure returns (uint256 result) {
        return Commitments.depth(leaves);
    }

    /// @notice False for NaNs other than the canonical one: one loss must have one root.
    function isCanonical(uint32 lossBits) internal pure returns (bool) {
        return lossBits & 0x7fffffff <= 0x7f800000 || lossBits == CANONICAL_NAN;
    }

    function _littleEndian(uint32 value) private pure returns (uint32) {
        return (value >> 24) | ((value >> 8) & 0xff00) | ((value << 8) & 0xff0000) | (value << 24);
    }
}
