// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Commitments} from "../../libraries/Commitments.sol";
import {SourceProof} from "../../libraries/SourceProof.sol";
import {StateProof} from "../../libraries/StateProof.sol";
import {Root} from "../../types/Identifiers.sol";
import {Vm} from "../base/Vm.sol";

/// @dev Arrays reach the libraries as calldata, so through a call.
contract CommitmentsReach {
    function climb(bytes32 hash, uint256 index, bytes32[] calldata siblings) external view returns (bytes32) {
        return Commitments.climb(Commitments.STATE, hash, index, siblings);
    }

    function rootOfView(bytes32[] calldata nodes) external view returns (bytes32) {
        return Commitments.rootOfView(Commitments.STATE, nodes);
    }

    function rangeRoot(bytes32[] memory leaves, uint256 first, uint256 treeDepth, bytes32[] calldata siblings)
        external
        view
        returns (bytes32)
    {
        return Commitments.rangeRoot(Commitments.STATE, leaves, first, treeDepth, siblings);
    }

    function stateRoot(uint32 lossBits, uint32 tensors, bytes32[] calldata siblings) external view returns (Root) {
        return StateProof.stateRoot(lossBits, tensors, siblings);
    }

    function widthOf(uint256 dtype) external pure returns (uint256) {
        return SourceProof.widthOf(dtype);
    }
}

