// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAuditCommittee} from "../interfaces/IAuditCommittee.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {TaskId, auditBudget} from "../types/Identifiers.sol";
import {AuditFixture} from "./base/AuditFixture.sol";

contract SeatRegisterTest is AuditFixture {
    function test_constructor_badArgumentsRevert() public {
        _refusedParameter("vault");
        _construct(address(0), address(1), 1, 1, 1);
        _refusedParameter("ledger");
        _construct(address(1), address(0), 1, 1, 1);
        _refusedParameter("seatStake");
        _construct(address(1), address(1), 0, 1, 1);
        _refusedParameter("seatAge");
        _construct(address(1), address(1), 1, 0, 1);
        _refusedParameter("revealSeconds");
        _construct(address(1), address(1), 1, 1, 0);
    }

    function test_views_tellDeployment() public view {
        vm.assertEq(committee.vault(), address(vault), "vault");
        vm.assertEq(committee.ledger(), address(ledger), "ledger");
        vm.assertEq(committee.seatStake(), SEAT_STAKE, "stake");
        vm.assertEq(committee.seatAge(), SEAT_AGE, "age");
        vm.assertEq(committee.revealSeconds(), REVEAL_SECONDS, "reveal");
    }

    function test_enrol_locksStakeOfSeats() public {
        uint256 before = lockedOf(ANNA);
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.SeatsTaken(ANNA, 2 * SEATS_EACH, 2);
        enrolAs(ANNA, 2);
        vm.assertEq(lockedOf(ANNA), before + 2 * uint256(SEAT_STAKE), "locked");
        vm.assertEq(vault.seatedOf(ANNA), (SEATS_EACH + 2) * SEAT_STAKE, "seated");
        vm.assertEq(committee.seatsOf(ANNA), SEATS_EACH + 2, "seats");
        vm.assertEq(committee.seatCount(), 2 * SEATS_EACH + 2, "count");
        IAuditCommittee.Seat memory seat = committee.seatAt(2 * SEATS_EACH + 1);
        vm.assertEq(seat.owner, ANNA, "owner");
        vm.assertEq(seat.since, block.timestamp, "since");
        vm.assertEq(seat.placed, block.timestamp, "placed");
        assertSolvent();
    }

    function test_enrol_wrongCountsRevert() public {
        vm.startPrank(ANNA);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.WrongSeatCount.selector, 0, 32));
        committee.enrol(0);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.WrongSeatCount.selector, 33, 32));
        committee.enrol(33);
        uint256 free = 100 ether - SEATS_EACH * SEAT_STAKE;
        bytes4 poor = IStakeVault.InsufficientFreeStake.selector;
        vm.expectRevert(abi.encodeWithSelector(poor, ANNA, free, 32 * uint256(SEAT_STAKE)));
        committee.enrol(32);
        vm.stopPrank();
    }

    function test_enrol_seatsCannotBeUnbondedNorClaimedWith() public {
        enrolAs(ANNA, 27); // 33 seats of 3 tokens leave one token free
        vm.prank(ANNA);
        refused(IStakeVault.InsufficientFreeStake.selector);
        vault.requestUnbond(1 ether + 1);
        finaliseNow(_task);
        refused(IStakeVault.InsufficientFreeStake.selector);
        this.claimFor(ANNA);
    }

    function claimFor(address worker) external {
        claimAs(_task, worker);
    }

    function test_resign_lastSeatTakesItsPlace() public {
        vm.warp(block.timestamp + 50);
        vm.expectEmit(true, true, true, true, address(committee));
        emit IAuditCommittee.SeatGivenUp(ANNA, 2, false);
        vm.prank(ANNA);
        committee.resign(2);
        IAuditCommittee.Seat memory moved = committee.seatAt(2);
        vm.assertEq(moved.owner, BORIS, "the last one moved");
        vm.assertEq(moved.placed, block.timestamp, "placed now");
        vm.assertLt(moved.since, block.timestamp, "still as old");
        vm.assertEq(committee.seatCount(), 2 * SEATS_EACH - 1, "count");
        vm.assertEq(vault.seatedOf(ANNA), (SEATS_EACH - 1) * SEAT_STAKE, "freed");
        vm.assertEq(lockedOf(ANNA), (SEATS_EACH - 1) * SEAT_STAKE, "unlocked");
        refused(IAuditCommittee.UnknownSeat.selector);
        committee.seatAt(2 * SEATS_EACH - 1);
    }

    function test_resign_ofLastSeat() public {
        vm.prank(BORIS);
        committee.resign(2 * SEATS_EACH - 1);
        vm.assertEq(committee.seatCount(), 2 * SEATS_EACH - 1, "count");
        vm.assertEq(committee.seatsOf(BORIS), SEATS_EACH - 1, "his");
    }

    function test_resign_onlyOwnSeatsThatAreThere() public {
        vm.startPrank(ANNA);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.NotYourSeat.selector, SEATS_EACH, BORIS));
        committee.resign(SEATS_EACH);
        uint256 count = 2 * SEATS_EACH;
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.UnknownSeat.selector, count, count));
        committee.resign(count);
        vm.stopPrank();
    }

    function test_resign_afterCommittingWaitsForTheWindow() public {
        uint256 end = windowEnd();
        bytes32 seed = drawn(5);
        commitAs(ANNA, seed, _root);
        vm.assertEq(committee.busyUntil(ANNA), end, "until");
        vm.startPrank(ANNA);
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.SeatBusy.selector, ANNA, end));
        committee.resign(0);
        vm.warp(end + 1);
        committee.resign(0);
        vm.stopPrank();
    }

    function test_votes_seatsTakenLaterOrMovedDoNotCount() public {
        ask();
        enrolAs(ANNA, 3); // after the request: not among those drawn from
        vm.prank(ANNA);
        committee.resign(0); // one of those three comes to index 0
        drawWith(seedFor(4));
        uint256 counted = 0;
        for (uint256 vote = 0; vote < VOTES; ++vote) {
            (uint256 index,, bool counts) = committee.drawnSeat(_audit, vote);
            vm.assertLt(index, 2 * SEATS_EACH, "of those that were there");
            // The moved one is `placed` in the second of the request, but was not yet old enough.
            vm.assertEq(counts, index != 0, "counts");
            if (counts) ++counted;
        }
        vm.assertEq(committee.votesOf(_audit, ANNA) + committee.votesOf(_audit, BORIS), counted, "no vote is made up");
    }

    function test_votes_agedSeatThatMovesAfterwardsIsLost() public {
        ask();
        vm.warp(block.timestamp + 1);
        vm.prank(ANNA);
        committee.resign(0); // the last of Boris's, index 11, comes to index 0
        drawWith(seedFor(4));
        for (uint256 vote = 0; vote < VOTES; ++vote) {
            (uint256 index,, bool counts) = committee.drawnSeat(_audit, vote);
            vm.assertEq(counts, index != 0 && index != 2 * SEATS_EACH - 1, "neither place counts");
        }
    }

    function test_votes_seatsThatAreGoneAreNobodys() public {
        drawn(4);
        vm.startPrank(BORIS);
        for (uint256 index = 2 * SEATS_EACH; index > SEATS_EACH; --index) {
            committee.resign(index - 1);
        }
        vm.stopPrank();
        for (uint256 vote = 0; vote < VOTES; ++vote) {
            (uint256 index, address owner, bool counts) = committee.drawnSeat(_audit, vote);
            vm.assertEq(owner, index < SEATS_EACH ? ANNA : address(0), "owner");
            vm.assertEq(counts, index < SEATS_EACH, "counts");
        }
        vm.assertEq(committee.votesOf(_audit, ANNA), 4, "hers");
        vm.assertEq(committee.votesOf(_audit, BORIS), 0, "his");
        vm.assertEq(committee.votesOf(_audit, address(0)), 0, "nobody's");
    }

    function test_votes_youngSeatsDoNotCount() public {
        address young = address(0xA3);
        arm(young);
        enrolAs(young, 3);
        ask();
        drawWith(keccak256("any"));
        vm.assertEq(committee.votesOf(_audit, young), 0, "too young");
    }

    function test_vault_eachControllerKeepsToItsOwn() public {
        TaskId budget = auditBudget(_task);
        vm.startPrank(address(ledger));
        bytes memory refusal = abi.encodeWithSelector(IStakeVault.OnlyCommittee.selector, address(ledger));
        vm.expectRevert(refusal);
        vault.openEscrow(budget, REQUESTER, 1);
        vm.expectRevert(refusal);
        vault.refundEscrow(budget, REQUESTER, 0);
        vm.expectRevert(refusal);
        vault.lockSeats(ANNA, 1);
        vm.expectRevert(refusal);
        vault.freeSeats(ANNA, 1);
        vm.stopPrank();

        vm.startPrank(address(committee));
        refusal = abi.encodeWithSelector(IStakeVault.OnlyLedger.selector, address(committee));
        vm.expectRevert(refusal);
        vault.openEscrow(_task, REQUESTER, 1);
        vm.expectRevert(refusal);
        vault.refundEscrow(_task, REQUESTER, 0);
        vm.expectRevert(refusal);
        vault.lockBond(ANNA, 1);
        vm.expectRevert(refusal);
        vault.settle(budget, ANNA, 1, ANNA, 0);
        vm.expectRevert(refusal);
        vault.takeBond(ANNA, 1, 1, address(0), 0);
        // WORKER's lock is a bond of the ledger's.
        bytes4 tooMuch = IStakeVault.InsufficientLockedStake.selector;
        vm.expectRevert(abi.encodeWithSelector(tooMuch, WORKER, 0, 1));
        vault.freeSeats(WORKER, 1);
        vm.stopPrank();
    }

    function _construct(address vault_, address ledger_, uint96 stake, uint32 age, uint32 seconds_) private {
        this.construct("AuditCommittee.sol:AuditCommittee", abi.encode(vault_, ledger_, stake, age, seconds_));
    }

    function _refusedParameter(string memory field) private {
        vm.expectRevert(abi.encodeWithSelector(IAuditCommittee.InvalidParameter.selector, field, 0));
    }
}
