// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {IStepReferee} from "../../interfaces/IStepReferee.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {ToldReferee} from "../../mocks/ToldReferee.sol";
import {IStakeVault} from "../../interfaces/IStakeVault.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {DisputeWorld} from "./DisputeWorld.sol";
import {Trees} from "./Trees.sol";
import {Vm} from "./Vm.sol";

/// @title Both sides of a game, one of which lies
/// @notice Whoever's turn it is picks the leftmost of what lies on the table that differs from its own, and posts its own
/// view of that place. The referee is told the truth before it is asked.
contract DisputePlayer is DisputeWorld {
    IDisputeGame public immutable GAME;
    ToldReferee public immutable REFEREE;

    /// @notice Whether it is the challenger that lies; the defender otherwise.
    bool public challengerLies;
    /// @notice What the last move put on the table beside the position's points.
    bytes public posted;
    /// @notice Which function the last move called.
    bytes4 public lastMove;
    TaskId public task;
    Root public submittedRoot;

    bytes private _position;

    constructor(IDisputeGame game_, ToldReferee referee_, ITrainingLedger ledger_) {
        (GAME, REFEREE, ledger) = (game_, referee_, ledger_);
        vault = IStakeVault(ledger_.vault());
    }

    function setUp() public override {}

    /// @notice Posts a task and submits a segment: the true one, or the liar's.
    function prepare(Lie calldata lie_, bool challengerLies_) external {
        (lie, challengerLies) = (lie_, challengerLies_);
        ITrainingLedger.TaskParameters memory p = parameters();
        p.programRoot = taskProgramRoot();
        p.initialStateRoot = Root.wrap(stateRoot(0, false));
        p.stateTensors = STATES;
        task = post(p);
        claimAs(task, WORKER);
        submitState(task, WORKER, !challengerLies_);
    }

    /// @notice Submits the state at the end of the segment for a lease that runs.
    function submitState(TaskId task_, address worker, bool lying) public {
        ITrainingLedger.Submission memory result = resultOf(task_, STEPS, LOSS_3);
        bytes32[][] memory rows = stateRows(STEPS + 1, lying);
        result.stateRoot = Root.wrap(Trees.seal(STATE, 0, STATES, Trees.top(rows)));
        result.lossProof = Trees.proof(rows, 0);
        vm.prank(worker);
        ledger.submit(result);
        submittedRoot = result.stateRoot;
    }

    /// @notice The call that opens the game.
    function opening(address challenger) public view returns (IDisputeGame.Opening memory, bytes32[] memory points) {
        uint32 attempt = ledger.getSlot(task, 0, 0).attempt;
        points = _roots(0, STEPS + 1, challengerLies);
        return (IDisputeGame.Opening(challenger, task, 0, 0, attempt, submittedRoot), points);
    }

    /// @notice Opens a game in the challenger's name.
    function open(address challenger) external returns (uint256) {
        (IDisputeGame.Opening memory named, bytes32[] memory points) = opening(challenger);
        vm.recordLogs();
        vm.prank(challenger);
        uint256 number = GAME.open(named, points);
        _follow();
        return number;
    }

    /// @notice Makes the next move; returns whether the game goes on.
    function step() public returns (bool) {
        bytes memory call = nextCall();
        address mover_ = mover();
        vm.recordLogs();
        vm.prank(mover_);
        // solhint-disable-next-line avoid-low-level-calls
        (bool good, bytes memory answer) = address(GAME).call(call);
        if (!good) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
        lastMove = bytes4(call);
        _follow();
        (,, IDisputeGame.Outcome outcome) = GAME.getGame(position().matter.game);
        return outcome == IDisputeGame.Outcome.Running;
    }

    /// @notice Plays until something of this phase lies on the table.
    function playTo(IDisputeGame.Phase phase) external {
        while (position().phase != phase) {
            require(step(), "the game was over before");
        }
    }

    /// @notice Plays to the end; returns how it ended and the number of moves, the opening and the last one included.
    function playOut() external returns (IDisputeGame.Outcome outcome, uint256 moves) {
        while (step()) {}
        IDisputeGame.Position memory last = position();
        (,, outcome) = GAME.getGame(last.matter.game);
        return (outcome, last.moves + 1);
    }

    /// @notice Takes over a position, of another game say.
    function resume(IDisputeGame.Position calldata position_, bytes calldata posted_) external {
        (_position, posted) = (abi.encode(position_), posted_);
    }

    /// @notice The move of whoever's turn it is, as a call; the referee is told what it has to know.
    function nextCall() public returns (bytes memory) {
        IDisputeGame.Position memory p = position();
        bool lying = p.defenderToMove != challengerLies;
        if (p.phase == IDisputeGame.Phase.Runs) return _inRuns(p, lying);
        if (p.phase == IDisputeGame.Phase.Chunk) return _inChunk(p, lying);
        if (p.phase == IDisputeGame.Phase.Fold) return _inFold(p, lying);
        (uint8 kind, bytes32[][] memory rows) = _treeOf(p, lying);
        (IDisputeGame.Pick memory pick, uint256 index) = _pick(kind, p.tree, rows);
        uint256 height = p.tree.height - p.tree.width;
        if (height > 0) {
            return abi.encodeCall(IDisputeGame.descend, (p, pick, Trees.viewOf(rows, height, index)));
        }
        if (index >= p.tree.leaves) return abi.encodeCall(IDisputeGame.provePadding, (p, pick));
        if (p.phase == IDisputeGame.Phase.Trace) return _atTraceLeaf(p, pick, uint32(index), lying);
        if (p.phase == IDisputeGame.Phase.State) return _atStateLeaf(p, pick, uint32(index), lying);
        return abi.encodeCall(IDisputeGame.openChunk, (p, pick, _chunkOf(p, index, lying)));
    }

    /// @notice A node of the view on the table, with its siblings there.
    function pickAt(uint64 place) external view returns (IDisputeGame.Pick memory) {
        uint8 kind = position().phase == IDisputeGame.Phase.Trace ? TRACE : TENSOR;
        bytes32[] memory nodes = nodesOf(posted);
        return IDisputeGame.Pick(place, nodes[place], Trees.proof(Trees.build(kind, nodes), place));
    }

    /// @notice The first two leaves of the trace of the run entered, where both sides agree on them.
    function agreedLeaves() external view returns (bytes32, bytes32) {
        bytes32[][] memory rows = traceRows(position().run.number, false);
        return (rows[0][0], rows[0][1]);
    }

    function position() public view returns (IDisputeGame.Position memory) {
        return abi.decode(_position, (IDisputeGame.Position));
    }

    /// @notice Whose turn it is.
    function mover() public view returns (address) {
        IDisputeGame.Position memory p = position();
        return p.defenderToMove ? p.matter.defender : p.matter.challenger;
    }

    /// @notice What proves the training or the evaluation program.
    function proofOf(bool training) public view returns (IDisputeGame.ProgramProof memory proof) {
        bytes32[][] memory rows = taskRows();
        proof.seed = SEED;
        proof.seedSiblings = Trees.proof(rows, 0);
        proof.program = Root.wrap(programRoot(training));
        proof.programSiblings = Trees.proof(rows, training ? 1 : 2);
        proof.header = recordOf(training, 0);
    }

    /// @notice Where point `place` (from 0) of the interval on the table is.
    function pointAt(IDisputeGame.Position memory p, uint256 place, uint256 most) public pure returns (uint64) {
        uint256 length = p.high - p.low;
        return uint64(p.low + length * (place + 1) / (length < most ? length : most));
    }

    /// @notice The hashes of a view as the event has them.
    function nodesOf(bytes memory joined) public pure returns (bytes32[] memory nodes) {
        nodes = new bytes32[](joined.length / 32);
        for (uint256 i = 0; i < nodes.length; ++i) {
            assembly ("memory-safe") {
                mstore(add(add(nodes, 32), mul(i, 32)), mload(add(add(joined, 32), mul(i, 32))))
            }
        }
    }

    /// @notice What the referee is told that both agree on.
    function sceneOf(IDisputeGame.Position memory p) public pure returns (IStepReferee.Scene memory scene) {
        scene.stateBefore = p.run.stateBefore;
        scene.program = p.run.program;
        (scene.states, scene.constants, scene.operations) = (STATES, 1, OPERATIONS);
        (scene.reached, scene.frontier) = (p.run.reached, p.run.frontier);
        (scene.dataset, scene.seed, scene.slot) = (p.matter.dataset, SEED, p.matter.slot);
    }

    /// @notice Evidence of the tensor in question; the referee that is told looks at none of it.
    function evidenceOf(IDisputeGame.Position memory p) public pure returns (IStepReferee.Evidence memory evidence) {
        uint256 index = p.subject.ofState ? 1 + p.subject.number : 2 + STATES + p.subject.number;
        evidence.record = records(p.run.number < STEPS)[index];
    }

    /// @dev Reads the game's events: the position and what was posted.
    function _follow() private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] == IDisputeGame.GameStarted.selector) {
                (, IDisputeGame.Position memory started) = abi.decode(logs[i].data, (address, IDisputeGame.Position));
                (_position, posted) = (abi.encode(started), "");
            } else if (logs[i].topics[0] == IDisputeGame.Moved.selector) {
                (IDisputeGame.Position memory moved, bytes memory shown) =
                    abi.decode(logs[i].data, (IDisputeGame.Position, bytes));
                (_position, posted) = (abi.encode(moved), shown);
            }
        }
    }

    function _inRuns(IDisputeGame.Position memory p, bool lying) private view returns (bytes memory) {
        uint256 place = 0;
        while (p.points[place] == stateRoot(uint32(pointAt(p, place, 32)), lying)) ++place;
        uint64 low = place == 0 ? p.low : pointAt(p, place - 1, 32);
        uint64 high = pointAt(p, place, 32);
        if (high - low > 1) return abi.encodeCall(IDisputeGame.narrow, (p, place, _roots(low, high, lying)));
        bytes32[][] memory rows = traceRows(uint32(low), lying);
        return abi.encodeCall(
            IDisputeGame.enterRun,
            (
                p,
                place,
                Root.wrap(stateRoot(uint32(high), lying)),
                proofOf(low < STEPS),
                Trees.viewOf(rows, rows.length - 1, 0),
                Trees.proof(rows, OPERATIONS)
            )
        );
    }

    function _atTraceLeaf(IDisputeGame.Position memory p, IDisputeGame.Pick memory pick, uint32 index, bool lying)
        private
        view
        returns (bytes memory)
    {
        if (index == OPERATIONS) {
            bytes32[][] memory state = stateRows(p.run.number + 1, lying);
            return abi.encodeCall(IDisputeGame.enterState, (p, pick, Trees.viewOf(state, state.length - 1, 0)));
        }
        bytes32[][] memory rows = outputRows(p.run.number, index, lying);
        IStepReferee.Record memory record = recordOf(p.run.number < STEPS, 2 + STATES + index);
        return abi.encodeCall(IDisputeGame.enterTensor, (p, pick, record, Trees.viewOf(rows, rows.length - 1, 0)));
    }

    /// @dev Of an unchanged tensor or an output of float32, both parties know the root.
    function _atStateLeaf(IDisputeGame.Position memory p, IDisputeGame.Pick memory pick, uint32 index, bool lying)
        private
        view
        returns (bytes memory)
    {
        uint32 run = p.run.number;
        IStepReferee.Record memory record = recordOf(run < STEPS, 1 + index);
        if (index == 1) {
            bytes32[] memory nodes = new bytes32[](1);
            nodes[0] = Trees.leaf(TENSOR, counterChunk(run, lying));
            return abi.encodeCall(IDisputeGame.enterTensor, (p, pick, record, nodes));
        }
        Root root = Root.wrap(stateTensors(run + 1, false)[index]);
        if (index != 0 && index != WEIGHT) {
            bytes32[] memory path = Trees.proof(stateRows(run, false), index);
            return abi.encodeCall(IDisputeGame.proveStateLeaf, (p, pick, record, root, path));
        }
        uint256 source = index == 0 ? LOSS_OUTPUT : WEIGHT_OUTPUT;
        // 70 and either number part at bit 6.
        bytes32[] memory siblings = Trees.siblings(traceRows(run, false), 0, source, 6);
        return abi.encodeCall(IDisputeGame.proveStateLeaf, (p, pick, record, root, siblings));
    }

    function _inChunk(IDisputeGame.Position memory p, bool lying) private returns (bytes memory) {
        bytes memory own = _chunkOf(p, p.tree.index, lying);
        uint256 at_ = 0;
        while (own[at_] == posted[at_]) ++at_;
        if (1024 * p.tree.index + at_ >= p.subject.size) {
            return abi.encodeCall(IDisputeGame.provePaddingBytes, (p, posted));
        }
        uint256 width = p.subject.ofState ? 8 : p.subject.dtype == 4 ? 1 : p.subject.dtype == 9 ? 2 : 4;
        uint64 element = uint64((1024 * p.tree.index + at_) / width);
        if (!p.subject.ofState && p.subject.number == PRODUCT) {
            bytes memory record = evidenceOf(p).record;
            uint64 bits = _bits(own, at_ / width * width, width);
            bytes32[] memory points = _accumulators(element, 0, BLOCKS, lying);
            return abi.encodeCall(IDisputeGame.openFold, (p, posted, record, element, bits, points));
        }
        bytes4 selector = p.subject.ofState ? IStepReferee.stateElement.selector : IStepReferee.element.selector;
        uint64 truth = _bits(_chunkOf(p, p.tree.index, false), at_ / width * width, width);
        REFEREE.tell(REFEREE.questionOf(selector, sceneOf(p), element, 0, 0), truth);
        return abi.encodeCall(IDisputeGame.proveElement, (p, posted, element, evidenceOf(p)));
    }

    function _inFold(IDisputeGame.Position memory p, bool lying) private returns (bytes memory) {
        uint64 element = p.fold.element;
        uint256 place = 0;
        while (place < p.points.length && p.points[place] == accumulator(element, pointAt(p, place, 64), lying)) {
            ++place;
        }
        if (place == p.points.length) {
            uint256 last = uint256(p.points[place - 1]);
            uint64 truth = _bits(outputData(p.run.number, PRODUCT, false), element * 4, 4);
            bytes4 rounding = IStepReferee.foldRounding.selector;
            REFEREE.tell(REFEREE.questionOf(rounding, sceneOf(p), element, 0, last), truth);
            return abi.encodeCall(IDisputeGame.proveRounding, (p, evidenceOf(p)));
        }
        uint64 low = place == 0 ? p.low : pointAt(p, place - 1, 64);
        uint64 high = pointAt(p, place, 64);
        if (high - low > 1) {
            return abi.encodeCall(IDisputeGame.narrowFold, (p, place, _accumulators(element, low, high, lying)));
        }
        uint256 agreed = uint256(place == 0 ? p.agreed : p.points[place - 1]);
        bytes4 selector = IStepReferee.foldBlock.selector;
        uint256 answer = uint256(accumulator(element, high, false));
        REFEREE.tell(REFEREE.questionOf(selector, sceneOf(p), element, low, agreed), answer);
        return abi.encodeCall(IDisputeGame.proveBlock, (p, place, evidenceOf(p)));
    }

    /// @dev The tree on the table as the mover knows it.
    function _treeOf(IDisputeGame.Position memory p, bool lying)
        private
        view
        returns (uint8 kind, bytes32[][] memory rows)
    {
        if (p.phase == IDisputeGame.Phase.Trace) return (TRACE, traceRows(p.run.number, lying));
        if (p.phase == IDisputeGame.Phase.State) return (STATE, stateRows(p.run.number + 1, lying));
        if (!p.subject.ofState) return (TENSOR, outputRows(p.run.number, p.subject.number, lying));
        bytes32[] memory leaves = new bytes32[](1);
        leaves[0] = Trees.leaf(TENSOR, counterChunk(p.run.number, lying));
        return (TENSOR, Trees.build(TENSOR, leaves));
    }

    /// @dev The leftmost node of the view posted that is another one than the mover's.
    function _pick(uint8 kind, IDisputeGame.View memory tree, bytes32[][] memory rows)
        private
        view
        returns (IDisputeGame.Pick memory pick, uint256 index)
    {
        bytes32[] memory nodes = nodesOf(posted);
        bytes32[] memory own = rows[tree.height - tree.width];
        index = uint256(tree.index) << tree.width;
        while (nodes[pick.place] == own[index]) (pick.place, index) = (pick.place + 1, index + 1);
        pick.node = nodes[pick.place];
        pick.siblings = Trees.proof(Trees.build(kind, nodes), pick.place);
    }

    function _chunkOf(IDisputeGame.Position memory p, uint256 index, bool lying) private view returns (bytes memory) {
        if (p.subject.ofState) return counterChunk(p.run.number, lying);
        return outputChunk(p.run.number, p.subject.number, lying, index);
    }

    function _roots(uint64 low, uint64 high, bool lying) private view returns (bytes32[] memory points) {
        IDisputeGame.Position memory p;
        (p.low, p.high) = (low, high);
        points = new bytes32[](high - low < 32 ? high - low : 32);
        for (uint256 i = 0; i < points.length; ++i) {
            points[i] = stateRoot(uint32(pointAt(p, i, 32)), lying);
        }
    }

    function _accumulators(uint64 element, uint64 low, uint64 high, bool lying)
        private
        view
        returns (bytes32[] memory points)
    {
        IDisputeGame.Position memory p;
        (p.low, p.high) = (low, high);
        points = new bytes32[](high - low < 64 ? high - low : 64);
        for (uint256 i = 0; i < points.length; ++i) {
            points[i] = accumulator(element, pointAt(p, i, 64), lying);
        }
    }

    function _bits(bytes memory data, uint256 start, uint256 width) private pure returns (uint64 bits) {
        for (uint256 i = width; i > 0; --i) {
            bits = (bits << 8) | uint8(data[start + i - 1]);
        }
    }
}
