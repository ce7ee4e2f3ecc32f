// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {IDisputedLedger} from "./interfaces/IDisputedLedger.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {TaskRules} from "./libraries/TaskRules.sol";
import {Root, TaskId} from "./types/Identifiers.sol";

/// @title What the game keeps, whose turn it is, and how it ends
/// @dev Positions, turns, clocks and ends; `DisputeGame` adds the moves. The ledger is believed; so is its vault about
/// who may act for whom. Nothing here loops.
abstract contract GameBoard is IDisputeGame {
    /// @dev Two storage slots. `next` is the game after this one among those that committed to the same root.
    struct StoredGame {
        bytes32 position;
        address challenger;
        uint40 deadline;
        Outcome outcome;
        uint48 next;
    }

    /// @dev Games of one attempt that committed to one root and were not lost, in the order of opening. One storage slot.
    struct Queue {
        uint128 first;
        uint128 last;
    }

    IDisputedLedger internal immutable _LEDGER;
    address internal immutable _REFEREE;
    uint32 internal immutable _MINIMUM_CLOCK;
    uint32 internal immutable _MINIMUM_MOVE;

    /// @inheritdoc IDisputeGame
    uint256 public gameCount;
    mapping(uint256 game => StoredGame) private _games;
    mapping(bytes32 key => Queue) private _queues;
    mapping(uint256 game => uint256) private _previous;

    /// @param ledger_ The only ledger whose submissions are judged. May have no code yet.
    /// @param referee_ An `IStepReferee`.
    /// @param minimumClock_ Least seconds that each side has in all.
    /// @param minimumMove_ Least seconds that a side has for each move.
    constructor(address ledger_, address referee_, uint32 minimumClock_, uint32 minimumMove_) {
        require(ledger_ != address(0), ITrainingLedger.InvalidParameter("ledger", 0));
        require(referee_ != address(0), ITrainingLedger.InvalidParameter("referee", 0));
        bool clockGood = minimumClock_ > 0 && minimumClock_ <= TaskRules.MAXIMUM_PERIOD;
        require(clockGood, ITrainingLedger.InvalidParameter("minimumClock", minimumClock_));
        bool moveGood = minimumMove_ > 0 && minimumMove_ <= minimumClock_;
        require(moveGood, ITrainingLedger.InvalidParameter("minimumMove", minimumMove_));
        _LEDGER = IDisputedLedger(ledger_);
        _REFEREE = referee_;
        _MINIMUM_CLOCK = minimumClock_;
        _MINIMUM_MOVE = minimumMove_;
    }

    /// @inheritdoc IDisputeGame
    function settleLate(Position memory position) external {
        StoredGame storage stored = _checkPosition(position);
        uint256 deadline = stored.deadline;
        require(block.timestamp > deadline, NotLate(deadline, block.timestamp));
        _end(position, !position.defenderToMove, true);
    }

    /// @inheritdoc IDisputeGame
    function release(Position memory position) external {
        _checkPosition(position);
        require(!_stands(position.matter), SubmissionStands(position.matter.game));
        _end(position, false, false);
    }

    /// @inheritdoc IDisputeGame
    function getGame(uint256 game) external view returns (bytes32 position, uint64 deadline, Outcome outcome) {
        StoredGame storage stored = _known(game);
        return (stored.position, stored.deadline, stored.outcome);
    }

    /// @inheritdoc IDisputeGame
    function earliest(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root root)
        external
        view
        returns (address)
    {
        return _games[_queues[_queueKey(task, round, slot, attempt, root)].first].challenger;
    }

    /// @inheritdoc IDisputeGame
    function minimumClock() external view returns (uint32) {
        return _MINIMUM_CLOCK;
    }

    /// @inheritdoc IDisputeGame
    function minimumMove() external view returns (uint32) {
        return _MINIMUM_MOVE;
    }

    /// @inheritdoc IDisputeGame
    function referee() external view returns (address) {
        return _REFEREE;
    }

    /// @inheritdoc IDisputeGame
    function available() external pure returns (bool) {
        return true;
    }

    /// @dev Keeps a new game, and its place among those who committed to the same root.
    function _start(Position memory position) internal {
        Matter memory matter = position.matter;
        StoredGame storage stored = _games[matter.game];
        stored.challenger = matter.challenger;
        _keep(stored, position);

        Queue storage queue = _queues[_queueKeyOf(matter)];
        uint128 last = queue.last;
        // forge-lint: disable-start(unsafe-typecast)
        // Games are counted one by one: 2**48 of them are never reached.
        if (last == 0) {
            (queue.first, queue.last) = (uint128(matter.game), uint128(matter.game));
        } else {
            _games[last].next = uint48(matter.game);
            _previous[matter.game] = last;
            queue.last = uint128(matter.game);
        }
        // forge-lint: disable-end(unsafe-typecast)
    }

    /// @dev The end of every move that decides nothing: the turn goes to the other side.
    function _moved(Position memory position, bytes memory posted) internal {
        uint256 used = block.timestamp - position.since;
        // forge-lint: disable-next-line(unsafe-typecast)
        uint32 left = used < position.moverSeconds ? position.moverSeconds - uint32(used) : 0; // below moverSeconds
        (position.moverSeconds, position.waiterSeconds) = (position.waiterSeconds, left);
        position.since = uint64(block.timestamp);
        position.defenderToMove = !position.defenderToMove;
        ++position.moves;
        _keep(_games[position.matter.game], position);
        emit Moved(position.matter.game, msg.sender, position, posted);
    }

    /// @dev The end of every move that proves something: `refuted` is whether the other side had posted something else.
    function _verdict(Position memory position, bool refuted) internal {
        _end(position, refuted == position.defenderToMove, false);
    }

    /// @dev The beginning of every move: it answers this game's position, in time, and comes from the side to move.
    function _begin(Position memory position) internal view {
        uint256 deadline = _checkPosition(position).deadline;
        require(block.timestamp <= deadline, TooLate(deadline, block.timestamp));
        _checkParty(position.defenderToMove ? position.matter.defender : position.matter.challenger);
    }

    /// @dev INVARIANT: only an account of a party, or an operator that it named in the vault, acts for it.
    function _checkParty(address party) internal view {
        bool good = msg.sender == party || IStakeVault(_LEDGER.vault()).isOperator(party, msg.sender);
        require(good, NotYourMove(msg.sender, party));
    }

    function _end(Position memory position, bool defenderWon, bool late) private {
        Matter memory matter = position.matter;
        // INVARIANT: once the submission has fell in another game, nobody wins or loses this one.
        Outcome outcome = Outcome.Void;
        if (_stands(matter)) outcome = defenderWon ? Outcome.DefenderWon : Outcome.ChallengerWon;
        StoredGame storage stored = _games[matter.game];
        (stored.position, stored.outcome) = (0, outcome);
        if (outcome == Outcome.DefenderWon) _unlink(matter);

        address winner = outcome == Outcome.DefenderWon ? matter.defender : matter.challenger;
        if (outcome == Outcome.Void) winner = address(0);
        emit GameEnded(matter.game, matter.task, winner, outcome, msg.sender, late);
        _LEDGER.gameSettled(matter.task, matter.round, matter.slot, matter.attempt, outcome, matter.challenger);
    }

    /// @dev Who lost has no claim on the prize. Constant work, whatever the number of games.
    function _unlink(Matter memory matter) private {
        Queue storage queue = _queues[_queueKeyOf(matter)];
        uint256 before = _previous[matter.game];
        uint48 next = _games[matter.game].next;
        if (before == 0) queue.first = next;
        else _games[before].next = next;
        // forge-lint: disable-next-line(unsafe-typecast)
        if (next == 0) queue.last = uint128(before); // a game's number
        else _previous[next] = before;
    }

    function _keep(StoredGame storage stored, Position memory position) private {
        uint256 time = position.moverSeconds > _MINIMUM_MOVE ? position.moverSeconds : _MINIMUM_MOVE;
        stored.position = keccak256(abi.encode(position));
        // forge-lint: disable-next-line(unsafe-typecast)
        stored.deadline = uint40(position.since + time); // seconds since 1970 and two years
    }

    /// @dev INVARIANT: a move counts for exactly the position that it was made for, in one game of one chain.
    function _checkPosition(Position memory position) private view returns (StoredGame storage stored) {
        uint256 game = position.matter.game;
        stored = _known(game);
        require(stored.outcome == Outcome.Running, GameOver(game, stored.outcome));
        bytes32 given = keccak256(abi.encode(position));
        require(given == stored.position, WrongPosition(given, stored.position));
    }

    /// @dev While a game is open its submission is not final, so it stands as long as the slot's attempt is its own.
    function _stands(Matter memory matter) private view returns (bool) {
        return _LEDGER.getSlot(matter.task, matter.round, matter.slot).attempt == matter.attempt;
    }

    function _known(uint256 game) private view returns (StoredGame storage) {
        require(game > 0 && game <= gameCount, NoSuchGame(game));
        return _games[game];
    }

    function _queueKeyOf(Matter memory matter) private pure returns (bytes32) {
        return _queueKey(matter.task, matter.round, matter.slot, matter.attempt, matter.claimed);
    }

    function _queueKey(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root root)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(task, round, slot, attempt, root));
    }
}
