// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";

/// @title A ledger with one submission, of which it says what it was told; for tests only
/// @notice It holds no money: it is there so that games can be played about submissions of any kind, merges among them.
/// It is its own vault, where nobody has operators.
contract ToldLedger {
    ITrainingLedger.Disputed private _disputed;

    /// @notice How the last game ended.
    IDisputeGame.Outcome public outcome;

    /// @notice Sets what games are about, whatever they name.
    function tell(ITrainingLedger.Disputed calldata disputed) external {
        _disputed = disputed;
    }

    /// @notice As `ITrainingLedger.gameSettled`.
    function gameSettled(TaskId, uint32, uint32, uint32, IDisputeGame.Outcome settled, address) external {
        outcome = settled;
    }

    /// @notice As `ITrainingLedger.vault`.
    function vault() external view returns (address) {
        return address(this);
    }

    /// @notice As `ITrainingLedger.gameOpened`.
    function gameOpened(TaskId, uint32, uint32, uint32, Root, address)
        external
        view
        returns (ITrainingLedger.Disputed memory)
    {
        return _disputed;
    }

    /// @notice As `ITrainingLedger.getSlot`: the first attempt.
    function getSlot(TaskId, uint32, uint32) external pure returns (ITrainingLedger.Slot memory slot) {
        return slot;
    }

    /// @notice As `IStakeVault.isOperator`.
    function isOperator(address, address) external pure returns (bool) {
        return false;
    }
}
