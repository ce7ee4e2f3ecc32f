// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IOpenLedger} from "../interfaces/IOpenLedger.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {OpenFixture} from "./base/OpenFixture.sol";

/// @title Disputes about scores
contract OpenDisputesTest is OpenFixture {
    Root private constant TRUTH = Root.wrap(keccak256("truth"));

    TaskId private _task;
    Root private _scored;

    function setUp() public override {
        super.setUp();
        _task = openedRound();
        _scored = scoreAs(_task, 0, WORKER, LOSS_2);
    }

    function test_gameOpened_tellsTheGameWhatItIsAbout() public {
        vm.prank(address(openGame));
        ITrainingLedger.Disputed memory told = open.gameOpened(_task, 0, 0, 0, _scored, CHALLENGER);
        vm.assertEq(told.worker, WORKER, "worker");
        vm.assertEq(told.steps, 0, "no step of training");
        vm.assertEq(Root.unwrap(told.baseRoot), Root.unwrap(trained(1)), "from the state revealed");
        vm.assertEq(Root.unwrap(told.datasetRoot), Root.unwrap(open.heldOutRoot(_task, 0)), "on the round's data");
        vm.assertEq(Root.unwrap(told.programRoot), keccak256("program"), "programs");
        vm.assertEq(lockedOf(CHALLENGER), BOND, "the challenger's bond");
    }

    function test_gameSettled_aFallReopensTheScoreForTheWinner() public {
        uint256 supply = token.totalSupply();
        _fall(_truth());
        assertStage(_task, 0, IOpenLedger.Stage.Revealed);
        vm.assertEq(open.getOpenSlot(_task, 0, 0).attempt, 1, "attempt");
        IOpenLedger.Score memory mine = scoreOf(_task, 0, OTHER, LOSS_3);
        vm.prank(OTHER);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.NotYourScore.selector, CHALLENGER, block.timestamp + LEASE));
        open.score(mine);
        scoreAs(_task, 0, CHALLENGER, LOSS_3);
        _scoreOthers();
        finaliseScore(_task, SLOTS);
        finaliseScore(_task, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), REWARD, "the pay of the slot");
        open.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), uint256(REWARD) + BOND / 2, "and half the bond");
        vm.assertEq(token.totalSupply(), supply - BOND / 2, "the other half is burned");
        vm.assertEq(lockedOf(WORKER), 0, "nothing is locked");
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.NothingToAward.selector, _task, 0, 0, 0));
        open.awardFall(_task, 0, 0, 0);
        assertSolvent();
    }

    /// @dev Whoever proved one wrong score with another wrong score gets nothing.
    function test_awardFall_goesToWhoKnewTheScore() public {
        uint256 supply = token.totalSupply();
        _fall(TRUTH);
        scoreAs(_task, 0, CHALLENGER, LOSS_3);
        _scoreOthers();
        finaliseScore(_task, SLOTS);
        finaliseScore(_task, 0);
        open.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), REWARD, "no prize");
        vm.assertEq(token.totalSupply(), supply - BOND, "all of the bond is burned");
    }

    function test_awardFall_ofASlotThatNobodyScoresAgain() public {
        _fall(TRUTH);
        vm.expectRevert(
            abi.encodeWithSelector(
                IOpenLedger.WrongStage.selector, IOpenLedger.Stage.Revealed, IOpenLedger.Stage.Finalised
            )
        );
        open.awardFall(_task, 0, 0, 0);
        vm.warp(block.timestamp + 2 * uint256(LEASE) + 1);
        open.expire(_task, 0, 0, 1);
        open.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), BOND / 2, "prize");
        vm.assertEq(lockedOf(WORKER), 0, "bond");
    }

    function test_gameSettled_aWonDefenceCostsTheChallenger() public {
        vm.prank(CHALLENGER);
        uint256 opened = openGame.open(_task, 0, 0, 0, _scored, TRUTH);
        uint256 staked = stakedOf(CHALLENGER);
        _warpPast(0);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 1));
        open.finalise(_task, 0, 0, 0, _scored);
        openGame.decide(opened, IDisputeGame.Outcome.DefenderWon);
        vm.assertEq(stakedOf(CHALLENGER), staked - BOND, "taken");
        vm.assertEq(vault.creditOf(WORKER), BOND / 2, "half of it");
        _scoreOthers();
        finaliseScore(_task, SLOTS);
        finaliseScore(_task, 0);
        assertSolvent();
    }

    /// @dev A fall makes other games about the attempt void: their bonds are free.
    function test_gameSettled_laterGamesAreVoid() public {
        vm.prank(CHALLENGER);
        uint256 first = openGame.open(_task, 0, 0, 0, _scored, TRUTH);
        vm.prank(STRANGER);
        uint256 second = openGame.open(_task, 0, 0, 0, _scored, TRUTH);
        openGame.decide(first, IDisputeGame.Outcome.ChallengerWon);
        openGame.decide(second, IDisputeGame.Outcome.ChallengerWon);
        vm.assertEq(lockedOf(CHALLENGER), 0, "first");
        vm.assertEq(lockedOf(STRANGER), BOND, "second: only its own commit's bond");
        vm.assertEq(open.getOpenSlot(_task, 0, 0).attempt, 1, "fell once");
    }

    function test_gameSettled_theBaselineCanFall() public {
        Root baseline = scoreAs(_task, SLOTS, CHALLENGER, LOSS_4);
        vm.prank(STRANGER);
        uint256 opened = openGame.open(_task, 0, SLOTS, 0, baseline, TRUTH);
        openGame.decide(opened, IDisputeGame.Outcome.ChallengerWon);
        _warpPast(0);
        vm.expectRevert(abi.encodeWithSelector(IOpenLedger.BaselineNotFinal.selector, IOpenLedger.Stage.Revealed));
        open.finalise(_task, 0, 0, 0, _scored);
        scoreAs(_task, SLOTS, OTHER, LOSS_3);
        finaliseScore(_task, SLOTS);
        finaliseScore(_task, 0);
        vm.assertEq(vault.creditOf(WORKER), REWARD, "a gain of one");
        vm.assertEq(vault.creditOf(OTHER), SCORE_REWARD, "for the baseline");
    }

    function test_games_onlyTheGameReports() public {
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyDisputeGame.selector, address(this)));
        open.gameOpened(_task, 0, 0, 0, _scored, CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyDisputeGame.selector, address(this)));
        open.gameSettled(_task, 0, 0, 0, IDisputeGame.Outcome.ChallengerWon, CHALLENGER);
    }

    function test_gameOpened_refusals() public {
        vm.startPrank(address(openGame));
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        open.gameOpened(_task, 0, 0, 1, _scored, CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongState.selector, TRUTH, _scored));
        open.gameOpened(_task, 0, 0, 0, TRUTH, CHALLENGER);
        vm.expectRevert(
            abi.encodeWithSelector(
                IOpenLedger.WrongStage.selector, IOpenLedger.Stage.Revealed, IOpenLedger.Stage.Scored
            )
        );
        open.gameOpened(_task, 0, 1, 0, TRUTH, CHALLENGER);
        uint256 end = block.timestamp + WINDOW;
        vm.warp(end + 1);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WindowOver.selector, end, end + 1));
        open.gameOpened(_task, 0, 0, 0, _scored, CHALLENGER);
    }

    /// @dev Funds of one ledger are out of reach of the other.
    function test_vault_eachLedgerHasItsOwn() public {
        uint256 pledged = vault.pledgedOf(WORKER);
        vm.assertEq(pledged, BOND, "what the open ledger has locked");
        claimAs(post(), WORKER);
        vm.assertEq(lockedOf(WORKER), 2 * uint256(BOND), "and the other one too");
        TaskId own = TaskId.wrap(uint64(1) << 62 | 1);
        vm.startPrank(address(open));
        vm.expectPartialRevert(bytes4(keccak256("OnlyLedger(address)")));
        vault.settle(TaskId.wrap(1), WORKER, 1, WORKER, 0);
        vm.expectPartialRevert(bytes4(keccak256("OnlyLedger(address)")));
        vault.settle(TaskId.wrap(uint64(1) << 63 | 1), WORKER, 0, WORKER, 0);
        vm.expectRevert(
            abi.encodeWithSignature("InsufficientLockedStake(address,uint256,uint256)", WORKER, BOND, BOND + 1)
        );
        vault.settle(own, WORKER, 0, WORKER, BOND + 1);
        vm.expectRevert(
            abi.encodeWithSignature("InsufficientLockedStake(address,uint256,uint256)", WORKER, BOND, BOND + 1)
        );
        vault.takeBond(WORKER, BOND + 1, 0, address(0), 0);
        vm.stopPrank();
        vm.startPrank(address(ledger));
        vm.expectPartialRevert(bytes4(keccak256("OnlyLedger(address)")));
        vault.settle(own, WORKER, 1, WORKER, 0);
        vm.expectPartialRevert(bytes4(keccak256("OnlyLedger(address)")));
        vault.refundEscrow(own, REQUESTER, 0);
        vm.expectPartialRevert(bytes4(keccak256("OnlyLedger(address)")));
        vault.settle(TaskId.wrap(uint64(3) << 62 | 1), WORKER, 0, WORKER, 0);
        vm.stopPrank();
        vm.prank(address(committee));
        vm.expectPartialRevert(bytes4(keccak256("OnlyLedger(address)")));
        vault.settle(TaskId.wrap(uint64(1) << 63 | 1), WORKER, 0, WORKER, 0);
    }

    function _truth() private view returns (Root) {
        return scoreOf(_task, 0, WORKER, LOSS_3).scoredRoot;
    }

    function _fall(Root claimed) private {
        vm.prank(CHALLENGER);
        uint256 opened = openGame.open(_task, 0, 0, 0, _scored, claimed);
        openGame.decide(opened, IDisputeGame.Outcome.ChallengerWon);
    }

    function _scoreOthers() private {
        scoreAs(_task, 1, OTHER, LOSS_4);
        scoreAs(_task, 2, STRANGER, LOSS_4);
        scoreAs(_task, SLOTS, OTHER, LOSS_4);
    }

    function _warpPast(uint32 slot) private {
        vm.warp(uint256(open.getOpenSlot(_task, 0, slot).deadline) + 1);
    }
}
