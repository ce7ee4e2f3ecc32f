// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title Where a sample begins
/// @notice docs/formats.md, section 5, "Batches".
library BatchPosition {
    /// @notice Number of the part of a data set that training reads; held-out tokens have no such positions.
    uint256 internal constant TRAIN = 2;

    bytes20 private constant DOMAIN = "trainledger/batch/1\x00";

    /// @notice First token of a sample of the train part; 0 where the part has no `context + 1` tokens.
    /// @param step `counter.step` before the run, of a counter below zero 2**64 more.
    function ofSample(uint64 seed, uint32 slot, uint64 step, uint32 sample, uint256 tokens, uint256 context)
        internal
        pure
        returns (uint256)
    {
        if (tokens <= context) return 0;
        bytes32 digest = sha256(abi.encodePacked(DOMAIN, seed, slot, step, sample));
        return uint256(uint64(bytes8(digest))) % (tokens - context);
    }
}
