// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root} from "../types/Identifiers.sol";
import {Commitments} from "./Commitments.sol";

/// @title The tree over a merge's inputs, leaf by leaf
/// @notice docs/rounds.md, "Which states a merge takes". Of a tree that grows from the left only the roots of whole
/// subtrees to the left of the next leaf are kept, at most one of each height, as the beacon chain's deposit contract
/// does it (consensus specifications, phase 0). A new first leaf begins a new tree in the same storage.
library InputsTree {
    /// @dev `nodes[h]` is the last whole subtree of height h. What a tree reads it has written before.
    struct Tree {
        bytes32[9] nodes;
    }

    /// @notice Adds the leaf of a state root.
    /// @param place Number of leaves before it; at most 255.
    function append(Tree storage tree, uint256 place, Root stateRoot) internal {
        bytes32 node = Commitments.leafOfRoot(Commitments.INPUTS, Root.unwrap(stateRoot));
        uint256 height = 0;
        for (uint256 left = place; left & 1 == 1; left >>= 1) {
            node = Commitments.node(Commitments.INPUTS, tree.nodes[height], node);
            ++height;
        }
        tree.nodes[height] = node;
    }

    /// @notice The sealed root of a tree of `count` leaves, 1 to 256.
    function rootOf(Tree storage tree, uint256 count) internal view returns (Root) {
        uint256 depth = Commitments.depth(count);
        bytes32 node = tree.nodes[depth];
        if (count < uint256(1) << depth) {
            // Left of `node` stand the whole subtrees, right of it pads up to the next power of two.
            bytes32 padding = Commitments.pad(Commitments.INPUTS);
            node = padding;
            for (uint256 height = 0; height < depth; ++height) {
                bool whole = (count >> height) & 1 == 1;
                node = whole
                    ? Commitments.node(Commitments.INPUTS, tree.nodes[height], node)
                    : Commitments.node(Commitments.INPUTS, node, padding);
                padding = Commitments.node(Commitments.INPUTS, padding, padding);
            }
        }
        // forge-lint: disable-next-line(unsafe-typecast)
        return Root.wrap(Commitments.seal(Commitments.INPUTS, 0, uint64(count), node)); // at most 256
    }
}
