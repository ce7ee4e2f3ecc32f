// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {AuditFixture} from "./base/AuditFixture.sol";

/// @title Gas of an audit, call by call, as whole transactions
/// @dev As `GasSnapshotTest`. Two auditors share the nine votes.
contract AuditGasSnapshotTest is AuditFixture {
    string private constant GROUP = "gas";

    function test_audit_gasSnapshot() public {
        vm.prank(ANNA);
        committee.enrol(1);
        vm.snapshotGasLastCall(GROUP, "audit, enrol one seat");
        vm.prank(ANNA);
        committee.resign(0);
        vm.snapshotGasLastCall(GROUP, "audit, resign");
        ask();
        vm.snapshotGasLastCall(GROUP, "audit, request");
        bytes32 seed = drawWith(seedFor(6));
        vm.snapshotGasLastCall(GROUP, "audit, draw");
        commitAs(ANNA, seed, _root);
        vm.snapshotGasLastCall(GROUP, "audit, commit");
        commitAs(BORIS, seed, _root);
        vm.warp(uint256(audit().commitEnd) + 1);
        revealAs(BORIS, _root);
        vm.snapshotGasLastCall(GROUP, "audit, reveal");
        revealAs(ANNA, _root);
        vm.snapshotGasLastCall(GROUP, "audit, reveal that makes the agreement");
        committee.collect(_audit, ANNA);
        vm.snapshotGasLastCall(GROUP, "audit, collect");
        vm.warp(uint256(audit().revealEnd) + 1);
        committee.close(_audit);
        vm.snapshotGasLastCall(GROUP, "audit, close");
    }
}
