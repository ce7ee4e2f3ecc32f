// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Trees} from "./Trees.sol";

/// @title What merges begin with: the tree over the roots of several states, as docs/rounds.md writes it
/// @dev Slow on purpose, as `Trees`. The roots of tensors are given: row j has those of state j, of which 0 is the base.
library InputTrees {
    uint8 internal constant STATE = 2;
    uint8 internal constant INPUTS = 7;

    /// @dev Roots of made-up tensors.
    function made(uint256 count, uint256 tensors, uint256 seed) internal pure returns (bytes32[][] memory states) {
        states = new bytes32[][](count);
        for (uint256 j = 0; j < count; ++j) {
            states[j] = new bytes32[](tensors);
            for (uint256 i = 0; i < tensors; ++i) {
                states[j][i] = keccak256(abi.encode(seed, j, i));
            }
        }
    }

    function stateRoot(bytes32[] memory tensors) internal view returns (bytes32) {
        return Trees.seal(STATE, 0, uint64(tensors.length), Trees.top(stateRows(tensors)));
    }

    function inputsRoot(bytes32[][] memory states) internal view returns (bytes32) {
        return Trees.seal(INPUTS, 0, uint64(states.length), Trees.top(_rows(states)));
    }

    /// @dev From tensor `tensor` of state `state` to its state's root, then from there to the root of all.
    function path(bytes32[][] memory states, uint256 state, uint256 tensor)
        internal
        view
        returns (bytes32[] memory whole)
    {
        bytes32[] memory lower = Trees.proof(stateRows(states[state]), tensor);
        bytes32[] memory upper = Trees.proof(_rows(states), state);
        whole = new bytes32[](lower.length + upper.length);
        for (uint256 i = 0; i < whole.length; ++i) {
            whole[i] = i < lower.length ? lower[i] : upper[i - lower.length];
        }
    }

    function stateRows(bytes32[] memory tensors) internal view returns (bytes32[][] memory) {
        bytes32[] memory leaves = new bytes32[](tensors.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = Trees.leafOfRoot(STATE, tensors[i]);
        }
        return Trees.build(STATE, leaves);
    }

    function _rows(bytes32[][] memory states) private view returns (bytes32[][] memory) {
        bytes32[] memory leaves = new bytes32[](states.length);
        for (uint256 j = 0; j < leaves.length; ++j) {
            leaves[j] = Trees.leafOfRoot(INPUTS, stateRoot(states[j]));
        }
        return Trees.build(INPUTS, leaves);
    }
}
