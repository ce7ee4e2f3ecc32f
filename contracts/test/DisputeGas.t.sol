// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {DisputeFixture} from "./base/DisputeFixture.sol";
import {DisputeWorld} from "./base/DisputeWorld.sol";
import {Vm} from "./base/Vm.sol";

/// @title Gas of a dispute, move by move, as whole transactions
/// @dev As `GasSnapshotTest`. The last move asks a referee that only says what it was told, so it is left out here: what
/// the referee costs is in benchmarks/results/referee_gas.md.
contract DisputeGasSnapshotTest is DisputeFixture {
    string private constant GROUP = "gas";

    /// @dev 101 runs, 70 operations, a tensor of 79 chunks and a fold of 71 blocks.
    function test_longestWay_gasSnapshot() public {
        player.prepare(DisputeWorld.Lie(DisputeWorld.LieKind.ElementByte, 36, 3, 8), false);
        (IDisputeGame.Opening memory opening, bytes32[] memory points) = player.opening(CHALLENGER);
        vm.recordLogs();
        vm.prank(CHALLENGER);
        disputes.open(opening, points);
        uint256 total = vm.snapshotGasLastCall(GROUP, "dispute, open");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        (, IDisputeGame.Position memory started) =
            abi.decode(logs[logs.length - 1].data, (address, IDisputeGame.Position));
        player.resume(started, "");
        string[6] memory moves = ["narrow", "enterRun", "descend", "enterTensor", "openChunk", "openFold"];
        for (uint256 i = 0; i < moves.length; ++i) {
            total += _move(string.concat("dispute, ", moves[i]));
        }
        vm.snapshotValue(GROUP, "dispute, all moves before the proof", total);
        vm.assertLt(total, 1_500_000, "gas of a dispute without its proof");
    }

    function test_late_gasSnapshot() public {
        player.prepare(DisputeWorld.Lie(DisputeWorld.LieKind.ElementByte, 36, 3, 8), false);
        player.open(CHALLENGER);
        IDisputeGame.Position memory position = player.position();
        vm.warp(uint256(position.since) + CLOCK + 1);
        disputes.settleLate(position);
        vm.snapshotGasLastCall(GROUP, "dispute, settleLate");
    }

    function _move(string memory name) private returns (uint256 gas) {
        bytes memory call = player.nextCall();
        vm.recordLogs();
        vm.prank(player.mover());
        // solhint-disable-next-line avoid-low-level-calls
        (bool good,) = address(disputes).call(call);
        gas = vm.snapshotGasLastCall(GROUP, name);
        vm.assertTrue(good, name);
        (IDisputeGame.Position memory next, bytes memory shown) =
            abi.decode(vm.getRecordedLogs()[0].data, (IDisputeGame.Position, bytes));
        player.resume(next, shown);
    }
}
