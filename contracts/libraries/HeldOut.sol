// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root} from "../types/Identifiers.sol";
import {Commitments} from "./Commitments.sol";

/// @title The root of a data set, from its held-out part
/// @notice docs/formats.md, section 5: a data set is a tree over four parts, the last of which is the held-out tokens.
library HeldOut {
    /// @notice Most bytes of a held-out part: what it costs to show them stays well below what a transaction may use.
    uint256 internal constant MAXIMUM_BYTES = 65_536;

    /// @dev The held-out tokens are the last part, so their leaf is a right child twice.
    uint64 private constant PARTS = 4;
    uint8 private constant TYPE_TOKENS = 6;

    /// @notice The root of the data set whose held-out part is `tokens`, 1 to `MAXIMUM_BYTES` of them.
    /// @param trainLeaf, publicNode Siblings of the part's leaf, from the bottom up.
    function dataSetRoot(bytes calldata tokens, bytes32 trainLeaf, bytes32 publicNode) internal view returns (Root) {
        uint256 size = tokens.length;
        // forge-lint: disable-next-line(unsafe-typecast)
        bytes32 part = Commitments.seal(Commitments.DATASET, TYPE_TOKENS, uint64(size), _merkleRoot(tokens)); // 65,536
        bytes32 top = Commitments.leafOfRoot(Commitments.DATASET, part);
        top = Commitments.node(Commitments.DATASET, trainLeaf, top);
        top = Commitments.node(Commitments.DATASET, publicNode, top);
        return Root.wrap(Commitments.seal(Commitments.DATASET, 0, PARTS, top));
    }

    function _merkleRoot(bytes calldata tokens) private view returns (bytes32) {
        uint256 whole = tokens.length / Commitments.CHUNK_BYTES;
        uint256 count = Commitments.chunksOf(tokens.length);
        uint256 width = uint256(1) << Commitments.depth(count);
        bytes32[] memory row = new bytes32[](width);
        for (uint256 i = 0; i < whole; ++i) {
            row[i] =
                Commitments.leaf(Commitments.DATASET, tokens[i * Commitments.CHUNK_BYTES:][:Commitments.CHUNK_BYTES]);
        }
        if (whole < count) {
            bytes memory zeros = new bytes(count * Commitments.CHUNK_BYTES - tokens.length);
            bytes calldata rest = tokens[whole * Commitments.CHUNK_BYTES:];
            row[whole] = sha256(abi.encodePacked(uint8(0), Commitments.DATASET, rest, zeros));
        }
        bytes32 padding = Commitments.pad(Commitments.DATASET);
        for (uint256 i = count; i < width; ++i) {
            row[i] = padding;
        }
        for (; width > 1; width >>= 1) {
            for (uint256 i = 0; i < width; i += 2) {
                row[i >> 1] = Commitments.node(Commitments.DATASET, row[i], row[i + 1]);
            }
        }
        return row[0];
    }
}
