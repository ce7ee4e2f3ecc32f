// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {TaskId, auditBudget} from "../types/Identifiers.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {AuditHandler} from "./base/AuditHandler.sol";
import {Fixture} from "./base/Fixture.sol";

/// @title What holds of audits whatever people do
/// forge-config: default.invariant.runs = 12
/// forge-config: default.invariant.depth = 120
/// forge-config: full.invariant.runs = 256
contract AuditInvariantsTest is Fixture {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    AuditHandler private _handler;
    address[] private _auditors = [address(0xA1), address(0xA2)];

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < _auditors.length; ++i) {
            arm(_auditors[i]);
            vm.prank(_auditors[i]);
            committee.enrol(6);
        }
        bytes memory arguments = abi.encode(token, vault, ledger, game, committee, _auditors);
        _handler = AuditHandler(vm.deployCode("AuditHandler.sol:AuditHandler", arguments));
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory actions = new bytes4[](16);
        actions[0] = AuditHandler.newWork.selector;
        actions[1] = AuditHandler.enrol.selector;
        actions[2] = AuditHandler.resign.selector;
        actions[3] = AuditHandler.request.selector;
        actions[4] = AuditHandler.draw.selector;
        actions[5] = AuditHandler.commit.selector;
        actions[6] = AuditHandler.reveal.selector;
        actions[7] = AuditHandler.collect.selector;
        actions[8] = AuditHandler.close.selector;
        actions[9] = AuditHandler.evict.selector;
        actions[10] = AuditHandler.finalise.selector;
        actions[11] = AuditHandler.wait_.selector;
        actions[12] = AuditHandler.commit.selector;
        actions[13] = AuditHandler.reveal.selector;
        actions[14] = AuditHandler.draw.selector;
        actions[15] = AuditHandler.request.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), actions);
    }

    function invariant_seatsAreBackedByStake() public view {
        uint256 seats = 0;
        for (uint256 i = 0; i < _auditors.length; ++i) {
            uint256 held = committee.seatsOf(_auditors[i]);
            vm.assertEq(vault.seatedOf(_auditors[i]), held * SEAT_STAKE, "seated");
            vm.assertEq(lockedOf(_auditors[i]), held * SEAT_STAKE, "auditors lock nothing else here");
            seats += held;
        }
        vm.assertEq(committee.seatCount(), seats, "the register");
    }

    function invariant_budgetsPayWhatIsPromised() public view {
        assertSolvent();
        uint256 last = ledger.taskCount();
        for (uint64 number = 1; number <= last; ++number) {
            TaskId task = TaskId.wrap(number);
            uint256 left = _handler.funded(task) - _handler.paid(task) - _handler.refunded(task);
            vm.assertEq(vault.escrowOf(auditBudget(task)), left, "in is out");
            vm.assertLe(committee.budgetOf(task).reserved, left, "what is reserved is there");
        }
    }

    function invariant_noWindowEndsBeforeItsFloor() public view {
        TaskId task = _handler.task();
        if (TaskId.unwrap(task) == 0) return;
        ITrainingLedger.Slot memory slot = ledger.getSlot(task, 0, 0);
        vm.assertGe(slot.deadline, _handler.submittedAt() + LEASE, "the floor");
    }

    /// @notice A long life of many luck words in which every action succeeds; otherwise the invariants would say little.
    function test_everyActionIsReached() public {
        for (uint256 step = 0; step < 3_000; ++step) {
            uint256 luck = uint256(keccak256(abi.encode("luck", step)));
            _act(luck % 24, luck >> 8);
            if (step % 50 == 0) {
                invariant_seatsAreBackedByStake();
                invariant_budgetsPayWhatIsPromised();
                invariant_noWindowEndsBeforeItsFloor();
            }
        }
        string[12] memory actions = [
            "fund",
            "enrol",
            "resign",
            "request",
            "draw",
            "commit",
            "reveal",
            "agree",
            "collect",
            "close",
            "evict",
            "refund"
        ];
        for (uint256 i = 0; i < actions.length; ++i) {
            vm.assertGt(_handler.done(actions[i]), 0, actions[i]);
        }
    }

    function _act(uint256 choice, uint256 luck) private {
        // New work ends what is going on, so it is rare.
        if (choice == 0 && luck % 3 == 0) _handler.newWork(uint96(luck >> 8));
        else if (choice == 1) _handler.enrol(luck, luck >> 128);
        else if (choice == 2 && luck % 4 == 0) _handler.resign(luck >> 8);
        else if (choice < 6) _handler.request();
        else if (choice < 9) _handler.draw(luck, bytes32(luck));
        else if (choice < 13) _handler.commit(luck, luck >> 16, luck % 8 != 0);
        else if (choice < 17) _handler.reveal(luck, luck >> 16);
        else if (choice < 19) _handler.collect(luck, luck >> 16);
        else if (choice == 19) _handler.close(luck);
        else if (choice == 20) _handler.evict(luck, luck >> 16);
        else if (choice == 21) _handler.finalise();
        else _handler.wait_(luck);
    }
}
