// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAuditCommittee} from "../interfaces/IAuditCommittee.sol";
import {Root, TaskId, auditBudget} from "../types/Identifiers.sol";
import {AuditFixture} from "./base/AuditFixture.sol";

contract AuditBudgetTest is AuditFixture {
    Root private constant OTHER_STATE = Root.wrap(keccak256("another state"));

    function test_fund_requesterOpensAndAnybodyAdds() public {
        uint256 before = vault.escrowOf(auditBudget(_task));
        vm.assertEq(before, 10 * VOTES * VOTE_FEE, "opened");
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.BudgetFunded(_task, OTHER, 7, VOTE_FEE);
        vm.prank(OTHER);
        committee.fund(_task, VOTE_FEE, 7);
        vm.assertEq(vault.escrowOf(auditBudget(_task)), before + 7, "added");
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.WrongFee.selector, VOTE_FEE + 1, VOTE_FEE));
        vm.prank(REQUESTER);
        committee.fund(_task, VOTE_FEE + 1, 7);
        assertSolvent();
    }

    function test_fund_openingIsTheRequesters() public {
        TaskId task = post();
        bytes4 stranger = IAuditCommittee.OnlyRequesterOpensBudget.selector;
        vm.expectRevert(abi.encodeWithSelector(stranger, OTHER, REQUESTER));
        vm.prank(OTHER);
        committee.fund(task, 1, 1);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.WrongFee.selector, 0, 1));
        vm.prank(REQUESTER);
        committee.fund(task, 0, 1);
    }

    function test_request_withoutBudgetReverts() public {
        (_task, _root) = submitted();
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.BudgetTooSmall.selector, 0, 0));
        ask();
        vm.prank(REQUESTER);
        committee.fund(_task, VOTE_FEE, VOTES * VOTE_FEE - 1);
        uint256 needed = VOTES * VOTE_FEE;
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.BudgetTooSmall.selector, needed - 1, needed));
        ask();
    }

    function test_collect_paysEachVoteOnce() public {
        vm.prank(ANNA);
        vault.setPayout(STRANGER);
        bytes32 seed = drawn(6);
        commitAs(ANNA, seed, _root);
        commitAs(BORIS, seed, _root);
        revealAs(BORIS, _root);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NothingToCollect.selector, _audit, BORIS));
        committee.collect(_audit, BORIS); // three votes are no agreement yet
        revealAs(ANNA, _root);
        uint256 before = vault.escrowOf(auditBudget(_task));
        committee.collect(_audit, ANNA);
        committee.collect(_audit, BORIS);
        vm.assertEq(vault.creditOf(STRANGER), 6 * uint256(VOTE_FEE), "where Anna has named");
        vm.assertEq(vault.creditOf(BORIS), 3 * uint256(VOTE_FEE), "Boris");
        vm.assertEq(vault.escrowOf(auditBudget(_task)), before - VOTES * VOTE_FEE, "budget");
        vm.assertEq(committee.budgetOf(_task).reserved, 0, "nothing reserved");
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NothingToCollect.selector, _audit, ANNA));
        committee.collect(_audit, ANNA);
        assertSolvent();
    }

    function test_close_freesWhatIsNotOwed() public {
        bytes32 seed = drawn(6);
        commitAs(ANNA, seed, _root);
        vm.warp(uint256(audit().commitEnd) + 1);
        revealAs(ANNA, _root);
        refusedOf(IAuditCommittee.AuditStillRuns.selector);
        committee.close(_audit);
        vm.warp(uint256(audit().revealEnd) + 1);
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.AuditClosed(_audit, 3 * uint256(VOTE_FEE));
        committee.close(_audit);
        vm.assertEq(committee.budgetOf(_task).reserved, 6 * uint256(VOTE_FEE), "still owed to Anna");
        refusedOf(IAuditCommittee.AlreadyClosed.selector);
        committee.close(_audit);
        committee.collect(_audit, ANNA);
        vm.assertEq(committee.budgetOf(_task).reserved, 0, "paid");
    }

    function test_close_ofAnAuditNeverDrawn() public {
        refusedOf(IAuditCommittee.UnknownAudit.selector);
        committee.close(_audit);
        ask();
        vm.roll(uint256(audit().seedBlock) + 256);
        refusedOf(IAuditCommittee.AuditStillRuns.selector);
        committee.close(_audit);
        vm.roll(uint256(audit().seedBlock) + 257);
        committee.close(_audit);
        vm.assertEq(committee.budgetOf(_task).reserved, 0, "free again");
        refusedOf(IAuditCommittee.AlreadyRequested.selector);
        ask(); // no second one
    }

    function test_refund_afterTheTaskSparesWhatIsReserved() public {
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.TaskStillRuns.selector, _task));
        committee.refund(_task);
        bytes32 seed = drawn(6);
        commitAs(ANNA, seed, _root);
        vm.warp(uint256(audit().commitEnd) + 1);
        revealAs(ANNA, _root);
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        uint256 before = vault.creditOf(REQUESTER);
        uint256 free = 9 * VOTES * VOTE_FEE;
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.BudgetRefunded(_task, REQUESTER, free);
        committee.refund(_task);
        vm.assertEq(vault.creditOf(REQUESTER), before + free, "refunded");
        committee.collect(_audit, ANNA);
        vm.warp(uint256(audit().revealEnd) + 1);
        committee.close(_audit);
        committee.refund(_task);
        vm.assertEq(vault.escrowOf(auditBudget(_task)), 0, "all of it has left");
        assertSolvent();
    }

    function test_evict_noShowLosesItsSeatAndNoStake() public {
        bytes32 seed = drawn(6);
        commitAs(ANNA, seed, _root);
        uint256 his = _voteOf(BORIS);
        refusedOf(IAuditCommittee.AuditStillRuns.selector);
        committee.evict(_audit, his);
        vm.warp(uint256(audit().commitEnd) + 1);
        revealAs(ANNA, _root);
        vm.warp(uint256(audit().revealEnd) + 1);
        uint256 staked = stakedOf(BORIS);
        (uint256 index,,) = committee.drawnSeat(_audit, his);
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.SeatGivenUp(BORIS, index, true);
        committee.evict(_audit, his);
        vm.assertEq(committee.seatsOf(BORIS), SEATS_EACH - 1, "one seat less");
        vm.assertEq(stakedOf(BORIS), staked, "a fault and no fraud");
        vm.assertEq(vault.seatedOf(BORIS), (SEATS_EACH - 1) * SEAT_STAKE, "its stake is free");
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NothingToEvict.selector, _audit, his));
        committee.evict(_audit, his); // another seat is there now, or none
        uint256 hers = _voteOf(ANNA);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NothingToEvict.selector, _audit, hers));
        committee.evict(_audit, hers); // she has revealed
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NothingToEvict.selector, _audit, 9));
        committee.evict(_audit, 9);
    }

    function testFuzz_money_isConserved(uint256 seedNumber, uint256 shows, bool bothAgree) public {
        ask();
        bytes32 seed = drawWith(keccak256(abi.encode(seedNumber)));
        uint256 hers = committee.votesOf(_audit, ANNA);
        uint256 his = committee.votesOf(_audit, BORIS);
        vm.assertEq(hers + his, VOTES, "all seats count");
        if (shows & 1 != 0 && hers > 0) commitAs(ANNA, seed, _root);
        if (shows & 2 != 0 && his > 0) commitAs(BORIS, seed, bothAgree ? _root : OTHER_STATE);
        vm.warp(uint256(audit().commitEnd) + 1);
        if (shows & 1 != 0 && hers > 0) revealAs(ANNA, _root);
        if (shows & 2 != 0 && his > 0) revealAs(BORIS, bothAgree ? _root : OTHER_STATE);
        uint256 paid = _tryCollect(ANNA) + _tryCollect(BORIS);
        vm.warp(uint256(audit().revealEnd) + 1);
        committee.close(_audit);
        finaliseNow(_task);
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        uint256 before = vault.creditOf(REQUESTER);
        committee.refund(_task);
        uint256 back = vault.creditOf(REQUESTER) - before;
        vm.assertEq(back + paid, 10 * VOTES * VOTE_FEE, "in is out");
        vm.assertEq(vault.escrowOf(auditBudget(_task)), 0, "nothing stays");
        assertSolvent();
    }

    function _tryCollect(address auditor) private returns (uint256) {
        uint256 before = vault.creditOf(auditor);
        try committee.collect(_audit, auditor) {} catch {}
        return vault.creditOf(auditor) - before;
    }

    function _voteOf(address owner) private view returns (uint256) {
        for (uint256 vote = 0; vote < VOTES; ++vote) {
            (, address drawnOwner,) = committee.drawnSeat(_audit, vote);
            if (drawnOwner == owner) return vote;
        }
        revert("none");
    }
}
