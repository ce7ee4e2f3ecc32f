// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IOpenLedger} from "../interfaces/IOpenLedger.sol";
import {TaskId} from "../types/Identifiers.sol";
import {OpenFixture} from "./base/OpenFixture.sol";

/// @dev As `GasSnapshotTest`. What a state costs does not depend on how many there are.
contract OpenGasSnapshotTest is OpenFixture {
    string private constant GROUP = "gas";

    function setUp() public override {
        super.setUp();
        heldOutBytes = 2050;
    }

    function test_openTasks_gasSnapshot() public {
        uint256 few = _state(4, "4");
        uint256 many = _state(200, "200");
        vm.assertLt(many, few + few / 100, "flat in the number of states");
    }

    /// @dev The gas of the second state of three, in a round of so many slots; its worker has been paid before.
    function _state(uint32 slots, string memory which) private returns (uint256 sum) {
        IOpenLedger.TaskParameters memory p = openParameters();
        p.slotsPerRound = slots;
        TaskId task = postOpen(p, 1);
        commitAs(task, WORKER, trained(1));
        commitAs(task, OTHER, trained(2));
        sum = vm.snapshotGasLastCall(GROUP, string.concat("open tasks, commit, slots ", which));
        commitAs(task, STRANGER, trained(3));
        vm.warp(block.timestamp + COMMIT + 1);
        revealAs(task, WORKER, trained(1));
        revealAs(task, OTHER, trained(2));
        sum += vm.snapshotGasLastCall(GROUP, string.concat("open tasks, reveal, slots ", which));
        revealAs(task, STRANGER, trained(3));
        showHeldOut(task);
        vm.snapshotGasLastCall(GROUP, string.concat("open tasks, held-out data of 2,050 bytes, slots ", which));
        scoreAs(task, slots, CHALLENGER, LOSS_4);
        scoreAs(task, 0, WORKER, LOSS_3);
        scoreAs(task, 1, OTHER, LOSS_3H);
        sum += vm.snapshotGasLastCall(GROUP, string.concat("open tasks, score, slots ", which));
        scoreAs(task, 2, STRANGER, LOSS_3H);
        finaliseScore(task, slots);
        finaliseScore(task, 0);
        finaliseScore(task, 1);
        sum += vm.snapshotGasLastCall(GROUP, string.concat("open tasks, finalise, slots ", which));
        finaliseScore(task, 2);
        vm.assertEq(uint256(open.getTask(task).phase), uint256(IOpenLedger.Phase.Complete), "complete");
    }
}
