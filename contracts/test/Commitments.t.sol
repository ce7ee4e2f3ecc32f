// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../interfaces/IStepReferee.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {Fixture} from "./base/Fixture.sol";

contract CommitmentsHarness {
    function leaf(uint8 kind, bytes calldata payload) external view returns (bytes32) {
        return Commitments.leaf(kind, payload);
    }

    function leafOfRoot(uint8 kind, bytes32 root) external view returns (bytes32) {
        return Commitments.leafOfRoot(kind, root);
    }

    function climb(uint8 kind, bytes32 hash, uint256 index, bytes32[] calldata siblings)
        external
        view
        returns (bytes32)
    {
        return Commitments.climb(kind, hash, index, siblings);
    }

    function rootOfView(uint8 kind, bytes32[] calldata nodes) external view returns (bytes32) {
        return Commitments.rootOfView(kind, nodes);
    }

    function chunkLeaves(uint8 kind, bytes calldata chunks) external view returns (bytes32[] memory) {
        return Commitments.chunkLeaves(kind, chunks);
    }

    function rangeRoot(
        uint8 kind,
        bytes32[] memory leaves,
        uint256 first,
        uint256 treeDepth,
        bytes32[] calldata siblings
    ) external view returns (bytes32) {
        return Commitments.rangeRoot(kind, leaves, first, treeDepth, siblings);
    }
}

/// @title The library against hashes written out as docs/formats.md has them
contract CommitmentsTest is Fixture {
    CommitmentsHarness private _harness;

    function setUp() public override {
        _harness = new CommitmentsHarness();
    }

    function testFuzz_leaf_hashesThePayload(uint8 kind, bytes calldata payload, bytes32 root) public view {
        vm.assertEq(_harness.leaf(kind, payload), sha256(bytes.concat(hex"00", bytes1(kind), payload)), "leaf");
        vm.assertEq(_harness.leafOfRoot(kind, root), sha256(bytes.concat(hex"00", bytes1(kind), root)), "root");
    }

    function testFuzz_node_keepsTheOrder(uint8 kind, bytes32 left, bytes32 right) public view {
        bytes32 expected = sha256(bytes.concat(hex"01", bytes1(kind), left, right));
        vm.assertEq(Commitments.node(kind, left, right), expected, "node");
    }

    function test_pad_andSealHaveTheirOwnTags() public pure {
        vm.assertEq(Commitments.pad(3), sha256(hex"0203"), "pad");
        bytes memory content = bytes.concat(hex"03", hex"04", hex"01", hex"0000000000000102", bytes32(uint256(7)));
        vm.assertEq(Commitments.seal(4, 1, 0x0102, bytes32(uint256(7))), sha256(content), "seal");
    }

    function test_depth_atPowersOfTwo() public pure {
        vm.assertEq(Commitments.depth(1), 0, "1");
        vm.assertEq(Commitments.depth(2), 1, "2");
        vm.assertEq(Commitments.depth(3), 2, "3");
        vm.assertEq(Commitments.depth(65_536), 16, "65,536");
        vm.assertEq(Commitments.depth(65_537), 17, "65,537");
    }

    function test_chunksOf_roundsUp() public pure {
        vm.assertEq(Commitments.chunksOf(1), 1, "1");
        vm.assertEq(Commitments.chunksOf(1024), 1, "1,024");
        vm.assertEq(Commitments.chunksOf(1025), 2, "1,025");
    }

    function testFuzz_rootOfView_equalsTheTree(uint8 width, uint256 seed) public view {
        bytes32[] memory nodes = _row(uint256(1) << (width % 7), seed);
        bytes32[][] memory tree = _tree(nodes);
        vm.assertEq(_harness.rootOfView(2, nodes), tree[tree.length - 1][0], "root");
    }

    function testFuzz_climb_leadsToTheRoot(uint8 height, uint256 index, uint256 seed) public view {
        uint256 count = uint256(1) << (height % 7);
        index = index % count;
        bytes32[][] memory tree = _tree(_row(count, seed));
        bytes32[] memory siblings = new bytes32[](tree.length - 1);
        for (uint256 i = 0; i < siblings.length; ++i) {
            siblings[i] = tree[i][(index >> i) ^ 1];
        }
        vm.assertEq(_harness.climb(2, tree[0][index], index, siblings), tree[siblings.length][0], "root");
    }

    function testFuzz_rangeRoot_equalsTheTree(uint8 height, uint256 first, uint256 count, uint256 seed) public view {
        uint256 leaves = uint256(1) << (height % 7);
        first = first % leaves;
        count = between(count, 1, leaves - first);
        bytes32[][] memory tree = _tree(_row(leaves, seed));
        bytes32[] memory siblings = _rangeProof(tree, first, count);
        bytes32[] memory range = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            range[i] = tree[0][first + i];
        }
        bytes32 root = tree[tree.length - 1][0];
        vm.assertEq(_harness.rangeRoot(2, range, first, tree.length - 1, siblings), root, "root");
        range[seed % count] = ~range[seed % count];
        vm.assertTrue(_harness.rangeRoot(2, range, first, tree.length - 1, siblings) != root, "another leaf, same root");
    }

    function test_rangeRoot_wrongLengthReverts() public {
        bytes32[][] memory tree = _tree(_row(8, 1));
        bytes32[] memory range = new bytes32[](2);
        (range[0], range[1]) = (tree[0][3], tree[0][4]);
        bytes32[] memory siblings = new bytes32[](3);
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, 3, 4));
        _harness.rangeRoot(2, range, 3, 3, siblings);
    }

    function test_chunkLeaves_hashesEachChunk() public view {
        bytes memory chunks = new bytes(2048);
        chunks[1024] = 0x09;
        bytes32[] memory leaves = _harness.chunkLeaves(1, chunks);
        bytes memory second = new bytes(1024);
        second[0] = 0x09;
        vm.assertEq(leaves.length, 2, "count");
        vm.assertEq(leaves[0], sha256(bytes.concat(hex"0001", new bytes(1024))), "first");
        vm.assertEq(leaves[1], sha256(bytes.concat(hex"0001", second)), "second");
    }

    function _row(uint256 count, uint256 seed) private pure returns (bytes32[] memory nodes) {
        nodes = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            nodes[i] = keccak256(abi.encode(seed, i));
        }
    }

    /// @dev All rows of a tree of kind state, the leaves first.
    function _tree(bytes32[] memory leaves) private pure returns (bytes32[][] memory rows) {
        uint256 height = 0;
        while (leaves.length >> height > 1) ++height;
        rows = new bytes32[][](height + 1);
        rows[0] = leaves;
        for (uint256 h = 1; h <= height; ++h) {
            rows[h] = new bytes32[](leaves.length >> h);
            for (uint256 i = 0; i < rows[h].length; ++i) {
                rows[h][i] = sha256(bytes.concat(hex"0102", rows[h - 1][2 * i], rows[h - 1][2 * i + 1]));
            }
        }
    }

    function _rangeProof(bytes32[][] memory tree, uint256 first, uint256 count)
        private
        pure
        returns (bytes32[] memory siblings)
    {
        uint256 last = first + count - 1;
        bytes32[] memory found = new bytes32[](2 * tree.length);
        uint256 used = 0;
        for (uint256 height = 0; height + 1 < tree.length; ++height) {
            if (first & 1 == 1) found[used++] = tree[height][first - 1];
            if (last & 1 == 0) found[used++] = tree[height][last + 1];
            (first, last) = (first >> 1, last >> 1);
        }
        siblings = new bytes32[](used);
        for (uint256 i = 0; i < used; ++i) {
            siblings[i] = found[i];
        }
    }
}
