// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IOpenLedger} from "../interfaces/IOpenLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {HeldOutTree} from "./base/HeldOutTree.sol";
import {OpenFixture} from "./base/OpenFixture.sol";

/// @title Rounds of open tasks: commits, reveals, held-out data, scores and pay
contract OpenRoundsTest is OpenFixture {
    uint256 private constant WHOLE = (uint256(REWARD) * SLOTS + SCORE_REWARD) * ROUNDS;

    function test_postTask_escrowsAllRounds() public {
        TaskId task = postOpen();
        vm.assertEq(escrowOf(task), WHOLE, "escrow");
        vm.assertEq(vault.escrowOf(task), 0, "escrow of the other ledger's task");
        vm.assertEq(Root.unwrap(open.baseRoot(task, 0)), keccak256("initial"), "base");
        IOpenLedger.Task memory posted = open.getTask(task);
        vm.assertEq(posted.requester, REQUESTER, "requester");
        vm.assertEq(posted.rounds, ROUNDS, "rounds");
        vm.assertEq(
            keccak256(abi.encode(posted.parameters)), keccak256(abi.encode(openParameters())), "parameters as posted"
        );
        for (uint32 round = 0; round < ROUNDS; ++round) {
            vm.assertEq(
                Root.unwrap(open.heldOutRoot(task, round)), Root.unwrap(heldOutRoots(ROUNDS)[round]), "held-out root"
            );
        }
    }

    /// @dev One improves by 1 of 1 asked, one by a half, one gets worse: all, half of what is above the floor, the floor.
    function test_round_payFollowsTheVerifiedImprovement() public {
        TaskId task = openedRound();
        Root best = scoreAs(task, 0, WORKER, LOSS_3);
        scoreAs(task, 1, OTHER, LOSS_3H);
        scoreAs(task, 2, STRANGER, NAN);
        scoreAs(task, SLOTS, CHALLENGER, LOSS_4);
        finaliseScore(task, SLOTS);
        vm.assertEq(vault.creditOf(CHALLENGER), SCORE_REWARD, "for the baseline");
        for (uint32 slot = SLOTS; slot > 0; --slot) {
            finaliseScore(task, slot - 1);
        }
        vm.assertEq(vault.creditOf(WORKER), REWARD, "all");
        vm.assertEq(vault.creditOf(OTHER), FLOOR + (uint256(REWARD) - FLOOR) / 2, "half");
        vm.assertEq(vault.creditOf(STRANGER), FLOOR, "floor");
        vm.assertEq(open.getTask(task).currentRound, 1, "next round");
        vm.assertEq(Root.unwrap(open.baseRoot(task, 1)), Root.unwrap(best), "the best is the next base");
        vm.assertEq(lockedOf(WORKER) + lockedOf(OTHER) + lockedOf(STRANGER) + lockedOf(CHALLENGER), 0, "bonds are free");
        uint256 paid = REWARD + SCORE_REWARD + FLOOR + FLOOR + (uint256(REWARD) - FLOOR) / 2;
        vm.assertEq(escrowOf(task), WHOLE - paid, "escrow");
        assertSolvent();
    }

    function test_round_theBaseStaysWhereNothingIsBetter() public {
        TaskId task = openedRound();
        scoreAs(task, 0, WORKER, LOSS_4);
        scoreAs(task, 1, OTHER, LOSS_4);
        scoreAs(task, 2, STRANGER, NAN);
        scoreAs(task, SLOTS, CHALLENGER, LOSS_4);
        finaliseScore(task, SLOTS);
        for (uint32 slot = 0; slot < SLOTS; ++slot) {
            finaliseScore(task, slot);
        }
        vm.assertEq(Root.unwrap(open.baseRoot(task, 1)), keccak256("initial"), "base");
        vm.assertEq(vault.creditOf(WORKER), FLOOR, "floor");
    }

    /// @dev Whatever the order of finalising: of equal losses the lower slot is the next base.
    function testFuzz_round_equalLossesGiveTheLowerSlot(uint256 luck) public {
        TaskId task = openedRound();
        scoreAs(task, 0, WORKER, LOSS_3);
        Root second = scoreAs(task, 1, OTHER, LOSS_2);
        scoreAs(task, 2, STRANGER, LOSS_2);
        scoreAs(task, SLOTS, CHALLENGER, LOSS_4);
        finaliseScore(task, SLOTS);
        uint32 first = uint32(luck % 3);
        finaliseScore(task, first);
        uint32 step = luck & 256 == 0 ? 1 : 2;
        finaliseScore(task, (first + step) % 3);
        finaliseScore(task, (first + 2 * step) % 3);
        vm.assertEq(Root.unwrap(open.baseRoot(task, 1)), Root.unwrap(second), "base");
    }

    function test_task_completesAndRefundsTheRest() public {
        TaskId task = openedRound();
        uint256 before = vault.creditOf(REQUESTER);
        for (uint32 round = 0; round < ROUNDS; ++round) {
            if (round > 0) {
                commitAs(task, WORKER, trained(10));
                vm.warp(block.timestamp + COMMIT + 1);
                revealAs(task, WORKER, trained(10));
                showHeldOut(task);
            }
            scoreAs(task, 0, WORKER, LOSS_3);
            if (round == 0) {
                scoreAs(task, 1, OTHER, LOSS_3H);
                scoreAs(task, 2, STRANGER, LOSS_4);
            }
            scoreAs(task, SLOTS, CHALLENGER, LOSS_4);
            finaliseScore(task, SLOTS);
            finaliseScore(task, 0);
            if (round == 0) finaliseOthers(task);
        }
        IOpenLedger.Task memory ended = open.getTask(task);
        vm.assertEq(uint256(ended.phase), uint256(IOpenLedger.Phase.Complete), "complete");
        vm.assertEq(escrowOf(task), 0, "escrow");
        uint256 paid =
            vault.creditOf(WORKER) + vault.creditOf(OTHER) + vault.creditOf(STRANGER) + vault.creditOf(CHALLENGER);
        vm.assertEq(vault.creditOf(REQUESTER) - before, WHOLE - paid, "refund");
        assertSolvent();
    }

    function finaliseOthers(TaskId task) internal {
        finaliseScore(task, 1);
        finaliseScore(task, 2);
    }

    /// @dev Two have the same state: the earlier commit wins, in whatever order they are revealed.
    function testFuzz_reveal_theEarliestCommitWins(bool laterFirst) public {
        TaskId task = postOpen();
        commitAs(task, WORKER, trained(1));
        commitAs(task, OTHER, trained(1));
        commitAs(task, STRANGER, trained(2));
        revealAs(task, laterFirst ? OTHER : WORKER, trained(1));
        revealAs(task, laterFirst ? WORKER : OTHER, trained(1));
        assertStage(task, 0, IOpenLedger.Stage.Revealed);
        assertStage(task, 1, IOpenLedger.Stage.Copy);
        vm.assertEq(lockedOf(OTHER), 0, "the copy's bond is free");
        vm.assertEq(open.getRound(task, 0).revealed, 1, "one new state");
        revealAs(task, STRANGER, trained(2));
        showHeldOut(task);
        scoreAs(task, 0, WORKER, LOSS_3);
        scoreAs(task, 2, STRANGER, LOSS_3);
        scoreAs(task, SLOTS, OTHER, LOSS_4);
        finaliseScore(task, SLOTS);
        finaliseScore(task, 0);
        finaliseScore(task, 2);
        vm.assertEq(vault.creditOf(OTHER), SCORE_REWARD, "nothing for the copy");
        vm.assertEq(open.getTask(task).currentRound, 1, "ended without the copy");
    }

    function test_reveal_theBaseIsACopy() public {
        TaskId task = postOpen();
        Root base = open.baseRoot(task, 0);
        commitAs(task, WORKER, base);
        vm.warp(block.timestamp + COMMIT + 1);
        revealAs(task, WORKER, base);
        assertStage(task, 0, IOpenLedger.Stage.Copy);
        open.skip(task, 0);
        vm.assertEq(open.getTask(task).currentRound, 1, "ended");
        vm.assertEq(escrowOf(task), WHOLE, "nothing paid");
    }

    function test_forfeit_burnsTheFeeOfACommitNeverRevealed() public {
        TaskId task = postOpen();
        commitAs(task, WORKER, trained(1));
        uint256 supply = token.totalSupply();
        vm.warp(block.timestamp + COMMIT + REVEAL + 1);
        open.forfeit(task, 0, 0);
        vm.assertEq(token.totalSupply(), supply - FEE, "burned");
        vm.assertEq(lockedOf(WORKER), 0, "free");
        open.skip(task, 0);
        vm.assertEq(Root.unwrap(open.baseRoot(task, 1)), keccak256("initial"), "base stays");
    }

    function test_settleDefault_paysInFullAndCloses() public {
        TaskId task = revealedRound();
        vm.warp(block.timestamp + HELD_OUT + 1);
        open.settleDefault(task, 0, 0, trained(1));
        vm.assertEq(vault.creditOf(WORKER), REWARD, "in full");
        vm.assertEq(escrowOf(task), 2 * uint256(REWARD), "kept for the others");
        vm.assertEq(vault.creditOf(REQUESTER), WHOLE - 3 * uint256(REWARD), "refund");
        open.settleDefault(task, 0, 1, trained(2));
        open.settleDefault(task, 0, 2, trained(3));
        vm.assertEq(escrowOf(task), 0, "escrow");
        vm.assertEq(vault.creditOf(STRANGER), REWARD, "in full");
        vm.assertEq(uint256(open.getTask(task).phase), uint256(IOpenLedger.Phase.Closed), "closed");
        vm.assertEq(lockedOf(WORKER) + lockedOf(OTHER) + lockedOf(STRANGER), 0, "bonds");
        assertSolvent();
    }

    function test_closeTask_refundsAtOnceWhereNoRoundRuns() public {
        TaskId task = postOpen();
        vm.prank(REQUESTER);
        open.closeTask(task);
        vm.assertEq(vault.creditOf(REQUESTER), WHOLE, "refund");
    }

    function test_closeTask_letsTheRoundEnd() public {
        TaskId task = openedRound();
        vm.prank(REQUESTER);
        open.closeTask(task);
        vm.assertEq(escrowOf(task), WHOLE / ROUNDS, "kept for the round");
        scoreAs(task, 0, WORKER, LOSS_3);
        scoreAs(task, 1, OTHER, LOSS_3);
        scoreAs(task, 2, STRANGER, LOSS_3);
        scoreAs(task, SLOTS, CHALLENGER, LOSS_4);
        finaliseScore(task, SLOTS);
        finaliseScore(task, 0);
        finaliseOthers(task);
        vm.assertEq(escrowOf(task), 0, "nothing left");
        vm.assertEq(vault.creditOf(REQUESTER), WHOLE / 2, "the other round's money");
    }

    function test_score_anybodyStandsInForALateWorker() public {
        TaskId task = openedRound();
        vm.warp(block.timestamp + LEASE + 1);
        uint256 supply = token.totalSupply();
        scoreAs(task, 0, CHALLENGER, LOSS_3);
        vm.assertEq(token.totalSupply(), supply - FEE, "the late worker's fee");
        vm.assertEq(lockedOf(WORKER), 0, "and its bond");
        scoreAs(task, SLOTS, CHALLENGER, LOSS_4);
        finaliseScore(task, SLOTS);
        finaliseScore(task, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), uint256(REWARD) + SCORE_REWARD, "who scored it is paid");
        vm.assertEq(vault.creditOf(WORKER), 0, "who did not is not");
    }

    function test_expire_endsARoundThatNobodyScores() public {
        TaskId task = openedRound();
        vm.warp(block.timestamp + 2 * uint256(LEASE) + 1);
        for (uint32 slot = 0; slot <= SLOTS; ++slot) {
            open.expire(task, 0, slot, 0);
        }
        vm.assertEq(open.getTask(task).currentRound, 1, "ended");
        vm.assertEq(escrowOf(task), WHOLE, "nothing paid");
        vm.assertEq(lockedOf(WORKER) + lockedOf(OTHER) + lockedOf(STRANGER), 0, "bonds");
        assertSolvent();
    }

    /// @dev Without a baseline nobody can say what has improved: floors only, and the base stays.
    function test_expire_ofTheBaselineLeavesTheFloor() public {
        TaskId task = openedRound();
        scoreAs(task, 0, WORKER, LOSS_2);
        vm.warp(block.timestamp + 2 * uint256(LEASE) + 1);
        for (uint32 slot = 1; slot <= SLOTS; ++slot) {
            open.expire(task, 0, slot, 0);
        }
        finaliseScore(task, 0);
        vm.assertEq(vault.creditOf(WORKER), FLOOR, "floor");
        vm.assertEq(Root.unwrap(open.baseRoot(task, 1)), keccak256("initial"), "base");
    }

    function testFuzz_payFor_isBetweenFloorAndReward(uint32 base, uint32 loss) public {
        TaskId task = postOpen();
        uint256 paid = open.payFor(task, base, loss);
        vm.assertGe(paid, FLOOR, "floor");
        vm.assertLe(paid, REWARD, "reward");
        vm.assertEq(open.payFor(task, loss, loss), FLOOR, "nothing improved");
    }

    function test_revealHeldOut_takesEveryLengthOfPart() public view {
        uint256[5] memory lengths = [uint256(2), 1024, 1026, 5000, 65_536];
        for (uint256 i = 0; i < lengths.length; ++i) {
            bytes memory tokens = new bytes(lengths[i]);
            for (uint256 place = 0; place < tokens.length; place += 31) {
                tokens[place] = bytes1(uint8(place + i));
            }
            Root expected = HeldOutTree.dataSetRoot(tokens, TRAIN_LEAF, PUBLIC_NODE);
            Root given = availability.dataSetRoot(tokens, uint32(lengths[i]), TRAIN_LEAF, PUBLIC_NODE);
            vm.assertEq(Root.unwrap(given), Root.unwrap(expected), "root");
        }
    }
}
