// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../types/Identifiers.sol";

/// @title A game that ends as whoever calls `decide` says; for tests only
/// @notice It judges nothing and holds no bonds: it is there so that the ledger's side of disputes can be tested.
contract DecidedDisputeGame is IDisputeGame {
    struct Game {
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        address challenger;
        bool settled;
    }

    ITrainingLedger public immutable LEDGER;
    Game[] private _games;

    error AlreadySettled(uint256 game);

    constructor(ITrainingLedger ledger) {
        LEDGER = ledger;
    }

    /// @inheritdoc IDisputeGame
    function open(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root submittedRoot, Root)
        external
        returns (uint256 game)
    {
        game = _games.length;
        _games.push(Game(task, round, slot, attempt, msg.sender, false));
        LEDGER.gameOpened(task, round, slot, attempt, submittedRoot);
    }

    /// @notice Ends a game as told. A challenger that won is the winner.
    function decide(uint256 game, bool submissionFell) external {
        decideFor(game, submissionFell, submissionFell ? _games[game].challenger : address(0));
    }

    /// @notice How many games were opened.
    function count() external view returns (uint256) {
        return _games.length;
    }

    /// @notice One game.
    function getGame(uint256 game) external view returns (Game memory) {
        return _games[game];
    }

    /// @inheritdoc IDisputeGame
    function available() external pure returns (bool) {
        return true;
    }

    /// @notice Ends a game as told, with a winner of the caller's choice.
    function decideFor(uint256 game, bool submissionFell, address winner) public {
        Game storage decided = _games[game];
        require(!decided.settled, AlreadySettled(game));
        decided.settled = true;
        LEDGER.gameSettled(decided.task, decided.round, decided.slot, decided.attempt, submissionFell, winner);
    }
}
