// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../interfaces/IStepReferee.sol";
import {Commitments} from "../libraries/Commitments.sol";
import {SourceProof} from "../libraries/SourceProof.sol";
import {Root} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {InputTrees} from "./base/InputTrees.sol";
import {Trees} from "./base/Trees.sol";

contract SourceHarness {
    function checkState(IStepReferee.Scene calldata scene, IStepReferee.Source calldata source, uint256 number)
        external
        view
    {
        SourceProof.checkState(scene, source, number);
    }

    function rootBefore(uint256 states, uint256 inputs, uint256 number, bytes32 root, bytes32[] calldata path)
        external
        view
        returns (bytes32)
    {
        return Commitments.rootBefore(states, inputs, number, root, path);
    }
}

/// @title Tensors of the state before a run, and of the states that a merge takes (docs/rounds.md, "Merge programs")
contract SourceProofTest is Fixture {
    uint256 private constant MOST = 20;
    string private constant VECTORS = "tests/vectors/commitments.json";
    string private constant VECTOR_TYPE =
        "Case(uint256 state_tensors,string inputs_root,Proof[] proofs)Proof(uint256 state,uint256 tensor,string tensor_root,string[] in_state,string[] in_inputs)";

    struct Shown {
        uint256 state;
        uint256 tensor;
        string tensorRoot;
        string[] inState;
        string[] inInputs;
    }

    struct Vector {
        uint256 stateTensors;
        string inputsRoot;
        Shown[] proofs;
    }

    SourceHarness private _harness;

    function setUp() public override {
        _harness = new SourceHarness();
    }

    function test_rootBefore_sharedVectors() public view {
        bytes memory encoded = vm.parseJsonTypeArray(vm.readFile(VECTORS), ".inputs", VECTOR_TYPE);
        Vector[] memory vectors = abi.decode(encoded, (Vector[]));
        vm.assertGe(vectors.length, 5, "too few vectors");
        for (uint256 i = 0; i < vectors.length; ++i) {
            uint256 inputs = 0; // a proof of the last state is among them
            for (uint256 j = 0; j < vectors[i].proofs.length; ++j) {
                if (vectors[i].proofs[j].state > inputs) inputs = vectors[i].proofs[j].state;
            }
            for (uint256 j = 0; j < vectors[i].proofs.length; ++j) {
                Shown memory shown = vectors[i].proofs[j];
                uint256 number = shown.state * vectors[i].stateTensors + shown.tensor;
                bytes32 root = _harness.rootBefore(
                    vectors[i].stateTensors, inputs, number, vm.parseBytes32(_hex(shown.tensorRoot)), _whole(shown)
                );
                vm.assertEq(root, vm.parseBytes32(_hex(vectors[i].inputsRoot)), vm.toString(i));
            }
        }
    }

    function testFuzz_rootBefore_leadsFromAnyTensorToTheInputs(uint8 tensors, uint8 inputs, uint256 place, uint256 seed)
        public
        view
    {
        (uint256 n, uint256 w) = (between(tensors, 1, MOST), between(inputs, 1, MOST));
        bytes32[][] memory states = InputTrees.made(w + 1, n, seed);
        place = place % (n * (w + 1));
        (uint256 state, uint256 tensor) = (place / n, place % n);
        bytes32 root = InputTrees.inputsRoot(states);
        bytes32[] memory path = InputTrees.path(states, state, tensor);
        vm.assertEq(_harness.rootBefore(n, w, place, states[state][tensor], path), root, "root");
        // Another tensor, or the same one of another state, is none of it.
        uint256 other = (place + 1 + seed % (n * (w + 1) - 1)) % (n * (w + 1));
        vm.assertTrue(_harness.rootBefore(n, w, other, states[state][tensor], path) != root, "another place");
        vm.assertTrue(
            _harness.rootBefore(n, w, place, states[other / n][other % n], path) != root, "another tensor, same place"
        );
        path[seed % path.length] = ~path[seed % path.length];
        vm.assertTrue(_harness.rootBefore(n, w, place, states[state][tensor], path) != root, "another path");
    }

    function testFuzz_rootBefore_ofOneStateIsItsRoot(uint8 tensors, uint256 place, uint256 seed) public view {
        uint256 n = between(tensors, 1, MOST);
        bytes32[] memory state = InputTrees.made(1, n, seed)[0];
        place = place % n;
        bytes32[] memory path = Trees.proof(InputTrees.stateRows(state), place);
        vm.assertEq(_harness.rootBefore(n, 0, place, state[place], path), InputTrees.stateRoot(state), "root");
    }

    function testFuzz_rootBefore_anyOtherLengthReverts(uint8 tensors, uint8 inputs, uint8 length) public {
        (uint256 n, uint256 w) = (between(tensors, 1, MOST), inputs % MOST);
        uint256 needed = Commitments.depth(n) + (w == 0 ? 0 : Commitments.depth(w + 1));
        uint256 given = length % 12;
        vm.assume(given != needed);
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, given, needed));
        _harness.rootBefore(n, w, 0, keccak256("tensor"), new bytes32[](given));
    }

    function testFuzz_checkState_everyTensorOfEveryInput(uint8 tensors, uint8 inputs, uint256 place, uint256 seed)
        public
        view
    {
        (uint256 n, uint256 w) = (between(tensors, 1, MOST), between(inputs, 2, MOST));
        place = place % (n * (w + 1));
        (IStepReferee.Scene memory scene, IStepReferee.Source memory source) = _shown(n, w, place, seed);
        _harness.checkState(scene, source, place);
    }

    function test_checkState_anotherStateThanTheOneReadReverts() public {
        // Tensor 3 of the second slot of four, shown as that of every other state.
        (IStepReferee.Scene memory scene, IStepReferee.Source memory source) = _shown(5, 4, 2 * 5 + 3, 1);
        _harness.checkState(scene, source, 13);
        for (uint32 state = 0; state < 5; ++state) {
            if (state == 2) continue;
            source.number = state * 5 + 3;
            vm.expectPartialRevert(IStepReferee.WrongProof.selector);
            _harness.checkState(scene, source, source.number);
            // Nor may what is read be named so that it is not asked for.
            vm.expectRevert(
                abi.encodeWithSelector(IStepReferee.WrongSource.selector, uint256(source.number), uint256(13))
            );
            _harness.checkState(scene, source, 13);
        }
    }

    function test_checkState_behindTheLastInputReverts() public {
        (IStepReferee.Scene memory scene, IStepReferee.Source memory source) = _shown(5, 4, 24, 1);
        _harness.checkState(scene, source, 24);
        source.number = 25;
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongSource.selector, uint256(25), uint256(25)));
        _harness.checkState(scene, source, 25);
        // In a run of one state, what is behind its tensors is not the next state's.
        (scene.inputs, source.number) = (0, 5);
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongSource.selector, uint256(5), uint256(5)));
        _harness.checkState(scene, source, 5);
    }

    function test_checkState_aStateIsNoInputsAndInputsAreNoState() public {
        (IStepReferee.Scene memory scene, IStepReferee.Source memory source) = _shown(5, 3, 2, 1);
        bytes32[][] memory states = InputTrees.made(4, 5, 1);
        states[0][2] = _tensorRoot(source);
        scene.stateBefore = Root.wrap(InputTrees.stateRoot(states[0]));
        vm.expectPartialRevert(IStepReferee.WrongProof.selector);
        _harness.checkState(scene, source, 2);
        (scene.inputs, source.path) = (0, Trees.proof(InputTrees.stateRows(states[0]), 2));
        _harness.checkState(scene, source, 2);
        scene.stateBefore = Root.wrap(InputTrees.inputsRoot(states));
        vm.expectPartialRevert(IStepReferee.WrongProof.selector);
        _harness.checkState(scene, source, 2);
        scene.inputs = 3;
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, uint256(3), uint256(5)));
        _harness.checkState(scene, source, 2);
    }

    function test_checkState_wrongLengthReverts() public {
        (IStepReferee.Scene memory scene, IStepReferee.Source memory source) = _shown(5, 4, 7, 1);
        bytes32[] memory path = source.path; // 3 + 3
        source.path = new bytes32[](5);
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, uint256(5), uint256(6)));
        _harness.checkState(scene, source, 7);
        source.path = new bytes32[](7);
        for (uint256 i = 0; i < 6; ++i) {
            source.path[i] = path[i];
        }
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, uint256(7), uint256(6)));
        _harness.checkState(scene, source, 7);
    }

    /// @dev A merge of `inputs` states of `tensors` tensors, and tensor number `place` of them, of one chunk.
    function _shown(uint256 tensors, uint256 inputs, uint256 place, uint256 seed)
        private
        view
        returns (IStepReferee.Scene memory scene, IStepReferee.Source memory source)
    {
        bytes32[][] memory states = InputTrees.made(inputs + 1, tensors, seed);
        (source.number, source.dtype, source.size) = (uint32(place), 1, 12);
        source.chunks = Trees.chunk(abi.encodePacked(bytes12(keccak256(abi.encode(seed, place)))), 0);
        (uint256 state, uint256 tensor) = (place / tensors, place % tensors);
        states[state][tensor] = _tensorRoot(source);
        source.path = InputTrees.path(states, state, tensor);
        scene.stateBefore = Root.wrap(InputTrees.inputsRoot(states));
        (scene.inputs, scene.states) = (uint8(inputs), uint32(tensors));
    }

    function _whole(Shown memory shown) private pure returns (bytes32[] memory path) {
        path = new bytes32[](shown.inState.length + shown.inInputs.length);
        for (uint256 i = 0; i < path.length; ++i) {
            bool lower = i < shown.inState.length;
            string memory text = lower ? shown.inState[i] : shown.inInputs[i - shown.inState.length];
            path[i] = vm.parseBytes32(_hex(text));
        }
    }

    function _hex(string memory digits) private pure returns (string memory) {
        return string.concat("0x", digits);
    }

    function _tensorRoot(IStepReferee.Source memory source) private pure returns (bytes32) {
        return Trees.seal(1, source.dtype, source.size, Trees.leaf(1, source.chunks));
    }
}
