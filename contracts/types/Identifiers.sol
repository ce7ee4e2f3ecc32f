// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @notice Number of a task, counted from 1 in the order of posting. After a reorganisation the same number may name
/// another task, so every call that acts on a task also names its specification hash, attempt or roots.
type TaskId is uint64;

/// @notice Storage key of one slot: `task << 64 | round << 32 | slot`.
type SlotKey is uint256;

/// @notice Storage key of one attempt of a slot: `slot key << 32 | attempt`.
type AttemptKey is uint256;

/// @notice A commitment as docs/formats.md defines it (SHA-256, never zero).
type Root is bytes32;

using {taskEquals as ==} for TaskId global;
using {rootEquals as ==, rootDiffers as !=} for Root global;

/// @return True where both numbers name the same task.
function taskEquals(TaskId left, TaskId right) pure returns (bool) {
    return TaskId.unwrap(left) == TaskId.unwrap(right);
}

/// @return True where both roots are the same 32 bytes.
function rootEquals(Root left, Root right) pure returns (bool) {
    return Root.unwrap(left) == Root.unwrap(right);
}

/// @return True where the roots differ.
function rootDiffers(Root left, Root right) pure returns (bool) {
    return Root.unwrap(left) != Root.unwrap(right);
}

/// @notice The storage key of a slot.
function slotKey(TaskId task, uint32 round, uint32 slot) pure returns (SlotKey) {
    return SlotKey.wrap((uint256(TaskId.unwrap(task)) << 64) | (uint256(round) << 32) | uint256(slot));
}

/// @notice The task, round and slot that a key names.
function slotOfKey(SlotKey key) pure returns (TaskId task, uint32 round, uint32 slot) {
    uint256 word = SlotKey.unwrap(key);
    // forge-lint: disable-next-item(unsafe-typecast) -- its fields, each of its own width
    return (TaskId.wrap(uint64(word >> 64)), uint32(word >> 32), uint32(word));
}

/// @notice The vault's number of the escrow that a task's audits are paid from: the task's, with the highest bit set.
/// Tasks are counted from 1, so no task ever gets such a number.
function auditBudget(TaskId task) pure returns (TaskId) {
    return TaskId.wrap(TaskId.unwrap(task) | (uint64(1) << 63));
}

/// @notice The task, round, slot and attempt that a key names.
function attemptOf(AttemptKey key) pure returns (TaskId task, uint32 round, uint32 slot, uint32 attempt) {
    uint256 word = AttemptKey.unwrap(key);
    // forge-lint: disable-next-item(unsafe-typecast) -- its fields, each of its own width
    return (TaskId.wrap(uint64(word >> 96)), uint32(word >> 64), uint32(word >> 32), uint32(word));
}

/// @notice The storage key of an attempt of a slot.
function attemptKey(TaskId task, uint32 round, uint32 slot, uint32 attempt) pure returns (AttemptKey) {
    return AttemptKey.wrap((SlotKey.unwrap(slotKey(task, round, slot)) << 32) | uint256(attempt));
}

/// @notice The vault's number of an open task's escrow: the task's, with bit 62 set. Tasks are counted from 1, in each ledger,
/// so no other escrow ever gets such a number.
function openEscrow(TaskId task) pure returns (TaskId) {
    return TaskId.wrap(TaskId.unwrap(task) | (uint64(1) << 62));
}
