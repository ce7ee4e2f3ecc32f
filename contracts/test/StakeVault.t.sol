// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";

import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {Permit} from "./base/Permit.sol";

contract StakeVaultTest is Fixture {
    TaskId private constant TASK = TaskId.wrap(7);

    modifier asLedger() {
        vm.startPrank(address(ledger));
        _;
        vm.stopPrank();
    }

    function test_constructor_zeroArgumentsRevert() public {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        this.construct("StakeVault.sol:StakeVault", abi.encode(address(0), address(1), address(1), address(1), 1));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        this.construct("StakeVault.sol:StakeVault", abi.encode(address(1), address(0), address(1), address(1), 1));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        this.construct("StakeVault.sol:StakeVault", abi.encode(address(1), address(1), address(0), address(1), 1));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        this.construct("StakeVault.sol:StakeVault", abi.encode(address(1), address(1), address(1), address(0), 1));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        this.construct("StakeVault.sol:StakeVault", abi.encode(address(1), address(1), address(1), address(1), 0));
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.AmountTooLarge.selector, 366 days));
        this.construct(
            "StakeVault.sol:StakeVault", abi.encode(address(1), address(1), address(1), address(1), 366 days)
        );
    }

    function test_views_tellDeployment() public view {
        vm.assertEq(vault.token(), address(token), "token");
        vm.assertEq(vault.ledger(), address(ledger), "ledger");
        vm.assertEq(vault.committee(), address(committee), "committee");
        vm.assertEq(vault.unbondingDelay(), UNBONDING_DELAY, "delay");
    }

    function testFuzz_stake_creditsOwnerNotSender(uint256 amount) public {
        amount = between(amount, 1, FUNDS - 100 ether);
        uint256 total = vault.totalStaked();
        vm.expectEmit(true, true, true, true, address(vault));
        emit IStakeVault.Staked(STRANGER, WORKER, amount, amount);
        vm.prank(WORKER);
        vault.stake(STRANGER, amount);
        vm.assertEq(stakedOf(STRANGER), amount, "owner");
        vm.assertEq(stakedOf(WORKER), 100 ether, "sender");
        vm.assertEq(vault.totalStaked(), total + amount, "total");
        assertSolvent();
    }

    function test_stake_badArgumentsRevert() public {
        vm.startPrank(WORKER);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        vault.stake(address(0), 1);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        vault.stake(WORKER, 0);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.AmountTooLarge.selector, type(uint256).max));
        vault.stake(WORKER, type(uint256).max);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.AmountTooLarge.selector, type(uint128).max));
        vault.stake(WORKER, type(uint128).max);
    }

    function test_stake_withoutAllowanceReverts() public {
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(vault), 0, 1));
        vault.stake(STRANGER, 1);
    }

    function test_stakeWithPermit_usedPermitSucceeds() public {
        (uint256 key, uint256 amount) = (0xBEEF, 3 ether);
        address owner = vm.addr(key);
        require(token.transfer(owner, amount), "transfer");
        bytes32 digest = Permit.digest(token, owner, address(vault), amount, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        // Somebody takes the permit out of the mempool and uses it first.
        token.permit(owner, address(vault), amount, block.timestamp, v, r, s);
        vm.prank(owner);
        vault.stakeWithPermit(owner, amount, block.timestamp, v, r, s);
        vm.assertEq(stakedOf(owner), amount, "staked");
    }

    function test_stakeWithPermit_freshPermitSucceeds() public {
        (uint256 key, uint256 amount) = (0xBEEF, 3 ether);
        address owner = vm.addr(key);
        require(token.transfer(owner, amount), "transfer");
        bytes32 digest = Permit.digest(token, owner, address(vault), amount, block.timestamp);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        vm.prank(owner);
        vault.stakeWithPermit(OTHER, amount, block.timestamp, v, r, s);
        vm.assertEq(stakedOf(OTHER), 100 ether + amount, "staked");
    }

    function test_stakeWithPermit_wrongSignatureReverts() public {
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IERC20Errors.ERC20InsufficientAllowance.selector, address(vault), 0, 1));
        vault.stakeWithPermit(STRANGER, 1, block.timestamp, 27, bytes32(uint256(1)), bytes32(uint256(2)));
    }

    function testFuzz_requestUnbond_addsUpAndRestartsDelay(uint256 first, uint256 second) public {
        first = between(first, 1, 50 ether);
        second = between(second, 1, 50 ether);
        vm.startPrank(WORKER);
        vault.requestUnbond(first);
        vm.warp(block.timestamp + 100);
        uint256 release = block.timestamp + UNBONDING_DELAY;
        vm.expectEmit(true, true, true, true, address(vault));
        emit IStakeVault.UnbondingRequested(WORKER, second, first + second, release);
        vault.requestUnbond(second);
        vm.assertEq(stakedOf(WORKER), 100 ether - first - second, "staked");
        vm.assertEq(vault.unbondingOf(WORKER).amount, first + second, "unbonding");
        vm.assertEq(vault.totalStaked(), 200 ether, "still in the vault");

        vm.warp(release - 1);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.StillUnbonding.selector, WORKER, release, release - 1));
        vault.completeUnbond();
        vm.warp(release);
        uint256 before = token.balanceOf(WORKER);
        vault.completeUnbond();
        vm.assertEq(token.balanceOf(WORKER), before + first + second, "paid out");
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingUnbonding.selector, WORKER));
        vault.completeUnbond();
        assertSolvent();
    }

    function test_requestUnbond_badAmountReverts() public {
        vm.startPrank(WORKER);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        vault.requestUnbond(0);
        vm.expectRevert(
            abi.encodeWithSelector(IStakeVault.InsufficientFreeStake.selector, WORKER, 100 ether, 100 ether + 1)
        );
        vault.requestUnbond(100 ether + 1);
    }

    function test_requestUnbond_lockedStakeReverts() public {
        claimAs(post(), WORKER);
        vm.startPrank(WORKER);
        vm.expectRevert(
            abi.encodeWithSelector(
                IStakeVault.InsufficientFreeStake.selector, WORKER, 100 ether - BOND, 100 ether - BOND + 1
            )
        );
        vault.requestUnbond(100 ether - BOND + 1);
        vault.requestUnbond(100 ether - BOND);
        vm.assertEq(stakedOf(WORKER), lockedOf(WORKER), "only the bond is left");
    }

    function test_setOperator_allowsAndForbids() public {
        vm.startPrank(WORKER);
        vault.setOperator(STRANGER, true);
        vm.assertTrue(vault.isOperator(WORKER, STRANGER), "allowed");
        vault.setOperator(STRANGER, false);
        vm.assertTrue(!vault.isOperator(WORKER, STRANGER), "forbidden");
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        vault.setOperator(address(0), true);
    }

    function test_setPayout_zeroMeansOwner() public {
        vm.assertEq(vault.payoutOf(WORKER), WORKER, "default");
        vm.startPrank(WORKER);
        vault.setPayout(STRANGER);
        vm.assertEq(vault.payoutOf(WORKER), STRANGER, "set");
        vault.setPayout(address(0));
        vm.assertEq(vault.payoutOf(WORKER), WORKER, "back");
    }

    function test_withdraw_paysCreditOnce() public {
        vm.startPrank(address(ledger));
        vault.openEscrow(TASK, REQUESTER, 10);
        vault.settle(TASK, STRANGER, 4, STRANGER, 0);
        vm.stopPrank();
        vm.startPrank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        vault.withdrawTo(address(0));
        vm.assertEq(vault.withdrawTo(CHALLENGER), 4, "amount");
        vm.assertEq(token.balanceOf(CHALLENGER), 4, "received");
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.NothingToWithdraw.selector, STRANGER));
        vault.withdraw();
        vm.assertEq(vault.totalOwed(), 6, "owed");
        assertSolvent();
    }

    function test_ledgerFunctions_strangerReverts() public {
        bytes memory refusal = abi.encodeWithSelector(IStakeVault.OnlyLedger.selector, STRANGER);
        vm.startPrank(STRANGER);
        vm.expectRevert(refusal);
        vault.openEscrow(TASK, REQUESTER, 1);
        vm.expectRevert(refusal);
        vault.settle(TASK, STRANGER, 0, WORKER, 0);
        vm.expectRevert(refusal);
        vault.refundEscrow(TASK, STRANGER, 0);
        vm.expectRevert(refusal);
        vault.lockBond(WORKER, 1);
        vm.expectRevert(refusal);
        vault.takeBond(WORKER, 0, 0, STRANGER, 0);
    }

    function test_openEscrow_zeroReverts() public asLedger {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAmount.selector));
        vault.openEscrow(TASK, REQUESTER, 0);
    }

    function test_openEscrow_hugeReverts() public asLedger {
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.AmountTooLarge.selector, 1 << 128));
        vault.openEscrow(TASK, REQUESTER, 1 << 128);
    }

    function testFuzz_escrow_neverPaysMoreThanItHas(uint256 amount, uint256 paid, uint256 keep) public asLedger {
        amount = between(amount, 1, FUNDS);
        paid = between(paid, 0, amount);
        keep = between(keep, 0, amount - paid);
        vault.openEscrow(TASK, REQUESTER, amount);
        vault.settle(TASK, STRANGER, paid, WORKER, 0);
        uint256 left = amount - paid;
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientEscrow.selector, TASK, left, left + 1));
        vault.settle(TASK, STRANGER, left + 1, WORKER, 0);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientEscrow.selector, TASK, left, left + 1));
        vault.refundEscrow(TASK, REQUESTER, left + 1);
        vm.assertEq(vault.refundEscrow(TASK, REQUESTER, keep), left - keep, "refunded");
        vm.assertEq(vault.escrowOf(TASK), keep, "kept");
        vm.assertEq(vault.creditOf(STRANGER) + vault.creditOf(REQUESTER) + keep, amount, "conserved");
        assertSolvent();
    }

    function test_settle_zeroRecipientReverts() public asLedger {
        vault.openEscrow(TASK, REQUESTER, 10);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        vault.settle(TASK, address(0), 1, WORKER, 0);
    }

    function test_settle_moreThanLockedReverts() public asLedger {
        vault.lockBond(WORKER, 5);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLockedStake.selector, WORKER, 5, 6));
        vault.settle(TASK, WORKER, 0, WORKER, 6);
        vault.settle(TASK, WORKER, 0, WORKER, 5);
        vm.assertEq(lockedOf(WORKER), 0, "unlocked");
    }

    function test_lockBond_moreThanFreeReverts() public asLedger {
        vault.lockBond(WORKER, 60 ether);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientFreeStake.selector, WORKER, 40 ether, 41 ether));
        vault.lockBond(WORKER, 41 ether);
    }

    function testFuzz_takeBond_splitsExactly(uint256 bond, uint256 taken, uint256 awarded) public asLedger {
        bond = between(bond, 0, 100 ether);
        taken = between(taken, 0, bond);
        awarded = between(awarded, 0, taken / 2);
        vault.lockBond(WORKER, bond);
        vm.expectEmit(true, true, true, true, address(vault));
        emit IStakeVault.BondTaken(WORKER, CHALLENGER, taken - awarded, awarded);
        vault.takeBond(WORKER, bond, taken, CHALLENGER, awarded);
        vm.assertEq(stakedOf(WORKER), 100 ether - taken, "staked");
        vm.assertEq(lockedOf(WORKER), 0, "locked");
        vm.assertEq(vault.creditOf(CHALLENGER), awarded, "awarded");
        vm.assertEq(token.totalSupply(), SUPPLY - (taken - awarded), "burned");
        assertSolvent();
    }

    function test_takeBond_badSplitReverts() public asLedger {
        vault.lockBond(WORKER, 10);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.AwardTooLarge.selector, 9, 5));
        vault.takeBond(WORKER, 10, 9, CHALLENGER, 5);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLockedStake.selector, WORKER, 10, 11));
        vault.takeBond(WORKER, 11, 9, CHALLENGER, 4);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.InsufficientLockedStake.selector, WORKER, 10, 11));
        vault.takeBond(WORKER, 10, 11, CHALLENGER, 4);
        vm.expectRevert(abi.encodeWithSelector(IStakeVault.ZeroAddress.selector));
        vault.takeBond(WORKER, 10, 9, address(0), 4);
    }
}
