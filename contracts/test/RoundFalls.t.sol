// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IRoundBook} from "../interfaces/IRoundBook.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {RoundFixture} from "./base/RoundFixture.sol";

/// @title What a fall does to a round: its siblings stand, its merge waits, resumes or is void
contract RoundFallsTest is RoundFixture {
    uint256 private constant TRUTH = 50;
    uint256 private constant MERGED = 99;

    TaskId private _task;
    Root private _inputs;

    function test_gameOpened_saysWhatAMergeStartsFrom() public {
        _freshRound();
        (Root merged, Root trained) = (madeUp(MERGED), madeUp(1));
        vm.startPrank(address(game));
        ITrainingLedger.Disputed memory disputed = ledger.gameOpened(_task, 0, SLOTS, 0, merged, CHALLENGER);
        vm.assertTrue(disputed.merge, "merge");
        vm.assertTrue(disputed.baseRoot == _inputs, "inputs");
        vm.assertEq(disputed.steps, 1, "steps");
        disputed = ledger.gameOpened(_task, 0, 1, 0, trained, CHALLENGER);
        vm.assertTrue(!disputed.merge, "no merge");
        vm.assertTrue(disputed.baseRoot == parameters().initialStateRoot, "base");
    }

    function test_fall_thawsTheRoundAndSparesSiblings() public {
        _freshRound();
        fell(_task, 1, TRUTH);
        IRoundBook.Round memory state = stateOf(_task);
        vm.assertEq(state.deadline, block.timestamp + LEASE, "a new deadline");
        vm.assertEq(state.generation, 1, "generation");
        vm.assertEq(state.frozenAt, 0, "thawed");
        vm.assertEq(state.submitted, 2, "two stand");
        finaliseSlot(_task, 0);
        vm.assertTrue(vault.creditOf(WORKER) > 0, "siblings are paid");
        vm.warp(uint256(slotOf(_task, SLOTS).deadline) + 1);
        Root merged = madeUp(MERGED);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.InputsNotCollected.selector, 0, SLOTS + 1));
        ledger.finalise(_task, 0, SLOTS, 0, merged);
    }

    function test_fall_whoDidNotCountStaysMissing() public {
        _freshRound();
        fell(_task, 1, TRUTH);
        ITrainingLedger.Claim memory request = claimSlotOf(_task, 3, OTHER);
        uint256 deadline = stateOf(_task).deadline;
        vm.prank(OTHER);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.SlotDidNotCount.selector, 3, deadline));
        ledger.claim(request);
    }

    function test_fall_whoWasLateDoesNotComeIn() public {
        _open();
        claimSlot(_task, 3, OTHER); // leased when the round goes on without it
        _inputs = collectAll(_task);
        play(_task, SLOTS, MERGED);
        fell(_task, 1, TRUTH);
        ITrainingLedger.Submission memory late = slotResult(_task, 3, 100, 3);
        bytes memory refusal = abi.encodeWithSelector(IRoundBook.SlotDidNotCount.selector, 3, stateOf(_task).deadline);
        vm.prank(OTHER);
        vm.expectRevert(refusal);
        ledger.submit(late);
        uint256 staked = stakedOf(OTHER);
        ledger.expireLease(_task, 0, 3, 0);
        vm.assertEq(stakedOf(OTHER), staked, "no fee");
    }

    function test_fall_redoOfTheSameRootResumesTheMerge() public {
        _freshRound();
        fell(_task, 1, 1); // a worker who was right but lost by the clock
        claimSlot(_task, 1, CHALLENGER);
        submitSlot(_task, 1, CHALLENGER, 1);
        vm.assertTrue(collectAll(_task) == _inputs, "the same inputs");
        for (uint32 slot = 0; slot < SLOTS - 1; ++slot) {
            finaliseSlot(_task, slot);
        }
        finaliseSlot(_task, SLOTS);
        vm.assertEq(current(_task), 1, "as if nothing had happened");
        vm.assertTrue(ledger.baseRoot(_task, 1) == madeUp(MERGED), "merged");
        ledger.awardFall(_task, 0, 1, 0);
        vm.assertEq(lockedOf(WORKER), 0, "every bond has left");
        assertSolvent();
    }

    function test_fall_anotherRootVoidsTheMerge() public {
        _freshRound();
        fell(_task, 1, TRUTH);
        claimSlot(_task, 1, CHALLENGER);
        submitSlot(_task, 1, CHALLENGER, TRUTH);
        vm.assertTrue(collectAll(_task) != _inputs, "other inputs");
        for (uint32 slot = 0; slot < SLOTS - 1; ++slot) {
            finaliseSlot(_task, slot);
        }
        uint256 credit = vault.creditOf(WORKER);
        uint256 locked = lockedOf(WORKER);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.MergeVoid(_task, 0, WORKER, SLOTS, 0, madeUp(MERGED));
        finaliseSlot(_task, SLOTS);
        vm.assertEq(vault.creditOf(WORKER), credit, "unpaid");
        vm.assertEq(lockedOf(WORKER), locked - BOND, "its bond is free");
        vm.assertEq(uint256(slotOf(_task, SLOTS).status), uint256(ITrainingLedger.SlotStatus.Open), "open");
        vm.assertEq(current(_task), 0, "the round goes on");
        play(_task, SLOTS, 100);
        finaliseSlot(_task, SLOTS);
        vm.assertTrue(ledger.baseRoot(_task, 1) == madeUp(100), "the new merge");
        ledger.awardFall(_task, 0, 1, 0);
        assertSolvent();
    }

    function test_fall_leaseOfAnOldMergeIsFree() public {
        _open();
        collectAll(_task);
        claimSlot(_task, SLOTS, OTHER);
        fell(_task, 1, TRUTH);
        uint256 staked = stakedOf(OTHER);
        ITrainingLedger.Submission memory result = slotResult(_task, SLOTS, 1, MERGED);
        vm.prank(OTHER);
        vm.expectRevert(abi.encodeWithSelector(IRoundBook.InputsNotCollected.selector, 0, SLOTS + 1));
        ledger.submit(result);
        ledger.expireLease(_task, 0, SLOTS, 0);
        vm.assertEq(stakedOf(OTHER), staked, "no fee");
        vm.assertEq(lockedOf(OTHER), 0, "no bond");
    }

    function test_fall_redoThatNeverComesIsMissing() public {
        _freshRound();
        fell(_task, 1, TRUTH);
        vm.warp(uint256(stateOf(_task).deadline) + 1);
        Root inputs = collectAll(_task);
        Root[] memory roots = new Root[](SLOTS + 1);
        (roots[0], roots[2], roots[4]) = (_base(), _base(), _base());
        (roots[1], roots[3]) = (madeUp(0), madeUp(2));
        vm.assertTrue(inputs == inputsRoot(roots), "missing slots are the base");
    }

    function test_fall_redoThatNeverComesStillCostsTheBond() public {
        _freshRound();
        fell(_task, 1, TRUTH);
        vm.warp(uint256(stateOf(_task).deadline) + 1);
        collectAll(_task);
        finaliseSlot(_task, 0);
        finaliseSlot(_task, 2);
        finaliseSlot(_task, SLOTS); // void: its inputs were others
        play(_task, SLOTS, MERGED);
        vm.expectRevert(
            abi.encodeWithSelector(
                ITrainingLedger.WrongStatus.selector,
                ITrainingLedger.SlotStatus.Open,
                ITrainingLedger.SlotStatus.Finalised
            )
        );
        ledger.awardFall(_task, 0, 1, 0);
        finaliseSlot(_task, SLOTS);
        ledger.awardFall(_task, 0, 1, 0);
        vm.assertEq(lockedOf(WORKER), 0, "no bond is stuck");
        vm.assertEq(vault.creditOf(CHALLENGER), BOND / 2, "who proved it");
        assertSolvent();
    }

    function test_fall_belowTheQuorumEverybodyMayClaim() public {
        _freshRound();
        fell(_task, 1, TRUTH);
        fell(_task, 2, TRUTH);
        vm.warp(uint256(stateOf(_task).deadline) + 1);
        vm.assertTrue(!book.isReady(_task, 0), "one of two");
        play(_task, 3, 3); // it did not count before
        vm.assertTrue(book.isReady(_task, 0), "two");
    }

    function test_fall_ofTheMergeThawsNothing() public {
        _freshRound();
        fell(_task, SLOTS, TRUTH);
        vm.assertEq(stateOf(_task).generation, 0, "generation");
        claimSlot(_task, SLOTS, CHALLENGER);
        submitSlot(_task, SLOTS, CHALLENGER, TRUTH);
        for (uint32 slot = 0; slot < SLOTS - 1; ++slot) {
            finaliseSlot(_task, slot);
        }
        finaliseSlot(_task, SLOTS);
        ledger.awardFall(_task, 0, SLOTS, 0);
        vm.assertTrue(ledger.baseRoot(_task, 1) == madeUp(TRUTH), "the challenger's");
        assertSolvent();
    }

    function test_fall_closedTaskRefundsIt() public {
        _freshRound();
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        vm.assertEq(vault.escrowOf(_task), 3 * uint256(REWARD) + MERGE_REWARD, "four run");
        fell(_task, 1, TRUTH);
        vm.assertEq(vault.escrowOf(_task), 2 * uint256(REWARD) + MERGE_REWARD, "three run");
        ledger.awardFall(_task, 0, 1, 0);
        assertSolvent();
    }

    function test_void_notWithOpenGames() public {
        _freshRound();
        (Root merged, Root truth) = (madeUp(MERGED), madeUp(TRUTH));
        vm.prank(CHALLENGER);
        uint256 opened = game.open(_task, 0, SLOTS, 0, merged, truth);
        fell(_task, 1, TRUTH);
        claimSlot(_task, 1, CHALLENGER);
        submitSlot(_task, 1, CHALLENGER, TRUTH);
        collectAll(_task);
        vm.warp(uint256(slotOf(_task, 1).deadline) + 1);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 1));
        ledger.finalise(_task, 0, SLOTS, 0, merged);
        game.decide(opened, IDisputeGame.Outcome.ChallengerWon);
        vm.assertEq(uint256(slotOf(_task, SLOTS).status), uint256(ITrainingLedger.SlotStatus.Open), "fell");
    }

    function _base() private pure returns (Root) {
        return parameters().initialStateRoot;
    }

    /// @dev A task whose slots 0 to 2 are submitted and still in their windows, and its deadline over.
    function _open() private {
        ITrainingLedger.TaskParameters memory p = groupParameters(SLOTS);
        (p.roundSeconds, p.challengeWindow) = (LEASE, 10 * LEASE);
        _task = post(p);
        for (uint32 slot = 0; slot < SLOTS - 1; ++slot) {
            play(_task, slot, slot);
        }
        vm.warp(block.timestamp + LEASE + 1);
    }

    function _freshRound() private {
        _open();
        _inputs = collectAll(_task);
        play(_task, SLOTS, MERGED);
    }
}
