// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root, TaskId} from "../types/Identifiers.sol";

/// @title Where a submission is challenged
/// @notice The ledger knows one game, fixed at deployment, and believes its verdicts. The game reports each opened and
/// settled dispute through `ITrainingLedger.gameOpened` and `gameSettled`.
/// @dev The truth of one step sits behind the game; the ledger never sees programs, traces or clocks.
interface IDisputeGame {
    /// @notice Thrown by a deployment whose game decides nothing yet.
    error DisputesNotAvailable();

    /// @notice Challenges a submission by committing to the state root that the challenger computed.
    /// @param attempt The attempt of the slot whose submission is meant.
    /// @param submittedRoot The root that is disputed; another root in the slot makes the call revert.
    /// @param challengerRoot What the challenger says the segment ends in.
    function open(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root submittedRoot, Root challengerRoot)
        external
        returns (uint256 game);

    /// @notice Whether this game can be opened at all. Clients show it before anybody stakes.
    function available() external view returns (bool);
}
