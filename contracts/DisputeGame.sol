// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {GameBoard} from "./GameBoard.sol";
import {IDisputeGame} from "./interfaces/IDisputeGame.sol";
import {IStepReferee} from "./interfaces/IStepReferee.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {Commitments} from "./libraries/Commitments.sol";
import {GameViews} from "./libraries/GameViews.sol";
import {ProgramRecords} from "./libraries/ProgramRecords.sol";
import {Root} from "./types/Identifiers.sol";

/// @title Where a submission is challenged: the moves of docs/dispute.md
/// @dev Each move takes the position into memory, checks that it is the game's, turns it into the next one and keeps
/// that one's hash, or ends the game, which calls the ledger last. The referee is asked by static calls only.
contract DisputeGame is GameBoard {
    /// @dev Longest fold that `proveElement` can show, and elements of one block of a longer one.
    uint256 private constant BLOCK = 1024;

    /// @notice See `GameBoard` for the parameters.
    constructor(address ledger_, address referee_, uint32 minimumClock_, uint32 minimumMove_)
        GameBoard(ledger_, referee_, minimumClock_, minimumMove_)
    {}

    /// @inheritdoc IDisputeGame
    function open(Opening calldata opening, bytes32[] calldata points) external returns (uint256 game) {
        _checkParty(opening.challenger);
        game = ++gameCount;
        // slither-disable-next-line uninitialized-local -- memory begins as zeros, and what is not set here stays zero
        Position memory position;
        position.matter = _matterOf(game, opening);
        (position.moves, position.defenderToMove) = (1, true);
        (position.moverSeconds, position.waiterSeconds) = (position.matter.clock, position.matter.clock);
        position.since = uint64(block.timestamp);
        position.high = uint64(position.matter.steps) + 1;
        position.agreed = Root.unwrap(position.matter.base);
        GameViews.postPoints(position, points, GameViews.RUN_POINTS);
        bytes32 claimed = points[points.length - 1];
        GameViews.checkDiffers(claimed, Root.unwrap(opening.submitted));
        position.matter.claimed = Root.wrap(claimed);
        _start(position);
        emit GameStarted(game, opening.task, opening.challenger, position.matter.defender, position);
    }

    /// @inheritdoc IDisputeGame
    function narrow(Position memory position, uint256 place, bytes32[] calldata points) external {
        _beginPhase(position, Phase.Runs);
        _narrow(position, place, points, GameViews.RUN_POINTS);
        _moved(position, "");
    }

    /// @inheritdoc IDisputeGame
    function enterRun(
        Position memory position,
        uint256 place,
        Root stateAfter,
        ProgramProof calldata proof,
        bytes32[] calldata nodes,
        bytes32[] calldata stateSiblings
    ) external {
        _beginPhase(position, Phase.Runs);
        bytes32 disputed = GameViews.pickPoint(position, place, GameViews.RUN_POINTS);
        GameViews.checkCount(position.high - position.low, 1);
        GameViews.checkDiffers(Root.unwrap(stateAfter), disputed);

        Run memory run = position.run;
        // forge-lint: disable-next-line(unsafe-typecast)
        run.number = uint32(position.low); // at most `steps`
        run.stateBefore = Root.wrap(position.agreed);
        ProgramRecords.enterProgram(run, position.matter, proof);
        bytes32 root = GameViews.postTree(position, Commitments.TRACE, uint64(run.operations) + 1, nodes);
        run.frontier = new bytes32[](position.tree.height);
        GameViews.checkCount(stateSiblings.length, position.tree.height);
        // INVARIANT: the trace ends in the state that its poster names: a true trace of a false state is no answer.
        bytes32 last = Commitments.leafOfRoot(Commitments.TRACE, Root.unwrap(stateAfter));
        Commitments.checkProof(Commitments.climb(Commitments.TRACE, last, run.operations, stateSiblings), root);
        position.points = new bytes32[](0);
        position.phase = Phase.Trace;
        _moved(position, abi.encodePacked(nodes));
    }

    /// @inheritdoc IDisputeGame
    function descend(Position memory position, Pick calldata pick, bytes32[] calldata nodes) external {
        uint8 kind = _beginTree(position);
        GameViews.pickNode(position, kind, pick);
        require(position.tree.height > 0, WrongHeight(0));
        GameViews.checkDiffers(GameViews.postView(position.tree, kind, nodes), pick.node);
        _moved(position, abi.encodePacked(nodes));
    }

    /// @inheritdoc IDisputeGame
    function enterTensor(
        Position memory position,
        Pick calldata pick,
        IStepReferee.Record calldata record,
        bytes32[] calldata nodes
    ) external {
        uint8 kind = _beginTree(position);
        require(position.phase != Phase.Tensor, WrongPhase(position.phase, Phase.Trace));
        uint64 index = GameViews.pickLeaf(position, kind, pick);
        Subject memory subject = position.phase == Phase.Trace
            ? _outputAt(position.run, index, record)
            : _counterAt(position.run, index, record);
        position.subject = subject;
        uint64 chunks = uint64(Commitments.chunksOf(subject.size));
        bytes32 own = GameViews.postTree(position, Commitments.TENSOR, chunks, nodes);
        own = Commitments.seal(Commitments.TENSOR, subject.dtype, subject.size, own);
        GameViews.checkDiffers(Commitments.leafOfRoot(kind, own), pick.node);
        position.phase = Phase.Tensor;
        _moved(position, abi.encodePacked(nodes));
    }

    /// @inheritdoc IDisputeGame
    function enterState(Position memory position, Pick calldata pick, bytes32[] calldata nodes) external {
        _beginPhase(position, Phase.Trace);
        uint64 index = GameViews.pickLeaf(position, Commitments.TRACE, pick);
        require(index == position.run.operations, WrongLeaf(index));
        uint64 states = position.run.states;
        bytes32 own = GameViews.postTree(position, Commitments.STATE, states, nodes);
        own = Commitments.seal(Commitments.STATE, 0, states, own);
        GameViews.checkDiffers(Commitments.leafOfRoot(Commitments.TRACE, own), pick.node);
        position.phase = Phase.State;
        _moved(position, abi.encodePacked(nodes));
    }

    /// @inheritdoc IDisputeGame
    function openChunk(Position memory position, Pick calldata pick, bytes calldata chunk) external {
        _beginPhase(position, Phase.Tensor);
        uint64 index = GameViews.pickLeaf(position, Commitments.TENSOR, pick);
        require(index < position.tree.leaves, WrongLeaf(index));
        GameViews.checkCount(chunk.length, Commitments.CHUNK_BYTES);
        position.tree.node = Commitments.leaf(Commitments.TENSOR, chunk);
        GameViews.checkDiffers(position.tree.node, pick.node);
        position.phase = Phase.Chunk;
        _moved(position, chunk);
    }

    /// @inheritdoc IDisputeGame
    function openFold(
        Position memory position,
        bytes calldata chunk,
        bytes calldata record,
        uint64 element,
        uint64 bits,
        bytes32[] calldata points
    ) external {
        _beginPhase(position, Phase.Chunk);
        _checkSubject(position.subject, record);
        uint256 length = position.subject.ofState ? 0 : ProgramRecords.foldLength(record);
        require(length > BLOCK, IStepReferee.WrongRecord(record));
        GameViews.checkDiffers(bytes32(uint256(bits)), bytes32(uint256(_posted(position, chunk, element))));
        // forge-lint: disable-next-line(unsafe-typecast)
        (position.low, position.high) = (0, uint64((length + BLOCK - 1) / BLOCK)); // below 2**22
        position.agreed = 0;
        GameViews.postPoints(position, points, GameViews.FOLD_POINTS);
        position.fold = Folding({element: element, bits: bits, opening: true});
        position.phase = Phase.Fold;
        _moved(position, "");
    }

    /// @inheritdoc IDisputeGame
    function narrowFold(Position memory position, uint256 place, bytes32[] calldata points) external {
        _beginPhase(position, Phase.Fold);
        _narrow(position, place, points, GameViews.FOLD_POINTS);
        position.fold.opening = false;
        _moved(position, "");
    }

    /// @inheritdoc IDisputeGame
    function proveElement(
        Position memory position,
        bytes calldata chunk,
        uint64 element,
        IStepReferee.Evidence calldata evidence
    ) external {
        _beginPhase(position, Phase.Chunk);
        _checkSubject(position.subject, evidence.record);
        uint64 posted = _posted(position, chunk, element);
        IStepReferee judge = IStepReferee(_REFEREE);
        uint64 bits = position.subject.ofState
            ? judge.stateElement(_sceneOf(position), element, evidence)
            : judge.element(_sceneOf(position), element, evidence);
        _verdict(position, bits != posted);
    }

    /// @inheritdoc IDisputeGame
    function proveBlock(Position memory position, uint256 place, IStepReferee.Evidence calldata evidence) external {
        _beginPhase(position, Phase.Fold);
        _checkSubject(position.subject, evidence.record);
        bytes32 posted = GameViews.pickPoint(position, place, GameViews.FOLD_POINTS);
        GameViews.checkCount(position.high - position.low, 1);
        uint256 accumulator = IStepReferee(_REFEREE)
            .foldBlock(_sceneOf(position), position.fold.element, position.low, uint256(position.agreed), evidence);
        _verdict(position, accumulator != uint256(posted));
    }

    /// @inheritdoc IDisputeGame
    function proveRounding(Position memory position, IStepReferee.Evidence calldata evidence) external {
        _beginPhase(position, Phase.Fold);
        // Later on, the last point on the table is not the fold's last accumulator, or not the one that was rounded.
        require(position.fold.opening, WrongPhase(Phase.Fold, Phase.Fold));
        _checkSubject(position.subject, evidence.record);
        uint256 last = uint256(position.points[position.points.length - 1]);
        uint64 bits = IStepReferee(_REFEREE).foldRounding(_sceneOf(position), position.fold.element, last, evidence);
        _verdict(position, bits != position.fold.bits);
    }

    /// @inheritdoc IDisputeGame
    function proveStateLeaf(
        Position memory position,
        Pick calldata pick,
        IStepReferee.Record calldata record,
        Root tensorRoot,
        bytes32[] calldata path
    ) external {
        _beginPhase(position, Phase.State);
        uint64 index = GameViews.pickLeaf(position, Commitments.STATE, pick);
        Run memory run = position.run;
        require(index < run.states, WrongLeaf(index));
        ProgramRecords.checkRecord(run, 1 + uint256(index), record);
        // slither-disable-next-line unused-return -- the tensor's root binds its size
        (uint8 dtype,, uint32 source) = ProgramRecords.stateTensorOf(record.data);
        bytes32 root = Root.unwrap(tensorRoot);
        if (source == ProgramRecords.UNCHANGED) {
            _checkUnchanged(run, index, root, path);
        } else {
            require(dtype != ProgramRecords.INT64, WrongLeaf(index));
            _checkOutput(run, source, root, path);
        }
        _verdict(position, Commitments.leafOfRoot(Commitments.STATE, root) != pick.node);
    }

    /// @inheritdoc IDisputeGame
    function provePadding(Position memory position, Pick calldata pick) external {
        uint8 kind = _beginTree(position);
        uint64 index = GameViews.pickLeaf(position, kind, pick);
        require(index >= position.tree.leaves, WrongLeaf(index));
        _verdict(position, pick.node != Commitments.pad(kind));
    }

    /// @inheritdoc IDisputeGame
    function provePaddingBytes(Position memory position, bytes calldata chunk) external {
        _beginPhase(position, Phase.Chunk);
        _checkChunk(position, chunk);
        uint256 used = position.subject.size - position.tree.index * Commitments.CHUNK_BYTES;
        require(used < Commitments.CHUNK_BYTES, WrongLeaf(position.tree.index));
        bool dirty = false;
        for (uint256 i = used; i < Commitments.CHUNK_BYTES; ++i) {
            if (chunk[i] != 0) dirty = true;
        }
        _verdict(position, dirty);
    }

    function _matterOf(uint256 game, Opening calldata opening) private returns (Matter memory) {
        ITrainingLedger.Disputed memory disputed = _LEDGER.gameOpened(
            opening.task, opening.round, opening.slot, opening.attempt, opening.submitted, opening.challenger
        );
        uint32 clock = 2 * disputed.leaseSeconds; // a lease has at most a year
        return Matter({
            game: game,
            task: opening.task,
            round: opening.round,
            slot: opening.slot,
            attempt: opening.attempt,
            steps: disputed.steps,
            clock: clock > _MINIMUM_CLOCK ? clock : _MINIMUM_CLOCK,
            defender: disputed.worker,
            challenger: opening.challenger,
            base: disputed.baseRoot,
            submitted: opening.submitted,
            claimed: Root.wrap(0),
            taskProgram: disputed.programRoot,
            dataset: disputed.datasetRoot,
            merge: disputed.merge
        });
    }

    function _beginPhase(Position memory position, Phase needed) private view {
        _begin(position);
        require(position.phase == needed, WrongPhase(position.phase, needed));
    }

    /// @dev The kind of the tree on the table.
    function _beginTree(Position memory position) private view returns (uint8 kind) {
        _begin(position);
        if (position.phase == Phase.Trace) return Commitments.TRACE;
        if (position.phase == Phase.State) return Commitments.STATE;
        require(position.phase == Phase.Tensor, WrongPhase(position.phase, Phase.Trace));
        return Commitments.TENSOR;
    }

    function _outputAt(Run memory run, uint64 index, IStepReferee.Record calldata record)
        private
        view
        returns (Subject memory subject)
    {
        require(index < run.operations, WrongLeaf(index));
        ProgramRecords.checkRecord(run, 1 + uint256(run.states) + run.constants + index, record);
        // forge-lint: disable-next-line(unsafe-typecast)
        subject.number = uint32(index); // below `operations`
        (subject.dtype, subject.size) = ProgramRecords.outputOf(record.data);
        subject.record = Commitments.leaf(Commitments.PROGRAM, record.data);
    }

    /// @dev A state's tensor of int64 that an operation writes: its root is not the output's, so it has to be entered.
    function _counterAt(Run memory run, uint64 index, IStepReferee.Record calldata record)
        private
        view
        returns (Subject memory subject)
    {
        require(index < run.states, WrongLeaf(index));
        ProgramRecords.checkRecord(run, 1 + uint256(index), record);
        (subject.ofState, subject.number) = (true, uint32(index));
        uint32 source;
        (subject.dtype, subject.size, source) = ProgramRecords.stateTensorOf(record.data);
        require(subject.dtype == ProgramRecords.INT64 && source != ProgramRecords.UNCHANGED, WrongLeaf(index));
        subject.record = Commitments.leaf(Commitments.PROGRAM, record.data);
    }

    /// @dev Little-endian bytes of an element of the chunk on the table, as a number.
    function _posted(Position memory position, bytes calldata chunk, uint64 element)
        private
        view
        returns (uint64 bits)
    {
        _checkChunk(position, chunk);
        uint256 width = ProgramRecords.width(position.subject.dtype);
        uint256 first = element * width;
        bool inside = first < position.subject.size && first / Commitments.CHUNK_BYTES == position.tree.index;
        // forge-lint: disable-next-line(unsafe-typecast)
        uint64 elements = uint64(position.subject.size / width);
        require(inside, IStepReferee.NoSuchElement(element, elements));
        for (uint256 i = width; i > 0; --i) {
            bits = (bits << 8) | uint8(chunk[first % Commitments.CHUNK_BYTES + i - 1]);
        }
    }

    function _checkChunk(Position memory position, bytes calldata chunk) private view {
        GameViews.checkCount(chunk.length, Commitments.CHUNK_BYTES);
        Commitments.checkProof(Commitments.leaf(Commitments.TENSOR, chunk), position.tree.node);
    }

    /// @dev The record shown is the one that was proved when the tensor was entered.
    function _checkSubject(Subject memory subject, bytes calldata record) private view {
        Commitments.checkProof(Commitments.leaf(Commitments.PROGRAM, record), subject.record);
    }

    /// @dev Of a merge, an unchanged tensor is the base's: its first input's.
    function _checkUnchanged(Run memory run, uint64 index, bytes32 tensorRoot, bytes32[] calldata path) private view {
        bytes32 root = Commitments.rootBefore(run.states, run.inputs, index, tensorRoot, path);
        Commitments.checkProof(root, Root.unwrap(run.stateBefore));
    }

    /// @dev All outputs are agreed: the last leaf of the trace, number `operations`, has been reached.
    function _checkOutput(Run memory run, uint32 source, bytes32 tensorRoot, bytes32[] calldata path) private view {
        uint256 height = 0;
        while ((source ^ run.operations) >> (height + 1) > 0) ++height;
        Commitments.checkLength(path.length, height);
        bytes32 hash = Commitments.leafOfRoot(Commitments.TRACE, tensorRoot);
        Commitments.checkProof(Commitments.climb(Commitments.TRACE, hash, source, path), run.frontier[height]);
    }

    function _sceneOf(Position memory position) private pure returns (IStepReferee.Scene memory) {
        Run memory run = position.run;
        return IStepReferee.Scene({
            stateBefore: run.stateBefore,
            program: run.program,
            inputs: run.inputs,
            states: run.states,
            constants: run.constants,
            operations: run.operations,
            reached: run.reached,
            frontier: run.frontier,
            dataset: position.matter.dataset,
            seed: run.seed,
            slot: position.matter.slot
        });
    }

    function _narrow(Position memory position, uint256 place, bytes32[] calldata points, uint256 most) private pure {
        bytes32 disputed = GameViews.pickPoint(position, place, most);
        // One run or one block is not narrowed further: it is entered, or proved.
        if (position.high - position.low == 1) revert WrongCount(points.length, 0);
        GameViews.postPoints(position, points, most);
        GameViews.checkDiffers(points[points.length - 1], disputed);
    }
}
