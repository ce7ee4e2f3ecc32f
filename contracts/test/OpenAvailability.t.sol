// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAvailabilityCommittee} from "../interfaces/IAvailabilityCommittee.sol";
import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IOpenLedger} from "../interfaces/IOpenLedger.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, SlotKey, TaskId, slotKey} from "../types/Identifiers.sol";
import {OpenFixture} from "./base/OpenFixture.sol";

/// @title States that nobody can fetch
contract OpenAvailabilityTest is OpenFixture {
    address private constant ANNA = address(0xA1);
    address private constant BORIS = address(0xA2);
    uint32 private constant SEATS_EACH = 6;
    bytes32 private constant FOUND = keccak256("salted root");

    TaskId private _task;
    SlotKey private _key;

    function setUp() public override {
        super.setUp();
        arm(ANNA);
        arm(BORIS);
        vm.prank(ANNA);
        committee.enrol(SEATS_EACH);
        vm.prank(BORIS);
        committee.enrol(SEATS_EACH);
        vm.warp(block.timestamp + SEAT_AGE);
        _task = openedRound();
        _key = slotKey(_task, 0, 0);
    }

    function test_close_aStateThatNobodyHasIsMissing() public {
        Root scored = scoreAs(_task, 0, WORKER, LOSS_2);
        vm.prank(STRANGER);
        openGame.open(_task, 0, 0, 0, scored, trained(9));
        _ask();
        _draw(6);
        uint256 supply = token.totalSupply();
        vm.warp(block.timestamp + 2 * uint256(REVEAL_SECONDS) + 1);
        availability.close(_key);
        assertStage(_task, 0, IOpenLedger.Stage.Missing);
        vm.assertEq(lockedOf(CHALLENGER), 0, "the deposit is free");
        vm.assertEq(lockedOf(WORKER), 0, "the rest of the bond too");
        vm.assertEq(token.totalSupply(), supply - FEE, "the fee is burned");
        vm.assertEq(open.getRound(_task, 0).revealed, SLOTS - 1, "one state less");
        openGame.decide(0, IDisputeGame.Outcome.ChallengerWon);
        vm.assertEq(lockedOf(STRANGER), BOND, "games are void");
        assertSolvent();
        _endWithout();
    }

    function test_reveal_sixVotesClearIt() public {
        scoreAs(_task, 0, WORKER, LOSS_2);
        vm.warp(block.timestamp + WINDOW - 10);
        _ask();
        bytes32 seed = _draw(6);
        _commit(ANNA, seed, FOUND);
        _commit(BORIS, seed, keccak256("wrong"));
        uint256 voted = block.timestamp;
        availability.reveal(_key, ANNA, FOUND, saltOf(ANNA));
        IOpenLedger.OpenSlot memory slot = open.getOpenSlot(_task, 0, 0);
        vm.assertEq(uint256(slot.question), uint256(IOpenLedger.Question.Cleared), "cleared");
        vm.assertEq(slot.deadline, voted + WINDOW, "a whole window from then");
        availability.reveal(_key, BORIS, keccak256("wrong"), saltOf(BORIS));

        uint256 supply = token.totalSupply();
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.NothingToCollect.selector, _key, BORIS));
        availability.collect(_key, BORIS);
        availability.collect(_key, ANNA);
        vm.assertEq(vault.creditOf(ANNA), uint256(BOND) / 9 * 6 / 2, "six ninths, half of them burned");
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.NothingToCollect.selector, _key, ANNA));
        availability.collect(_key, ANNA);
        vm.warp(block.timestamp + 2 * uint256(REVEAL_SECONDS) + 1);
        availability.close(_key);
        vm.assertEq(lockedOf(CHALLENGER), 0, "nothing of the deposit is left");
        vm.assertEq(stakedOf(CHALLENGER), 100 ether - BOND, "all of it is taken");
        vm.assertEq(supply - token.totalSupply(), BOND - vault.creditOf(ANNA), "and what is not paid is burned");
        assertSolvent();
    }

    /// @dev Whoever closes first leaves the others their shares.
    function test_close_leavesWhatIsOwed() public {
        _ask();
        bytes32 seed = _draw(6);
        _commit(ANNA, seed, FOUND);
        _commit(BORIS, seed, FOUND);
        availability.reveal(_key, ANNA, FOUND, saltOf(ANNA));
        availability.reveal(_key, BORIS, FOUND, saltOf(BORIS));
        vm.warp(block.timestamp + 2 * uint256(REVEAL_SECONDS) + 1);
        availability.close(_key);
        availability.collect(_key, BORIS);
        availability.collect(_key, ANNA);
        vm.assertEq(vault.creditOf(BORIS), uint256(BOND) / 9 * 3 / 2, "three ninths");
        vm.assertEq(lockedOf(CHALLENGER), 0, "deposit");
        assertSolvent();
    }

    function test_close_fiveVotesAreTooFew() public {
        _ask();
        bytes32 seed = _draw(5);
        _commit(ANNA, seed, FOUND);
        vm.warp(block.timestamp + REVEAL_SECONDS + 1);
        availability.reveal(_key, ANNA, FOUND, saltOf(ANNA));
        vm.warp(block.timestamp + REVEAL_SECONDS);
        availability.close(_key);
        assertStage(_task, 0, IOpenLedger.Stage.Missing);
    }

    function test_acknowledge_bytheRequesterClearsIt() public {
        _ask();
        vm.expectRevert(
            abi.encodeWithSelector(IAvailabilityCommittee.OnlyRequesterAcknowledges.selector, address(this), REQUESTER)
        );
        availability.acknowledge(_task, 0, 0);
        vm.prank(REQUESTER);
        availability.acknowledge(_task, 0, 0);
        vm.assertEq(stakedOf(CHALLENGER), 100 ether - FEE, "the fee");
        vm.assertEq(lockedOf(CHALLENGER), 0, "the rest is free");
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.Questioned.selector, IOpenLedger.Question.Cleared));
        vm.prank(CHALLENGER);
        availability.unavailable(_task, 0, 0, trained(1), CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.AlreadyDecided.selector, _key));
        vm.prank(REQUESTER);
        availability.acknowledge(_task, 0, 0);
        scoreAs(_task, 0, WORKER, LOSS_2);
        assertStage(_task, 0, IOpenLedger.Stage.Scored);
    }

    function test_finalise_waitsForTheAnswer() public {
        Root scored = scoreAs(_task, 0, WORKER, LOSS_2);
        scoreAs(_task, SLOTS, OTHER, LOSS_4);
        _ask();
        finaliseScore(_task, SLOTS);
        vm.warp(block.timestamp + WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.Questioned.selector, IOpenLedger.Question.Open));
        open.finalise(_task, 0, 0, 0, scored);
        vm.prank(REQUESTER);
        availability.acknowledge(_task, 0, 0);
        finaliseScore(_task, 0);
        vm.assertEq(vault.creditOf(WORKER), REWARD, "paid after all");
    }

    function test_draw_namesAnotherBlockWhereTheHashIsGone() public {
        _ask();
        uint256 seedBlock = block.number + 2;
        vm.expectRevert(
            abi.encodeWithSelector(IAvailabilityCommittee.SeedUnavailable.selector, seedBlock, block.number)
        );
        availability.draw(_key);
        vm.roll(block.number + 300);
        availability.draw(_key);
        vm.assertEq(availability.getInquiry(_key).seedBlock, block.number + 2, "another block");
        vm.assertEq(availability.getInquiry(_key).seed, bytes32(0), "not drawn yet");
    }

    function test_unavailable_refusals() public {
        vm.expectRevert(
            abi.encodeWithSelector(IAvailabilityCommittee.NotAuthorisedFor.selector, address(this), CHALLENGER)
        );
        availability.unavailable(_task, 0, 0, trained(1), CHALLENGER);
        vm.startPrank(CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongSlot.selector, SLOTS, SLOTS));
        availability.unavailable(_task, 0, SLOTS, trained(1), CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongState.selector, trained(2), trained(1)));
        availability.unavailable(_task, 0, 0, trained(2), CHALLENGER);
        availability.unavailable(_task, 0, 0, trained(1), CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.Questioned.selector, IOpenLedger.Question.Open));
        availability.unavailable(_task, 0, 0, trained(1), CHALLENGER);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.OnlyAvailabilityCommittee.selector, address(this)));
        open.questioned(_task, 0, 0, trained(1), address(this));
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.OnlyAvailabilityCommittee.selector, address(this)));
        open.answered(_task, 0, 0, true);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.OnlyAvailabilityCommittee.selector, address(this)));
        open.takeDeposit(CHALLENGER, 1, 1, address(0));
    }

    function test_unavailable_needsNineSeats() public {
        for (uint256 i = 0; i < 4; ++i) {
            vm.prank(BORIS);
            committee.resign(SEATS_EACH + 1);
        }
        vm.prank(CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.TooFewSeats.selector, 8, 9));
        availability.unavailable(_task, 0, 0, trained(1), CHALLENGER);
    }

    function test_votes_refusals() public {
        _ask();
        bytes32 seed = _draw(6);
        vm.prank(ANNA);
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.WrongSeed.selector, FOUND, seed));
        availability.commit(_key, FOUND, ANNA, FOUND);
        vm.prank(ANNA);
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.EmptyCommitment.selector));
        availability.commit(_key, seed, ANNA, 0);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.NotDrawnInto.selector, _key, STRANGER));
        availability.commit(_key, seed, STRANGER, FOUND);
        _commit(ANNA, seed, FOUND);
        uint256 commitEnd = block.timestamp + REVEAL_SECONDS;
        vm.expectRevert(
            abi.encodeWithSelector(IAvailabilityCommittee.CommitStillOpen.selector, commitEnd, block.timestamp)
        );
        availability.reveal(_key, ANNA, FOUND, saltOf(ANNA));
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.InquiryStillRuns.selector, _key));
        availability.close(_key);
        vm.warp(commitEnd + 1);
        bytes32 committed = availability.ballotOf(_key, ANNA).commitment;
        bytes32 opened = availability.commitmentOf(_key, seed, ANNA, seed, saltOf(ANNA));
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.WrongOpening.selector, committed, opened));
        availability.reveal(_key, ANNA, seed, saltOf(ANNA));
        vm.prank(BORIS);
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.CommitOver.selector, commitEnd, commitEnd + 1));
        availability.commit(_key, seed, BORIS, FOUND);
    }

    /// @dev The state turns out to be that of an earlier commit: its slot is a copy, and the question is over without harm.
    function test_answered_ofACopyOnlyEndsTheQuestion() public {
        TaskId task = postOpen();
        commitAs(task, WORKER, trained(5));
        commitAs(task, OTHER, trained(5));
        vm.warp(block.timestamp + COMMIT + 1);
        revealAs(task, OTHER, trained(5));
        vm.prank(CHALLENGER);
        availability.unavailable(task, 0, 1, trained(5), CHALLENGER);
        revealAs(task, WORKER, trained(5));
        assertStage(task, 1, IOpenLedger.Stage.Copy);
        SlotKey key = slotKey(task, 0, 1);
        vm.roll(block.number + 3);
        vm.setBlockhash(block.number - 1, keccak256("any"));
        availability.draw(key);
        vm.warp(block.timestamp + 2 * uint256(REVEAL_SECONDS) + 1);
        availability.close(key);
        assertStage(task, 1, IOpenLedger.Stage.Copy);
        vm.assertEq(open.getRound(task, 0).revealed, 1, "the state counts once");
        vm.assertEq(lockedOf(CHALLENGER), 0, "deposit");
        assertSolvent();
    }

    /// @dev A requester's default does not pay for what nobody can fetch.
    function test_settleDefault_waitsForTheAnswer() public {
        TaskId task = postOpen();
        commitAs(task, WORKER, trained(5));
        commitAs(task, OTHER, trained(6));
        vm.warp(block.timestamp + COMMIT + 1);
        revealAs(task, WORKER, trained(5));
        revealAs(task, OTHER, trained(6));
        vm.prank(CHALLENGER);
        availability.unavailable(task, 0, 0, trained(5), CHALLENGER);
        vm.warp(block.timestamp + HELD_OUT + 1);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.Questioned.selector, IOpenLedger.Question.Open));
        open.settleDefault(task, 0, 0, trained(5));
        open.settleDefault(task, 0, 1, trained(6));
        vm.assertEq(escrowOf(task), REWARD, "kept for the answer");
        SlotKey key = slotKey(task, 0, 0);
        vm.roll(block.number + 3);
        vm.setBlockhash(block.number - 1, keccak256("any"));
        availability.draw(key);
        vm.warp(block.timestamp + 2 * uint256(REVEAL_SECONDS) + 1);
        availability.close(key);
        vm.assertEq(escrowOf(task), 0, "and refunded");
        vm.assertEq(vault.creditOf(WORKER), 0, "unpaid");
        assertSolvent();
    }

    function _ask() private {
        vm.prank(CHALLENGER);
        availability.unavailable(_task, 0, 0, trained(1), CHALLENGER);
    }

    /// @dev Draws so that Anna has this many of the nine votes and Boris the rest.
    function _draw(uint256 hers) private returns (bytes32 seed) {
        seed = _seedFor(hers);
        uint256 seedBlock = availability.getInquiry(_key).seedBlock;
        vm.roll(seedBlock + 1);
        vm.setBlockhash(seedBlock, seed);
        availability.draw(_key);
        vm.assertEq(availability.votesOf(_key, ANNA), hers, "hers");
        vm.assertEq(availability.votesOf(_key, BORIS), 9 - hers, "his");
    }

    function _seedFor(uint256 votes) private view returns (bytes32 seed) {
        for (uint256 tried = 1;; ++tried) {
            seed = keccak256(abi.encode("seed", tried));
            uint256 hers = 0;
            for (uint256 vote = 0; vote < 9; ++vote) {
                if (uint256(keccak256(abi.encode(seed, _key, vote))) % (2 * SEATS_EACH) < SEATS_EACH) ++hers;
            }
            if (hers == votes) return seed;
        }
    }

    function _commit(address auditor, bytes32 seed, bytes32 found) private {
        bytes32 commitment = availability.commitmentOf(_key, seed, auditor, found, saltOf(auditor));
        vm.prank(auditor);
        availability.commit(_key, seed, auditor, commitment);
    }

    /// @dev The round ends with the other two.
    function _endWithout() private {
        scoreAs(_task, 1, OTHER, LOSS_3);
        scoreAs(_task, 2, STRANGER, LOSS_3);
        scoreAs(_task, SLOTS, OTHER, LOSS_4);
        finaliseScore(_task, SLOTS);
        finaliseScore(_task, 1);
        finaliseScore(_task, 2);
        vm.assertEq(open.getTask(_task).currentRound, 1, "ended");
    }
}
