// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAuditCommittee} from "../interfaces/IAuditCommittee.sol";
import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {AttemptKey, Root, attemptKey} from "../types/Identifiers.sol";
import {AuditFixture} from "./base/AuditFixture.sol";

contract AuditCommitteeTest is AuditFixture {
    Root private constant OTHER_STATE = Root.wrap(keccak256("another state"));

    function test_windowFloor_isTheLeaseOrTheDeploymentsLeastWindow() public {
        vm.assertEq(ledger.windowFloor(_task), LEASE, "the lease");
        ITrainingLedger.TaskParameters memory p = parameters();
        p.leaseSeconds = MINIMUM_LEASE;
        vm.assertEq(ledger.windowFloor(post(p)), MINIMUM_WINDOW, "the least window");
    }

    function test_request_keepsSeatsFeeAndState() public {
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.AuditRequested(_audit, _root, block.number + 2, 2 * SEATS_EACH);
        ask();
        vm.assertEq(audit().requestedAt, block.timestamp, "time");
        vm.assertEq(audit().windowEnd, windowEnd(), "window");
        vm.assertEq(audit().fee, VOTE_FEE, "fee");
        vm.assertEq(audit().steps, 100, "steps");
        vm.assertEq(Root.unwrap(audit().stateRoot), Root.unwrap(_root), "state");
        vm.assertEq(committee.budgetOf(_task).reserved, VOTES * VOTE_FEE, "reserved");
    }

    function test_request_onceForEachAttempt() public {
        ask();
        refusedOf(IAuditCommittee.AlreadyRequested.selector);
        ask();
    }

    function test_request_needsTheSubmissionNamed() public {
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NotSubmitted.selector, _audit, OTHER_STATE));
        committee.request(_task, 0, 0, 0, OTHER_STATE);
        AttemptKey later = attemptKey(_task, 0, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NotSubmitted.selector, later, _root));
        committee.request(_task, 0, 0, 1, _root);
        finaliseNow(_task);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NotSubmitted.selector, _audit, _root));
        ask();
    }

    function test_request_needsTimeForTheAudit() public {
        vm.warp(block.timestamp + WINDOW - LEASE - REVEAL_SECONDS);
        ask(); // just in time
        (_task, _root) = submitted();
        vm.warp(block.timestamp + WINDOW - LEASE - REVEAL_SECONDS + 1);
        uint256 end = block.timestamp + LEASE + REVEAL_SECONDS;
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NoTimeForAudit.selector, end, windowEnd()));
        ask();
    }

    function test_request_needsNineSeats() public {
        vm.startPrank(ANNA);
        for (uint256 gone = 0; gone < 4; ++gone) {
            committee.resign(0); // hers still: the seats that come to it are hers once Boris's last has been given up
            if (committee.seatAt(0).owner != ANNA) break;
        }
        vm.stopPrank();
        vm.startPrank(BORIS);
        for (uint256 index = committee.seatCount(); index > 0; --index) {
            if (committee.seatAt(index - 1).owner == BORIS) committee.resign(index - 1);
        }
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.TooFewSeats.selector, committee.seatCount(), VOTES));
        ask();
    }

    function test_draw_needsItsBlock() public {
        refusedOf(IAuditCommittee.UnknownAudit.selector);
        committee.draw(_audit);
        ask();
        uint256 seedBlock = audit().seedBlock;
        vm.roll(seedBlock);
        bytes4 early = IAuditCommittee.SeedUnavailable.selector;
        vm.expectRevert(abi.encodeWithSelector(early, seedBlock, seedBlock));
        committee.draw(_audit);
        vm.roll(seedBlock + 257);
        vm.expectRevert(abi.encodeWithSelector(early, seedBlock, seedBlock + 257));
        committee.draw(_audit);
    }

    function test_draw_onceAndInTime() public {
        bytes32 seed = drawn(5);
        vm.assertEq(audit().seed, seed, "seed");
        vm.assertEq(audit().commitEnd, block.timestamp + LEASE, "to commit");
        vm.assertEq(audit().revealEnd, block.timestamp + LEASE + REVEAL_SECONDS, "to reveal");
        vm.assertEq(committee.drawnRun(_audit), uint256(seed) % 100, "run");
        vm.assertEq(committee.votesOf(_audit, ANNA), 5, "hers");
        vm.assertEq(committee.votesOf(_audit, BORIS), 4, "his");
        refusedOf(IAuditCommittee.AlreadyDrawn.selector);
        committee.draw(_audit);
    }

    function test_draw_tooLateForTheWindowReverts() public {
        ask();
        vm.warp(block.timestamp + WINDOW - LEASE);
        vm.roll(audit().seedBlock + 1);
        vm.setBlockhash(audit().seedBlock, keccak256("seed"));
        refused(IAuditCommittee.NoTimeForAudit.selector);
        committee.draw(_audit);
    }

    function test_commit_wrongOnesRevert() public {
        ask();
        refusedOf(IAuditCommittee.NotDrawn.selector);
        committee.commit(_audit, SALT, ANNA, SALT);
        bytes32 seed = drawWith(seedFor(9));
        vm.startPrank(ANNA);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.WrongSeed.selector, SALT, seed));
        committee.commit(_audit, SALT, ANNA, SALT);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.EmptyCommitment.selector));
        committee.commit(_audit, seed, ANNA, 0);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NotAuthorisedFor.selector, ANNA, BORIS));
        committee.commit(_audit, seed, BORIS, SALT);
        vm.stopPrank();
        vm.startPrank(BORIS);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NotDrawnInto.selector, _audit, BORIS));
        committee.commit(_audit, seed, BORIS, SALT);
        vm.stopPrank();
        commitAs(ANNA, seed, _root);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.AlreadyCommitted.selector, _audit, ANNA));
        vm.prank(ANNA);
        committee.commit(_audit, seed, ANNA, SALT);
    }

    function test_commit_lateReverts() public {
        bytes32 seed = drawn(5);
        vm.warp(uint256(audit().commitEnd) + 1);
        bytes4 late = IAuditCommittee.CommitOver.selector;
        vm.expectRevert(abi.encodeWithSelector(late, audit().commitEnd, block.timestamp));
        vm.prank(ANNA);
        committee.commit(_audit, seed, ANNA, SALT);
    }

    function test_commit_byOperator() public {
        bytes32 seed = drawn(5);
        vm.prank(ANNA);
        vault.setOperator(STRANGER, true);
        vm.prank(STRANGER);
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.Committed(_audit, ANNA, 5);
        committee.commit(_audit, seed, ANNA, SALT);
        vm.assertEq(committee.ballotOf(_audit, ANNA).commitment, SALT, "kept");
        vm.assertEq(audit().committed, 5, "votes");
    }

    function test_reveal_waitsForThoseWhoMayStillCommit() public {
        bytes32 seed = drawn(5);
        commitAs(ANNA, seed, _root);
        bytes4 early = IAuditCommittee.CommitStillOpen.selector;
        vm.expectRevert(abi.encodeWithSelector(early, audit().commitEnd, block.timestamp));
        revealAs(ANNA, _root);
        commitAs(BORIS, seed, _root); // all nine
        revealAs(ANNA, _root);
    }

    function test_reveal_wrongOnesRevert() public {
        bytes32 seed = drawn(9);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NotDrawnInto.selector, _audit, ANNA));
        revealAs(ANNA, _root);
        commitAs(ANNA, seed, _root);
        refused(IAuditCommittee.WrongOpening.selector);
        revealAs(ANNA, OTHER_STATE);
        revealAs(ANNA, _root);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.AlreadyRevealed.selector, _audit, ANNA));
        revealAs(ANNA, _root);
    }

    function test_reveal_lateReverts() public {
        bytes32 seed = drawn(9);
        commitAs(ANNA, seed, _root);
        vm.warp(uint256(audit().revealEnd) + 1);
        bytes4 late = IAuditCommittee.RevealOver.selector;
        vm.expectRevert(abi.encodeWithSelector(late, audit().revealEnd, block.timestamp));
        revealAs(ANNA, _root);
    }

    function test_reveal_copiedCommitmentOpensForNobodyElse() public {
        bytes32 seed = drawn(6);
        commitAs(ANNA, seed, _root);
        bytes32 hers = committee.ballotOf(_audit, ANNA).commitment;
        vm.prank(BORIS);
        committee.commit(_audit, seed, BORIS, hers);
        revealAs(ANNA, _root);
        refused(IAuditCommittee.WrongOpening.selector);
        revealAs(BORIS, _root);
    }

    function test_agreement_endsTheWindowAtItsFloor() public {
        uint256 submittedAt = windowEnd() - WINDOW;
        bytes32 seed = drawn(6);
        commitAs(ANNA, seed, _root);
        commitAs(BORIS, seed, OTHER_STATE);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.WindowShortened(_task, 0, 0, 0, submittedAt + LEASE);
        revealAs(ANNA, _root);
        vm.assertEq(windowEnd(), submittedAt + LEASE, "the floor");
        vm.expectPartialRevert(ITrainingLedger.WindowStillOpen.selector);
        ledger.finalise(_task, 0, 0, 0, _root);
        vm.warp(submittedAt + LEASE + 1);
        ledger.finalise(_task, 0, 0, 0, _root);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Finalised);
    }

    function test_agreement_afterTheFloorEndsTheWindowNow() public {
        bytes32 seed = drawn(6);
        commitAs(ANNA, seed, _root);
        vm.warp(uint256(audit().commitEnd) + 10);
        revealAs(ANNA, _root);
        vm.assertEq(windowEnd(), block.timestamp, "now");
        vm.warp(block.timestamp + 1);
        ledger.finalise(_task, 0, 0, 0, _root);
    }

    function test_agreement_fiveVotesAreNone() public {
        uint256 before = windowEnd();
        bytes32 seed = drawn(5);
        commitAs(ANNA, seed, _root);
        commitAs(BORIS, seed, OTHER_STATE);
        revealAs(ANNA, _root);
        revealAs(BORIS, OTHER_STATE);
        vm.assertEq(windowEnd(), before, "nothing is shortened");
        vm.assertEq(audit().agreed, bytes32(0), "no agreement");
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NothingToCollect.selector, _audit, ANNA));
        committee.collect(_audit, ANNA);
    }

    function test_agreement_noShowsCountInTheNine() public {
        uint256 before = windowEnd();
        bytes32 seed = drawn(5);
        commitAs(ANNA, seed, _root); // Boris does not show up: five of five are five of nine
        vm.warp(uint256(audit().commitEnd) + 1);
        revealAs(ANNA, _root);
        vm.assertEq(windowEnd(), before, "five of nine");
    }

    function test_agreement_onTheSameStateByDifferentTracesIsNone() public {
        uint256 before = windowEnd();
        bytes32 seed = drawn(5);
        commitAs(ANNA, seed, _root);
        bytes32 commitment = committee.commitmentOf(_audit, seed, BORIS, SALT, _root, SALT);
        vm.prank(BORIS);
        committee.commit(_audit, seed, BORIS, commitment);
        revealAs(ANNA, _root);
        committee.reveal(_audit, BORIS, SALT, _root, SALT);
        vm.assertEq(windowEnd(), before, "who copied the state alone proves nothing");
    }

    function test_agreement_onAnotherStateShortensNothing() public {
        uint256 before = windowEnd();
        bytes32 seed = drawn(9);
        commitAs(ANNA, seed, OTHER_STATE);
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.Agreed(_audit, TRACE, OTHER_STATE);
        revealAs(ANNA, OTHER_STATE);
        vm.assertEq(windowEnd(), before, "the full window");
        committee.collect(_audit, ANNA); // it did the work, and is paid for it
        vm.assertEq(vault.creditOf(ANNA), 9 * uint256(VOTE_FEE), "paid");
    }

    function test_agreement_neitherOverrulesNorEndsAGame() public {
        arm(CHALLENGER);
        bytes32 seed = drawn(9);
        vm.prank(CHALLENGER);
        uint256 opened = game.open(_task, 0, 0, 0, _root, OTHER_STATE);
        commitAs(ANNA, seed, _root);
        revealAs(ANNA, _root);
        vm.warp(windowEnd() + 1);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 1));
        ledger.finalise(_task, 0, 0, 0, _root);
        game.decide(opened, IDisputeGame.Outcome.ChallengerWon);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Open);
    }

    function test_agreement_afterAFallChangesNothing() public {
        arm(CHALLENGER);
        bytes32 seed = drawn(9);
        vm.prank(CHALLENGER);
        uint256 opened = game.open(_task, 0, 0, 0, _root, OTHER_STATE);
        game.decide(opened, IDisputeGame.Outcome.ChallengerWon);
        uint256 reserved = windowEnd(); // the winner's time to redo it
        commitAs(ANNA, seed, _root);
        revealAs(ANNA, _root);
        vm.assertEq(windowEnd(), reserved, "another attempt");
        committee.collect(_audit, ANNA);
    }

    function test_shortenWindow_neverLengthens() public {
        uint256 end = windowEnd();
        vm.warp(end + 5);
        vm.prank(address(committee));
        ledger.shortenWindow(_audit, _root);
        vm.assertEq(windowEnd(), end, "over is over");
        ledger.finalise(_task, 0, 0, 0, _root);
    }

    function test_shortenWindow_onlyTheCommitteeAndOnce() public {
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyAuditCommittee.selector, STRANGER));
        vm.prank(STRANGER);
        ledger.shortenWindow(_audit, _root);
        uint256 end = windowEnd();
        vm.startPrank(address(committee));
        ledger.shortenWindow(_audit, OTHER_STATE);
        vm.assertEq(windowEnd(), end, "another state");
        ledger.shortenWindow(_audit, _root);
        ledger.shortenWindow(_audit, _root);
        vm.assertEq(windowEnd(), end - WINDOW + LEASE, "the floor, however often");
        vm.stopPrank();
    }
}
