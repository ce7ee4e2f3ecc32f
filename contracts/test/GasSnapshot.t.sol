// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {TaskId} from "../types/Identifiers.sol";
import {Fixture} from "./base/Fixture.sol";

/// @title Gas of every call that people pay for, as whole transactions
/// @dev Run with `--isolate`, so that each call is a transaction of its own: base fee, calldata and cold storage count.
/// tools/snapshots.py does, and holds the numbers against snapshots/gas.json.
contract GasSnapshotTest is Fixture {
    string private constant GROUP = "gas";

    function test_lifeCycle_gasSnapshot() public {
        vm.prank(REQUESTER);
        vault.stake(STRANGER, 10 ether);
        vm.snapshotGasLastCall(GROUP, "stake, first");
        vm.prank(REQUESTER);
        vault.stake(STRANGER, 10 ether);
        vm.snapshotGasLastCall(GROUP, "stake, again");

        ITrainingLedger.TaskParameters memory p = parameters();
        p.stateTensors = 160;
        TaskId task = post(p);
        vm.snapshotGasLastCall(GROUP, "postTask");
        _round(task, WORKER, "first", 268_000); // opens the storage slot of the worker's credit
        _round(task, WORKER, "again", 250_000);
        _round(task, WORKER, "last of task", 276_000); // refunds the requester, too

        vm.prank(WORKER);
        vault.withdraw();
        vm.snapshotGasLastCall(GROUP, "withdraw");
    }

    function test_endings_gasSnapshot() public {
        TaskId task = post();
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1);
        ledger.expireLease(task, 0, 0, 0);
        vm.snapshotGasLastCall(GROUP, "expireLease");
        claimAs(task, WORKER);
        vm.warp(block.timestamp + LEASE + 1);
        claimAs(task, OTHER);
        vm.snapshotGasLastCall(GROUP, "claim over a lapsed lease");
        vm.prank(REQUESTER);
        ledger.closeTask(task);
        vm.snapshotGasLastCall(GROUP, "closeTask");

        vm.prank(WORKER);
        vault.requestUnbond(1 ether);
        vm.snapshotGasLastCall(GROUP, "requestUnbond");
        vm.warp(block.timestamp + UNBONDING_DELAY);
        vm.prank(WORKER);
        vault.completeUnbond();
        vm.snapshotGasLastCall(GROUP, "completeUnbond");
    }

    function _round(TaskId task, address worker, string memory which, uint256 limit) private {
        claimAs(task, worker);
        uint256 claimed = vm.snapshotGasLastCall(GROUP, string.concat("claim, ", which));
        submitAs(task, worker, 90, LOSS_3);
        uint256 sent = vm.snapshotGasLastCall(GROUP, string.concat("submit, ", which));
        finaliseNow(task);
        uint256 finalised = vm.snapshotGasLastCall(GROUP, string.concat("finalise, ", which));
        uint256 round = claimed + sent + finalised;
        vm.snapshotValue(GROUP, string.concat("claim + submit + finalise, ", which), round);
        vm.assertLt(sent, 90_000, "gas of a submission");
        vm.assertLt(round, limit, "gas of a round");
    }
}
