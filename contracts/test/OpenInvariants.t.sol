// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IOpenLedger} from "../interfaces/IOpenLedger.sol";
import {TaskId} from "../types/Identifiers.sol";
import {OpenFixture} from "./base/OpenFixture.sol";
import {OpenHandler} from "./base/OpenHandler.sol";

/// @title What holds in open tasks, whatever people do
contract OpenInvariantsTest is OpenFixture {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    address private constant JUROR = address(0xA1);

    OpenHandler private _handler;

    function setUp() public override {
        super.setUp();
        stakeAs(WORKER, 10_000 ether);
        stakeAs(OTHER, 10_000 ether);
        stakeAs(STRANGER, 10_000 ether);
        stakeAs(CHALLENGER, 10_000 ether);
        arm(JUROR);
        vm.prank(JUROR);
        committee.enrol(9);
        vm.warp(block.timestamp + SEAT_AGE);
        bytes memory arguments = abi.encode(token, vault, open, openGame, availability);
        _handler = OpenHandler(vm.deployCode("OpenHandler.sol:OpenHandler", arguments));
        _handler.newTask(2);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev Actions that move a round on stand more than once.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory actions = new bytes4[](20);
        for (uint256 i = 0; i < 2; ++i) {
            actions[i] = OpenHandler.commitOne.selector;
            actions[2 + i] = OpenHandler.revealOne.selector;
            actions[4 + i] = OpenHandler.scoreOne.selector;
            actions[6 + i] = OpenHandler.finaliseOne.selector;
        }
        (actions[8], actions[9]) = (OpenHandler.showOne.selector, OpenHandler.giveUpOne.selector);
        (actions[10], actions[11]) = (OpenHandler.disputeOne.selector, OpenHandler.awardOne.selector);
        (actions[12], actions[13]) = (OpenHandler.askOne.selector, OpenHandler.answerOne.selector);
        (actions[14], actions[15]) = (OpenHandler.newTask.selector, OpenHandler.wait_.selector);
        (actions[16], actions[17]) = (OpenHandler.skipOne.selector, OpenHandler.closeOne.selector);
        (actions[18], actions[19]) = (OpenHandler.playOn.selector, OpenHandler.playOn.selector);
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), actions);
    }

    function invariant_openTasks_hold() external view {
        check();
    }

    /// @dev The handler's actions from one seed, until each has been done: the invariant is not held over runs in which
    /// nothing happens.
    /// forge-config: default.fuzz.runs = 2
    /// forge-config: full.fuzz.runs = 20
    function testFuzz_openTasks_everyActionIsDone(uint256 seed) public {
        vm.pauseGasMetering(); // thousands of calls in one test
        for (uint256 i = 0; i < 40_000; ++i) {
            _act(uint256(keccak256(abi.encode(seed, i))));
            if (i % 500 != 499) continue;
            check();
            if (bytes(_neverDone()).length == 0) break;
        }
        vm.assertEq(_neverDone(), "", "never done");
    }

    /// @dev Books against the vault, and every task's escrow to the wei.
    function check() internal view {
        assertSolvent();
        vm.assertEq(token.totalSupply(), SUPPLY - _handler.burned(), "supply");
        address[4] memory people = [WORKER, OTHER, STRANGER, CHALLENGER];
        for (uint256 i = 0; i < people.length; ++i) {
            vm.assertEq(lockedOf(people[i]), _handler.bonds(people[i]), "locked");
            vm.assertEq(vault.pledgedOf(people[i]), lockedOf(people[i]), "by the open ledger");
        }
        TaskId[] memory tasks = _handler.taskNumbers();
        for (uint256 i = 0; i < tasks.length; ++i) {
            _checkEscrow(tasks[i]);
        }
    }

    /// @dev A closed task keeps at most one round's rewards, and nothing once that round has ended.
    function _checkEscrow(TaskId number) private view {
        IOpenLedger.Task memory task = open.getTask(number);
        uint256 left = escrowOf(number);
        uint256 unpaid = _handler.posted(number) - _handler.paid(number);
        if (task.phase == IOpenLedger.Phase.Running) {
            vm.assertEq(left, unpaid, "escrow");
        } else if (task.phase == IOpenLedger.Phase.Complete || open.getRound(number, task.currentRound).commitEnd == 0)
        {
            vm.assertEq(left, 0, "escrow of what is over");
        } else {
            IOpenLedger.TaskParameters memory p = task.parameters;
            vm.assertLe(left, unpaid, "never more than was posted and not paid");
            vm.assertLe(left, uint256(p.slotReward) * p.slotsPerRound + p.scoreReward, "one round's");
        }
    }

    function _neverDone() private view returns (string memory) {
        string[28] memory actions = [
            "post",
            "commit",
            "commit refused",
            "reveal",
            "reveal refused",
            "copy",
            "copy revealed first",
            "base handed in",
            "held-out",
            "held-out refused",
            "score",
            "score of the base",
            "score refused",
            "taken over",
            "finalise",
            "finalised too early",
            "forfeit",
            "expire",
            "expired too early",
            "expire without a bond",
            "default",
            "skip",
            "fall",
            "won defence",
            "award",
            "ask",
            "acknowledge",
            "not to be fetched"
        ];
        for (uint256 i = 0; i < actions.length; ++i) {
            if (_handler.done(actions[i]) == 0) return actions[i];
        }
        return "";
    }

    function _act(uint256 luck) private {
        uint256 action = luck % 32;
        luck >>= 8;
        if (action < 14) _handler.playOn(luck);
        else if (action == 14) _handler.commitOne(luck);
        else if (action == 15) _handler.revealOne(luck);
        else if (action < 18) _handler.showOne(luck);
        else if (action == 18) _handler.scoreOne(luck);
        else if (action < 22) _handler.finaliseOne(luck);
        else if (action < 24) _handler.giveUpOne(luck);
        else if (action == 24) _handler.disputeOne(luck);
        else if (action == 25) _handler.awardOne(luck);
        else if (action == 26) _handler.askOne(luck);
        else if (action == 27) _handler.answerOne(luck);
        else if (action == 28) _handler.skipOne(luck);
        else if (action == 29 && luck & 63 == 0) _handler.closeOne(luck);
        else if (action == 30 && luck & 7 == 0) _handler.newTask(luck);
        else _handler.wait_(luck % (luck & 768 == 0 ? 900 : 150));
    }
}
