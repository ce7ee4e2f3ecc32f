// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {IStakeVault} from "../interfaces/IStakeVault.sol";
import {TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";
import {Handler} from "./base/Handler.sol";

/// @title What holds whatever people do
contract LedgerInvariantsTest is Fixture {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    Handler internal _handler;

    function setUp() public virtual override {
        super.setUp();
        fund(STRANGER);
        fund(CHALLENGER);
        _handler = makeHandler();
        // Half the runs' worth of luck: some stake and one task are there from the start.
        _handler.stake(2, 40 ether);
        _handler.stake(3, 40 ether);
        _handler.postTask(10 ether, 5 ether, 3, true);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev Actions that move a round on stand more than once: rounds are long, and runs are short.
    function targetSelectors() external view virtual returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), ledgerActions(0));
    }

    function makeHandler() internal virtual returns (Handler) {
        return Handler(vm.deployCode("Handler.sol:Handler", abi.encode(token, vault, ledger, game)));
    }

    /// @param more Room for so many actions more.
    function ledgerActions(uint256 more) internal pure returns (bytes4[] memory actions) {
        actions = new bytes4[](22 + more);
        actions[0] = Handler.postTask.selector;
        actions[1] = Handler.stake.selector;
        for (uint256 i = 2; i < 5; ++i) {
            actions[i] = Handler.claim.selector;
            actions[i + 3] = Handler.submit.selector;
            actions[i + 6] = Handler.finalise.selector;
        }
        actions[11] = Handler.expireLease.selector;
        actions[12] = Handler.closeTask.selector;
        actions[13] = Handler.openGame.selector;
        actions[14] = Handler.settleGame.selector;
        actions[15] = Handler.withdraw.selector;
        actions[16] = Handler.requestUnbond.selector;
        actions[17] = Handler.completeUnbond.selector;
        actions[18] = Handler.wait_.selector;
        actions[19] = Handler.wait_.selector;
        actions[20] = Handler.awardFall.selector;
        actions[21] = Handler.openGame.selector;
    }

    /// @dev Nobody donates here, so what the vault holds is exactly what it books.
    function invariant_vault_holdsWhatItBooks() external view {
        assertSolvent();
    }

    function invariant_vault_totalsAreTheSums() external view {
        address[] memory people = _handler.everybody();
        uint256 staked = 0;
        uint256 owed = vault.creditOf(REQUESTER);
        for (uint256 i = 0; i < people.length; ++i) {
            staked += stakedOf(people[i]) + vault.unbondingOf(people[i]).amount;
            owed += vault.creditOf(people[i]);
        }
        TaskId[] memory tasks = _handler.taskNumbers();
        for (uint256 i = 0; i < tasks.length; ++i) {
            owed += vault.escrowOf(tasks[i]);
        }
        vm.assertEq(vault.totalStaked(), staked, "staked");
        vm.assertEq(vault.totalOwed(), owed, "owed");
    }

    function invariant_stake_lockedIsTheRunningBonds() external view {
        address[] memory people = _handler.everybody();
        for (uint256 i = 0; i < people.length; ++i) {
            vm.assertEq(lockedOf(people[i]), _handler.bonds(people[i]), "locked");
            vm.assertLe(lockedOf(people[i]), stakedOf(people[i]), "locked more than staked");
        }
    }

    function invariant_supply_fallsByWhatIsBurned() external view {
        vm.assertEq(token.totalSupply(), SUPPLY - _handler.burned(), "supply");
    }

    function invariant_rules_nothingForbiddenSucceeded() external view {
        vm.assertEq(_handler.broken(), 0, _handler.breach());
    }

    /// @dev To the wei: the escrow left is what was posted less what was paid, and nothing at all once a task is over.
    function invariant_escrow_paidPlusLeftIsPosted() external view {
        TaskId[] memory tasks = _handler.taskNumbers();
        for (uint256 i = 0; i < tasks.length; ++i) {
            ITrainingLedger.Task memory task = ledger.getTask(tasks[i]);
            uint256 left = vault.escrowOf(tasks[i]);
            uint256 paid = _handler.paidOut(tasks[i]);
            bool over = task.currentRound == task.parameters.rounds;
            if (over) {
                vm.assertEq(left, 0, "escrow of a complete task");
            } else if (!task.closed) {
                vm.assertEq(left, _handler.escrowed(tasks[i]) - paid, "escrow");
            } else {
                vm.assertEq(left, _running(tasks[i], task) ? task.parameters.slotReward : 0, "escrow of a closed task");
            }
        }
    }

    /// @dev Everybody leaves: what they take, with what is burned and still unpaid, is all that ever came in.
    function afterInvariant() external {
        _handler.endGames();
        TaskId[] memory tasks = _handler.taskNumbers();
        for (uint256 i = 0; i < tasks.length; ++i) {
            _windUp(tasks[i]);
        }
        // Bonds of what fell: each slot has its state, or never will.
        uint256 waiting = _handler.fallenCount();
        for (uint256 i = waiting; i > 0; --i) {
            _handler.awardFall(i - 1);
        }
        vm.assertEq(_handler.fallenCount(), 0, "the bond of a fallen submission is stuck");
        address[5] memory people = [WORKER, OTHER, STRANGER, REQUESTER, CHALLENGER];
        for (uint256 i = 0; i < people.length; ++i) {
            vm.startPrank(people[i]);
            if (vault.creditOf(people[i]) > 0) vault.withdraw();
            vm.assertEq(lockedOf(people[i]), 0, "a bond is stuck");
            if (stakedOf(people[i]) > 0) vault.requestUnbond(stakedOf(people[i]));
            IStakeVault.Unbonding memory unbonding = vault.unbondingOf(people[i]);
            if (unbonding.releaseTime > 0) vm.warp(unbonding.releaseTime);
            if (unbonding.amount > 0) vault.completeUnbond();
            vm.stopPrank();
        }
        vm.assertEq(token.balanceOf(address(vault)), 0, "something is stuck in the vault");
        vm.assertEq(vault.totalStaked() + vault.totalOwed(), 0, "books");
        _checkActivity();
    }

    function _windUp(TaskId number) private {
        ITrainingLedger.Task memory task = ledger.getTask(number);
        if (task.currentRound == task.parameters.rounds) return;
        ITrainingLedger.Slot memory slot = ledger.getSlot(number, task.currentRound, 0);
        if (!task.closed) {
            vm.prank(REQUESTER);
            ledger.closeTask(number);
        }
        vm.warp(between(uint256(slot.deadline) + 1, block.timestamp, type(uint64).max));
        if (slot.status == ITrainingLedger.SlotStatus.Leased) {
            ledger.expireLease(number, task.currentRound, 0, slot.attempt);
        } else if (slot.status == ITrainingLedger.SlotStatus.Submitted) {
            ledger.finalise(number, task.currentRound, 0, slot.attempt, slot.stateRoot);
        }
        vm.assertEq(vault.escrowOf(number), 0, "escrow is stuck");
    }

    /// @dev A run whose calls all did nothing would prove nothing. Rare actions are counted over scripted runs below.
    function _checkActivity() private view {
        vm.assertGe(_handler.done("stake"), 1, "no stake");
        vm.assertGe(_handler.done("post"), 1, "no task");
    }

    function _running(TaskId number, ITrainingLedger.Task memory task) private view returns (bool) {
        ITrainingLedger.SlotStatus status = ledger.getSlot(number, task.currentRound, 0).status;
        return status == ITrainingLedger.SlotStatus.Leased || status == ITrainingLedger.SlotStatus.Submitted;
    }

    /// @dev The handler's actions from one seed, until each of them has succeeded: this is what shows that the invariants
    /// above are not held over runs in which nothing happens. Most runs need 6,000; rare ends can take longer.
    /// forge-config: default.fuzz.runs = 4
    /// forge-config: full.fuzz.runs = 40
    function testFuzz_handler_everyActionSucceeds(uint256 seed) public {
        for (uint256 i = 0; i < 15_000; ++i) {
            _act(uint256(keccak256(abi.encode(seed, i))));
            if (i % 1000 == 999 && bytes(neverDone()).length == 0) break;
        }
        vm.assertEq(neverDone(), "", "never done");
        vm.assertEq(_handler.broken(), 0, _handler.breach());
        vm.assertEq(token.totalSupply(), SUPPLY - _handler.burned(), "supply");
        assertSolvent();
    }

    /// @dev The first of these that was not done once.
    function neverDone() internal view virtual returns (string memory) {
        string[25] memory actions = [
            "stake",
            "post",
            "claim",
            "claim over a lapsed lease",
            "submit",
            "finalise",
            "expire",
            "close",
            "open game",
            "fall",
            "won defence",
            "void game",
            "award",
            "award to nobody",
            "award of a closed task",
            "claim of a slot kept for the winner",
            "bond taken before the slot has its state",
            "withdraw",
            "unbond",
            "unbonded",
            "claim of a taken slot",
            "submission after the lease",
            "finalised too early",
            "running lease expired",
            "locked stake unbonded"
        ];
        for (uint256 i = 0; i < actions.length; ++i) {
            if (_handler.done(actions[i]) == 0) return actions[i];
        }
        return "";
    }

    /// @dev Games are few in a run, so their ends take turns. A slot that falls again and again is seldom redone.
    function _fallIsDue() private view returns (bool) {
        return _handler.done("won defence") > _handler.done("fall");
    }

    function _act(uint256 luck) internal virtual {
        uint256 action = luck % 27;
        (uint256 which, uint256 amount) = ((luck >> 8) % 64, luck >> 16);
        if (action < 3) {
            _handler.claim(which, amount);
        } else if (action < 7) {
            _handler.submit(which, amount, uint32(amount >> 40));
        } else if (action < 10) {
            _handler.finalise(which);
        } else if (action < 12 || action == 25) {
            _handler.wait_(amount % 300); // mostly less than a lease
        } else if (action < 15) {
            _handler.openGame(which, amount);
        } else if (action == 15) {
            _handler.expireLease(which);
        } else if (action == 16) {
            _handler.closeTask(which, luck >> 64 & 31);
        } else if (action == 17 || action == 23) {
            _handler.settleGame(which, _fallIsDue());
        } else if (action == 18) {
            _handler.withdraw(which);
        } else if (action == 19) {
            _handler.requestUnbond(which, amount % 3 ether);
        } else if (action == 20) {
            _handler.completeUnbond(which);
        } else if (action == 21) {
            _handler.stake(which, amount);
        } else if (action == 22 || action == 24) {
            _handler.awardFall(which);
        }
        // Seldom: only the newest tasks are played on, and a fall and its redo take long.
        else if (luck & 0xc00 == 0) {
            _handler.postTask(uint96(amount), uint96(amount >> 96), uint32(amount >> 192), luck & 512 == 0);
        }
    }
}