/// @title What holds of Merkle trees for all leaves and siblings, proved by halmos
/// @dev Halmos takes SHA-256 for a function of which it knows nothing. That it has no collisions is assumed where it is
/// needed, of the very hashes that are compared. Trees have eight leaves, with each index on its own, so that places in
/// memory are known.
contract CommitmentsSymbolic {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 private constant DEPTH = 3;
    uint256 private constant LEAVES = 8;

    CommitmentsReach private _reach;

    function setUp() public {
        _reach = new CommitmentsReach();
    }

    /// @dev The proof that belongs to a leaf leads to the root, for every leaf.
    function check_climb_acceptsEveryLeaf(bytes32[8] memory leaves) public view {
        bytes32[][] memory rows = _rows(leaves);
        for (uint256 index = 0; index < LEAVES; ++index) {
            bytes32 root = _reach.climb(leaves[index], index, _proof(rows, index));
            vm.assertEq(root, rows[DEPTH][0], "root");
        }
    }

    /// @dev Whatever siblings are shown, at an index only the leaf that stands there leads to the root.
    function check_climb_acceptsNoOtherLeaf(
        bytes32[8] memory leaves,
        uint256 asked,
        bytes32 other,
        bytes32[3] memory shown
    ) public view {
        bytes32[][] memory rows = _rows(leaves);
        bytes32[] memory siblings = new bytes32[](DEPTH);
        for (uint256 i = 0; i < DEPTH; ++i) {
            siblings[i] = shown[i];
        }
        for (uint256 index = 0; index < LEAVES; ++index) {
            if (index != asked) continue;
            _assumeNoCollision(rows, index, other, shown);
            bool accepted = _reach.climb(other, index, siblings) == rows[DEPTH][0];
            if (accepted) vm.assertEq(other, leaves[index], "leaf");
            return;
        }
    }

    function check_rootOfView_isTheRoot(bytes32[8] memory leaves) public view {
        bytes32[] memory nodes = new bytes32[](LEAVES);
        for (uint256 i = 0; i < LEAVES; ++i) {
            nodes[i] = leaves[i];
        }
        vm.assertEq(_reach.rootOfView(nodes), _rows(leaves)[DEPTH][0], "root");
    }

    /// @dev Every run of neighbouring leaves, with the siblings that belong to it.
    function check_rangeRoot_acceptsEveryRange(bytes32[8] memory leaves) public view {
        bytes32[][] memory rows = _rows(leaves);
        for (uint256 first = 0; first < LEAVES; ++first) {
            for (uint256 count = 1; first + count <= LEAVES; ++count) {
                bytes32[] memory range = new bytes32[](count);
                for (uint256 i = 0; i < count; ++i) {
                    range[i] = leaves[first + i];
                }
                bytes32 root = _reach.rangeRoot(range, first, DEPTH, _rangeProof(rows, first, count));
                vm.assertEq(root, rows[DEPTH][0], "root");
            }
        }
    }

    /// @dev A proof that is a sibling too long or too short is refused, for every run of leaves.
    function check_rangeRoot_refusesOtherLengths(bytes32[8] memory leaves) public view {
        for (uint256 first = 0; first < LEAVES; ++first) {
            for (uint256 count = 1; first + count <= LEAVES; ++count) {
                bytes32[] memory range = new bytes32[](count);
                for (uint256 i = 0; i < count; ++i) {
                    range[i] = leaves[first + i];
                }
                uint256 needed = Commitments.rangeProofLength(first, count, DEPTH);
                for (uint256 length = 0; length <= 2 * DEPTH; ++length) {
                    if (length == needed) continue;
                    try _reach.rangeRoot(range, first, DEPTH, new bytes32[](length)) returns (bytes32) {
                        vm.assertTrue(false, "accepted");
                    } catch {}
                }
            }
        }
    }

    function check_checkLength_acceptsTheLengthOnly(uint256 length, uint256 needed) public view {
        try this.checkLength(length, needed) {
            vm.assertEq(length, needed, "accepted");
        } catch {
            vm.assertTrue(length != needed, "refused");
        }
    }

    /// @dev The least power of two that holds all leaves, for every size that a proof can commit to.
    function check_depth_isTheLeast(uint32 leaves) public pure {
        vm.assume(leaves > 0);
        uint256 depth = Commitments.depth(leaves);
        vm.assertTrue(uint256(leaves) <= uint256(1) << depth, "enough");
        vm.assertTrue(depth == 0 || uint256(leaves) > uint256(1) << (depth - 1), "least");
    }

    function check_chunksOf_holdsEveryByte(uint64 size) public pure {
        vm.assume(size > 0);
        uint256 bytes_ = Commitments.chunksOf(size) * Commitments.CHUNK_BYTES;
        vm.assertTrue(bytes_ >= size && bytes_ < uint256(size) + Commitments.CHUNK_BYTES, "chunks");
    }

    function check_rangeProofLength_isThatOfAPathForOneLeaf(uint64 index) public pure {
        vm.assertEq(Commitments.rangeProofLength(index, 1, 32), 32, "length");
    }

    /// @dev A state's root binds its loss and its number of tensors.
    function check_stateRoot_bindsLossAndSize(uint32 a, uint32 b, uint32 m, uint32 n, bytes32[2] memory shown)
        public
        view
    {
        bytes32[] memory siblings = new bytes32[](2);
        (siblings[0], siblings[1]) = (shown[0], shown[1]);
        bytes32 x = StateProof.lossLeaf(a);
        bytes32 y = StateProof.lossLeaf(b);
        vm.assume(x != y || a == b); // three hashes in a row, of the loss's bytes first
        for (uint256 i = 0; i < 2; ++i) {
            bytes32 u = Commitments.node(Commitments.STATE, x, shown[i]);
            bytes32 v = Commitments.node(Commitments.STATE, y, shown[i]);
            vm.assume(u != v || x == y);
            (x, y) = (u, v);
        }
        bytes32 first = Commitments.seal(Commitments.STATE, 0, m, x);
        bytes32 second = Commitments.seal(Commitments.STATE, 0, n, y);
        vm.assume(first != second || (m == n && x == y));
        bool same = _reach.stateRoot(a, m, siblings) == _reach.stateRoot(b, n, siblings);
        if (same) vm.assertTrue(a == b && m == n, "bound");
    }

    function check_isCanonical_isThatOfTheArithmetic(uint32 bits) public pure {
        bool nan = (bits >> 23) & 0xff == 0xff && bits & 0x7fffff != 0;
        vm.assertEq(StateProof.isCanonical(bits), !nan || bits == 0x7fc00000, "canonical");
    }

    function check_widthOf_knowsSixTypes(uint256 dtype) public view {
        bool known = (dtype > 0 && dtype < 5) || dtype == 6 || dtype == 9;
        try _reach.widthOf(dtype) returns (uint256 width) {
            vm.assertTrue(known, "type");
            vm.assertTrue(width == 1 || width == 2 || width == 4 || width == 8, "width");
        } catch {
            vm.assertTrue(!known, "refused");
        }
    }

    function checkLength(uint256 length, uint256 needed) external pure {
        Commitments.checkLength(length, needed);
    }

    function _rows(bytes32[8] memory leaves) private view returns (bytes32[][] memory rows) {
        rows = new bytes32[][](DEPTH + 1);
        rows[0] = new bytes32[](LEAVES);
        for (uint256 i = 0; i < LEAVES; ++i) {
            rows[0][i] = leaves[i];
        }
        for (uint256 h = 1; h <= DEPTH; ++h) {
            rows[h] = new bytes32[](LEAVES >> h);
            for (uint256 i = 0; i < rows[h].length; ++i) {
                rows[h][i] = Commitments.node(Commitments.STATE, rows[h - 1][2 * i], rows[h - 1][2 * i + 1]);
            }
        }
    }

    /// @dev Where the nodes above `hash` equal those of the tree, so do the children.
    function _assumeNoCollision(bytes32[][] memory rows, uint256 index, bytes32 hash, bytes32[3] memory shown)
        private
        view
    {
        for (uint256 height = 0; height < DEPTH; ++height) {
            uint256 place = index >> height;
            (bytes32 x, bytes32 y) = place & 1 == 1 ? (shown[height], hash) : (hash, shown[height]);
            hash = Commitments.node(Commitments.STATE, x, y);
            (bytes32 u, bytes32 v) = (rows[height][place & ~uint256(1)], rows[height][place | 1]);
            vm.assume(hash != rows[height + 1][place >> 1] || (x == u && y == v));
        }
    }

    function _proof(bytes32[][] memory rows, uint256 index) private pure returns (bytes32[] memory siblings) {
        siblings = new bytes32[](DEPTH);
        for (uint256 i = 0; i < DEPTH; ++i) {
            siblings[i] = rows[i][(index >> i) ^ 1];
        }
    }

    function _rangeProof(bytes32[][] memory rows, uint256 first, uint256 count)
        private
        pure
        returns (bytes32[] memory siblings)
    {
        uint256 last = first + count - 1;
        siblings = new bytes32[](Commitments.rangeProofLength(first, count, DEPTH));
        uint256 used = 0;
        for (uint256 height = 0; height < DEPTH; ++height) {
            if (first & 1 == 1) siblings[used++] = rows[height][first - 1];
            if (last & 1 == 0) siblings[used++] = rows[height][last + 1];
            (first, last) = (first >> 1, last >> 1);
        }
    }
}
