// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAvailabilityCommittee} from "../interfaces/IAvailabilityCommittee.sol";
import {IOpenLedger} from "../interfaces/IOpenLedger.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {OpenFixture} from "./base/OpenFixture.sol";

/// @title What open tasks refuse, and what they say then
contract OpenRefusalsTest is OpenFixture {
    function test_postTask_namesTheFieldThatIsWrong() public {
        IOpenLedger.TaskParameters memory p = openParameters();
        p.slotsPerRound = 256;
        _refused(p, ROUNDS, "slotsPerRound", 256);
        p = openParameters();
        p.fullGain = 0;
        _refused(p, ROUNDS, "fullGain", 0);
        p.fullGain = NAN;
        _refused(p, ROUNDS, "fullGain", NAN);
        p = openParameters();
        p.floorReward = REWARD + 1;
        _refused(p, ROUNDS, "floorReward", uint256(REWARD) + 1);
        p = openParameters();
        p.scoreReward = 0;
        _refused(p, ROUNDS, "scoreReward", 0);
        p = openParameters();
        p.slotReward = 0;
        _refused(p, ROUNDS, "slotReward", 0);
        p = openParameters();
        p.bond = MINIMUM_BOND - 1;
        _refused(p, ROUNDS, "bond", MINIMUM_BOND - 1);
        p = openParameters();
        p.fee = BOND + 1;
        _refused(p, ROUNDS, "fee", uint256(BOND) + 1);
        p = openParameters();
        p.heldOutBytes = 0;
        _refused(p, ROUNDS, "heldOutBytes", 0);
        p.heldOutBytes = 3;
        _refused(p, ROUNDS, "heldOutBytes", 3);
        p.heldOutBytes = 65_538;
        _refused(p, ROUNDS, "heldOutBytes", 65_538);
        p = openParameters();
        p.stateTensors = 1;
        _refused(p, ROUNDS, "stateTensors", 1);
        _refused(openParameters(), 0, "rounds", 0);
    }

    function test_postTask_namesThePeriodThatIsWrong() public {
        IOpenLedger.TaskParameters memory p = openParameters();
        p.commitSeconds = MINIMUM_LEASE - 1;
        _refused(p, ROUNDS, "commitSeconds", MINIMUM_LEASE - 1);
        p = openParameters();
        p.revealSeconds = 366 days;
        _refused(p, ROUNDS, "revealSeconds", 366 days);
        p = openParameters();
        p.heldOutSeconds = 0;
        _refused(p, ROUNDS, "heldOutSeconds", 0);
        p = openParameters();
        p.leaseSeconds = 1;
        _refused(p, ROUNDS, "leaseSeconds", 1);
        p = openParameters();
        p.challengeWindow = LEASE - 1;
        _refused(p, ROUNDS, "challengeWindow", LEASE - 1);
        p = openParameters();
        p.programRoot = Root.wrap(0);
        Root[] memory roots = heldOutRoots(ROUNDS);
        vm.prank(REQUESTER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.ZeroRoot.selector));
        open.postTask(p, roots, "");
    }

    function test_tasks_unknownOnesAreNamed() public {
        TaskId none = TaskId.wrap(7);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.UnknownTask.selector, none));
        open.getTask(none);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.UnknownTask.selector, none));
        open.skip(none, 0);
        TaskId task = postOpen();
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongSlot.selector, SLOTS + 1, SLOTS + 1));
        open.getOpenSlot(task, 0, SLOTS + 1);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongRound.selector, ROUNDS, 0));
        open.heldOutRoot(task, ROUNDS);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyRequester.selector, address(this), REQUESTER));
        open.closeTask(task);
    }

    function test_commit_refusals() public {
        TaskId task = postOpen();
        IOpenLedger.Commit memory good = commitOf(task, WORKER, trained(1));
        _refusedCommit(good, OTHER, abi.encodeWithSelector(ITrainingLedger.NotAuthorised.selector, OTHER, WORKER));
        IOpenLedger.Commit memory bad = commitOf(task, WORKER, trained(1));
        bad.specificationHash = trained(2);
        Root expected = good.specificationHash;
        _refusedCommit(
            bad, WORKER, abi.encodeWithSelector(ITrainingLedger.WrongSpecification.selector, trained(2), expected)
        );
        bad = commitOf(task, WORKER, trained(1));
        bad.baseRoot = trained(2);
        _refusedCommit(
            bad, WORKER, abi.encodeWithSelector(ITrainingLedger.WrongBase.selector, trained(2), good.baseRoot)
        );
        bad = commitOf(task, WORKER, trained(1));
        bad.round = 1;
        _refusedCommit(bad, WORKER, abi.encodeWithSelector(ITrainingLedger.WrongRound.selector, 1, 0));
        bad = commitOf(task, WORKER, trained(1));
        bad.commitment = 0;
        _refusedCommit(bad, WORKER, abi.encodeWithSelector(ITrainingLedger.ZeroRoot.selector));

        commitAs(task, WORKER, trained(1));
        _refusedCommit(good, WORKER, abi.encodeWithSelector(IOpenLedger.AlreadyCommitted.selector, WORKER, 0));
        uint256 end = block.timestamp + COMMIT;
        vm.warp(end + 1);
        IOpenLedger.Commit memory late = commitOf(task, OTHER, trained(1));
        _refusedCommit(late, OTHER, abi.encodeWithSelector(IOpenLedger.CommitsOver.selector, end, 1, SLOTS));
        vm.prank(REQUESTER);
        open.closeTask(task);
        _refusedCommit(late, OTHER, abi.encodeWithSelector(ITrainingLedger.TaskIsClosed.selector, task));
    }

    function test_commit_asksForStake() public {
        IOpenLedger.TaskParameters memory p = openParameters();
        p.minimumStake = 101 ether;
        TaskId task = postOpen(p, ROUNDS);
        IOpenLedger.Commit memory request = commitOf(task, WORKER, trained(1));
        _refusedCommit(
            request,
            WORKER,
            abi.encodeWithSelector(ITrainingLedger.StakeTooSmall.selector, WORKER, 100 ether, 101 ether)
        );
        stakeAs(WORKER, 1 ether);
        commitAs(task, WORKER, trained(1));
    }

    function test_commit_takesNoMoreThanTheSlots() public {
        TaskId task = revealedRound();
        IOpenLedger.Commit memory request = commitOf(task, CHALLENGER, trained(4));
        _refusedCommit(
            request, CHALLENGER, abi.encodeWithSelector(IOpenLedger.CommitsOver.selector, block.timestamp, SLOTS, SLOTS)
        );
    }

    function test_reveal_refusals() public {
        TaskId task = postOpen();
        commitAs(task, WORKER, trained(1));
        uint256 end = block.timestamp + COMMIT;
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooEarly.selector, end, block.timestamp));
        open.reveal(task, 0, 0, trained(1), saltOf(WORKER));
        vm.warp(end + 1);
        bytes32 committed = open.getOpenSlot(task, 0, 0).commitment;
        bytes32 opened = open.commitmentOf(task, 0, WORKER, trained(2), saltOf(WORKER));
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.WrongCommitment.selector, opened, committed));
        open.reveal(task, 0, 0, trained(2), saltOf(WORKER));
        vm.expectRevert(
            abi.encodeWithSelector(
                IOpenLedger.WrongStage.selector, IOpenLedger.Stage.Empty, IOpenLedger.Stage.Committed
            )
        );
        open.reveal(task, 0, 1, trained(2), saltOf(WORKER));
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooEarly.selector, end + REVEAL, block.timestamp));
        open.forfeit(task, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooEarly.selector, end + REVEAL, block.timestamp));
        open.skip(task, 0);
        vm.warp(end + REVEAL + 1);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooLate.selector, end + REVEAL, block.timestamp));
        open.reveal(task, 0, 0, trained(1), saltOf(WORKER));
    }

    /// @dev A commitment binds its worker, so it is of no use to anybody else.
    function test_reveal_aCopiedCommitmentOpensNothing() public {
        TaskId task = postOpen();
        commitAs(task, WORKER, trained(1));
        IOpenLedger.Commit memory stolen = commitOf(task, OTHER, trained(1));
        stolen.commitment = open.getOpenSlot(task, 0, 0).commitment;
        vm.prank(OTHER);
        open.commit(stolen);
        vm.warp(block.timestamp + COMMIT + 1);
        revealAs(task, WORKER, trained(1));
        bytes32 opened = open.commitmentOf(task, 0, OTHER, trained(1), saltOf(WORKER));
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.WrongCommitment.selector, opened, stolen.commitment));
        open.reveal(task, 0, 1, trained(1), saltOf(WORKER));
    }

    function test_reveal_twiceIsDone() public {
        TaskId task = revealedRound();
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.AlreadyDone.selector, trained(1)));
        open.reveal(task, 0, 0, trained(1), saltOf(WORKER));
    }

    function test_revealHeldOut_refusals() public {
        TaskId task = postOpen();
        bytes memory shown = heldOutTokens(0);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooEarly.selector, 0, block.timestamp));
        open.revealHeldOut(task, 0, shown);
        commitAs(task, WORKER, trained(1));
        vm.warp(block.timestamp + COMMIT + 1);
        uint256 revealEnd = open.getRound(task, 0).revealEnd;
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooEarly.selector, revealEnd, block.timestamp));
        open.revealHeldOut(task, 0, shown);
        revealAs(task, WORKER, trained(1));
        bytes memory tokens = heldOutTokens(1);
        Root expected = open.heldOutRoot(task, 0);
        Root computed = availability.dataSetRoot(tokens, heldOutBytes, TRAIN_LEAF, PUBLIC_NODE);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.WrongHeldOut.selector, computed, expected));
        open.revealHeldOut(task, 0, tokens);
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.WrongHeldOutSize.selector, 0, heldOutBytes));
        open.revealHeldOut(task, 0, "");
        vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.WrongHeldOutSize.selector, 36, heldOutBytes));
        open.revealHeldOut(task, 0, new bytes(36));
        showHeldOut(task);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.HeldOutShown.selector, block.timestamp));
        open.revealHeldOut(task, 0, shown);
    }

    function test_revealHeldOut_lateIsADefault() public {
        TaskId task = revealedRound();
        bytes memory shown = heldOutTokens(0);
        uint256 end = block.timestamp + HELD_OUT;
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooEarly.selector, end, block.timestamp));
        open.settleDefault(task, 0, 0, trained(1));
        vm.warp(end + 1);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooLate.selector, end, end + 1));
        open.revealHeldOut(task, 0, shown);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.RoundHasStates.selector, SLOTS));
        open.skip(task, 0);
        open.settleDefault(task, 0, 0, trained(1));
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.AlreadyDone.selector, trained(1)));
        open.settleDefault(task, 0, 0, trained(1));
    }

    function test_score_refusals() public {
        TaskId task = revealedRound();
        IOpenLedger.Score memory early = scoreOf(task, 0, WORKER, LOSS_3);
        _refusedScore(early, WORKER, abi.encodeWithSelector(IOpenLedger.HeldOutShown.selector, 0));
        showHeldOut(task);
        IOpenLedger.Score memory result = scoreOf(task, 0, WORKER, LOSS_3);
        _refusedScore(result, OTHER, abi.encodeWithSelector(ITrainingLedger.NotAuthorised.selector, OTHER, WORKER));
        result.worker = OTHER;
        uint256 end = block.timestamp + LEASE;
        _refusedScore(result, OTHER, abi.encodeWithSelector(IOpenLedger.NotYourScore.selector, WORKER, end));
        result = scoreOf(task, 0, WORKER, LOSS_3);
        result.attempt = 1;
        _refusedScore(result, WORKER, abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        result = scoreOf(task, 0, WORKER, LOSS_3);
        result.trainedRoot = trained(2);
        _refusedScore(
            result, WORKER, abi.encodeWithSelector(ITrainingLedger.WrongState.selector, trained(2), trained(1))
        );
        result = scoreOf(task, 0, WORKER, LOSS_3);
        result.lossProof = new bytes32[](2);
        _refusedScore(result, WORKER, abi.encodeWithSelector(ITrainingLedger.WrongProofLength.selector, 2, 3));
        result = scoreOf(task, 0, WORKER, LOSS_3);
        result.scoredRoot = trained(9);
        Root proved = scoreOf(task, 0, WORKER, LOSS_3).scoredRoot;
        _refusedScore(
            result, WORKER, abi.encodeWithSelector(ITrainingLedger.WrongLossProof.selector, trained(9), proved)
        );
        result = scoreOf(task, 0, WORKER, 0x7fc00001);
        _refusedScore(
            result, WORKER, abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, "heldOutLoss", 0x7fc00001)
        );
        scoreAs(task, 0, WORKER, LOSS_3);
        result = scoreOf(task, 0, WORKER, LOSS_3);
        _refusedScore(result, WORKER, abi.encodeWithSelector(IOpenLedger.AlreadyDone.selector, result.scoredRoot));
    }

    function test_finalise_refusals() public {
        TaskId task = openedRound();
        Root scored = scoreAs(task, 0, WORKER, LOSS_3);
        uint256 end = block.timestamp + WINDOW;
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WindowStillOpen.selector, end, block.timestamp));
        open.finalise(task, 0, 0, 0, scored);
        vm.warp(end + 1);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.BaselineNotFinal.selector, IOpenLedger.Stage.Revealed));
        open.finalise(task, 0, 0, 0, scored);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        open.finalise(task, 0, 0, 1, scored);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongState.selector, trained(1), scored));
        open.finalise(task, 0, 0, 0, trained(1));
        scoreAs(task, SLOTS, OTHER, LOSS_4);
        finaliseScore(task, SLOTS);
        open.finalise(task, 0, 0, 0, scored);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.AlreadyDone.selector, scored));
        open.finalise(task, 0, 0, 0, scored);
    }

    function test_expire_refusals() public {
        TaskId task = openedRound();
        uint256 end = block.timestamp + 2 * uint256(LEASE);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        open.expire(task, 0, 0, 1);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.TooEarly.selector, end, block.timestamp));
        open.expire(task, 0, 0, 0);
        scoreAs(task, 0, WORKER, LOSS_3);
        vm.expectRevert(
            abi.encodeWithSelector(
                IOpenLedger.WrongStage.selector, IOpenLedger.Stage.Scored, IOpenLedger.Stage.Revealed
            )
        );
        open.expire(task, 0, 0, 0);
    }

    function test_constructors_zeroArgumentsRevert() public {
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, "vault", 0));
        this.construct("OpenLedger.sol:OpenLedger", abi.encode(address(0), address(1), address(1)));
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, "disputeGame", 0));
        this.construct("OpenLedger.sol:OpenLedger", abi.encode(address(1), address(0), address(1)));
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, "availabilityCommittee", 0));
        this.construct("OpenLedger.sol:OpenLedger", abi.encode(address(1), address(1), address(0)));
        string[7] memory names =
            ["ledger", "auditCommittee", "vault", "periodSeconds", "minimumBond", "minimumWindow", "minimumLease"];
        for (uint256 i = 0; i < names.length; ++i) {
            uint256[7] memory values = [uint256(1), 1, 1, 1, 1, 1, 1];
            values[i] = 0;
            vm.expectRevert(abi.encodeWithSelector(IAvailabilityCommittee.InvalidParameter.selector, names[i], 0));
            this.construct("AvailabilityCommittee.sol:AvailabilityCommittee", abi.encode(values));
        }
    }

    function _refused(IOpenLedger.TaskParameters memory p, uint32 rounds, string memory field, uint256 value) private {
        Root[] memory roots = heldOutRoots(rounds);
        vm.prank(REQUESTER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, field, value));
        open.postTask(p, roots, "");
    }

    function _refusedCommit(IOpenLedger.Commit memory request, address caller, bytes memory reason) private {
        vm.prank(caller);
        vm.expectRevert(reason);
        open.commit(request);
    }

    function _refusedScore(IOpenLedger.Score memory result, address caller, bytes memory reason) private {
        vm.prank(caller);
        vm.expectRevert(reason);
        open.score(result);
    }
}
