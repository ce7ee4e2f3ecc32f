// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";

contract LedgerFinaliseTest is Fixture {
    uint32 private constant LOSS_3_5 = 0x40600000;

    function test_finalise_paysReleasesAndAdvances() public {
        (TaskId task, Root root) = submitted();
        vm.warp(block.timestamp + WINDOW + 1);
        // From 4 to 2 in 3 rounds: 3 is beyond the line of round 0, so the pay is full.
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.Finalised(task, 0, WORKER, 0, 0, WORKER, root, 100, LOSS_3, REWARD);
        vm.prank(STRANGER);
        ledger.finalise(task, 0, 0, 0, root);
        vm.assertEq(vault.creditOf(WORKER), REWARD, "credit");
        vm.assertEq(vault.escrowOf(task), 2 * uint256(REWARD), "escrow");
        vm.assertEq(lockedOf(WORKER), 0, "bond");
        vm.assertEq(ledger.getTask(task).currentRound, 1, "round");
        vm.assertTrue(ledger.baseRoot(task, 1) == root, "next base");
        ITrainingLedger.Checkpoint memory checkpoint = ledger.getCheckpoint(task, 0);
        vm.assertTrue(checkpoint.stateRoot == root, "checkpoint");
        vm.assertTrue(checkpoint.parent == parameters().initialStateRoot, "parent");
        vm.assertEq(checkpoint.worker, WORKER, "worker");
        vm.assertEq(checkpoint.steps, 100, "steps");
        vm.assertEq(checkpoint.heldOutLoss, LOSS_3, "loss");
        assertSolvent();
    }

    function test_finalise_paysNamedPayout() public {
        TaskId task = post();
        vm.prank(WORKER);
        vault.setPayout(STRANGER);
        playRound(task, WORKER, 50, LOSS_3);
        vm.assertEq(vault.creditOf(STRANGER), REWARD / 2, "half of the steps");
        vm.assertEq(vault.creditOf(WORKER), 0, "worker");
    }

    function test_finalise_wrongNamesRevert() public {
        (TaskId task, Root root) = submitted();
        vm.warp(block.timestamp + WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        ledger.finalise(task, 0, 0, 1, root);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongSlot.selector, 2, 1));
        ledger.finalise(task, 0, 2, 0, root);
        Root other = Root.wrap(bytes32(uint256(8)));
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongState.selector, other, root));
        ledger.finalise(task, 0, 0, 0, other);
        _expectStatus(ITrainingLedger.SlotStatus.Open, ITrainingLedger.SlotStatus.Submitted);
        ledger.finalise(task, 1, 0, 0, root);
    }

    function test_finalise_insideWindowReverts() public {
        (TaskId task, Root root) = submitted();
        uint256 end = block.timestamp + WINDOW;
        vm.warp(end); // the last second of the window
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WindowStillOpen.selector, end, end));
        ledger.finalise(task, 0, 0, 0, root);
    }

    function test_finalise_leasedSlotReverts() public {
        TaskId task = post();
        claimAs(task, WORKER);
        _expectStatus(ITrainingLedger.SlotStatus.Leased, ITrainingLedger.SlotStatus.Submitted);
        ledger.finalise(task, 0, 0, 0, Root.wrap(0));
    }

    function test_finalise_twiceReverts() public {
        (TaskId task, Root root) = submitted();
        finaliseNow(task);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.AlreadyFinalised.selector, root));
        ledger.finalise(task, 0, 0, 0, root);
        _expectStatus(ITrainingLedger.SlotStatus.Finalised, ITrainingLedger.SlotStatus.Submitted);
        ledger.finalise(task, 0, 0, 0, Root.wrap(bytes32(uint256(8))));
        vm.assertEq(vault.creditOf(WORKER), REWARD, "paid once");
    }

    function test_finalise_lastRoundRefundsRemainder() public {
        TaskId task = post();
        playRound(task, WORKER, 100, LOSS_3); // full
        playRound(task, OTHER, 100, LOSS_3_5); // 0.5 gained of the 4/3 on the line: 3/8
        playRound(task, WORKER, 100, LOSS_4); // nothing
        vm.assertEq(vault.creditOf(WORKER), REWARD, "first");
        vm.assertEq(vault.creditOf(OTHER), uint256(REWARD) * 3 / 8, "second");
        vm.assertEq(vault.creditOf(REQUESTER), uint256(REWARD) * 13 / 8, "refund");
        vm.assertEq(vault.escrowOf(task), 0, "escrow");
        vm.assertEq(ledger.getTask(task).currentRound, 3, "complete");
        vm.assertTrue(!ledger.getTask(task).closed, "not closed");
        vm.prank(REQUESTER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.TaskIsClosed.selector, task));
        ledger.closeTask(task);
        _withdrawAll();
    }

    function testFuzz_finalise_payEqualsPayFor(uint32 steps, uint32 loss, uint32 skip) public {
        steps = uint32(between(steps, 10, 100));
        vm.assume((loss >> 23) & 0xff != 0xff);
        TaskId task = post();
        for (uint256 i = 0; i < skip % 3; ++i) {
            playRound(task, OTHER, 100, LOSS_3);
        }
        uint256 pay = ledger.payFor(task, skip % 3, steps, loss);
        playRound(task, WORKER, steps, loss);
        vm.assertEq(vault.creditOf(WORKER), pay, "pay");
        vm.assertLe(pay, uint256(REWARD) * steps / 100, "share of the steps");
        assertSolvent();
    }

    function test_payFor_outOfRangeReverts() public {
        TaskId task = post();
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongRound.selector, 3, 0));
        ledger.payFor(task, 3, 1, 0);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongSteps.selector, 101, 10, 100));
        ledger.payFor(task, 0, 101, 0);
    }

    function test_getCheckpoint_beforeFinaliseReverts() public {
        (TaskId task,) = submitted();
        _expectStatus(ITrainingLedger.SlotStatus.Submitted, ITrainingLedger.SlotStatus.Finalised);
        ledger.getCheckpoint(task, 0);
    }

    function test_expireLease_burnsFeeAndReopens() public {
        TaskId task = post();
        claimAs(task, WORKER);
        uint256 end = block.timestamp + LEASE;
        vm.warp(end);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.LeaseStillRunning.selector, end, end));
        ledger.expireLease(task, 0, 0, 0);
        vm.warp(end + 1);
        vm.assertEq(ledger.nextAttempt(task, 0, 0), 1, "next attempt");
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        ledger.expireLease(task, 0, 0, 1);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.LeaseExpired(task, 0, WORKER, 0, 0, FEE);
        vm.prank(STRANGER);
        ledger.expireLease(task, 0, 0, 0);
        vm.assertEq(ledger.nextAttempt(task, 0, 0), 1, "attempt");
        vm.assertEq(stakedOf(WORKER), 100 ether - FEE, "fee");
        vm.assertEq(lockedOf(WORKER), 0, "bond");
        vm.assertEq(token.totalSupply(), SUPPLY - FEE, "burned");
        vm.assertEq(vault.creditOf(REQUESTER), 0, "the requester earns nothing from it");
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 0, 1));
        ledger.expireLease(task, 0, 0, 0);
        _expectStatus(ITrainingLedger.SlotStatus.Open, ITrainingLedger.SlotStatus.Leased);
        ledger.expireLease(task, 0, 0, 1);
        assertSolvent();
    }

    function test_expireLease_withoutFeeSucceeds() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.leaseFee = 0;
        TaskId task = post(p);
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1);
        ledger.expireLease(task, 0, 0, 0);
        vm.assertEq(stakedOf(WORKER), 100 ether, "nothing taken");
        vm.assertEq(token.totalSupply(), SUPPLY, "nothing burned");
    }

    function test_expireLease_submittedSlotReverts() public {
        (TaskId task,) = submitted();
        vm.warp(block.timestamp + WINDOW + 1);
        _expectStatus(ITrainingLedger.SlotStatus.Submitted, ITrainingLedger.SlotStatus.Leased);
        ledger.expireLease(task, 0, 0, 0);
    }

    function test_closeTask_openSlotRefundsAll() public {
        TaskId task = post();
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyRequester.selector, STRANGER, REQUESTER));
        ledger.closeTask(task);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.TaskClosed(task, 3 * uint256(REWARD));
        vm.startPrank(REQUESTER);
        ledger.closeTask(task);
        vm.assertEq(vault.creditOf(REQUESTER), 3 * uint256(REWARD), "refund");
        vm.assertTrue(ledger.getTask(task).closed, "closed");
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.TaskIsClosed.selector, task));
        ledger.closeTask(task);
    }

    function test_closeTask_submittedSlotIsPaidAndRestRefunded() public {
        (TaskId task,) = submitted();
        _close(task, 2 * uint256(REWARD));
        finaliseNow(task);
        vm.assertEq(vault.creditOf(WORKER), REWARD, "paid");
        vm.assertEq(vault.escrowOf(task), 0, "nothing left");
        vm.assertEq(ledger.getTask(task).currentRound, 1, "lineage goes on");
        _withdrawAll();
    }

    function test_closeTask_partlyPaidSlotRefundsRemainder() public {
        TaskId task = post();
        claimAs(task, WORKER);
        _close(task, 2 * uint256(REWARD));
        submitAs(task, WORKER, 25, LOSS_3);
        finaliseNow(task);
        vm.assertEq(vault.creditOf(WORKER), REWARD / 4, "paid");
        vm.assertEq(vault.creditOf(REQUESTER), 3 * uint256(REWARD) - REWARD / 4, "refund");
        _withdrawAll();
    }

    function test_closeTask_expiredLeaseRefundsRest() public {
        TaskId task = post();
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1); // over, but nobody has expired it yet
        _close(task, 2 * uint256(REWARD));
        ledger.expireLease(task, 0, 0, 0);
        vm.assertEq(vault.creditOf(REQUESTER), 3 * uint256(REWARD), "refund");
        vm.assertEq(vault.escrowOf(task), 0, "escrow");
    }

    function test_closeTask_fallenSubmissionRefundsRest() public {
        (TaskId task, Root root) = submitted();
        _close(task, 2 * uint256(REWARD));
        arm(CHALLENGER);
        vm.prank(CHALLENGER);
        uint256 number = game.open(task, 0, 0, 0, root, Root.wrap(bytes32(uint256(1))));
        game.decide(number, IDisputeGame.Outcome.ChallengerWon);
        vm.assertEq(vault.creditOf(REQUESTER), 3 * uint256(REWARD), "refund");
        vm.assertEq(vault.escrowOf(task), 0, "escrow");
    }

    function _close(TaskId task, uint256 refund) private {
        vm.prank(REQUESTER);
        ledger.closeTask(task);
        vm.assertEq(vault.creditOf(REQUESTER), refund, "a running slot keeps its escrow");
    }

    function _expectStatus(ITrainingLedger.SlotStatus status, ITrainingLedger.SlotStatus needed) private {
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongStatus.selector, status, needed));
    }

    /// @dev Everybody takes what the books say, down to an empty vault.
    function _withdrawAll() private {
        address[3] memory people = [REQUESTER, WORKER, OTHER];
        for (uint256 i = 0; i < people.length; ++i) {
            vm.startPrank(people[i]);
            if (vault.creditOf(people[i]) > 0) vault.withdraw();
            uint256 free = stakedOf(people[i]);
            if (free > 0) vault.requestUnbond(free);
            if (free > 0) vm.warp(vault.unbondingOf(people[i]).releaseTime);
            if (free > 0) vault.completeUnbond();
            vm.stopPrank();
        }
        vm.assertEq(token.balanceOf(address(vault)), 0, "an empty vault");
        vm.assertEq(vault.totalStaked() + vault.totalOwed(), 0, "empty books");
    }
}
