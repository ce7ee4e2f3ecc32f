// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root} from "../../types/Identifiers.sol";

/// @title The root of a data set, written down once more
/// @notice docs/formats.md, sections 1 and 5, without the library that is tested.
library HeldOutTree {
    function dataSetRoot(bytes memory tokens, bytes32 trainLeaf, bytes32 publicNode) internal pure returns (Root) {
        bytes8 size = bytes8(uint64(tokens.length));
        bytes32 part = sha256(bytes.concat(hex"030506", size, merkleRoot(tokens)));
        bytes32 top = _node(trainLeaf, sha256(bytes.concat(hex"0005", part)));
        top = _node(publicNode, top);
        return Root.wrap(sha256(bytes.concat(hex"030500", bytes8(uint64(4)), top)));
    }

    /// @dev Recursive: the tree over `count` leaves from `first` on, `count` a power of two.
    function merkleRoot(bytes memory tokens) internal pure returns (bytes32) {
        uint256 width = 1;
        while (width * 1024 < tokens.length) width *= 2;
        return _tree(tokens, 0, width);
    }

    function _tree(bytes memory tokens, uint256 first, uint256 count) private pure returns (bytes32) {
        if (count > 1) return _node(_tree(tokens, first, count / 2), _tree(tokens, first + count / 2, count / 2));
        if (first * 1024 >= tokens.length) return sha256(hex"0205");
        bytes memory chunk = new bytes(1024);
        for (uint256 i = 0; i < 1024 && first * 1024 + i < tokens.length; ++i) {
            chunk[i] = tokens[first * 1024 + i];
        }
        return sha256(bytes.concat(hex"0005", chunk));
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(bytes.concat(hex"0105", left, right));
    }
}
