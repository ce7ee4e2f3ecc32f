// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {StateProof} from "../libraries/StateProof.sol";
import {Root} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {StateTree} from "./base/StateTree.sol";

contract StateProofHarness {
    function stateRoot(uint32 lossBits, uint32 tensors, bytes32[] calldata siblings) external view returns (Root) {
        return StateProof.stateRoot(lossBits, tensors, siblings);
    }
}

contract StateProofTest is Fixture {
    string private constant VECTORS = "tests/vectors/commitments.json";
    string private constant VECTOR_TYPE =
        "Case(uint256 loss_bits,uint256 state_tensors,string[] tensor_roots,string state_root,string[] loss_proof)";

    struct Vector {
        uint256 lossBits;
        uint256 stateTensors;
        string[] tensorRoots;
        string stateRoot;
        string[] lossProof;
    }

    StateProofHarness private _harness;

    function setUp() public override {
        _harness = new StateProofHarness();
    }

    function test_stateRoot_sharedVectors() public view {
        bytes memory encoded = vm.parseJsonTypeArray(vm.readFile(VECTORS), ".cases", VECTOR_TYPE);
        Vector[] memory vectors = abi.decode(encoded, (Vector[]));
        vm.assertGe(vectors.length, 3, "too few vectors");
        for (uint256 i = 0; i < vectors.length; ++i) {
            _checkVector(vectors[i], vm.toString(i));
        }
    }

    function _checkVector(Vector memory vector, string memory name) private view {
        (uint32 loss, uint32 tensors) = (uint32(vector.lossBits), uint32(vector.stateTensors));
        bytes32 root = _parseRoot(vector.stateRoot);
        bytes32[] memory leaves = _parseRoots(vector.tensorRoots);
        bytes32[] memory proof = _parseRoots(vector.lossProof);
        vm.assertEq(leaves.length, tensors, string.concat("tensors of ", name));
        vm.assertEq(leaves[0], StateTree.lossTensorRoot(loss), string.concat("loss tensor of ", name));
        (Root built,) = StateTree.commit(leaves);
        vm.assertEq(Root.unwrap(built), root, string.concat("whole tree of ", name));
        vm.assertEq(proof.length, StateProof.depth(tensors), string.concat("depth of ", name));
        vm.assertEq(Root.unwrap(_harness.stateRoot(loss, tensors, proof)), root, string.concat("proof of ", name));
    }

    function _parseRoots(string[] memory texts) private pure returns (bytes32[] memory roots) {
        roots = new bytes32[](texts.length);
        for (uint256 i = 0; i < texts.length; ++i) {
            roots[i] = _parseRoot(texts[i]);
        }
    }

    /// @dev 64 hexadecimal digits, with or without 0x.
    function _parseRoot(string memory text) private pure returns (bytes32) {
        return vm.parseBytes32(bytes(text).length == 64 ? string.concat("0x", text) : text);
    }

    function testFuzz_stateRoot_equalsReferenceTree(uint32 loss, uint32 tensors, uint256 seed) public view {
        tensors = uint32(between(tensors, 2, 40));
        bytes32[] memory leaves = StateTree.tensorRoots(loss, tensors, seed);
        (Root root, bytes32[] memory proof) = StateTree.commit(leaves);
        vm.assertEq(proof.length, StateProof.depth(tensors), "depth");
        vm.assertEq(Root.unwrap(_harness.stateRoot(loss, tensors, proof)), Root.unwrap(root), "root");
    }

    function testFuzz_stateRoot_differsForAnotherLossOrSize(uint32 loss, uint32 other, uint256 seed) public view {
        vm.assume(loss != other);
        (Root root, bytes32[] memory proof) = StateTree.commit(StateTree.tensorRoots(loss, 6, seed));
        vm.assertTrue(_harness.stateRoot(other, 6, proof) != root, "another loss has the same root");
        // Same depth, same leaves but for one pad: only the seal tells them apart.
        vm.assertTrue(_harness.stateRoot(loss, 7, proof) != root, "another size has the same root");
    }

    function test_depth_atPowersOfTwo() public pure {
        vm.assertEq(StateProof.depth(1), 0, "1");
        vm.assertEq(StateProof.depth(2), 1, "2");
        vm.assertEq(StateProof.depth(3), 2, "3");
        vm.assertEq(StateProof.depth(160), 8, "160");
        vm.assertEq(StateProof.depth(256), 8, "256");
        vm.assertEq(StateProof.depth(257), 9, "257");
        vm.assertEq(StateProof.depth(1 << 20), 20, "2**20");
        vm.assertEq(StateProof.depth(type(uint32).max), 32, "largest");
    }

    function testFuzz_isCanonical_onlyOneNaN(uint32 bits) public pure {
        bool nan = (bits >> 23) & 0xff == 0xff && bits & 0x7fffff != 0;
        vm.assertEq(StateProof.isCanonical(bits), !nan || bits == NAN, "canonical");
    }

    function test_isCanonical_edges() public pure {
        vm.assertTrue(StateProof.isCanonical(NAN), "the NaN");
        vm.assertTrue(StateProof.isCanonical(0x7f800000), "infinity");
        vm.assertTrue(StateProof.isCanonical(0xff800000), "minus infinity");
        vm.assertTrue(!StateProof.isCanonical(0xffc00000), "negative NaN");
        vm.assertTrue(!StateProof.isCanonical(0x7f800001), "signalling NaN");
    }
}
