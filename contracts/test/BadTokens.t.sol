// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {IHookedToken} from "./base/IHookedToken.sol";
import {ITrainingToken} from "./base/ITrainingToken.sol";

/// @dev Tokens that misbehave, in a deployment that was careless enough to take one.
contract BadTokensTest is Fixture {
    IHookedToken private _hooked;

    function setUp() public override {
        vm.warp(1_800_000_000);
        _hooked = IHookedToken(vm.deployCode("HookedToken.sol:HookedToken", abi.encode(address(this), SUPPLY)));
        deploy(_hooked);
        fund(REQUESTER);
        fund(WORKER);
        stakeAs(WORKER, 100 ether);
    }

    function test_stake_feeOnTransferReverts() public {
        ITrainingToken fee = ITrainingToken(vm.deployCode("FeeToken.sol:FeeToken", abi.encode(address(this), SUPPLY)));
        bytes memory arguments = abi.encode(fee, address(1), address(1), address(1), 1);
        IStakeVault strict = IStakeVault(vm.deployCode("StakeVault.sol:StakeVault", arguments));
        fee.approve(address(strict), 100);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.WrongAmountReceived.selector, 100, 99));
        strict.stake(address(this), 100);
    }

    function test_withdraw_reentrantWithdrawPaysOnce() public {
        playRound(post(), WORKER, 100, LOSS_3);
        _hooked.setHook(address(vault), abi.encodeCall(IStakeVault.withdraw, ()));
        uint256 before = token.balanceOf(WORKER);
        vm.prank(WORKER);
        vault.withdraw();
        vm.assertEq(token.balanceOf(WORKER), before + REWARD, "paid once");
        _assertBlocked();
    }

    function test_stake_reentrantStakeIsBlocked() public {
        _hooked.setHook(address(vault), abi.encodeCall(IStakeVault.stake, (WORKER, 1)));
        stakeAs(WORKER, 5);
        vm.assertEq(stakedOf(WORKER), 100 ether + 5, "staked once");
        _assertBlocked();
    }

    function test_completeUnbond_reentrantCompleteIsBlocked() public {
        vm.prank(WORKER);
        vault.requestUnbond(10);
        vm.warp(block.timestamp + UNBONDING_DELAY);
        _hooked.setHook(address(vault), abi.encodeCall(IStakeVault.completeUnbond, ()));
        vm.prank(WORKER);
        vault.completeUnbond();
        vm.assertEq(vault.totalStaked(), 100 ether - 10, "once");
        _assertBlocked();
    }

    /// @dev While a lapsed lease's fee is burned, the token lets somebody else claim the reopened slot.
    function test_claim_reentrantClaimIsBlocked() public {
        TaskId task = post();
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1);
        // The token itself is a worker here, as it is who calls in the middle.
        require(token.transfer(address(_hooked), 10 ether), "transfer");
        vm.prank(WORKER);
        vault.stake(address(_hooked), 10 ether);
        ITrainingLedger.Claim memory intruder = claimOf(task, address(_hooked));
        _hooked.setHook(address(ledger), abi.encodeCall(ITrainingLedger.claim, (intruder)));
        claimAs(task, WORKER);
        vm.assertEq(ledger.getSlot(task, 0, 0).worker, WORKER, "worker");
        vm.assertEq(lockedOf(address(_hooked)), 0, "no second bond");
        vm.assertEq(lockedOf(WORKER), BOND, "one bond");
        _assertBlocked();
    }

    function test_expireLease_reentrantExpireIsBlocked() public {
        TaskId task = post();
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1);
        _hooked.setHook(address(ledger), abi.encodeCall(ITrainingLedger.expireLease, (task, 0, 0, 0)));
        ledger.expireLease(task, 0, 0, 0);
        vm.assertEq(stakedOf(WORKER), 100 ether - FEE, "one fee");
        _assertBlocked();
    }

    function test_gameSettled_reentrantFinaliseIsBlocked() public {
        (TaskId task, Root root) = submitted();
        uint256 number = _openGame(task, root);
        vm.warp(block.timestamp + WINDOW + 1);
        _hooked.setHook(address(ledger), abi.encodeCall(ITrainingLedger.finalise, (task, 0, 0, 0, root)));
        game.decide(number, IDisputeGame.Outcome.DefenderWon);
        vm.assertEq(vault.creditOf(WORKER), BOND / 2, "only the challenger's half");
        _assertBlocked();
    }

    function test_awardFall_reentrantAwardIsBlocked() public {
        (TaskId task, Root root) = submitted();
        game.decide(_openGame(task, root), IDisputeGame.Outcome.ChallengerWon);
        playRound(task, CHALLENGER, 100, LOSS_3);
        _hooked.setHook(address(ledger), abi.encodeCall(ITrainingLedger.awardFall, (task, 0, 0, 0)));
        ledger.awardFall(task, 0, 0, 0);
        vm.assertEq(stakedOf(WORKER), 100 ether - BOND, "one bond");
        _assertBlocked();
    }

    function test_postTask_reentrantPostIsBlocked() public {
        _hooked.setHook(address(ledger), abi.encodeCall(ITrainingLedger.postTask, (parameters(), "")));
        post();
        vm.assertEq(ledger.taskCount(), 1, "one task");
        _assertBlocked();
    }

    function _openGame(TaskId task, Root root) private returns (uint256) {
        arm(CHALLENGER);
        vm.prank(CHALLENGER);
        return game.open(task, 0, 0, 0, root, Root.wrap(bytes32(uint256(1))));
    }

    /// @dev The hook ran, failed, and failed at the guard: not at some other check that happened to be in its way.
    function _assertBlocked() private view {
        vm.assertEq(_hooked.succeeded(), 0, "a reentrant call succeeded");
        vm.assertGe(_hooked.failed(), 1, "the hook never ran");
        bytes memory guard = abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector);
        vm.assertEq(_hooked.lastFailure(), guard, "blocked by something else");
        vm.assertEq(token.balanceOf(address(vault)), vault.totalStaked() + vault.totalOwed(), "books");
    }
}
