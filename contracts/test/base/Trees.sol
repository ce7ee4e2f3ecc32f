// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title Whole trees of any kind, as docs/formats.md writes them
/// @dev Slow on purpose: it shares no code with `Commitments`, which it is the reference for. `rows[h]` is the row of
/// nodes at height h, pads included.
library Trees {
    function build(uint8 kind, bytes32[] memory leaves) internal view returns (bytes32[][] memory rows) {
        uint256 depth = 0;
        while (uint256(1) << depth < leaves.length) ++depth;
        rows = new bytes32[][](depth + 1);
        rows[0] = new bytes32[](uint256(1) << depth);
        for (uint256 i = 0; i < rows[0].length; ++i) {
            rows[0][i] = i < leaves.length ? leaves[i] : pad(kind);
        }
        raise(kind, rows);
    }

    /// @dev Computes all rows above the leaves.
    function raise(uint8 kind, bytes32[][] memory rows) internal view {
        for (uint256 h = 1; h < rows.length; ++h) {
            rows[h] = new bytes32[](rows[0].length >> h);
            for (uint256 i = 0; i < rows[h].length; ++i) {
                rows[h][i] = _node(kind, rows[h - 1][2 * i], rows[h - 1][2 * i + 1]);
            }
        }
    }

    function top(bytes32[][] memory rows) internal pure returns (bytes32) {
        return rows[rows.length - 1][0];
    }

    /// @dev The `levels` siblings above a node, from the bottom up.
    function siblings(bytes32[][] memory rows, uint256 height, uint256 index, uint256 levels)
        internal
        pure
        returns (bytes32[] memory found)
    {
        found = new bytes32[](levels);
        for (uint256 i = 0; i < levels; ++i) {
            found[i] = rows[height + i][(index >> i) ^ 1];
        }
    }

    /// @dev A whole proof of a leaf.
    function proof(bytes32[][] memory rows, uint256 index) internal pure returns (bytes32[] memory) {
        return siblings(rows, 0, index, rows.length - 1);
    }

    /// @dev The view of a node.
    function viewOf(bytes32[][] memory rows, uint256 height, uint256 index)
        internal
        pure
        returns (bytes32[] memory nodes)
    {
        uint256 width = height < 6 ? height : 6;
        nodes = new bytes32[](uint256(1) << width);
        for (uint256 i = 0; i < nodes.length; ++i) {
            nodes[i] = rows[height - width][(index << width) | i];
        }
    }

    function leaf(uint8 kind, bytes memory payload) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(0), kind, payload));
    }

    function leafOfRoot(uint8 kind, bytes32 root) internal view returns (bytes32 hash) {
        assembly ("memory-safe") {
            mstore8(0, 0)
            mstore8(1, kind)
            mstore(2, root)
            pop(staticcall(gas(), 2, 0, 34, 0, 32))
            hash := mload(0)
        }
    }

    function pad(uint8 kind) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(2), kind));
    }

    function seal(uint8 kind, uint8 sealType, uint64 size, bytes32 merkleRoot) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(3), kind, sealType, size, merkleRoot));
    }

    /// @dev A chunk of a tensor, filled with zeros.
    function chunk(bytes memory data, uint256 index) internal pure returns (bytes memory bytes_) {
        bytes_ = new bytes(1024);
        uint256 length = data.length - 1024 * index;
        if (length > 1024) length = 1024;
        for (uint256 i = 0; i < length; i += 32) {
            bytes32 word;
            assembly ("memory-safe") {
                word := mload(add(add(add(data, 32), mul(1024, index)), i))
            }
            // The last word may reach past the data's end: what is there does not belong to it.
            if (length - i < 32) word &= ~bytes32(type(uint256).max >> (8 * (length - i)));
            assembly ("memory-safe") {
                mstore(add(add(bytes_, 32), i), word)
            }
        }
    }

    /// @dev Behind the memory in use: tests make so many nodes that memory would be what costs.
    function _node(uint8 kind, bytes32 left, bytes32 right) private view returns (bytes32 hash) {
        assembly ("memory-safe") {
            let start := mload(0x40)
            mstore(start, or(shl(248, 1), shl(240, kind)))
            mstore(add(start, 2), left)
            mstore(add(start, 34), right)
            pop(staticcall(gas(), 2, start, 66, 0, 32))
            hash := mload(0)
        }
    }
}
