// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root, TaskId} from "../types/Identifiers.sol";
import {IStepReferee} from "./IStepReferee.sol";

/// @title Where a submission is challenged
/// @notice The rules are in docs/dispute.md. The ledger knows one game, fixed at deployment, and believes its verdicts.
/// The game reports each opened and settled dispute through `ITrainingLedger.gameOpened` and `gameSettled`.
/// @dev The contract keeps the hash of a game's position only; whoever moves gives the position, which the event of the
/// move before carries. So a move made for anything else is refused. Only the side to move, or one of its operators,
/// moves.
interface IDisputeGame {
    /// @notice What lies on the table.
    enum Phase {
        Runs,
        Trace,
        State,
        Tensor,
        Chunk,
        Fold
    }

    /// @notice `Void`: the submission fell in another game before this one ended.
    enum Outcome {
        Running,
        DefenderWon,
        ChallengerWon,
        Void
    }

    /// @notice What a game is about; never changes.
    /// @param submitted The state root submitted, `claimed` the challenger's.
    /// @param steps Training steps of the submission: it has steps + 1 runs.
    /// @param clock Seconds that each side has in all.
    /// @param base The state root that the segment starts from; of a merge, the root of its inputs.
    /// @param merge Whether run 0 is of the task's merge program, not of its training program.
    struct Matter {
        uint256 game;
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        uint32 steps;
        uint32 clock;
        address defender;
        address challenger;
        Root base;
        Root submitted;
        Root claimed;
        Root taskProgram;
        Root dataset;
        bool merge;
    }

    /// @notice The run entered; zero before. `inputs` and `frontier` as in `IStepReferee.Scene`.
    struct Run {
        uint32 number;
        Root stateBefore;
        Root program;
        uint8 inputs;
        uint32 states;
        uint32 constants;
        uint32 operations;
        uint64 seed;
        uint32 reached;
        bytes32[] frontier;
    }

    /// @notice A posted view: 2**width descendants of the node at `height` and `index` of a tree over `leaves` leaves,
    /// which hash up to `node`. In the phase Chunk both are 0 high and wide: `node` is the chunk's leaf hash.
    struct View {
        uint64 leaves;
        uint64 index;
        uint8 height;
        uint8 width;
        bytes32 node;
    }

    /// @notice The tensor entered: the output of operation `number`, or tensor `number` of the state after.
    /// @param record leaf(program, its record).
    struct Subject {
        bool ofState;
        uint32 number;
        uint8 dtype;
        uint64 size;
        bytes32 record;
    }

    /// @notice The fold entered: accumulators of `element`. `bits` is what the one who opened the fold says of it.
    struct Folding {
        uint64 element;
        uint64 bits;
        bool opening;
    }

    /// @notice A whole game.
    /// @param moves Moves made, the opening included.
    /// @param defenderToMove Whose turn it is.
    /// @param moverSeconds What was left on the clock of the side to move when its turn began; `waiterSeconds` of the
    /// other side.
    /// @param since Time at which the turn began.
    /// @param low High, low: the interval of runs (Runs) or blocks (Fold) on the table.
    /// @param agreed The agreed value at `low`: a state root (Runs) or an accumulator (Fold).
    /// @param points Values posted at the points of the interval.
    struct Position {
        Matter matter;
        Phase phase;
        uint32 moves;
        bool defenderToMove;
        uint32 moverSeconds;
        uint32 waiterSeconds;
        uint64 since;
        uint64 low;
        uint64 high;
        bytes32 agreed;
        bytes32[] points;
        Run run;
        View tree;
        Subject subject;
        Folding fold;
    }

    /// @notice The submission that is challenged. `challenger` owns the stake that is bonded.
    struct Opening {
        address challenger;
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        Root submitted;
    }

    /// @notice One of the posted nodes: its place from the left, its hash, and its siblings from the bottom up.
    struct Pick {
        uint64 place;
        bytes32 node;
        bytes32[] siblings;
    }

    /// @notice What proves the program of a run against the task's program root: the task's records 0 (seed) and 1, 2 or 5
    /// (root of the training, evaluation or merge program), and the program's header with its proof.
    struct ProgramProof {
        uint64 seed;
        bytes32[] seedSiblings;
        Root program;
        bytes32[] programSiblings;
        IStepReferee.Record header;
    }

    event GameStarted(
        uint256 indexed game, TaskId indexed task, address indexed challenger, address defender, Position position
    );
    /// @notice `posted` is what the mover put on the table beside the position's points: nodes of a view or a chunk.
    /// `mover` is who sent the move: a party or an operator of its.
    event Moved(uint256 indexed game, address indexed mover, Position position, bytes posted);
    /// @notice `winner` is zero where the game is void. `prover` is who sent the last call; `late` that it named a
    /// clock that had run out.
    event GameEnded(
        uint256 indexed game, TaskId indexed task, address indexed winner, Outcome outcome, address prover, bool late
    );

