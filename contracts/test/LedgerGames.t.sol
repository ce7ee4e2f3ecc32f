// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {NoDisputeGame} from "../NoDisputeGame.sol";
import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";

contract LedgerGamesTest is Fixture {
    Root private constant ANSWER = Root.wrap(bytes32(uint256(1)));

    TaskId private _task;
    Root private _root;

    function setUp() public override {
        super.setUp();
        (_task, _root) = submitted();
    }

    function test_noDisputeGame_opensNothing() public {
        NoDisputeGame none = new NoDisputeGame();
        vm.assertTrue(!none.available(), "available");
        vm.expectRevert(abi.encodeWithSelector(IDisputeGame.DisputesNotAvailable.selector));
        none.open(_task, 0, 0, 0, _root, ANSWER);
    }

    function test_gameCalls_strangerReverts() public {
        vm.startPrank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyDisputeGame.selector, STRANGER));
        ledger.gameOpened(_task, 0, 0, 0, _root);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyDisputeGame.selector, STRANGER));
        ledger.gameSettled(_task, 0, 0, 0, true, STRANGER);
    }

    function test_gameOpened_blocksFinaliseUntilSettled() public {
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.GameOpened(_task, 0, 0, 0, 1);
        uint256 first = _open();
        uint256 second = _open();
        vm.warp(block.timestamp + WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 2));
        ledger.finalise(_task, 0, 0, 0, _root);
        game.decide(first, false);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 1));
        ledger.finalise(_task, 0, 0, 0, _root);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.GameSettled(_task, 0, 0, 0, false, 0);
        game.decide(second, false);
        ledger.finalise(_task, 0, 0, 0, _root);
        vm.assertEq(vault.creditOf(WORKER), REWARD, "a won defence is paid");
    }

    function test_gameOpened_wonDefenceBarsNoOtherChallenge() public {
        game.decide(_open(), false);
        game.decide(_open(), true);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Open);
    }

    function test_gameOpened_wrongNamesRevert() public {
        vm.startPrank(CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        game.open(_task, 0, 0, 1, _root, ANSWER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongState.selector, ANSWER, _root));
        game.open(_task, 0, 0, 0, ANSWER, ANSWER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongSlot.selector, 1, 1));
        game.open(_task, 0, 1, 0, _root, ANSWER);
        vm.expectRevert(
            abi.encodeWithSelector(
                ITrainingLedger.WrongStatus.selector,
                ITrainingLedger.SlotStatus.Open,
                ITrainingLedger.SlotStatus.Submitted
            )
        );
        game.open(_task, 1, 0, 0, _root, ANSWER);
    }

    function test_gameOpened_afterWindowReverts() public {
        uint256 end = block.timestamp + WINDOW;
        vm.warp(end);
        uint256 last = _open(); // the last second counts
        vm.warp(end + 1);
        vm.prank(CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WindowOver.selector, end, end + 1));
        game.open(_task, 0, 0, 0, _root, ANSWER);
        game.decide(last, true);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Open);
    }

    function test_gameSettled_fallSlashesHalfBurnedAndReopens() public {
        uint256 number = _open();
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.GameSettled(_task, 0, 0, 0, true, 0);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.SubmissionFell(_task, 0, WORKER, 0, 0, _root);
        game.decide(number, true);
        vm.assertEq(stakedOf(WORKER), 100 ether - BOND, "slashed");
        vm.assertEq(lockedOf(WORKER), 0, "unlocked");
        vm.assertEq(vault.creditOf(CHALLENGER), BOND / 2, "awarded");
        vm.assertEq(token.totalSupply(), SUPPLY - BOND / 2, "burned");
        vm.assertEq(ledger.nextAttempt(_task, 0, 0), 1, "attempt");
        vm.assertTrue(ledger.getSlot(_task, 0, 0).stateRoot == Root.wrap(0), "nothing of it is left");
        assertSolvent();

        // The redo, by somebody else, is paid as if nothing had happened.
        playRound(_task, OTHER, 100, LOSS_3);
        vm.assertEq(vault.creditOf(OTHER), REWARD, "redo");
    }

    function test_gameSettled_laterGameOfAFallenAttemptChangesNothing() public {
        uint256 first = _open();
        uint256 second = _open();
        uint256 third = _open();
        game.decide(first, true);
        bytes32 before = keccak256(abi.encode(ledger.getSlot(_task, 0, 0)));
        game.decide(second, true);
        vm.assertEq(keccak256(abi.encode(ledger.getSlot(_task, 0, 0))), before, "slot");
        vm.assertEq(stakedOf(WORKER), 100 ether - BOND, "one bond");
        // Nor once the slot holds another attempt's submission.
        claimAs(_task, OTHER);
        submitAs(_task, OTHER, 100, LOSS_3);
        game.decide(third, true);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Submitted);
        vm.assertEq(ledger.getSlot(_task, 0, 0).openGames, 0, "open games");
        vm.assertEq(stakedOf(OTHER), 100 ether, "the redo's bond");
    }

    function test_gameSettled_withoutWinnerBurnsAll() public {
        game.decideFor(_open(), true, address(0));
        vm.assertEq(token.totalSupply(), SUPPLY - BOND, "burned");
        vm.assertEq(vault.totalOwed(), 3 * uint256(REWARD), "nobody awarded");
        assertSolvent();
    }

    function testFuzz_gameSettled_selfDisputeLosesAtLeastHalf(uint96 bond) public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.bond = uint96(between(bond, MINIMUM_BOND, 90 ether));
        p.leaseFee = 0;
        TaskId task = post(p);
        claimAs(task, OTHER);
        Root root = submitAs(task, OTHER, 100, LOSS_3);
        vm.prank(OTHER);
        uint256 number = game.open(task, 0, 0, 0, root, ANSWER);
        game.decide(number, true);
        uint256 lost = 100 ether - stakedOf(OTHER) - vault.creditOf(OTHER);
        vm.assertGe(lost, (uint256(p.bond) + 1) / 2, "less than half burned");
        vm.assertEq(SUPPLY - token.totalSupply(), lost, "burned what was lost");
    }

    function _open() private returns (uint256) {
        vm.prank(CHALLENGER);
        return game.open(_task, 0, 0, 0, _root, ANSWER);
    }
}
