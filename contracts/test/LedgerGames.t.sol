// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";

/// @title The ledger's side of disputes, with games that end as the test says
contract LedgerGamesTest is Fixture {
    Root private constant ANSWER = Root.wrap(bytes32(uint256(1)));
    IDisputeGame.Outcome private constant DEFENDED = IDisputeGame.Outcome.DefenderWon;
    IDisputeGame.Outcome private constant FELLED = IDisputeGame.Outcome.ChallengerWon;

    TaskId private _task;
    Root private _root;

    function setUp() public override {
        super.setUp();
        (_task, _root) = submitted();
        arm(CHALLENGER);
        arm(STRANGER);
    }

    function test_gameCalls_strangerReverts() public {
        vm.startPrank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyDisputeGame.selector, STRANGER));
        ledger.gameOpened(_task, 0, 0, 0, _root, STRANGER);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.OnlyDisputeGame.selector, STRANGER));
        ledger.gameSettled(_task, 0, 0, 0, FELLED, STRANGER);
    }

    function test_gameOpened_locksTheBondAndSaysWhatIsDisputed() public {
        ITrainingLedger.TaskParameters memory p = parameters();
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.GameOpened(_task, 0, 0, 0, 1);
        vm.prank(address(game));
        ITrainingLedger.Disputed memory disputed = ledger.gameOpened(_task, 0, 0, 0, _root, CHALLENGER);
        vm.assertEq(disputed.worker, WORKER, "worker");
        vm.assertEq(disputed.steps, 100, "steps");
        vm.assertEq(disputed.leaseSeconds, LEASE, "lease");
        vm.assertTrue(disputed.baseRoot == p.initialStateRoot, "base");
        vm.assertTrue(disputed.programRoot == p.programRoot, "program");
        vm.assertTrue(disputed.datasetRoot == p.datasetRoot, "data set");
        vm.assertEq(lockedOf(CHALLENGER), BOND, "locked");
        vm.assertEq(stakedOf(CHALLENGER), 100 ether, "staked");
    }

    function test_gameOpened_laterRoundNamesTheStateBefore() public {
        finaliseNow(_task);
        claimAs(_task, OTHER);
        Root second = submitAs(_task, OTHER, 100, LOSS_3);
        vm.prank(address(game));
        ITrainingLedger.Disputed memory disputed = ledger.gameOpened(_task, 1, 0, 0, second, CHALLENGER);
        vm.assertTrue(disputed.baseRoot == _root, "base");
        vm.assertEq(disputed.worker, OTHER, "worker");
    }

    function test_gameOpened_tooLittleStakeReverts() public {
        vm.prank(CHALLENGER);
        vault.requestUnbond(100 ether - BOND + 1);
        vm.prank(CHALLENGER);
        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.InsufficientFreeStake.selector, CHALLENGER, BOND - 1, uint256(BOND))
        );
        game.open(_task, 0, 0, 0, _root, ANSWER);
    }

    function test_gameOpened_blocksFinaliseUntilSettled() public {
        uint256 first = _open();
        uint256 second = _open();
        vm.warp(block.timestamp + WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 2));
        ledger.finalise(_task, 0, 0, 0, _root);
        game.decide(first, DEFENDED);
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.GamesStillOpen.selector, 1));
        ledger.finalise(_task, 0, 0, 0, _root);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.GameSettled(_task, 0, 0, 0, false, 0);
        game.decide(second, DEFENDED);
        ledger.finalise(_task, 0, 0, 0, _root);
        vm.assertEq(vault.creditOf(WORKER), REWARD + 2 * (BOND / 2), "paid, and for two defences");
    }

    function test_gameOpened_wonDefenceBarsNoOtherChallenge() public {
        game.decide(_open(), DEFENDED);
        game.decide(_open(), FELLED);
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
        game.decide(last, FELLED);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Open);
    }

    function test_gameSettled_wonDefenceTakesTheChallengersBond() public {
        game.decide(_open(), DEFENDED);
        vm.assertEq(stakedOf(CHALLENGER), 100 ether - BOND, "taken");
        vm.assertEq(lockedOf(CHALLENGER), 0, "unlocked");
        vm.assertEq(vault.creditOf(WORKER), BOND / 2, "the worker's half");
        vm.assertEq(token.totalSupply(), SUPPLY - BOND / 2, "burned");
        vm.assertEq(lockedOf(WORKER), BOND, "the worker's bond stays");
        assertSolvent();
    }

    function test_gameSettled_fallReopensAndKeepsTheBondLocked() public {
        uint256 number = _open();
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.SubmissionFell(_task, 0, WORKER, 0, 0, _root);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.GameSettled(_task, 0, 0, 0, true, 0);
        game.decide(number, FELLED);
        vm.assertEq(stakedOf(WORKER), 100 ether, "not taken yet");
        vm.assertEq(lockedOf(WORKER), BOND, "locked until the slot has its state");
        vm.assertEq(stakedOf(CHALLENGER), 100 ether, "the winner's stake");
        vm.assertEq(lockedOf(CHALLENGER), 0, "the winner's bond is free");
        vm.assertEq(token.totalSupply(), SUPPLY, "nothing burned yet");
        vm.assertEq(ledger.nextAttempt(_task, 0, 0), 1, "attempt");
        vm.assertTrue(ledger.getSlot(_task, 0, 0).stateRoot == Root.wrap(0), "nothing of it is left");
        assertSolvent();
    }

    function test_gameSettled_slotIsKeptForTheWinnerForOneLease() public {
        game.decide(_open(), FELLED);
        uint256 end = block.timestamp + LEASE;
        ITrainingLedger.Claim memory request = claimOf(_task, OTHER);
        bytes memory kept = abi.encodeWithSelector(
            ITrainingLedger.SlotTaken.selector, CHALLENGER, ITrainingLedger.SlotStatus.Open, end
        );
        vm.prank(OTHER);
        vm.expectRevert(kept);
        ledger.claim(request);
        vm.warp(end);
        vm.prank(OTHER);
        vm.expectRevert(kept);
        ledger.claim(request);
        vm.warp(end + 1);
        claimAs(_task, OTHER);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Leased);
    }

    function test_gameSettled_winnerClaimsAtOnce() public {
        game.decide(_open(), FELLED);
        claimAs(_task, CHALLENGER);
        vm.assertEq(ledger.getSlot(_task, 0, 0).worker, CHALLENGER, "worker");
        // Its own lease that runs out keeps the slot for nobody.
        vm.warp(block.timestamp + LEASE + 1);
        claimAs(_task, OTHER);
        vm.assertEq(ledger.getSlot(_task, 0, 0).worker, OTHER, "the next one");
    }

    function test_gameSettled_laterGameOfAFallenAttemptFreesItsBondOnly() public {
        uint256 first = _open();
        uint256 second = _openAs(STRANGER, ANSWER);
        uint256 third = _openAs(STRANGER, ANSWER);
        vm.assertEq(lockedOf(STRANGER), 2 * BOND, "two bonds");
        game.decide(first, FELLED);
        bytes32 before = keccak256(abi.encode(ledger.getSlot(_task, 0, 0)));
        game.decide(second, FELLED);
        vm.assertEq(keccak256(abi.encode(ledger.getSlot(_task, 0, 0))), before, "slot");
        vm.assertEq(lockedOf(STRANGER), BOND, "one is free");
        // Nor once the slot holds another attempt's submission, and not even where the game says that it was lost.
        claimAs(_task, CHALLENGER);
        submitAs(_task, CHALLENGER, 100, LOSS_3);
        game.decide(third, DEFENDED);
        assertStatus(_task, 0, ITrainingLedger.SlotStatus.Submitted);
        vm.assertEq(ledger.getSlot(_task, 0, 0).openGames, 0, "open games");
        vm.assertEq(lockedOf(STRANGER), 0, "all are free");
        vm.assertEq(stakedOf(STRANGER), 100 ether, "nothing taken");
        vm.assertEq(token.totalSupply(), SUPPLY, "nothing burned");
    }

    function test_gameSettled_voidFreesTheBondAndTheSlot() public {
        game.decide(_open(), IDisputeGame.Outcome.Void);
        vm.assertEq(lockedOf(CHALLENGER), 0, "free");
        vm.assertEq(ledger.getSlot(_task, 0, 0).openGames, 0, "open games");
    }

    function test_awardFall_earliestWhoCommittedToTheRedoGetsHalf() public {
        Root redone = _redone(LOSS_3);
        uint256 first = _open(); // another root: no prize, but it fells the submission
        _openAs(STRANGER, redone);
        _openAs(OTHER, redone);
        game.decide(first, FELLED);
        vm.expectRevert(
            abi.encodeWithSelector(
                ITrainingLedger.WrongStatus.selector,
                ITrainingLedger.SlotStatus.Open,
                ITrainingLedger.SlotStatus.Finalised
            )
        );
        ledger.awardFall(_task, 0, 0, 0);
        playRound(_task, CHALLENGER, 100, LOSS_3);
        vm.assertTrue(ledger.getCheckpoint(_task, 0).stateRoot == redone, "the redo's root");
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.FallAwarded(_task, 0, WORKER, 0, 0, STRANGER, BOND / 2, BOND - BOND / 2);
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(STRANGER), BOND / 2, "awarded");
        vm.assertEq(vault.creditOf(OTHER), 0, "the later one");
        vm.assertEq(stakedOf(WORKER), 100 ether - BOND, "slashed");
        vm.assertEq(lockedOf(WORKER), 0, "unlocked");
        vm.assertEq(token.totalSupply(), SUPPLY - (BOND - BOND / 2), "burned");
        // The redo is paid as if nothing had happened.
        vm.assertEq(vault.creditOf(CHALLENGER), REWARD, "redo");
        assertSolvent();
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.NothingToAward.selector, _task, 0, 0, 0));
        ledger.awardFall(_task, 0, 0, 0);
    }

    function test_awardFall_whoeverLostItsGameGetsNothing() public {
        Root redone = _redone(LOSS_3);
        uint256 lost = _openAs(STRANGER, redone);
        _openAs(OTHER, redone);
        game.decide(lost, DEFENDED);
        game.decide(_open(), FELLED);
        playRound(_task, CHALLENGER, 100, LOSS_3);
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(STRANGER), 0, "lost");
        vm.assertEq(vault.creditOf(OTHER), BOND / 2, "the next one");
    }

    function test_awardFall_nobodyCommittedBurnsAll() public {
        game.decide(_open(), FELLED);
        playRound(_task, CHALLENGER, 100, LOSS_3);
        vm.expectEmit(true, true, true, true, address(ledger));
        emit ITrainingLedger.FallAwarded(_task, 0, WORKER, 0, 0, address(0), 0, BOND);
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(token.totalSupply(), SUPPLY - BOND, "burned");
        vm.assertEq(stakedOf(WORKER), 100 ether - BOND, "slashed");
        assertSolvent();
    }

    function test_awardFall_eachFallOfASlotHasItsOwnBond() public {
        game.decide(_open(), FELLED);
        claimAs(_task, CHALLENGER);
        Root second = submitAs(_task, CHALLENGER, 100, LOSS_4);
        vm.prank(OTHER);
        uint256 number = game.open(_task, 0, 0, 1, second, ANSWER);
        game.decide(number, FELLED);
        playRound(_task, OTHER, 100, LOSS_3);
        vm.assertEq(lockedOf(WORKER) + lockedOf(CHALLENGER), 2 * uint256(BOND), "both wait");
        ledger.awardFall(_task, 0, 0, 1);
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(stakedOf(WORKER) + stakedOf(CHALLENGER), 200 ether - 2 * uint256(BOND), "both are taken");
        vm.assertEq(lockedOf(WORKER) + lockedOf(CHALLENGER), 0, "none is left");
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.NothingToAward.selector, _task, 0, 0, 2));
        ledger.awardFall(_task, 0, 0, 2); // the good one
    }

    function test_awardFall_closedTaskPaysTheWinnerOfTheGame() public {
        uint256 number = _open();
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        game.decide(number, FELLED);
        vm.assertEq(vault.creditOf(REQUESTER), 3 * uint256(REWARD), "refund");
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), BOND / 2, "awarded");
        vm.assertEq(stakedOf(WORKER), 100 ether - BOND, "slashed");
        assertSolvent();
    }

    function test_awardFall_closedTaskWithARunningRedoWaitsForIt() public {
        game.decide(_openAs(CHALLENGER, _redone(LOSS_3)), FELLED);
        vm.warp(block.timestamp + LEASE + 1); // the winner does not come
        claimAs(_task, OTHER);
        vm.prank(REQUESTER);
        ledger.closeTask(_task);
        _expectNotFinalised(ITrainingLedger.SlotStatus.Leased);
        ledger.awardFall(_task, 0, 0, 0);
        submitAs(_task, OTHER, 100, LOSS_3);
        _expectNotFinalised(ITrainingLedger.SlotStatus.Submitted);
        ledger.awardFall(_task, 0, 0, 0);
        finaliseNow(_task);
        ledger.awardFall(_task, 0, 0, 0);
        vm.assertEq(vault.creditOf(CHALLENGER), BOND / 2, "awarded");
    }

    function test_lockedBond_ofAFallenSubmissionIsNotUnbonded() public {
        game.decide(_open(), FELLED);
        vm.prank(WORKER);
        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.InsufficientFreeStake.selector, WORKER, 100 ether - BOND, 100 ether)
        );
        vault.requestUnbond(100 ether);
    }

    function testFuzz_awardFall_selfDisputeLosesAtLeastHalf(uint96 bond, bool trueRoot, bool closed) public {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.bond = uint96(between(bond, MINIMUM_BOND, 40 ether));
        p.leaseFee = 0;
        TaskId task = post(p);
        claimAs(task, OTHER);
        Root root = submitAs(task, OTHER, 100, LOSS_4);
        Root claimed = trueRoot ? redoneRoot(task, 0, 1, LOSS_3) : ANSWER;
        vm.prank(OTHER);
        uint256 number = game.open(task, 0, 0, 0, root, claimed);
        game.decide(number, FELLED);
        if (closed) {
            vm.prank(REQUESTER);
            ledger.closeTask(task);
        } else {
            vm.warp(block.timestamp + LEASE + 1);
            playRound(task, CHALLENGER, 100, LOSS_3);
        }
        ledger.awardFall(task, 0, 0, 0);
        uint256 lost = 100 ether - stakedOf(OTHER) - vault.creditOf(OTHER);
        vm.assertGe(lost, (uint256(p.bond) + 1) / 2, "less than half burned");
        vm.assertEq(SUPPLY - token.totalSupply(), lost, "burned what was lost");
    }

    function _open() private returns (uint256) {
        return _openAs(CHALLENGER, ANSWER);
    }

    function _openAs(address challenger, Root claimed) private returns (uint256) {
        vm.prank(challenger);
        return game.open(_task, 0, 0, 0, _root, claimed);
    }

    function _expectNotFinalised(ITrainingLedger.SlotStatus status) private {
        vm.expectRevert(
            abi.encodeWithSelector(ITrainingLedger.WrongStatus.selector, status, ITrainingLedger.SlotStatus.Finalised)
        );
    }

    function _redone(uint32 lossBits) private view returns (Root) {
        return redoneRoot(_task, 0, 1, lossBits);
    }
}
