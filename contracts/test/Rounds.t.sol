// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IRoundBook} from "../interfaces/IRoundBook.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {RoundFixture} from "./base/RoundFixture.sol";

/// @title Rounds of many slots, from the first claim to the merge
contract RoundsTest is RoundFixture {
    TaskId private _task;

    function setUp() public override {
        super.setUp();
        _task = postGroup();
    }

    function test_round_wholeLife() public {
        playAll(_task);
        Root inputs = collectAll(_task);
        Root[] memory roots = new Root[](SLOTS + 1);
        roots[0] = parameters().initialStateRoot;
        for (uint32 slot = 0; slot < SLOTS; ++slot) {
            roots[slot + 1] = madeUp(slot);
        }
        vm.assertTrue(inputs == inputsRoot(roots), "inputs");
        play(_task, SLOTS, 99);
        for (uint32 slot = 0; slot < SLOTS; ++slot) {
            finaliseSlot(_task, slot);
        }
        vm.assertEq(current(_task), 0, "training alone ends no round");
        finaliseSlot(_task, SLOTS);
        vm.assertEq(current(_task), 1, "the merge does");
        vm.assertTrue(ledger.baseRoot(_task, 1) == madeUp(99), "base of the next round");
        ITrainingLedger.Checkpoint memory checkpoint = ledger.getCheckpoint(_task, 0);
        vm.assertTrue(checkpoint.parent == parameters().initialStateRoot, "parent");
        vm.assertTrue(checkpoint.stateRoot == madeUp(99), "checkpoint");

        uint256 earned = SLOTS * ledger.payFor(_task, 0, 100, LOSS_3) + MERGE_REWARD;
        vm.assertEq(vault.creditOf(WORKER), earned, "pay");
        vm.assertEq(lockedOf(WORKER), 0, "bonds");
        assertSolvent();
    }

    function testFuzz_inputs_areTheTreeOverTheSlots(uint256 which, uint256 there, uint256 part) public {
        uint32 slots = uint32(between(which, 2, 40));
        ITrainingLedger.TaskParameters memory p = groupParameters(slots);
        p.quorum = 1;
        TaskId task = post(p);
        Root[] memory roots = new Root[](slots + 1);
        roots[0] = p.initialStateRoot;
        there |= 1; // at least one
        for (uint32 slot = 0; slot < slots; ++slot) {
            bool played = (there >> slot) & 1 == 1;
            if (played) play(task, slot, slot);
            roots[slot + 1] = played ? madeUp(slot) : roots[0];
        }
        vm.warp(block.timestamp + ROUND_SECONDS + 1);
        part = between(part, 1, 50);
        while (book.inputsOf(task, 0, 0) == Root.wrap(0)) {
            book.collect(task, 0, 0, part);
        }
        vm.assertTrue(book.inputsOf(task, 0, 0) == inputsRoot(roots), "inputs");
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.AlreadyCollected.selector, inputsRoot(roots)));
        book.collect(task, 0, 0, 1);
    }

    function test_inputs_largestRound() public {
        TaskId task = post(groupParameters(255));
        Root[] memory roots = new Root[](256);
        roots[0] = parameters().initialStateRoot;
        for (uint32 slot = 0; slot < 255; ++slot) {
            play(task, slot, slot);
            roots[slot + 1] = madeUp(slot);
        }
        vm.assertTrue(collectAll(task) == inputsRoot(roots), "inputs");
    }

    function test_claim_slotsAreIndependent() public {
        claimSlot(_task, 2, WORKER);
        claimSlot(_task, 0, OTHER);
        vm.assertEq(slotOf(_task, 2).worker, WORKER, "slot 2");
        vm.assertEq(slotOf(_task, 0).worker, OTHER, "slot 0");
        vm.assertEq(stateOf(_task).running, 2, "running");
        ITrainingLedger.Claim memory request = claimSlotOf(_task, 2, OTHER);
        uint256 leaseEnd = slotOf(_task, 2).deadline;
        vm.prank(OTHER);
        vm.expectRevert(
            abi.encodeWithSelector(
                ITrainingLedger.SlotTaken.selector, WORKER, ITrainingLedger.SlotStatus.Leased, leaseEnd
            )
        );
        ledger.claim(request);
        request.slot = SLOTS + 1;
        vm.prank(OTHER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongSlot.selector, SLOTS + 1, SLOTS + 1));
        ledger.claim(request);
    }

    function test_claim_mergeBeforeItsInputsReverts() public {
        playAll(_task);
        ITrainingLedger.Claim memory request = claimSlotOf(_task, SLOTS, WORKER);
        vm.prank(WORKER);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.InputsNotCollected.selector, 0, SLOTS + 1));
        ledger.claim(request);
        book.collect(_task, 0, 0, SLOTS);
        vm.prank(WORKER);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.InputsNotCollected.selector, SLOTS, SLOTS + 1));
        ledger.claim(request);
        book.collect(_task, 0, 0, 1);
        Root inputs = book.inputsOf(_task, 0, 0);
        vm.prank(WORKER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongBase.selector, Root.wrap(0), inputs));
        ledger.claim(request);
    }

    function test_collect_waitsForAllOrForTheDeadline() public {
        _notReady(0, SLOTS);
        play(_task, 1, 1);
        uint256 deadline = block.timestamp + ROUND_SECONDS;
        vm.assertEq(stateOf(_task).deadline, deadline, "deadline");
        vm.assertTrue(!book.isReady(_task, 0), "too few");
        _notReady(1, SLOTS);
        vm.warp(deadline);
        _notReady(1, SLOTS);
        vm.warp(deadline + 1);
        _notReady(1, 2);
        play(_task, 3, 3); // a late slot reopens
        vm.assertTrue(book.isReady(_task, 0), "quorum");
        vm.expectEmit(true, true, true, true, address(book));
        emit IRoundBook.RoundFrozen(_task, 0, 0, 2);
        collectAll(_task);
        (uint256 submittedSlots, uint256 countedSlots) = book.slotsOf(_task, 0);
        vm.assertEq(submittedSlots, 10, "submitted");
        vm.assertEq(countedSlots, 10, "counted");
    }

    function test_frozen_takesNothingMore() public {
        claimSlot(_task, 0, OTHER);
        for (uint32 slot = 1; slot < SLOTS; ++slot) {
            play(_task, slot, slot);
        }
        vm.warp(uint256(stateOf(_task).deadline) - 10);
        ledger.expireLease(_task, 0, 0, 0);
        claimSlot(_task, 0, OTHER); // its lease outlasts the round
        vm.warp(uint256(stateOf(_task).deadline) + 1);
        collectAll(_task);

        ITrainingLedger.Submission memory late = slotResult(_task, 0, 100, 0);
        vm.prank(OTHER);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.RoundIsFrozen.selector, 0, block.timestamp));
        ledger.submit(late);
        uint256 staked = stakedOf(OTHER);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.LeaseExpired(_task, 0, OTHER, 0, 1, 0);
        ledger.expireLease(_task, 0, 0, 1);
        vm.assertEq(stakedOf(OTHER), staked, "no fee: the round went on without it");
        vm.assertEq(lockedOf(OTHER), 0, "free");
        ITrainingLedger.Claim memory again = claimSlotOf(_task, 0, OTHER);
        vm.prank(OTHER);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.RoundIsFrozen.selector, 0, block.timestamp));
        ledger.claim(again);
    }

    function test_frozen_whoWasLateBeforePays() public {
        claimSlot(_task, 0, OTHER);
        for (uint32 slot = 1; slot < SLOTS; ++slot) {
            play(_task, slot, slot);
        }
        vm.warp(block.timestamp + ROUND_SECONDS + 1);
        collectAll(_task);
        uint256 staked = stakedOf(OTHER);
        ledger.expireLease(_task, 0, 0, 0);
        vm.assertEq(stakedOf(OTHER), staked - FEE, "the lease had run out before");
    }

    function test_expireLease_runningReverts() public {
        claimSlot(_task, 0, OTHER);
        uint256 deadline = slotOf(_task, 0).deadline;
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.LeaseStillRunning.selector, deadline, block.timestamp));
        ledger.expireLease(_task, 0, 0, 0);
    }

    function test_merge_isOneStep() public {
        playAll(_task);
        collectAll(_task);
        claimSlot(_task, SLOTS, WORKER);
        ITrainingLedger.Submission memory result = slotResult(_task, SLOTS, 2, 99);
        vm.prank(WORKER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongSteps.selector, 2, 1, 1));
        ledger.submit(result);
    }

    function test_merge_waitsForItsInputs() public {
        playAll(_task);
        collectAll(_task);
        play(_task, SLOTS, 99);
        finaliseSlot(_task, 0);
        ITrainingLedger.Slot memory merge = slotOf(_task, SLOTS);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.InputsNotFinal.selector, 1, SLOTS));
        ledger.finalise(_task, 0, SLOTS, 0, merge.stateRoot);
    }

    function test_ledgerCalls_strangerReverts() public {
        bytes memory refusal = abi.encodeWithSelector(IRoundBook.OnlyLedger.selector, STRANGER);
        vm.startPrank(STRANGER);
        vm.expectRevert(refusal);
        book.opened(_task, groupParameters(2), 1, 1, 1);
        vm.expectRevert(refusal);
        book.claimed(_task, 0, 0);
        vm.expectRevert(refusal);
        book.submitted(_task, 0, 0);
        vm.expectRevert(refusal);
        book.released(_task, 0, 0, 0, 0);
        vm.expectRevert(refusal);
        book.fell(_task, 0, 0);
        vm.expectRevert(refusal);
        book.finalised(_task, 0, 0, 0);
        vm.stopPrank();
    }

    function test_collect_oneSlotTaskReverts() public {
        TaskId alone = post();
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.NotGrouped.selector, alone));
        book.collect(alone, 0, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.NotGrouped.selector, alone));
        book.isReady(alone, 0);
    }

    function test_rounds_playToTheEnd() public {
        uint256 before = token.balanceOf(REQUESTER);
        for (uint32 round = 0; round < 3; ++round) {
            playAll(_task);
            collectAll(_task);
            play(_task, SLOTS, 99 + round);
            for (uint32 slot = 0; slot <= SLOTS; ++slot) {
                finaliseSlot(_task, slot);
            }
        }
        vm.assertEq(vault.escrowOf(_task), 0, "escrow");
        uint256 paid = vault.creditOf(WORKER);
        uint256 all = 3 * (SLOTS * uint256(REWARD) + MERGE_REWARD);
        vm.assertEq(vault.creditOf(REQUESTER), all - paid, "the rest returns");
        vm.assertEq(token.balanceOf(REQUESTER), before, "by pulling");
        assertSolvent();
    }

    function test_closeTask_sparesRunningSlots() public {
        claimSlot(_task, 0, WORKER);
        claimSlot(_task, 1, OTHER);
        submitSlot(_task, 1, OTHER, 1);
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        vm.assertEq(vault.escrowOf(_task), 2 * uint256(REWARD), "two run");
        submitSlot(_task, 0, WORKER, 0);
        finaliseSlot(_task, 0);
        vm.assertEq(vault.escrowOf(_task), REWARD, "one runs");
        finaliseSlot(_task, 1);
        vm.assertEq(vault.escrowOf(_task), 0, "none");
        vm.assertEq(vault.creditOf(WORKER), ledger.payFor(_task, 0, 100, LOSS_3), "paid");
        assertSolvent();
    }

    function test_closeTask_sparesAMerge() public {
        playAll(_task);
        collectAll(_task);
        claimSlot(_task, SLOTS, OTHER);
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        vm.assertEq(vault.escrowOf(_task), SLOTS * uint256(REWARD) + MERGE_REWARD, "all run");
        submitSlot(_task, SLOTS, OTHER, 99);
        for (uint32 slot = 0; slot <= SLOTS; ++slot) {
            finaliseSlot(_task, slot);
        }
        vm.assertEq(vault.creditOf(OTHER), MERGE_REWARD, "merger");
        vm.assertEq(vault.escrowOf(_task), 0, "none");
        assertSolvent();
    }

    function _notReady(uint256 submitted, uint256 needed) private {
        uint256 deadline = stateOf(_task).deadline;
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.RoundNotReady.selector, submitted, needed, deadline));
        book.collect(_task, 0, 0, 1);
    }
}
