// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IStepReferee} from "../interfaces/IStepReferee.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {ToldLedger} from "../mocks/ToldLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {InputTrees} from "./base/InputTrees.sol";
import {Trees} from "./base/Trees.sol";
import {Vm} from "./base/Vm.sol";

/// @title Games about merges: which program a run is of, what it begins with, and what an unchanged tensor is
/// @dev A merge of three slots over states of three tensors, by a program of one operation, which writes tensor 0. The
/// challenger is right but where a test says otherwise.
contract DisputeMergesTest is Fixture {
    uint8 private constant TRACE = 3;
    uint8 private constant PROGRAM = 4;
    uint32 private constant SIZE = 3; // tensors of a state
    uint8 private constant SLOTS = 3;
    bytes32 private constant OUTPUT = keccak256("output");

    /// @dev In the headers of the training, the evaluation and the merge program.
    uint8[3] private _inputsOf;
    IDisputeGame private _disputes;
    ToldLedger private _told;
    IDisputeGame.Position private _at;
    bool private _merge;
    bytes32[] private _posted; // roots of the tensors of the state that the challenger posted

    function setUp() public override {
        vm.warp(1_800_000_000);
        _told = new ToldLedger();
        address referee = vm.deployCode("ToldReferee.sol:ToldReferee", "");
        bytes memory arguments = abi.encode(_told, referee, uint32(1500), uint32(100));
        _disputes = IDisputeGame(vm.deployCode("DisputeGame.sol:DisputeGame", arguments));
        (_merge, _inputsOf) = (true, [0, 0, SLOTS]);
    }

    function test_open_saysThatItIsAMerge() public {
        _open();
        vm.assertTrue(_at.matter.merge, "merge");
        vm.assertTrue(_at.matter.base == Root.wrap(InputTrees.inputsRoot(_inputs())), "base");
        vm.assertEq(_at.agreed, Root.unwrap(_at.matter.base), "agreed");
    }

    function test_enterRun_readsHowManyStatesAMergeTakes() public {
        _open();
        _enter(0, 2);
        vm.assertEq(_at.run.inputs, SLOTS, "inputs");
        vm.assertTrue(_at.run.program == Root.wrap(_programRoot(2)), "program");
        vm.assertTrue(_at.run.stateBefore == _at.matter.base, "state before");
        vm.assertTrue(_at.run.states == SIZE && _at.run.constants == 0 && _at.run.operations == 1, "counts");
    }

    function test_enterRun_mergeIsOfNoOtherProgram() public {
        (_inputsOf[0], _inputsOf[1]) = (SLOTS, SLOTS);
        _open();
        for (uint256 program = 0; program < 2; ++program) {
            vm.expectPartialRevert(IStepReferee.WrongProof.selector);
            this.enter(0, program);
        }
    }

    function test_enterRun_mergeOfTooFewStatesReverts() public {
        for (uint8 inputs = 0; inputs < 2; ++inputs) {
            _inputsOf[2] = inputs;
            _open();
            vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, _records(2)[0]));
            this.enter(0, 2);
        }
        _inputsOf[2] = 255;
        _open();
        _enter(0, 2);
        vm.assertEq(_at.run.inputs, 255, "most inputs");
    }

    function test_enterRun_evaluationOfAMergeTakesOneState() public {
        _open();
        _enter(1, 1);
        vm.assertEq(_at.run.inputs, 0, "inputs");
        vm.assertTrue(_at.run.program == Root.wrap(_programRoot(1)), "program");
        _inputsOf[1] = SLOTS;
        _open();
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, _records(1)[0]));
        this.enter(1, 1);
    }

    function test_enterRun_onlyMergesAreOfTheMergeProgram() public {
        _merge = false;
        _open();
        vm.expectPartialRevert(IStepReferee.WrongProof.selector);
        this.enter(0, 2);
        _enter(0, 0);
        vm.assertEq(_at.run.inputs, 0, "inputs");
        for (uint8 inputs = 1; inputs < 3; ++inputs) {
            _inputsOf[0] = inputs;
            _open();
            vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, _records(0)[0]));
            this.enter(0, 0);
        }
    }

    function test_enterRun_changedInputsAreAnotherHeader() public {
        _open();
        (Root state, IDisputeGame.ProgramProof memory proof, bytes32[] memory nodes) = _entering(2);
        proof.header.data[7] = 0x04;
        vm.prank(WORKER);
        vm.expectPartialRevert(IStepReferee.WrongProof.selector);
        _disputes.enterRun(_at, 0, state, proof, nodes, _siblings(nodes));
    }

    function test_proveStateLeaf_unchangedIsTheBases() public {
        for (uint64 tensor = 1; tensor < SIZE; ++tensor) {
            _disputeUnchanged(tensor);
            _refuseOtherStates(tensor);
            _prove(tensor, 0, 0, false);
            // The challenger said that the tensor is the first slot's.
            vm.assertEq(uint256(_told.outcome()), uint256(IDisputeGame.Outcome.DefenderWon), "the liar won");
        }
    }

    function test_proveStateLeaf_unchangedPathOfAnotherLengthReverts() public {
        _disputeUnchanged(1);
        bytes32[] memory path = Trees.proof(InputTrees.stateRows(_inputs()[0]), 1);
        (IDisputeGame.Pick memory pick, IStepReferee.Record memory record) = (_pick(1), _record(1));
        Root root = Root.wrap(_inputs()[0][1]);
        vm.prank(WORKER);
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, uint256(2), uint256(4)));
        _disputes.proveStateLeaf(_at, pick, record, root, path);
    }

    /// @notice External, so that what is refused comes through whole.
    function enter(uint256 place, uint256 program) external {
        _enter(place, program);
    }

    /// @dev A tensor that is another state's; the base's by the path of another state; another state's as the base's.
    function _refuseOtherStates(uint64 tensor) private {
        for (uint256 state = 1; state <= SLOTS; ++state) {
            _prove(tensor, state, state, true);
            _prove(tensor, 0, state, true);
            _prove(tensor, state, 0, true);
        }
    }

    /// @dev Tensor `tensor` of state `of_`, by the path of that tensor of state `by`.
    function _prove(uint64 tensor, uint256 of_, uint256 by, bool refused) private {
        bytes32[][] memory inputs = _inputs();
        bytes32[] memory path = InputTrees.path(inputs, by, tensor);
        (IDisputeGame.Pick memory pick, IStepReferee.Record memory record) = (_pick(tensor), _record(tensor));
        vm.prank(WORKER);
        if (refused) vm.expectPartialRevert(IStepReferee.WrongProof.selector);
        _disputes.proveStateLeaf(_at, pick, record, Root.wrap(inputs[of_][tensor]), path);
    }

    /// @dev To the state after run 0, of which the challenger has posted that one tensor is the first slot's.
    function _disputeUnchanged(uint64 tensor) private {
        _open();
        _enter(0, 2);
        bytes32[] memory own = _after();
        own[tensor] = _inputs()[1][tensor];
        bytes32[][] memory rows = InputTrees.stateRows(own);
        bytes32[][] memory trace = _trace(_after());
        IDisputeGame.Pick memory pick = IDisputeGame.Pick(1, trace[0][1], Trees.proof(trace, 1));
        vm.recordLogs();
        vm.prank(CHALLENGER);
        _disputes.enterState(_at, pick, Trees.viewOf(rows, rows.length - 1, 0));
        _follow();
        _posted = own;
    }

    function _pick(uint64 tensor) private view returns (IDisputeGame.Pick memory) {
        bytes32[][] memory rows = InputTrees.stateRows(_posted);
        return IDisputeGame.Pick(tensor, rows[0][tensor], Trees.proof(rows, tensor));
    }

    function _record(uint64 tensor) private view returns (IStepReferee.Record memory) {
        return IStepReferee.Record(_records(2)[1 + tensor], Trees.proof(_programRows(2), 1 + tensor));
    }

    /// @dev A game about a segment of one step, in which the challenger has posted roots that are nothing's.
    function _open() private {
        Root base = Root.wrap(InputTrees.inputsRoot(_inputs()));
        ITrainingLedger.Disputed memory disputed = ITrainingLedger.Disputed({
            worker: WORKER,
            steps: 1,
            leaseSeconds: LEASE,
            baseRoot: base,
            programRoot: Root.wrap(Trees.seal(PROGRAM, 2, 6, Trees.top(_taskRows()))),
            datasetRoot: Root.wrap(keccak256("dataset")),
            merge: _merge
        });
        _told.tell(disputed);
        bytes32[] memory points = new bytes32[](2);
        (points[0], points[1]) = (keccak256("first point"), keccak256("last point"));
        vm.recordLogs();
        vm.prank(CHALLENGER);
        _disputes.open(
            IDisputeGame.Opening(CHALLENGER, TaskId.wrap(1), 0, SLOTS, 0, Root.wrap(keccak256("submitted"))), points
        );
        Vm.Log[] memory logs = vm.getRecordedLogs();
        (, _at) = abi.decode(logs[logs.length - 1].data, (address, IDisputeGame.Position));
    }

    /// @dev The defender enters the run that ends in the point picked, by a program of the task.
    function _enter(uint256 place, uint256 program) private {
        (Root state, IDisputeGame.ProgramProof memory proof, bytes32[] memory nodes) = _entering(program);
        bytes32[] memory siblings = _siblings(nodes);
        vm.recordLogs();
        vm.prank(WORKER);
        _disputes.enterRun(_at, place, state, proof, nodes, siblings);
        _follow();
    }

    function _entering(uint256 program)
        private
        view
        returns (Root state, IDisputeGame.ProgramProof memory proof, bytes32[] memory nodes)
    {
        bytes32[][] memory rows = _taskRows();
        uint256 place = program == 2 ? 5 : 1 + program;
        proof.seedSiblings = Trees.proof(rows, 0);
        (proof.program, proof.programSiblings) = (Root.wrap(_programRoot(program)), Trees.proof(rows, place));
        proof.header = IStepReferee.Record(_records(program)[0], Trees.proof(_programRows(program), 0));
        nodes = _trace(_after())[0];
        state = Root.wrap(InputTrees.stateRoot(_after()));
    }

    function _follow() private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        (_at,) = abi.decode(logs[logs.length - 1].data, (IDisputeGame.Position, bytes));
    }

    function _taskRows() private view returns (bytes32[][] memory) {
        bytes32[] memory leaves = new bytes32[](6);
        leaves[0] = Trees.leaf(PROGRAM, abi.encodePacked("TLXT", uint16(2), uint16(0), uint64(0)));
        leaves[1] = Trees.leafOfRoot(PROGRAM, _programRoot(0));
        leaves[2] = Trees.leafOfRoot(PROGRAM, _programRoot(1));
        leaves[3] = Trees.leafOfRoot(PROGRAM, bytes32(0));
        leaves[4] = Trees.leafOfRoot(PROGRAM, keccak256("description"));
        leaves[5] = Trees.leafOfRoot(PROGRAM, _programRoot(2));
        return Trees.build(PROGRAM, leaves);
    }

    function _programRoot(uint256 program) private view returns (bytes32) {
        return Trees.seal(PROGRAM, 1, 2 + SIZE, Trees.top(_programRows(program)));
    }

    function _programRows(uint256 program) private view returns (bytes32[][] memory) {
        bytes[] memory all = _records(program);
        bytes32[] memory leaves = new bytes32[](all.length);
        for (uint256 i = 0; i < all.length; ++i) {
            leaves[i] = Trees.leaf(PROGRAM, all[i]);
        }
        return Trees.build(PROGRAM, leaves);
    }

    function _records(uint256 program) private view returns (bytes[] memory all) {
        all = new bytes[](2 + SIZE);
        uint8 role = program == 2 ? 4 : uint8(1 + program);
        all[0] = abi.encodePacked("TLXP", uint16(1), role, _inputsOf[program], SIZE, uint32(0), uint32(1));
        for (uint32 i = 0; i < SIZE; ++i) {
            uint32 source = i == 0 ? 0 : 0xffffffff;
            all[1 + i] = abi.encodePacked(uint8(1), uint8(1), uint32(3), source, uint8(1), "x");
        }
        all[1 + SIZE] = abi.encodePacked(hex"05010100", uint32(3));
    }

    /// @dev Roots of the tensors of the state after run 0.
    function _after() private pure returns (bytes32[] memory tensors) {
        tensors = _inputs()[0];
        tensors[0] = OUTPUT;
    }

    function _trace(bytes32[] memory state) private view returns (bytes32[][] memory) {
        bytes32[] memory leaves = new bytes32[](2);
        leaves[0] = Trees.leafOfRoot(TRACE, OUTPUT);
        leaves[1] = Trees.leafOfRoot(TRACE, InputTrees.stateRoot(state));
        return Trees.build(TRACE, leaves);
    }

    function _inputs() private pure returns (bytes32[][] memory) {
        return InputTrees.made(SLOTS + 1, SIZE, 7);
    }

    function _siblings(bytes32[] memory nodes) private pure returns (bytes32[] memory siblings) {
        siblings = new bytes32[](1);
        siblings[0] = nodes[0];
    }
}
