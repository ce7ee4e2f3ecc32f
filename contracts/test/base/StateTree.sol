// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root} from "../../types/Identifiers.sol";

/// @title A whole state tree, built leaf by leaf as docs/formats.md writes it
/// @dev Slow on purpose: it shares no code with `StateProof`, which it is the reference for.
library StateTree {
    bytes1 private constant STATE = 0x02;

    /// @notice Root of the tensor that holds one binary32.
    function lossTensorRoot(uint32 lossBits) internal pure returns (bytes32) {
        bytes memory payload = new bytes(1024);
        for (uint256 i = 0; i < 4; ++i) {
            payload[i] = bytes1(uint8(lossBits >> (8 * i)));
        }
        bytes32 chunk = sha256(bytes.concat(hex"0001", payload));
        return sha256(bytes.concat(hex"03", hex"01", hex"01", hex"0000000000000004", chunk));
    }

    /// @notice Tensor roots of a made-up state: the loss's, then hashes of `seed`.
    function tensorRoots(uint32 lossBits, uint32 tensors, uint256 seed) internal pure returns (bytes32[] memory roots) {
        roots = new bytes32[](tensors);
        roots[0] = lossTensorRoot(lossBits);
        for (uint256 i = 1; i < tensors; ++i) {
            roots[i] = keccak256(abi.encode(seed, i));
        }
    }

    /// @notice The sealed root of a state and the siblings of its leaf 0.
    function commit(bytes32[] memory roots) internal pure returns (Root root, bytes32[] memory proof) {
        uint256 depth = 0;
        uint256 width = 1;
        while (width < roots.length) (depth, width) = (depth + 1, width * 2);
        bytes32[] memory level = new bytes32[](width);
        for (uint256 i = 0; i < width; ++i) {
            bytes memory leaf = i < roots.length ? bytes.concat(hex"00", STATE, roots[i]) : bytes.concat(hex"02", STATE);
            level[i] = sha256(leaf);
        }
        proof = new bytes32[](depth);
        for (uint256 height = 0; height < depth; ++height) {
            proof[height] = level[1];
            width /= 2;
            for (uint256 i = 0; i < width; ++i) {
                level[i] = sha256(bytes.concat(hex"01", STATE, level[2 * i], level[2 * i + 1]));
            }
        }
        bytes8 count = bytes8(uint64(roots.length));
        root = Root.wrap(sha256(bytes.concat(hex"03", STATE, hex"00", count, level[0])));
    }
}
