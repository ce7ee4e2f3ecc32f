// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {Permit} from "./base/Permit.sol";

contract LedgerPostTest is Fixture {
    function test_constructor_badArgumentsRevert() public {
        _expectInvalid("vault", 0);
        _construct(address(0), address(1), 1, 1, 1);
        _expectInvalid("disputeGame", 0);
        _construct(address(1), address(0), 1, 1, 1);
        _expectInvalid("auditCommittee", 0);
        _construct(address(1), address(1), address(0), 1, 1, 1);
        _expectInvalid("minimumBond", 0);
        _construct(address(1), address(1), 0, 1, 1);
        _expectInvalid("minimumWindow", 0);
        _construct(address(1), address(1), 1, 0, 1);
        _expectInvalid("minimumWindow", 366 days);
        _construct(address(1), address(1), 1, 366 days, 1);
        _expectInvalid("minimumLease", 0);
        _construct(address(1), address(1), 1, 1, 0);
        _expectInvalid("minimumLease", 366 days);
        _construct(address(1), address(1), 1, 1, 366 days);
    }

    function test_views_tellDeployment() public view {
        vm.assertEq(ledger.vault(), address(vault), "vault");
        vm.assertEq(ledger.disputeGame(), address(game), "game");
        vm.assertEq(ledger.auditCommittee(), address(committee), "committee");
        vm.assertEq(ledger.roundBook(), address(book), "book");
        vm.assertEq(book.ledger(), address(ledger), "ledger of the book");
        vm.assertEq(ledger.minimumBond(), MINIMUM_BOND, "bond");
        vm.assertEq(ledger.minimumWindow(), MINIMUM_WINDOW, "window");
        vm.assertEq(ledger.minimumLease(), MINIMUM_LEASE, "lease");
    }

    function test_postTask_keepsEveryParameter() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.admission = ITrainingLedger.Admission.StakeAndTicket;
        (p.minimumStake, p.ticketTarget) = (77 ether, 1 << 250);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.TaskPosted(TaskId.wrap(1), REQUESTER, p.specificationHash, p, "https://store.example/");
        TaskId task = post(p);

        ITrainingLedger.Task memory kept = ledger.getTask(task);
        vm.assertEq(abi.encode(kept.parameters), abi.encode(p), "parameters");
        vm.assertEq(kept.requester, REQUESTER, "requester");
        vm.assertEq(kept.currentRound, 0, "round");
        vm.assertTrue(!kept.closed, "closed");
        vm.assertEq(TaskId.unwrap(task), 1, "first number");
        vm.assertEq(ledger.taskCount(), 1, "count");
        vm.assertEq(vault.escrowOf(task), 3 * uint256(REWARD), "escrow");
        vm.assertEq(token.balanceOf(REQUESTER), FUNDS - 3 * uint256(REWARD), "paid");
        vm.assertTrue(ledger.baseRoot(task, 0) == p.initialStateRoot, "base of round 0");
        vm.assertTrue(ledger.baseRoot(task, 1) == Root.wrap(0), "base of round 1");
        assertSolvent();
    }

    function testFuzz_postTask_largestEscrowFits(uint96 reward, uint32 rounds) public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.slotReward = uint96(between(reward, 1, type(uint96).max));
        p.rounds = uint32(between(rounds, 1, type(uint32).max));
        uint256 total = uint256(p.slotReward) * p.rounds;
        vm.prank(REQUESTER);
        if (total > FUNDS) vm.expectRevert();
        TaskId task = ledger.postTask(p, "");
        vm.assertEq(vault.escrowOf(task), total > FUNDS ? 0 : total, "escrow");
        vm.assertEq(ledger.taskCount(), total > FUNDS ? 0 : 1, "count");
    }

    function test_postTask_zeroRootReverts() public {
        for (uint256 which = 0; which < 4; ++which) {
            ITrainingLedger.TaskParameters memory p = parameters();
            if (which == 0) p.specificationHash = Root.wrap(0);
            if (which == 1) p.programRoot = Root.wrap(0);
            if (which == 2) p.datasetRoot = Root.wrap(0);
            if (which == 3) p.initialStateRoot = Root.wrap(0);
            vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.ZeroRoot.selector));
            post(p);
        }
    }

    function test_postTask_badSizeReverts() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.stateTensors = 1;
        _refused(p, "stateTensors", 1);
        p.stateTensors = (1 << 20) + 1;
        _refused(p, "stateTensors", (1 << 20) + 1);
        p = parameters();
        p.rounds = 0;
        _refused(p, "rounds", 0);
        p = parameters();
        p.slotsPerRound = 0;
        _refused(p, "slotsPerRound", 0);
        p.slotsPerRound = 256;
        _refused(p, "slotsPerRound", 256);
        p = parameters();
        p.stepsPerRound = 0;
        _refused(p, "stepsPerRound", 0);
        p = parameters();
        p.minimumSteps = 0;
        _refused(p, "minimumSteps", 0);
        p.minimumSteps = p.stepsPerRound + 1;
        _refused(p, "minimumSteps", p.minimumSteps);
    }

    function test_postTask_badRoundReverts() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.quorum = 1;
        _refused(p, "quorum", 1);
        (p.quorum, p.roundSeconds) = (0, LEASE);
        _refused(p, "roundSeconds", LEASE);
        (p.roundSeconds, p.mergeReward) = (0, 1);
        _refused(p, "mergeReward", 1);
        p = groupParameters(4);
        p.quorum = 0;
        _refused(p, "quorum", 0);
        p.quorum = 5;
        _refused(p, "quorum", 5);
        p = groupParameters(4);
        p.roundSeconds = LEASE - 1;
        _refused(p, "roundSeconds", LEASE - 1);
        p.roundSeconds = 365 days + 1;
        _refused(p, "roundSeconds", 365 days + 1);
        p = groupParameters(4);
        p.mergeReward = 0;
        _refused(p, "mergeReward", 0);
    }

    function test_postTask_keepsRounds() public {
        ITrainingLedger.TaskParameters memory p = groupParameters(255);
        p.slotReward = 7 ether;
        TaskId task = post(p);
        vm.assertEq(abi.encode(ledger.getTask(task).parameters), abi.encode(p), "parameters");
        vm.assertEq(vault.escrowOf(task), 3 * (255 * 7 ether + uint256(MERGE_REWARD)), "escrow");
    }

    function test_postTask_badMoneyReverts() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.slotReward = 0;
        _refused(p, "slotReward", 0);
        p = parameters();
        p.bond = MINIMUM_BOND - 1;
        _refused(p, "bond", MINIMUM_BOND - 1);
        p = parameters();
        p.leaseFee = BOND + 1;
        _refused(p, "leaseFee", BOND + 1);
    }

    function test_postTask_badTimesRevert() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.leaseSeconds = MINIMUM_LEASE - 1;
        _refused(p, "leaseSeconds", MINIMUM_LEASE - 1);
        p.leaseSeconds = 365 days + 1;
        _refused(p, "leaseSeconds", 365 days + 1);
        p = parameters();
        p.challengeWindow = LEASE - 1;
        _refused(p, "challengeWindow", LEASE - 1);
        p.challengeWindow = 365 days + 1;
        _refused(p, "challengeWindow", 365 days + 1);
        p.leaseSeconds = MINIMUM_LEASE;
        p.challengeWindow = MINIMUM_WINDOW - 1;
        _refused(p, "challengeWindow", MINIMUM_WINDOW - 1);
    }

    function test_postTask_inconsistentAdmissionReverts() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.minimumStake = 1;
        _refused(p, "minimumStake", 1);
        p = parameters();
        p.ticketTarget = 1;
        _refused(p, "ticketTarget", 1);
        p = parameters();
        p.admission = ITrainingLedger.Admission.Stake;
        _refused(p, "minimumStake", 0);
        p.admission = ITrainingLedger.Admission.Ticket;
        _refused(p, "ticketTarget", 0);
        p.admission = ITrainingLedger.Admission.StakeAndTicket;
        p.minimumStake = 1;
        _refused(p, "ticketTarget", 0);
    }

    function test_postTask_badLossesRevert() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.baseLoss = NAN;
        _refused(p, "baseLoss", NAN);
        p = parameters();
        p.targetLoss = 0xff800000; // minus infinity
        _refused(p, "targetLoss", 0xff800000);
        p.targetLoss = LOSS_4;
        _refused(p, "targetLoss", LOSS_4);
        p = parameters();
        (p.baseLoss, p.targetLoss) = (0x00000001, 0); // equal once in fixed point
        _refused(p, "targetLoss", 0);
        p = parameters();
        p.hasTarget = false;
        _refused(p, "baseLoss", LOSS_4);
        p.baseLoss = 0;
        _refused(p, "targetLoss", LOSS_2);
    }

    function test_postTaskWithPermit_usedPermitSucceeds() public {
        (uint256 key, uint256 total) = (0xBEEF, 3 * uint256(REWARD));
        address owner = vm.addr(key);
        require(token.transfer(owner, total), "transfer");
        bytes32 digest = Permit.digest(token, owner, address(vault), total, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        token.permit(owner, address(vault), total, block.timestamp, v, r, s);
        vm.prank(owner);
        TaskId task = ledger.postTaskWithPermit(parameters(), "", block.timestamp, v, r, s);
        vm.assertEq(vault.escrowOf(task), total, "escrow");
    }

    function test_postTaskWithPermit_freshPermitSucceeds() public {
        (uint256 key, uint256 total) = (0xBEEF, 3 * uint256(REWARD));
        address owner = vm.addr(key);
        require(token.transfer(owner, total), "transfer");
        bytes32 digest = Permit.digest(token, owner, address(vault), total, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        vm.prank(owner);
        TaskId task = ledger.postTaskWithPermit(parameters(), "", block.timestamp, v, r, s);
        vm.assertEq(vault.escrowOf(task), total, "escrow");
    }

    function test_unknownTask_everyCallReverts() public {
        TaskId none = TaskId.wrap(9);
        bytes memory refusal = abi.encodeWithSelector(ITrainingLedger.UnknownTask.selector, none);
        ITrainingLedger.Claim memory request;
        request.task = none;
        ITrainingLedger.Submission memory result;
        result.task = none;
        vm.expectRevert(refusal);
        ledger.getTask(none);
        vm.expectRevert(refusal);
        ledger.getSlot(none, 0, 0);
        vm.expectRevert(refusal);
        ledger.nextAttempt(none, 0, 0);
        vm.expectRevert(refusal);
        ledger.baseRoot(none, 0);
        vm.expectRevert(refusal);
        ledger.getCheckpoint(none, 0);
        vm.expectRevert(refusal);
        ledger.payFor(none, 0, 1, 0);
        vm.expectRevert(refusal);
        ledger.closeTask(none);
        vm.expectRevert(refusal);
        ledger.claim(request);
        vm.expectRevert(refusal);
        ledger.submit(result);
        vm.expectRevert(refusal);
        ledger.finalise(none, 0, 0, 0, Root.wrap(0));
        vm.expectRevert(refusal);
        ledger.expireLease(none, 0, 0, 0);
    }

    function _refused(ITrainingLedger.TaskParameters memory p, string memory field, uint256 value) private {
        _expectInvalid(field, value);
        vm.prank(REQUESTER);
        ledger.postTask(p, "");
    }

    function _expectInvalid(string memory field, uint256 value) private {
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, field, value));
    }

    function _construct(address vault_, address game_, uint96 bond, uint32 window, uint32 lease) private {
        _construct(vault_, game_, address(1), bond, window, lease);
    }

    function _construct(address vault_, address game_, address committee_, uint96 bond, uint32 window, uint32 lease)
        private
    {
        this.construct(
            "TrainingLedger.sol:TrainingLedger", abi.encode(vault_, game_, committee_, address(1), bond, window, lease)
        );
    }
}
