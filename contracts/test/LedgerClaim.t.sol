// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";

contract LedgerClaimTest is Fixture {
    function test_claim_leasesSlotAndLocksBond() public {
        TaskId task = post();
        vm.prank(WORKER);
        vault.setPayout(STRANGER);
        uint256 end = block.timestamp + LEASE;
        Root base = parameters().initialStateRoot;
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.SlotClaimed(task, 0, WORKER, 0, 0, WORKER, STRANGER, base, end);
        claimAs(task, WORKER);
        // A payout named later is for later claims.
        vm.prank(WORKER);
        vault.setPayout(CHALLENGER);

        ITrainingLedger.Slot memory slot = ledger.getSlot(task, 0, 0);
        vm.assertEq(slot.worker, WORKER, "worker");
        vm.assertEq(slot.payout, STRANGER, "payout");
        vm.assertEq(slot.deadline, end, "deadline");
        vm.assertEq(slot.attempt, 0, "attempt");
        assertStatus(task, 0, ITrainingLedger.SlotStatus.Leased);
        vm.assertEq(lockedOf(WORKER), BOND, "locked");
    }

    function test_claim_byOperatorSucceeds() public {
        TaskId task = post();
        ITrainingLedger.Claim memory request = claimOf(task, WORKER);
        vm.prank(STRANGER);
        _expect(abi.encodeWithSelector(ITrainingLedger.NotAuthorised.selector, STRANGER, WORKER));
        ledger.claim(request);
        vm.prank(WORKER);
        vault.setOperator(STRANGER, true);
        vm.prank(STRANGER);
        ledger.claim(request);
        vm.assertEq(ledger.getSlot(task, 0, 0).worker, WORKER, "worker");
        ITrainingLedger.Submission memory result = resultOf(task, 50, LOSS_3);
        vm.prank(STRANGER);
        ledger.submit(result);
        assertStatus(task, 0, ITrainingLedger.SlotStatus.Submitted);
    }

    function test_claim_wrongNamesRevert() public {
        TaskId task = post();
        ITrainingLedger.Claim memory request = claimOf(task, WORKER);
        request.round = 1;
        _refused(request, abi.encodeWithSelector(ITrainingLedger.WrongRound.selector, 1, 0));
        request = claimOf(task, WORKER);
        request.slot = 1;
        _refused(request, abi.encodeWithSelector(ITrainingLedger.WrongSlot.selector, 1, 1));
        request = claimOf(task, WORKER);
        request.attempt = 1;
        _refused(request, abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        request = claimOf(task, WORKER);
        request.specificationHash = Root.wrap(bytes32(uint256(5)));
        Root right = parameters().specificationHash;
        _refused(
            request,
            abi.encodeWithSelector(ITrainingLedger.WrongSpecification.selector, request.specificationHash, right)
        );
        request = claimOf(task, WORKER);
        request.baseRoot = Root.wrap(bytes32(uint256(5)));
        right = parameters().initialStateRoot;
        _refused(request, abi.encodeWithSelector(ITrainingLedger.WrongBase.selector, request.baseRoot, right));
    }

    function test_claim_runningLeaseReverts() public {
        TaskId task = post();
        claimAs(task, WORKER);
        uint256 end = block.timestamp + LEASE;
        vm.warp(end); // the last second of the lease
        ITrainingLedger.Claim memory request = claimOf(task, OTHER);
        _refused(
            request,
            abi.encodeWithSelector(ITrainingLedger.SlotTaken.selector, WORKER, ITrainingLedger.SlotStatus.Leased, end)
        );
    }

    function test_claim_submittedSlotReverts() public {
        (TaskId task,) = submitted();
        ITrainingLedger.Claim memory request = claimOf(task, OTHER);
        _refused(
            request,
            abi.encodeWithSelector(
                ITrainingLedger.SlotTaken.selector,
                WORKER,
                ITrainingLedger.SlotStatus.Submitted,
                block.timestamp + WINDOW
            )
        );
    }

    function test_claim_lapsedLeaseIsExpiredFirst() public {
        TaskId task = post();
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1);
        ITrainingLedger.Claim memory request = claimOf(task, OTHER);
        vm.assertEq(request.attempt, 1, "next attempt");
        request.attempt = 0; // what OTHER saw before the lease lapsed
        _refused(request, abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 0, 1));
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.LeaseExpired(task, 0, WORKER, 0, 0, FEE);
        claimAs(task, OTHER);
        vm.assertEq(ledger.getSlot(task, 0, 0).attempt, 1, "attempt");
        vm.assertEq(ledger.getSlot(task, 0, 0).worker, OTHER, "worker");
        vm.assertEq(stakedOf(WORKER), 100 ether - FEE, "fee taken");
        vm.assertEq(lockedOf(WORKER), 0, "bond free");
        vm.assertEq(lockedOf(OTHER), BOND, "bond locked");
        vm.assertEq(token.totalSupply(), SUPPLY - FEE, "fee burned");
        assertSolvent();
    }

    function test_claim_ownLapsedLeaseSucceeds() public {
        TaskId task = post();
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1);
        claimAs(task, WORKER);
        vm.assertEq(lockedOf(WORKER), BOND, "one bond");
        vm.assertEq(stakedOf(WORKER), 100 ether - FEE, "one fee");
    }

    function test_claim_tooLittleFreeStakeReverts() public {
        TaskId task = post();
        ITrainingLedger.Claim memory request = claimOf(task, STRANGER);
        _refused(request, abi.encodeWithSelector(IStakeVault.InsufficientFreeStake.selector, STRANGER, 0, BOND));
        // Stake on its way out is no bond.
        vm.prank(OTHER);
        vault.requestUnbond(100 ether - BOND + 1);
        request = claimOf(task, OTHER);
        _refused(request, abi.encodeWithSelector(IStakeVault.InsufficientFreeStake.selector, OTHER, BOND - 1, BOND));
    }

    function test_claim_closedTaskReverts() public {
        TaskId task = post();
        ITrainingLedger.Claim memory request = claimOf(task, WORKER);
        vm.prank(REQUESTER);
        ledger.closeTask(task);
        _refused(request, abi.encodeWithSelector(ITrainingLedger.TaskIsClosed.selector, task));
    }

    function test_claim_completeTaskReverts() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.rounds = 1;
        TaskId task = post(p);
        playRound(task, WORKER, 100, LOSS_2);
        ITrainingLedger.Claim memory request = claimOf(task, OTHER);
        vm.assertEq(request.round, 1, "current round");
        _refused(request, abi.encodeWithSelector(ITrainingLedger.WrongRound.selector, 1, 1));
        request.round = 0;
        _refused(request, abi.encodeWithSelector(ITrainingLedger.WrongRound.selector, 0, 1));
    }

    function test_claim_tooLittleStakeReverts() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        (p.admission, p.minimumStake) = (ITrainingLedger.Admission.Stake, 100 ether);
        TaskId task = post(p);
        vm.prank(WORKER);
        vault.requestUnbond(1);
        ITrainingLedger.Claim memory request = claimOf(task, WORKER);
        bytes memory refusal =
            abi.encodeWithSelector(ITrainingLedger.StakeTooSmall.selector, WORKER, 100 ether - 1, 100 ether);
        _refused(request, refusal);
        claimAs(task, OTHER);
        assertStatus(task, 0, ITrainingLedger.SlotStatus.Leased);
    }

    function test_claim_ticketDecides() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        (p.admission, p.ticketTarget) = (ITrainingLedger.Admission.Ticket, 1 << 253);
        TaskId task = post(p);
        vm.roll(2000);
        vm.setBlockhash(1990, keccak256("a block"));
        ITrainingLedger.Claim memory request = claimOf(task, WORKER);
        request.ticketBlock = 1990;
        (uint256 weak, bool found) = (0, false);
        for (uint256 nonce = 0; nonce < 200; ++nonce) {
            uint256 digest = book.ticketDigest(task, 0, 0, 0, WORKER, request.baseRoot, 1990, nonce);
            if (digest >= p.ticketTarget) weak = nonce;
            else (request.ticketNonce, found) = (nonce, true);
        }
        vm.assertTrue(found, "no ticket in 200 tries at 1 in 8");
        uint256 good = request.ticketNonce;
        request.ticketNonce = weak;
        uint256 weakDigest = _digest(request, keccak256("a block"));
        _refused(request, abi.encodeWithSelector(ITrainingLedger.TicketTooWeak.selector, weakDigest, p.ticketTarget));
        (request.ticketNonce, request.ticketBlock) = (good, 1743); // 257 blocks ago
        _refused(request, abi.encodeWithSelector(ITrainingLedger.TicketBlockUnknown.selector, 1743, 2000));
        request.ticketBlock = 2000; // this block has no hash yet
        _refused(request, abi.encodeWithSelector(ITrainingLedger.TicketBlockUnknown.selector, 2000, 2000));
        request.ticketBlock = 1990;
        vm.prank(WORKER);
        ledger.claim(request);
        assertStatus(task, 0, ITrainingLedger.SlotStatus.Leased);
    }

    /// @dev The digest as docs/formats.md, section 7, writes it: ten words.
    function _digest(ITrainingLedger.Claim memory request, bytes32 blockHash) private view returns (uint256) {
        bytes memory head = abi.encode(block.chainid, address(ledger), request.task, request.round, request.slot);
        bytes memory tail =
            abi.encode(request.attempt, request.worker, request.baseRoot, blockHash, request.ticketNonce);
        return uint256(keccak256(bytes.concat(head, tail)));
    }

    function test_ticketDigest_bindsEveryField() public {
        TaskId task = post();
        vm.roll(2000);
        vm.setBlockhash(1998, keccak256("one"));
        vm.setBlockhash(1999, keccak256("other"));
        Root base = parameters().initialStateRoot;
        uint256 first = book.ticketDigest(task, 0, 0, 0, WORKER, base, 1998, 1);
        vm.assertTrue(first != book.ticketDigest(TaskId.wrap(9), 0, 0, 0, WORKER, base, 1998, 1), "task");
        vm.assertTrue(first != book.ticketDigest(task, 1, 0, 0, WORKER, base, 1998, 1), "round");
        vm.assertTrue(first != book.ticketDigest(task, 0, 1, 0, WORKER, base, 1998, 1), "slot");
        vm.assertTrue(first != book.ticketDigest(task, 0, 0, 1, WORKER, base, 1998, 1), "attempt");
        vm.assertTrue(first != book.ticketDigest(task, 0, 0, 0, OTHER, base, 1998, 1), "worker");
        vm.assertTrue(first != book.ticketDigest(task, 0, 0, 0, WORKER, Root.wrap(0), 1998, 1), "base");
        vm.assertTrue(first != book.ticketDigest(task, 0, 0, 0, WORKER, base, 1999, 1), "block");
        vm.assertTrue(first != book.ticketDigest(task, 0, 0, 0, WORKER, base, 1998, 2), "nonce");
    }

    function _refused(ITrainingLedger.Claim memory request, bytes memory refusal) private {
        vm.prank(request.worker);
        _expect(refusal);
        ledger.claim(request);
    }

    function _expect(bytes memory refusal) private {
        vm.expectRevert(refusal);
    }
}
