// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {TaskId} from "../types/Identifiers.sol";
import {RoundFixture} from "./base/RoundFixture.sol";

/// @title Gas of rounds of many slots, as whole transactions
/// @dev As `GasSnapshotTest`. What a slot costs does not depend on how many there are.
contract RoundGasSnapshotTest is RoundFixture {
    string private constant GROUP = "gas";

    function test_rounds_gasSnapshot() public {
        uint256 few = _slot(8, "8");
        uint256 many = _slot(128, "128");
        vm.assertLt(many, few + few / 100, "flat in the number of slots");
    }

    /// @dev A round whose worker has been paid before; gives the gas of its third slot.
    function _slot(uint32 slots, string memory which) private returns (uint256) {
        TaskId task = post(groupParameters(slots));
        play(task, 0, 0);
        finaliseSlot(task, 0);
        play(task, 1, 1);
        claimSlot(task, 2, WORKER);
        uint256 claimed = vm.snapshotGasLastCall(GROUP, string.concat("rounds, claim, slots ", which));
        submitSlot(task, 2, WORKER, 2);
        uint256 sent = vm.snapshotGasLastCall(GROUP, string.concat("rounds, submit, slots ", which));
        finaliseSlot(task, 2);
        uint256 finalised = vm.snapshotGasLastCall(GROUP, string.concat("rounds, finalise, slots ", which));
        for (uint32 slot = 3; slot < slots; ++slot) {
            play(task, slot, slot);
        }
        book.collect(task, 0, 0, type(uint256).max);
        uint256 collected = vm.snapshotGasLastCall(GROUP, string.concat("rounds, collect, slots ", which));
        vm.assertLt(collected / (slots + 1), 30_000, "of a slot");
        return claimed + sent + finalised;
    }
}
