// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {Root, TaskId} from "./types/Identifiers.sol";

/// @title The dispute game of deployments that have none
/// @notice Says so to whoever asks, and opens nothing. A wrong submission is then only detected off chain.
contract NoDisputeGame is IDisputeGame {
    /// @inheritdoc IDisputeGame
    function available() external pure returns (bool) {
        return false;
    }

    /// @inheritdoc IDisputeGame
    function open(TaskId, uint32, uint32, uint32, Root, Root) external pure returns (uint256) {
        revert DisputesNotAvailable();
    }
}