    /// @notice Thrown when a number was never given to a game.
    error NoSuchGame(uint256 game);
    /// @notice Thrown when a move answers another position than the game's.
    error WrongPosition(bytes32 given, bytes32 expected);
    /// @notice Thrown when a game has ended: nothing is left to do.
    error GameOver(uint256 game, Outcome outcome);
    /// @notice Thrown when a move belongs to another phase than the game's; with both alike, when a rounding is disputed
    /// that nobody has just posted.
    error WrongPhase(Phase phase, Phase needed);
    /// @notice Thrown when the caller is neither the party `mover` nor an operator of its.
    error NotYourMove(address caller, address mover);
    /// @notice Thrown when a move comes after the deadline.
    error TooLate(uint256 deadline, uint256 nowTime);
    /// @notice Thrown when a game is settled by its clock before that has run out.
    error NotLate(uint256 deadline, uint256 nowTime);
    /// @notice Thrown when what is posted says the same as what it disputes.
    error NothingDisputed(bytes32 value);
    /// @notice Thrown when something is picked that was not posted; places count from 0.
    error WrongPlace(uint256 place, uint256 places);
    /// @notice Thrown when another number of points, nodes, siblings or bytes is given than the move takes: none where
    /// one run or block is narrowed; and when what needs one run or block picks an interval of `given` of them.
    error WrongCount(uint256 given, uint256 needed);
    /// @notice Thrown when the move needs a leaf and a node above the leaves was picked, or the other way round.
    error WrongHeight(uint256 height);
    /// @notice Thrown when a leaf of this index is not of the kind that the move is about.
    error WrongLeaf(uint256 index);
    /// @notice Thrown when a game is released whose submission stands.
    error SubmissionStands(uint256 game);

    /// @notice Challenges a submission, and locks the task's bond in the challenger's stake. `points` are the
    /// challenger's state roots at the points of all runs.
    function open(Opening calldata opening, bytes32[] calldata points) external returns (uint256 game);
    /// @notice Runs: agrees to the points before `place` (from 0), disputes that one, and posts own roots before it.
    function narrow(Position calldata position, uint256 place, bytes32[] calldata points) external;
    /// @notice Runs, where the interval is one run: posts own state after it and the view of own trace.
    function enterRun(
        Position calldata position,
        uint256 place,
        Root stateAfter,
        ProgramProof calldata proof,
        bytes32[] calldata nodes,
        bytes32[] calldata stateSiblings
    ) external;
    /// @notice Trace, State, Tensor: disputes a node above the leaves, and posts the own view of it.
    function descend(Position calldata position, Pick calldata pick, bytes32[] calldata nodes) external;
    /// @notice Trace, State, at a leaf: disputes a tensor, and posts the view of the own one.
    function enterTensor(
        Position calldata position,
        Pick calldata pick,
        IStepReferee.Record calldata record,
        bytes32[] calldata nodes
    ) external;
    /// @notice Trace, at the last leaf: disputes the state after the run, and posts the view of the own one.
    function enterState(Position calldata position, Pick calldata pick, bytes32[] calldata nodes) external;
    /// @notice Tensor, at a leaf: disputes a chunk, and posts the own one.
    function openChunk(Position calldata position, Pick calldata pick, bytes calldata chunk) external;
    /// @notice Chunk: disputes an element that a long fold makes; posts its value and the accumulators. `chunk` is the one on
    /// the table, `record` the operation's.
    function openFold(
        Position calldata position,
        bytes calldata chunk,
        bytes calldata record,
        uint64 element,
        uint64 bits,
        bytes32[] calldata points
    ) external;
    /// @notice Fold: as `narrow`, of blocks and accumulators.
    function narrowFold(Position calldata position, uint256 place, bytes32[] calldata points) external;
    /// @notice Chunk: has the referee compute an element (counted from the tensor's start). Ends the game.
    function proveElement(
        Position calldata position,
        bytes calldata chunk,
        uint64 element,
        IStepReferee.Evidence calldata evidence
    ) external;
    /// @notice Fold, where the interval is one block: has the referee add it. Ends the game.
    function proveBlock(Position calldata position, uint256 place, IStepReferee.Evidence calldata evidence) external;
    /// @notice Fold, right after `openFold`: has the referee round the last accumulator. Ends the game.
    function proveRounding(Position calldata position, IStepReferee.Evidence calldata evidence) external;
    /// @notice State, at a leaf: shows the tensor root that it must hold. `path` leads to the state before or to the
    /// frontier. Ends the game.
    function proveStateLeaf(
        Position calldata position,
        Pick calldata pick,
        IStepReferee.Record calldata record,
        Root tensorRoot,
        bytes32[] calldata path
    ) external;
    /// @notice Trace, State, Tensor: shows that a leaf behind the last one is not the pad. Ends the game.
    function provePadding(Position calldata position, Pick calldata pick) external;
    /// @notice Chunk: shows that a byte behind the tensor's end is not zero. Ends the game.
    function provePaddingBytes(Position calldata position, bytes calldata chunk) external;
    /// @notice Anybody: ends a game whose side to move is late.
    function settleLate(Position calldata position) external;
    /// @notice Anybody: ends a game whose submission fell in another one; the challenger's bond is free again.
    function release(Position calldata position) external;

    /// @notice Whether this game can be opened at all. Clients show it before anybody stakes.
    function available() external view returns (bool);
    /// @notice Games opened so far; their numbers are 1 to this.
    function gameCount() external view returns (uint256);
    /// @notice Hash of a game's position (keccak256 of its ABI encoding), its deadline and its outcome.
    function getGame(uint256 game) external view returns (bytes32 position, uint64 deadline, Outcome outcome);
    /// @notice Who first committed to `root` for this attempt of a slot and has not lost; zero where nobody did.
    function earliest(TaskId task, uint32 round, uint32 slot, uint32 attempt, Root root) external view returns (address);
    /// @notice Least seconds that each side has in all; twice the task's lease where that is more.
    function minimumClock() external view returns (uint32);
    /// @notice Least seconds that a side has for each move, however little is left.
    function minimumMove() external view returns (uint32);
    /// @notice The judge of single elements, an `IStepReferee`.
    function referee() external view returns (address);
}
