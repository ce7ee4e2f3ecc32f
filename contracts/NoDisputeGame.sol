// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "./interfaces/IDisputeGame.sol";

/// @title The dispute game of deployments that have none
/// @notice Says so to whoever asks, and does nothing else. A wrong submission is then only detected off chain.
contract NoDisputeGame {
    fallback() external {
        revert IDisputeGame.DisputesNotAvailable();
    }

    /// @notice Whether this game can be opened at all.
    function available() external pure returns (bool) {
        return false;
    }
}
