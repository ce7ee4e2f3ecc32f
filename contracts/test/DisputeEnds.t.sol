// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {OpenedGames} from "./base/OpenedGames.sol";
import {IHookedToken} from "./base/IHookedToken.sol";

/// @title Turns, clocks, ends and money of games, whatever they are about
/// @dev Roots are made up: these games are opened, narrowed and left to their clocks.
contract DisputeEndsTest is OpenedGames {
    function test_constructor_wrongValuesRevert() public {
        _refuseDeployment(address(0), address(referee), 10, 5, "ledger", 0);
        _refuseDeployment(address(ledger), address(0), 10, 5, "referee", 0);
        _refuseDeployment(address(ledger), address(referee), 0, 0, "minimumClock", 0);
        _refuseDeployment(address(ledger), address(referee), 365 days + 1, 5, "minimumClock", 365 days + 1);
        _refuseDeployment(address(ledger), address(referee), 10, 0, "minimumMove", 0);
        _refuseDeployment(address(ledger), address(referee), 10, 11, "minimumMove", 11);
        vm.assertEq(disputes.minimumClock(), CLOCK, "clock");
        vm.assertEq(disputes.minimumMove(), MOVE, "move");
        vm.assertEq(disputes.referee(), address(referee), "referee");
        vm.assertTrue(disputes.available(), "available");
    }

    function test_open_saysWhatItIsAbout() public {
        IDisputeGame.Position memory position = _open(CHALLENGER, ANSWER);
        ITrainingLedger.TaskParameters memory p = parameters();
        IDisputeGame.Matter memory matter = position.matter;
        vm.assertEq(matter.steps, 100, "steps");
        vm.assertEq(matter.clock, CLOCK, "the deployment's clock: more than two leases");
        vm.assertEq(matter.defender, WORKER, "defender");
        vm.assertEq(matter.challenger, CHALLENGER, "challenger");
        vm.assertTrue(matter.base == p.initialStateRoot && matter.submitted == _root, "roots");
        vm.assertTrue(matter.claimed == ANSWER, "claimed");
        vm.assertTrue(matter.taskProgram == p.programRoot && matter.dataset == p.datasetRoot, "task's roots");
        vm.assertTrue(position.low == 0 && position.high == 101, "interval");
        vm.assertEq(position.agreed, Root.unwrap(p.initialStateRoot), "agreed");
        vm.assertTrue(!matter.merge, "no merge");
        vm.assertTrue(position.defenderToMove, "turn");
        vm.assertEq(position.moves, 1, "moves");
        (bytes32 hash, uint64 deadline, IDisputeGame.Outcome outcome) = disputes.getGame(1);
        vm.assertEq(hash, keccak256(abi.encode(position)), "hash");
        vm.assertEq(deadline, _now + CLOCK, "deadline");
        vm.assertEq(uint256(outcome), uint256(IDisputeGame.Outcome.Running), "outcome");
        vm.assertEq(lockedOf(CHALLENGER), BOND, "bond");
    }

    function test_open_longLeaseGivesALongClock() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        (p.leaseSeconds, p.challengeWindow) = (1000, 1000);
        _task = post(p);
        claimAs(_task, WORKER);
        _root = submitAs(_task, WORKER, 10, LOSS_3);
        IDisputeGame.Position memory position = _open(CHALLENGER, ANSWER, 11);
        vm.assertEq(position.matter.clock, 2000, "two leases");
        vm.assertEq(position.high, 11, "ten steps and an evaluation");
    }

    function test_open_spoiltReverts() public {
        IDisputeGame.Opening memory opening = _opening(CHALLENGER);
        vm.startPrank(CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 31, 32));
        disputes.open(opening, new bytes32[](31));
        vm.expectRevert(abi.encodeWithSelector(IDisputeGame.NothingDisputed.selector, _root));
        disputes.open(opening, _points(_root, 32));
        opening.attempt = 1;
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongAttempt.selector, 1, 0));
        disputes.open(opening, _points(ANSWER, 32));
        (opening.attempt, opening.submitted) = (0, ANSWER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WrongState.selector, ANSWER, _root));
        disputes.open(opening, _points(ANSWER, 32));
        opening = _opening(STRANGER); // with somebody else's stake
        vm.expectRevert(abi.encodeWithSelector(IDisputeGame.NotYourMove.selector, CHALLENGER, STRANGER));
        disputes.open(opening, _points(ANSWER, 32));
        vm.stopPrank();
        vm.assertEq(disputes.gameCount(), 0, "no game");
    }

    function test_open_windowsLastSecondAndNoLater() public {
        uint256 end = _now + WINDOW;
        _waitUntil(end);
        IDisputeGame.Position memory position = _open(CHALLENGER, ANSWER);
        _waitUntil(end + 1);
        IDisputeGame.Opening memory late = _opening(CHALLENGER);
        vm.prank(CHALLENGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.WindowOver.selector, end, end + 1));
        disputes.open(late, _points(ANSWER, 32));
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 1));
        ledger.finalise(_task, 0, 0, 0, _root);
        _waitUntil(end + CLOCK + 1);
        disputes.settleLate(position);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Open);
    }

    function test_operators_moveForEitherSide() public {
        address operator = address(0x09E);
        vm.prank(CHALLENGER);
        vault.setOperator(operator, true);
        IDisputeGame.Opening memory opening = _opening(CHALLENGER);
        vm.recordLogs();
        vm.prank(operator);
        disputes.open(opening, _points(ANSWER, 32));
        IDisputeGame.Position memory position = _started();
        vm.assertEq(lockedOf(CHALLENGER), BOND, "the owner's stake");
        _refuseMove(operator, position, abi.encodeWithSelector(IDisputeGame.NotYourMove.selector, operator, WORKER));
        vm.prank(WORKER);
        vault.setOperator(operator, true);
        position = _narrow(operator, position, 9);
        // The defender's operator has no say in the challenger's turn, once it is no longer the challenger's.
        vm.prank(CHALLENGER);
        vault.setOperator(operator, false);
        _refuseMove(operator, position, abi.encodeWithSelector(IDisputeGame.NotYourMove.selector, operator, CHALLENGER));
    }

    function test_moves_onlyTheSideToMove() public {
        IDisputeGame.Position memory position = _open(CHALLENGER, ANSWER);
        address[3] memory others = [CHALLENGER, STRANGER, address(disputes)];
        for (uint256 i = 0; i < 3; ++i) {
            _refuseMove(
                others[i], position, abi.encodeWithSelector(IDisputeGame.NotYourMove.selector, others[i], WORKER)
            );
        }
        position = _narrow(WORKER, position, 9);
        _refuseMove(WORKER, position, abi.encodeWithSelector(IDisputeGame.NotYourMove.selector, WORKER, CHALLENGER));
    }

    function test_moves_positionOfThePastReverts() public {
        IDisputeGame.Position memory first = _open(CHALLENGER, ANSWER);
        IDisputeGame.Position memory second = _narrow(WORKER, first, 9);
        _refuseMove(WORKER, first, _wrongPosition(first, second));
        _refuseMove(CHALLENGER, first, _wrongPosition(first, second));
        // A duplicate of a move that has landed is one, too.
        vm.prank(WORKER);
        vm.expectRevert(_wrongPosition(first, second));
        disputes.narrow(first, 9, new bytes32[](3));
    }

    function test_moves_positionOfAnotherGameReverts() public {
        IDisputeGame.Position memory first = _open(CHALLENGER, ANSWER);
        _wait(1);
        IDisputeGame.Position memory second = _open(CHALLENGER, ANSWER);
        second.matter.game = 1;
        _refuseMove(WORKER, second, _wrongPosition(second, first));
        second.matter.game = 3;
        _refuseMove(WORKER, second, abi.encodeWithSelector(IDisputeGame.NoSuchGame.selector, 3));
        second.matter.game = 0;
        _refuseMove(WORKER, second, abi.encodeWithSelector(IDisputeGame.NoSuchGame.selector, 0));
        vm.expectRevert(abi.encodeWithSelector(IDisputeGame.NoSuchGame.selector, 3));
        disputes.getGame(3);
    }

    function test_moves_positionOfAnotherTaskReverts() public {
        IDisputeGame.Position memory first = _open(CHALLENGER, ANSWER);
        IDisputeGame.Position memory forged = abi.decode(abi.encode(first), (IDisputeGame.Position));
        forged.matter.task = TaskId.wrap(7);
        _refuseMove(WORKER, forged, _wrongPosition(forged, first));
        vm.expectRevert(_wrongPosition(forged, first));
        disputes.release(forged);
        vm.expectRevert(_wrongPosition(forged, first));
        disputes.settleLate(forged);
    }

    /// @dev Every word of a position counts; what still decodes to the same position is no other one.
    function testFuzz_moves_anyOtherPositionReverts(uint256 word, uint256 change) public {
        IDisputeGame.Position memory position = _narrow(WORKER, _open(CHALLENGER, ANSWER), 9);
        bytes memory data = abi.encode(position);
        word = 1 + word % (data.length / 32 - 1);
        vm.assume(change != 0);
        assembly ("memory-safe") {
            let place := add(add(data, 32), mul(word, 32))
            mstore(place, xor(mload(place), change))
        }
        _wait(10 * uint256(CLOCK));
        // solhint-disable-next-line avoid-low-level-calls
        (bool good,) = address(disputes).call(bytes.concat(IDisputeGame.settleLate.selector, data));
        if (!good) {
            disputes.settleLate(position);
            return;
        }
        bytes32 decoded = keccak256(abi.encode(abi.decode(data, (IDisputeGame.Position))));
        vm.assertEq(decoded, keccak256(abi.encode(position)), "another position was settled");
    }

    function test_clock_lastSecondCountsAndNoLater() public {
        IDisputeGame.Position memory position = _open(CHALLENGER, ANSWER);
        uint256 deadline = _now + CLOCK;
        _waitUntil(deadline);
        vm.expectRevert(abi.encodeWithSelector(IDisputeGame.NotLate.selector, deadline, deadline));
        disputes.settleLate(position);
        IDisputeGame.Position memory next = _narrow(WORKER, position, 9);
        vm.assertEq(next.waiterSeconds, 0, "the defender's clock is used up");
        vm.assertEq(next.moverSeconds, CLOCK, "the challenger's is untouched");
        _waitUntil(deadline + CLOCK + 1);
        _refuseMove(
            CHALLENGER,
            next,
            abi.encodeWithSelector(IDisputeGame.TooLate.selector, deadline + CLOCK, deadline + CLOCK + 1)
        );
    }

    function test_clock_runsOnlyInOnesOwnTurn() public {
        IDisputeGame.Position memory position = _openFor(40_000);
        _wait(400);
        position = _narrow(WORKER, position, 31);
        _wait(900);
        position = _narrow(CHALLENGER, position, 31);
        vm.assertEq(position.moverSeconds, CLOCK - 400, "defender");
        vm.assertEq(position.waiterSeconds, CLOCK - 900, "challenger");
        (, uint64 deadline,) = disputes.getGame(1);
        vm.assertEq(deadline, _now + CLOCK - 400, "deadline");
    }

    function test_clock_everyMoveHasAMinimum() public {
        IDisputeGame.Position memory position = _openFor(40_000);
        _wait(CLOCK - 10);
        position = _narrow(WORKER, position, 31);
        position = _narrow(CHALLENGER, position, 31);
        vm.assertEq(position.moverSeconds, 10, "ten seconds are left");
        (, uint64 deadline,) = disputes.getGame(1);
        vm.assertEq(deadline, _now + MOVE, "but a move has more");
        _waitUntil(deadline);
        position = _narrow(WORKER, position, 31);
        vm.assertEq(position.waiterSeconds, 0, "all used up");
    }

    function test_settleLate_byAnybody() public {
        IDisputeGame.Position memory position = _open(CHALLENGER, ANSWER);
        _wait(CLOCK + 1);
        vm.expectEmit(true, true, true, true, address(disputes));
        emit IDisputeGame.GameEnded(1, _task, CHALLENGER, IDisputeGame.Outcome.ChallengerWon, address(0x5E77), true);
        vm.prank(address(0x5E77));
        disputes.settleLate(position);
        assertOutcome(1, IDisputeGame.Outcome.ChallengerWon);
        bytes memory over =
            abi.encodeWithSelector(IDisputeGame.GameOver.selector, 1, IDisputeGame.Outcome.ChallengerWon);
        vm.expectRevert(over);
        disputes.settleLate(position);
        vm.expectRevert(over);
        disputes.release(position);
        _refuseMove(WORKER, position, over);
    }

    function test_money_defenderWins() public {
        IDisputeGame.Position memory position = _narrow(WORKER, _open(CHALLENGER, ANSWER), 9);
        _wait(CLOCK + 1);
        disputes.settleLate(position);
        vm.assertEq(stakedOf(CHALLENGER), 100 ether - BOND, "the whole bond");
        vm.assertEq(lockedOf(CHALLENGER), 0, "nothing is locked");
        vm.assertEq(vault.creditOf(WORKER), BOND / 2, "half of it");
        vm.assertEq(token.totalSupply(), SUPPLY - BOND / 2, "half of it");
        vm.assertEq(Root.unwrap(_root), Root.unwrap(ledger.getSlot(_task, 0, 0).stateRoot), "the submission stands");
        ledger.finalise(_task, 0, 0, 0, _root);
        vm.assertEq(lockedOf(WORKER), 0, "the worker's bond is free");
        assertSolvent();
    }

    function test_money_challengerWinsAndRedoes() public {
        Root redone = _redone();
        IDisputeGame.Position memory position = _open(CHALLENGER, redone);
        _wait(CLOCK + 1);
        disputes.settleLate(position);
        vm.assertEq(lockedOf(CHALLENGER), 0, "free again");
        vm.assertEq(lockedOf(WORKER), BOND, "waits");
        playRound(_task, CHALLENGER, 100, LOSS_3);
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), REWARD + BOND / 2, "pay and prize");
        vm.assertEq(stakedOf(WORKER), 100 ether - BOND, "slashed");
        vm.assertEq(token.totalSupply(), SUPPLY - BOND / 2, "burned");
        assertSolvent();
    }

    function test_money_twoGamesOfOppositeOutcomes() public {
        IDisputeGame.Position memory lost = _narrow(WORKER, _open(STRANGER, ANSWER), 9);
        _wait(10);
        IDisputeGame.Position memory won = _open(CHALLENGER, ANSWER);
        _wait(CLOCK - 9);
        disputes.settleLate(lost); // the stranger did not answer
        assertOutcome(1, IDisputeGame.Outcome.DefenderWon);
        vm.assertEq(ledger.getSlot(_task, 0, 0).openGames, 1, "the other one is open");
        _wait(10);
        disputes.settleLate(won); // the worker did not answer
        assertOutcome(2, IDisputeGame.Outcome.ChallengerWon);
        vm.assertEq(stakedOf(STRANGER), 100 ether - BOND, "a won defence stays won");
        vm.assertEq(vault.creditOf(WORKER), BOND / 2, "also its half");
        vm.assertEq(lockedOf(WORKER), BOND, "but the submission fell");
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Open);
    }

    function test_money_aFallMakesOtherGamesVoid() public {
        IDisputeGame.Position memory first = _open(CHALLENGER, ANSWER);
        IDisputeGame.Position memory second = _narrow(WORKER, _open(STRANGER, ANSWER), 9);
        IDisputeGame.Position memory third = _narrow(WORKER, _open(OTHER, ANSWER), 9);
        vm.expectRevert(abi.encodeWithSelector(IDisputeGame.SubmissionStands.selector, 2));
        disputes.release(second);
        _wait(CLOCK + 1);
        disputes.settleLate(first);
        vm.expectEmit(true, true, true, true, address(disputes));
        emit IDisputeGame.GameEnded(2, _task, address(0), IDisputeGame.Outcome.Void, address(this), false);
        disputes.release(second);
        // The third is late, too; but its submission is no longer there to be defended.
        disputes.settleLate(third);
        assertOutcome(2, IDisputeGame.Outcome.Void);
        assertOutcome(3, IDisputeGame.Outcome.Void);
        vm.assertEq(stakedOf(STRANGER) + stakedOf(OTHER), 200 ether, "nothing is taken");
        vm.assertEq(lockedOf(STRANGER) + lockedOf(OTHER), 0, "nothing is locked");
        vm.assertEq(vault.creditOf(WORKER), 0, "no defence");
    }

    /// @dev The redo may be submitted while old games are open: they are about another attempt.
    function test_release_whileTheRedoIsSubmitted() public {
        IDisputeGame.Position memory first = _open(CHALLENGER, ANSWER);
        IDisputeGame.Position memory second = _open(STRANGER, ANSWER);
        _wait(CLOCK + 1);
        disputes.settleLate(first);
        claimAs(_task, CHALLENGER);
        submitAs(_task, CHALLENGER, 100, LOSS_3);
        disputes.settleLate(second); // the defender is late, of a submission that has fallen
        assertOutcome(2, IDisputeGame.Outcome.Void);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Submitted);
        finaliseNow(_task);
        vm.assertEq(lockedOf(STRANGER), 0, "free");
    }

    function test_earliest_isTheFirstWhoHasNotLost() public {
        Root redone = _redone();
        IDisputeGame.Position[4] memory all;
        address[4] memory who = [STRANGER, OTHER, CHALLENGER, STRANGER];
        for (uint256 i = 0; i < 4; ++i) {
            vm.assertEq(_earliest(redone), i == 0 ? address(0) : STRANGER, "the first stays the first");
            all[i] = _open(who[i], redone);
        }
        for (uint256 i = 0; i < 3; ++i) {
            all[i] = _narrow(WORKER, all[i], 9);
        }
        _wait(CLOCK + 1);
        disputes.settleLate(all[1]); // one in the middle, then the first, then the one that is first then
        vm.assertEq(_earliest(redone), STRANGER, "first");
        disputes.settleLate(all[0]);
        vm.assertEq(_earliest(redone), CHALLENGER, "third");
        disputes.settleLate(all[2]);
        vm.assertEq(_earliest(redone), STRANGER, "the last, with its second game");
        vm.assertEq(_earliest(ANSWER), address(0), "another root");
        disputes.settleLate(all[3]); // the worker was late
        vm.assertEq(_earliest(redone), STRANGER, "who wins keeps its place");
        vm.assertEq(disputes.earliest(_task, 0, 0, 1, redone), address(0), "another attempt");
        playRound(_task, STRANGER, 100, LOSS_3);
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(STRANGER), REWARD + BOND / 2, "prize");
    }

    function test_earliest_lostTailLetsOthersFollow() public {
        IDisputeGame.Position memory only = _narrow(WORKER, _open(STRANGER, ANSWER), 9);
        _wait(WINDOW);
        IDisputeGame.Position memory second = _narrow(WORKER, _open(CHALLENGER, ANSWER), 9);
        IDisputeGame.Position memory third = _narrow(WORKER, _open(OTHER, ANSWER), 9);
        _wait(CLOCK + 1);
        disputes.settleLate(third);
        disputes.settleLate(second);
        vm.assertEq(_earliest(ANSWER), STRANGER, "the head");
        disputes.settleLate(only);
        vm.assertEq(_earliest(ANSWER), address(0), "nobody is left");
    }

    function test_closedTask_fallAwardsTheWinner() public {
        IDisputeGame.Position memory position = _open(CHALLENGER, ANSWER);
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        _wait(CLOCK + 1);
        disputes.settleLate(position);
        vm.assertEq(vault.escrowOf(_task), 0, "refunded");
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), BOND / 2, "prize");
        assertSolvent();
    }

    function test_token_hooksFindNoHalfDoneEnd() public {
        IHookedToken hooked =
            IHookedToken(vm.deployCode("HookedToken.sol:HookedToken", abi.encode(address(this), SUPPLY)));
        deploy(hooked);
        disputes = IDisputeGame(address(game));
        fund(REQUESTER);
        arm(WORKER);
        arm(CHALLENGER);
        (_task, _root) = submitted();
        IDisputeGame.Position memory position = _narrow(WORKER, _open(CHALLENGER, ANSWER), 9);
        _wait(CLOCK + 1);
        hooked.setHook(address(disputes), abi.encodeCall(IDisputeGame.settleLate, (position)));
        disputes.settleLate(position); // burns, which calls the hook
        vm.assertEq(hooked.succeeded(), 0, "settled twice");
        vm.assertEq(
            hooked.lastFailure(),
            abi.encodeWithSelector(IDisputeGame.GameOver.selector, 1, IDisputeGame.Outcome.DefenderWon),
            "the end was already kept"
        );
        vm.assertEq(stakedOf(CHALLENGER), 100 ether - BOND, "one bond");
        vm.assertEq(ledger.getSlot(_task, 0, 0).openGames, 0, "open games");
        assertSolvent();
    }
}
