// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root, TaskId} from "../types/Identifiers.sol";
import {IDisputeGame} from "./IDisputeGame.sol";
import {ITrainingLedger} from "./ITrainingLedger.sol";

/// @title What a dispute game asks of the ledger whose submissions it judges
/// @notice `ITrainingLedger` and `IOpenLedger` have these functions; what they do is written there.
interface IDisputedLedger {
    function gameOpened(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root stateRoot, address challenger)
        external
        returns (ITrainingLedger.Disputed memory);

    function gameSettled(
        TaskId task,
        uint32 round,
        uint32 slot,
        uint32 attempt,
        IDisputeGame.Outcome outcome,
        address challenger
    ) external;

    function vault() external view returns (address);
    function getSlot(TaskId task, uint32 round, uint32 slot) external view returns (ITrainingLedger.Slot memory);
}
