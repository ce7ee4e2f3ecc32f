// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {DecidedDisputeGame} from "../../mocks/DecidedDisputeGame.sol";
import {IStakeVault} from "../../interfaces/IStakeVault.sol";
import {ITrainingToken} from "./ITrainingToken.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {Handler} from "./Handler.sol";
import {Vm} from "./Vm.sol";

/// @title What people do, in any order, with the real game
/// @notice Parties open games and narrow them with roots made up; most games end by the clock. Others try to move, too
/// early to settle, and to use positions of the past: none of it may succeed.
contract DisputeHandler is Handler {
    IDisputeGame private immutable GAME;

    mapping(uint256 game => bytes) private _positions;

    constructor(ITrainingToken token_, IStakeVault vault_, ITrainingLedger ledger_, address game_)
        Handler(token_, vault_, ledger_, DecidedDisputeGame(game_))
    {
        GAME = IDisputeGame(game_);
    }

    /// @inheritdoc Handler
    function openGame(uint256 which, uint256 who) external override {
        (bool found, TaskId task, ITrainingLedger.Task memory t, ITrainingLedger.Slot memory slot) = _pick(which);
        bool open = slot.status == ITrainingLedger.SlotStatus.Submitted && block.timestamp <= slot.deadline;
        address person = _person(who);
        if (!found || !open || stakedOf(person) - lockedOf(person) < t.parameters.bond) return;
        Root claimed =
            who & 1 > 0 ? redoneRoot(task, t.currentRound, slot.attempt + 1, LOSS_3) : Root.wrap(bytes32(uint256(1)));
        IDisputeGame.Opening memory opening =
            IDisputeGame.Opening(person, task, t.currentRound, 0, slot.attempt, slot.stateRoot);
        bytes32[] memory points = _points(slot.steps + 1, uint256(Root.unwrap(claimed)));
        points[points.length - 1] = Root.unwrap(claimed);
        bytes memory call = abi.encodeCall(IDisputeGame.open, (opening, points));
        _mustFail(person == WORKER ? OTHER : WORKER, address(GAME), call, "opened with another's stake");
        vm.recordLogs();
        vm.prank(person);
        uint256 number = GAME.open(opening, points);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        (, IDisputeGame.Position memory position) =
            abi.decode(logs[logs.length - 1].data, (address, IDisputeGame.Position));
        _positions[number] = abi.encode(position);
        bonds[person] += t.parameters.bond;
        ++done["open game"];
    }

    /// @notice The side to move narrows, as long as there is more than one run; others cannot.
    function move(uint256 which, uint256 luck) external {
        (bool found, IDisputeGame.Position memory position) = _running(which);
        if (!found) return;
        uint256 length = position.high - position.low;
        uint256 count = length < 32 ? length : 32;
        uint256 place = luck % count;
        length = length * (place + 1) / count - length * place / count;
        if (length == 1) return;
        // Roots that nobody has put on the table yet: with the other side's own there would be nothing to dispute.
        uint256 seed = uint256(keccak256(abi.encode(luck, position.moves)));
        bytes memory call = abi.encodeCall(IDisputeGame.narrow, (position, place, _points(length, seed)));
        (address mover, address waiter) = _sides(position);
        if (waiter != mover) _mustFail(waiter, address(GAME), call, "moved out of turn");
        _mustFail(address(0xBAD), address(GAME), call, "moved for somebody else");
        (, uint64 deadline,) = GAME.getGame(position.matter.game);
        if (block.timestamp > deadline) {
            _mustFail(mover, address(GAME), call, "moved late");
            return;
        }
        vm.recordLogs();
        vm.prank(mover);
        GAME.narrow(position, place, _points(length, seed));
        (IDisputeGame.Position memory next,) = abi.decode(vm.getRecordedLogs()[0].data, (IDisputeGame.Position, bytes));
        _positions[position.matter.game] = abi.encode(next);
        (mover,) = _sides(next);
        _mustFail(mover, address(GAME), call, "moved twice for one position");
        ++done["move"];
    }

    /// @notice Ends a game whose side to move is late. Which side that is, the clock decides, and not `fell`.
    function settleGame(uint256 which, bool) external override {
        (bool found, IDisputeGame.Position memory position) = _running(which);
        if (!found) return;
        (, uint64 deadline,) = GAME.getGame(position.matter.game);
        bytes memory call = abi.encodeCall(IDisputeGame.settleLate, (position));
        if (block.timestamp <= deadline) {
            _mustFail(OTHER, address(GAME), call, "settled before the clock ran out");
            return;
        }
        _settle(position);
        _mustFail(OTHER, address(GAME), call, "settled twice");
    }

    /// @notice Frees the bond of a game whose submission fell in another one.
    function release(uint256 which) external {
        (bool found, IDisputeGame.Position memory position) = _running(which);
        if (!found) return;
        bytes memory call = abi.encodeCall(IDisputeGame.release, (position));
        if (_stands(position)) {
            _mustFail(position.matter.challenger, address(GAME), call, "released from a submission that stands");
            return;
        }
        _bookEnd(position, IDisputeGame.Outcome.Void);
        GAME.release(position);
        _mustFail(position.matter.challenger, address(GAME), call, "released twice");
        ++done["release"];
    }

    /// @notice Once all clocks have run out, every game ends, whatever its parties did or left undone.
    function endGames() external override {
        vm.warp(block.timestamp + 10 * uint256(365 days));
        for (uint256 number = 1; number <= GAME.gameCount(); ++number) {
            (,, IDisputeGame.Outcome outcome) = GAME.getGame(number);
            if (outcome == IDisputeGame.Outcome.Running) _settle(_positionOf(number));
        }
    }

    function _settle(IDisputeGame.Position memory position) private {
        IDisputeGame.Outcome outcome =
            position.defenderToMove ? IDisputeGame.Outcome.ChallengerWon : IDisputeGame.Outcome.DefenderWon;
        if (!_stands(position)) outcome = IDisputeGame.Outcome.Void;
        _bookEnd(position, outcome);
        GAME.settleLate(position);
        (,, IDisputeGame.Outcome ended) = GAME.getGame(position.matter.game);
        vm.assertEq(uint256(ended), uint256(outcome), "outcome");
    }

    function _bookEnd(IDisputeGame.Position memory position, IDisputeGame.Outcome outcome) private {
        IDisputeGame.Matter memory matter = position.matter;
        _bookEnd(matter.task, matter.round, matter.attempt, matter.challenger, outcome);
    }

    /// @dev One of the newest games, where it runs.
    function _running(uint256 which) private view returns (bool, IDisputeGame.Position memory position) {
        uint256 count = GAME.gameCount();
        if (count == 0) return (false, position);
        uint256 number = count - which % (count < LIVELY_TASKS ? count : LIVELY_TASKS);
        (,, IDisputeGame.Outcome outcome) = GAME.getGame(number);
        return (outcome == IDisputeGame.Outcome.Running, _positionOf(number));
    }

    function _positionOf(uint256 number) private view returns (IDisputeGame.Position memory) {
        return abi.decode(_positions[number], (IDisputeGame.Position));
    }

    function _stands(IDisputeGame.Position memory position) private view returns (bool) {
        IDisputeGame.Matter memory matter = position.matter;
        ITrainingLedger.Slot memory slot = ledger.getSlot(matter.task, matter.round, 0);
        return slot.attempt == matter.attempt && slot.status == ITrainingLedger.SlotStatus.Submitted;
    }

    function _sides(IDisputeGame.Position memory position) private pure returns (address mover, address waiter) {
        (mover, waiter) = (position.matter.defender, position.matter.challenger);
        if (!position.defenderToMove) (mover, waiter) = (waiter, mover);
    }

    function _points(uint256 length, uint256 luck) private pure returns (bytes32[] memory points) {
        points = new bytes32[](length < 32 ? length : 32);
        for (uint256 i = 0; i < points.length; ++i) {
            points[i] = keccak256(abi.encode(luck, i));
        }
    }
}
