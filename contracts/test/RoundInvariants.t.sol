// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {TaskId} from "../types/Identifiers.sol";
import {RoundFixture} from "./base/RoundFixture.sol";
import {RoundHandler} from "./base/RoundHandler.sol";

/// @title What holds in rounds of several slots, whatever people do
contract RoundInvariantsTest is RoundFixture {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    RoundHandler private _handler;

    function setUp() public override {
        super.setUp();
        fund(STRANGER);
        stakeAs(STRANGER, 10_000 ether);
        stakeAs(OTHER, 10_000 ether);
        stakeAs(CHALLENGER, 10_000 ether);
        bytes memory arguments = abi.encode(token, vault, ledger, game, book);
        _handler = RoundHandler(vm.deployCode("RoundHandler.sol:RoundHandler", arguments));
        _handler.newTask(2);
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev Actions that move a round on stand more than once.
    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory actions = new bytes4[](16);
        for (uint256 i = 0; i < 3; ++i) {
            actions[i] = RoundHandler.claimOne.selector;
            actions[3 + i] = RoundHandler.submitOne.selector;
        }
        (actions[6], actions[7]) = (RoundHandler.collectOne.selector, RoundHandler.collectOne.selector);
        (actions[8], actions[9]) = (RoundHandler.finaliseOne.selector, RoundHandler.wait_.selector);
        (actions[10], actions[11]) = (RoundHandler.expireOne.selector, RoundHandler.disputeOne.selector);
        (actions[12], actions[13]) = (RoundHandler.awardOne.selector, RoundHandler.closeOne.selector);
        (actions[14], actions[15]) = (RoundHandler.newTask.selector, RoundHandler.playOn.selector);
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), actions);
    }

    function invariant_rounds_hold() external view {
        check();
    }

    /// @dev The handler's actions from one seed, until each has been done: the invariant is not held over runs in which
    /// nothing happens.
    /// forge-config: default.fuzz.runs = 4
    /// forge-config: full.fuzz.runs = 40
    function testFuzz_rounds_everyActionIsDone(uint256 seed) public {
        for (uint256 i = 0; i < 13_000; ++i) {
            _act(uint256(keccak256(abi.encode(seed, i))));
            if (i % 1000 != 999) continue;
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
        }
        TaskId[] memory tasks = _handler.taskNumbers();
        for (uint256 i = 0; i < tasks.length; ++i) {
            _checkEscrow(tasks[i]);
        }
    }

    function _checkEscrow(TaskId number) private view {
        ITrainingLedger.Task memory task = ledger.getTask(number);
        uint256 left = vault.escrowOf(number);
        if (task.currentRound == task.parameters.rounds) {
            vm.assertEq(left, 0, "escrow of a complete task");
        } else if (!task.closed) {
            vm.assertEq(left, _handler.posted(number) - _handler.paid(number), "escrow");
        } else {
            uint256 running = 0;
            uint32 slots = task.parameters.slotsPerRound;
            for (uint32 slot = 0; slot <= slots; ++slot) {
                ITrainingLedger.SlotStatus status = ledger.getSlot(number, task.currentRound, slot).status;
                bool runs =
                    status == ITrainingLedger.SlotStatus.Leased || status == ITrainingLedger.SlotStatus.Submitted;
                if (runs) running += slot == slots ? task.parameters.mergeReward : task.parameters.slotReward;
            }
            vm.assertEq(left, running, "escrow of a closed task");
        }
    }

    function _neverDone() private view returns (string memory) {
        string[21] memory actions = [
            "post",
            "claim",
            "claim of a merge",
            "claim refused",
            "submit",
            "submit a merge",
            "submission refused",
            "collect",
            "collection refused",
            "finalise",
            "finalise a merge",
            "finalised too early",
            "void",
            "expire",
            "free release",
            "running lease expired",
            "fall",
            "fall of a merge",
            "won defence",
            "award",
            "close"
        ];
        for (uint256 i = 0; i < actions.length; ++i) {
            if (_handler.done(actions[i]) == 0) return actions[i];
        }
        return "";
    }

    function _act(uint256 luck) private {
        uint256 action = luck % 26;
        luck >>= 8;
        if (action < 2) _handler.claimOne(luck);
        else if (action < 4) _handler.submitOne(luck);
        else if (action < 12) _handler.playOn(luck);
        else if (action < 14) _handler.collectOne(luck);
        else if (action < 18) _handler.finaliseOne(luck);
        else if (action == 18) _handler.expireOne(luck);
        else if (action < 21 && luck & 1 << 200 == 0) _handler.disputeOne(luck);
        else if (action == 21) _handler.awardOne(luck);
        else if (action == 22 && luck & 15 == 0) _handler.closeOne(luck);
        else if (action < 25) _handler.wait_(luck % (luck & 768 == 0 ? 900 : 200));
        else if (luck & 63 == 0 || _handler.idle()) _handler.newTask(luck);
    }
}
