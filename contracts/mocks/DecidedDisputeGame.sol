// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";

/// @title A game that ends as whoever calls `decide` says; for tests only
/// @notice It judges nothing and has no moves: it is there so that the ledger's side of disputes can be tested.
contract DecidedDisputeGame {
    struct Game {
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        Root claimed;
        address challenger;
        IDisputeGame.Outcome outcome;
    }

    ITrainingLedger public immutable LEDGER;
    Game[] private _games;

    error AlreadySettled(uint256 game);

    constructor(ITrainingLedger ledger) {
        LEDGER = ledger;
    }

    /// @notice Challenges a submission in the caller's name.
    function open(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root submitted, Root claimed)
        external
        returns (uint256 game)
    {
        game = _games.length;
        _games.push(Game(task, round, slot, attempt, claimed, msg.sender, IDisputeGame.Outcome.Running));
        LEDGER.gameOpened(task, round, slot, attempt, submitted, msg.sender);
    }

    /// @notice Ends a game as told.
    function decide(uint256 game, IDisputeGame.Outcome outcome) external {
        Game storage decided = _games[game];
        require(decided.outcome == IDisputeGame.Outcome.Running, AlreadySettled(game));
        decided.outcome = outcome;
        LEDGER.gameSettled(decided.task, decided.round, decided.slot, decided.attempt, outcome, decided.challenger);
    }

    /// @notice How many games were opened.
    function count() external view returns (uint256) {
        return _games.length;
    }

    /// @notice One game.
    function getGame(uint256 game) external view returns (Game memory) {
        return _games[game];
    }

    /// @notice As `IDisputeGame.earliest`.
    function earliest(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root root)
        external
        view
        returns (address)
    {
        for (uint256 i = 0; i < _games.length; ++i) {
            Game memory played = _games[i];
            bool same = played.task == task && played.round == round && played.slot == slot;
            bool lost = played.outcome == IDisputeGame.Outcome.DefenderWon;
            if (same && played.attempt == attempt && played.claimed == root && !lost) return played.challenger;
        }
        return address(0);
    }

    /// @notice As `IDisputeGame.available`.
    function available() external pure returns (bool) {
        return true;
    }
}
