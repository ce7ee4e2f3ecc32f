// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {StateTree} from "./base/StateTree.sol";

contract LedgerSubmitTest is Fixture {
    TaskId private _task;

    function setUp() public override {
        super.setUp();
        _task = post();
        claimAs(_task, WORKER);
    }

    function test_submit_recordsResultAndOpensWindow() public {
        vm.warp(block.timestamp + LEASE); // the last second of the lease still counts
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        uint256 end = block.timestamp + WINDOW;
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.Submitted(_task, 0, WORKER, 0, 0, result.baseRoot, result.stateRoot, 42, LOSS_3, end);
        vm.prank(WORKER);
        ledger.submit(result);
        ITrainingLedger.Slot memory slot = ledger.getSlot(_task, 0, 0);
        vm.assertTrue(slot.stateRoot == result.stateRoot, "root");
        vm.assertEq(slot.steps, 42, "steps");
        vm.assertEq(slot.heldOutLoss, LOSS_3, "loss");
        vm.assertEq(slot.deadline, end, "window");
        vm.assertEq(slot.payout, WORKER, "payout");
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Submitted);
    }

    function testFuzz_submit_everyCanonicalLossIsProvable(uint32 loss) public {
        vm.assume((loss >> 23) & 0xff != 0xff || loss & 0x7fffff == 0 || loss == NAN);
        submitAs(_task, WORKER, 100, loss);
        vm.assertEq(ledger.getSlot(_task, 0, 0).heldOutLoss, loss, "loss");
    }

    function test_submit_canonicalNaNSucceeds() public {
        submitAs(_task, WORKER, 100, NAN);
        finaliseNow(_task);
        vm.assertEq(vault.creditOf(WORKER), 0, "NaN earns nothing");
    }

    function testFuzz_submit_afterLeaseReverts(uint256 late) public {
        uint256 end = block.timestamp + LEASE;
        vm.warp(end + between(late, 1, 1000 days));
        _refused(
            resultOf(_task, 42, LOSS_3),
            abi.encodeWithSelector(ITrainingLedger.LeaseOver.selector, end, block.timestamp)
        );
    }

    function test_submit_byStrangerReverts() public {
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        vm.prank(OTHER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.NotAuthorised.selector, OTHER, WORKER));
        ledger.submit(result);
    }

    function test_submit_wrongNamesRevert() public {
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        result.attempt = 1;
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        result = resultOf(_task, 42, LOSS_3);
        result.slot = 1;
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongSlot.selector, 1, 1));
        result = resultOf(_task, 42, LOSS_3);
        result.baseRoot = Root.wrap(bytes32(uint256(3)));
        Root right = parameters().initialStateRoot;
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongBase.selector, result.baseRoot, right));
        result = resultOf(_task, 42, LOSS_3);
        result.round = 1; // nothing is leased there
        _refused(
            result,
            abi.encodeWithSelector(
                ITrainingLedger.WrongStatus.selector, ITrainingLedger.SlotStatus.Open, ITrainingLedger.SlotStatus.Leased
            )
        );
    }

    function test_submit_wrongStepsRevert() public {
        _refused(resultOf(_task, 9, LOSS_3), abi.encodeWithSelector(ITrainingLedger.WrongSteps.selector, 9, 10, 100));
        _refused(
            resultOf(_task, 101, LOSS_3), abi.encodeWithSelector(ITrainingLedger.WrongSteps.selector, 101, 10, 100)
        );
    }

    function test_submit_zeroRootReverts() public {
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        result.stateRoot = Root.wrap(0);
        _refused(result, abi.encodeWithSelector(ITrainingLedger.ZeroRoot.selector));
    }

    function test_submit_otherNaNReverts() public {
        _refused(
            resultOf(_task, 42, 0xffc00000),
            abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, "heldOutLoss", 0xffc00000)
        );
    }

    function test_submit_wrongProofLengthReverts() public {
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        result.lossProof = new bytes32[](2);
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongProofLength.selector, 2, 3));
        result.lossProof = new bytes32[](4);
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongProofLength.selector, 4, 3));
    }

    function testFuzz_submit_betterLossThanProvedReverts(uint32 lie) public {
        vm.assume(lie != LOSS_3 && (lie >> 23) & 0xff != 0xff);
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        (Root proved,) = StateTree.commit(_withSeed(lie, result));
        result.heldOutLoss = lie;
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongLossProof.selector, result.stateRoot, proved));
    }

    function _withSeed(uint32 loss, ITrainingLedger.Submission memory r) private pure returns (bytes32[] memory) {
        return StateTree.tensorRoots(loss, TENSORS, uint256(keccak256(abi.encode(r.task, r.round, r.attempt))));
    }

    function test_submit_twiceReverts() public {
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        vm.prank(WORKER);
        ledger.submit(result);
        bytes memory again = abi.encodeWithSelector(ITrainingLedger.AlreadySubmitted.selector, result.stateRoot);
        _refused(result, again);
        // Another root of the same attempt is another matter.
        ITrainingLedger.Submission memory other = resultOf(_task, 42, LOSS_2);
        _refused(
            other,
            abi.encodeWithSelector(
                ITrainingLedger.WrongStatus.selector,
                ITrainingLedger.SlotStatus.Submitted,
                ITrainingLedger.SlotStatus.Leased
            )
        );
        finaliseNow(_task);
        _refused(result, again);
    }

    function test_submit_afterExpiryNamesNewAttempt() public {
        ITrainingLedger.Submission memory result = resultOf(_task, 42, LOSS_3);
        vm.warp(block.timestamp + LEASE + 1);
        ledger.expireLease(_task, 0, 0, 0);
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 0, 1));
        claimAs(_task, OTHER);
        _refused(result, abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 0, 1));
    }

    function test_submit_onClosedTaskSucceeds() public {
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        submitAs(_task, WORKER, 100, LOSS_3);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Submitted);
    }

    function _refused(ITrainingLedger.Submission memory result, bytes memory refusal) private {
        vm.prank(WORKER);
        vm.expectRevert(refusal);
        ledger.submit(result);
    }
}
