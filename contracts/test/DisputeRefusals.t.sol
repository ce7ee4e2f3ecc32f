// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IStepReferee} from "../interfaces/IStepReferee.sol";
import {Root} from "../types/Identifiers.sol";
import {ToldReferee} from "../mocks/ToldReferee.sol";
import {PlayedGames} from "./base/PlayedGames.sol";
import {DisputeWorld} from "./base/DisputeWorld.sol";

/// @title Moves that are refused, phase by phase
/// @dev Each test plays to a phase, takes the right move and spoils one thing of it.
contract DisputeRefusalsTest is PlayedGames {
    function test_narrow_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 4, 77_777, IDisputeGame.Phase.Runs);
        (, uint256 place, bytes32[] memory points) =
            abi.decode(_arguments(), (IDisputeGame.Position, uint256, bytes32[]));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongPlace.selector, 32, 32));
        disputes.narrow(_at, 32, points);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 0, points.length));
        disputes.narrow(_at, place, new bytes32[](0));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, points.length + 1, points.length));
        disputes.narrow(_at, place, new bytes32[](points.length + 1));
        points[points.length - 1] = _at.points[place];
        _refuse(abi.encodeWithSelector(IDisputeGame.NothingDisputed.selector, _at.points[place]));
        disputes.narrow(_at, place, points);
        // Three or four runs are not one.
        bytes memory many = abi.encodeWithSelector(IDisputeGame.WrongCount.selector, points.length, 1);
        IDisputeGame.ProgramProof memory proof;
        _refuse(many);
        disputes.enterRun(_at, place, Root.wrap(bytes32(0)), proof, points, points);
    }

    function test_narrow_oneRunReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 4, 77_777, IDisputeGame.Phase.Runs);
        _step();
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 1, 0));
        disputes.narrow(_at, 0, new bytes32[](1));
    }

    function test_enterRun_spoiltProgramReverts() public {
        (
            uint256 place,
            Root state,
            IDisputeGame.ProgramProof memory proof,
            bytes32[] memory nodes,
            bytes32[] memory s
        ) = _entering();
        bytes32 right = proof.seedSiblings[1];
        proof.seed ^= 1;
        _refuseProof();
        disputes.enterRun(_at, place, state, proof, nodes, s);
        proof.seed ^= 1;
        proof.seedSiblings[1] = ~right;
        _refuseProof();
        disputes.enterRun(_at, place, state, proof, nodes, s);
        proof.seedSiblings[1] = right;

        // The evaluation program is another leaf, also where it is proved as what it is.
        IDisputeGame.ProgramProof memory evaluation = player.proofOf(false);
        _refuseProof();
        disputes.enterRun(_at, place, state, evaluation, nodes, s);
        evaluation.programSiblings = new bytes32[](2);
        _refuse(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, 2, 3));
        disputes.enterRun(_at, place, state, evaluation, nodes, s);

        bytes memory header = proof.header.data;
        proof.header.data = bytes.concat(header, hex"00");
        _refuse(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, proof.header.data));
        disputes.enterRun(_at, place, state, proof, nodes, s);
        proof.header.data = bytes.concat("X", _tail(header, 1));
        _refuse(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, proof.header.data));
        disputes.enterRun(_at, place, state, proof, nodes, s);
        proof.header.data = header;
        header[19] = 0x47; // 71 operations: as deep a tree, but another record
        _refuseProof();
        disputes.enterRun(_at, place, state, proof, nodes, s);
        header[19] = 0xff; // 255: a deeper tree
        _refuse(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, 8, 9));
        disputes.enterRun(_at, place, state, proof, nodes, s);
    }

    function test_enterRun_spoiltTraceReverts() public {
        (
            uint256 place,
            Root state,
            IDisputeGame.ProgramProof memory proof,
            bytes32[] memory nodes,
            bytes32[] memory s
        ) = _entering();
        Root theirs = Root.wrap(_at.points[place]);
        _refuse(abi.encodeWithSelector(IDisputeGame.NothingDisputed.selector, theirs));
        disputes.enterRun(_at, place, theirs, proof, nodes, s);
        // A true trace, and a state that it does not end in.
        _refuseProof();
        disputes.enterRun(_at, place, Root.wrap(keccak256("another state")), proof, nodes, s);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 6, 7));
        disputes.enterRun(_at, place, state, proof, nodes, new bytes32[](6));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 32, 64));
        disputes.enterRun(_at, place, state, proof, new bytes32[](32), s);
        nodes[9] = ~nodes[9];
        _refuseProof();
        disputes.enterRun(_at, place, state, proof, nodes, s);
        nodes[9] = ~nodes[9];
        // Nothing above has spoilt the move itself.
        _allow();
        disputes.enterRun(_at, place, state, proof, nodes, s);
    }

    function test_descend_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 4, 77_777, IDisputeGame.Phase.Trace);
        (, IDisputeGame.Pick memory pick, bytes32[] memory nodes) =
            abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick, bytes32[]));
        _spoilPicks(pick);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 1, 2));
        disputes.descend(_at, pick, new bytes32[](1));
        // What it hashes to is what the other side posted.
        IDisputeGame.Pick memory left = _left();
        bytes32[] memory theirs = new bytes32[](2);
        (theirs[0], theirs[1]) = _childrenOfPosted();
        _refuse(abi.encodeWithSelector(IDisputeGame.NothingDisputed.selector, left.node));
        disputes.descend(_at, left, theirs);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongHeight.selector, 1));
        disputes.enterState(_at, pick, nodes);
        IStepReferee.Record memory record;
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongHeight.selector, 1));
        disputes.enterTensor(_at, pick, record, nodes);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongHeight.selector, 1));
        disputes.provePadding(_at, pick);
        _step();
        (, pick,,) =
            abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick, IStepReferee.Record, bytes32[]));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongHeight.selector, 0));
        disputes.descend(_at, pick, new bytes32[](1));
    }

    function test_enterTensor_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 4, 77_777, IDisputeGame.Phase.Trace);
        _step();
        (, IDisputeGame.Pick memory pick, IStepReferee.Record memory record, bytes32[] memory nodes) =
            abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick, IStepReferee.Record, bytes32[]));
        bytes memory data = record.data;
        record.data = bytes.concat(data, hex"00");
        _refuseProof();
        disputes.enterTensor(_at, pick, record, nodes);
        record.data = data;
        bytes32[] memory siblings = record.siblings;
        record.siblings = new bytes32[](9);
        _refuse(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, 9, 8));
        disputes.enterTensor(_at, pick, record, nodes);
        record.siblings = siblings;
        siblings[3] = ~siblings[3];
        _refuseProof();
        disputes.enterTensor(_at, pick, record, nodes);
        siblings[3] = ~siblings[3];
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 32, 64));
        disputes.enterTensor(_at, pick, record, new bytes32[](32));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, 4));
        disputes.enterState(_at, pick, nodes);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, 4));
        disputes.provePadding(_at, pick);
    }

    function test_enterState_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.StateRoot, 3, 0, IDisputeGame.Phase.Trace);
        _step();
        (, IDisputeGame.Pick memory pick, bytes32[] memory nodes) =
            abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick, bytes32[]));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 128, 64));
        disputes.enterState(_at, pick, new bytes32[](128));
        IStepReferee.Record memory record;
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, OPERATIONS));
        disputes.enterTensor(_at, pick, record, nodes);
    }

    function test_openChunk_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 2, 1100, IDisputeGame.Phase.Tensor);
        (, IDisputeGame.Pick memory pick, bytes memory chunk) =
            abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick, bytes));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 1023, 1024));
        disputes.openChunk(_at, pick, _tail(chunk, 1));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, 1));
        disputes.provePadding(_at, pick);
        _step();
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongPhase.selector, _at.phase, IDisputeGame.Phase.Tensor));
        disputes.openChunk(_at, pick, chunk);
    }

    function test_openChunk_behindTheLastReverts() public {
        _reach(DisputeWorld.LieKind.TensorPad, 4, 127, IDisputeGame.Phase.Tensor);
        _step();
        (, IDisputeGame.Pick memory pick) = abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, 127));
        disputes.openChunk(_at, pick, new bytes(1024));
    }

    function test_proveElement_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 2, 1100, IDisputeGame.Phase.Chunk);
        (, bytes memory chunk, uint64 element, IStepReferee.Evidence memory evidence) =
            abi.decode(_arguments(), (IDisputeGame.Position, bytes, uint64, IStepReferee.Evidence));
        chunk[5] = ~chunk[5];
        _refuseProof();
        disputes.proveElement(_at, chunk, element, evidence);
        chunk[5] = ~chunk[5];
        // Of the chunk before; right behind the tensor's end; far away.
        uint64[3] memory outside = [uint64(255), 300, type(uint64).max];
        for (uint256 i = 0; i < 3; ++i) {
            _refuse(abi.encodeWithSelector(IStepReferee.NoSuchElement.selector, outside[i], 300));
            disputes.proveElement(_at, chunk, outside[i], evidence);
        }
        bytes memory record = evidence.record;
        evidence.record = player.proofOf(true).header.data;
        _refuseProof();
        disputes.proveElement(_at, chunk, element, evidence);
        evidence.record = record;
        // The referee refuses evidence: no move was made.
        IStepReferee.Scene memory scene = player.sceneOf(_at);
        bytes32 question = referee.questionOf(IStepReferee.element.selector, scene, element + 1, 0, 0);
        _refuse(abi.encodeWithSelector(ToldReferee.NeverTold.selector, question));
        disputes.proveElement(_at, chunk, element + 1, evidence);
        // No long fold.
        bytes32[] memory points = new bytes32[](1);
        _refuse(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, record));
        disputes.openFold(_at, chunk, record, element, 0, points);
        assertOutcome(1, IDisputeGame.Outcome.Running);
    }

    function test_provePaddingBytes_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.DirtyByte, 2, 1023, IDisputeGame.Phase.Chunk);
        (, bytes memory chunk) = abi.decode(_arguments(), (IDisputeGame.Position, bytes));
        bytes memory other = bytes.concat(chunk);
        other[1023] = ~other[1023];
        _refuseProof();
        disputes.provePaddingBytes(_at, other);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 1023, 1024));
        disputes.provePaddingBytes(_at, _tail(chunk, 1));
    }

    function test_provePaddingBytes_fullChunkReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 2, 1023, IDisputeGame.Phase.Chunk);
        bytes memory chunk = player.posted();
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, 0));
        disputes.provePaddingBytes(_at, chunk);
    }

    function test_openFold_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 3, 8, IDisputeGame.Phase.Chunk);
        (, bytes memory chunk, bytes memory record, uint64 element, uint64 bits, bytes32[] memory points) =
            abi.decode(_arguments(), (IDisputeGame.Position, bytes, bytes, uint64, uint64, bytes32[]));
        uint256 posted = uint256(bits) ^ 0xff; // the lie is the element's first byte
        _refuse(abi.encodeWithSelector(IDisputeGame.NothingDisputed.selector, bytes32(posted)));
        disputes.openFold(_at, chunk, record, element, uint64(posted), points);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 71, 64));
        disputes.openFold(_at, chunk, record, element, bits, new bytes32[](71));
        _refuse(abi.encodeWithSelector(IStepReferee.NoSuchElement.selector, 4, 4));
        disputes.openFold(_at, chunk, record, 4, bits, points);
        record[79] = ~record[79]; // another length of the fold
        _refuseProof();
        disputes.openFold(_at, chunk, record, element, bits, points);
    }

    function test_fold_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 3, 8, IDisputeGame.Phase.Fold);
        IStepReferee.Evidence memory evidence = player.evidenceOf(_at);
        // 71 blocks have points at 1, 2, 3 … 9, 11: picking number 9 (of two blocks) asks for narrowing.
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 2, 1));
        disputes.proveBlock(_at, 9, evidence);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 1, 0));
        disputes.narrowFold(_at, 3, new bytes32[](1));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 3, 2));
        disputes.narrowFold(_at, 9, new bytes32[](3));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongPlace.selector, 64, 64));
        disputes.narrowFold(_at, 64, new bytes32[](1));
        bytes32[] memory same = new bytes32[](2);
        same[1] = _at.points[9];
        _refuse(abi.encodeWithSelector(IDisputeGame.NothingDisputed.selector, same[1]));
        disputes.narrowFold(_at, 9, same);
        evidence.record = player.proofOf(true).header.data;
        _refuseProof();
        disputes.proveBlock(_at, 3, evidence);
        _refuseProof();
        disputes.proveRounding(_at, evidence);
        same[1] = ~same[1];
        _allow();
        disputes.narrowFold(_at, 9, same);
    }

    function test_proveRounding_afterNarrowingReverts() public {
        _reach(DisputeWorld.LieKind.ElementByte, 3, 8, IDisputeGame.Phase.Fold);
        bytes32[] memory own = new bytes32[](2);
        vm.recordLogs();
        _allow();
        disputes.narrowFold(_at, 9, own);
        (IDisputeGame.Position memory next,) = abi.decode(vm.getRecordedLogs()[0].data, (IDisputeGame.Position, bytes));
        player.resume(next, "");
        _at = next;
        IStepReferee.Evidence memory evidence = player.evidenceOf(next);
        _refuse(
            abi.encodeWithSelector(IDisputeGame.WrongPhase.selector, IDisputeGame.Phase.Fold, IDisputeGame.Phase.Fold)
        );
        disputes.proveRounding(next, evidence);
    }

    function test_proveStateLeaf_spoiltReverts() public {
        _reach(DisputeWorld.LieKind.StateRoot, 3, 0, IDisputeGame.Phase.State);
        _step();
        (, IDisputeGame.Pick memory pick, IStepReferee.Record memory record, Root root, bytes32[] memory path) =
            abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick, IStepReferee.Record, Root, bytes32[]));
        _refuse(abi.encodeWithSelector(IStepReferee.WrongProofLength.selector, 5, 6));
        disputes.proveStateLeaf(_at, pick, record, root, new bytes32[](5));
        path[2] = ~path[2];
        _refuseProof();
        disputes.proveStateLeaf(_at, pick, record, root, path);
        path[2] = ~path[2];
        _refuseProof();
        disputes.proveStateLeaf(_at, pick, record, Root.wrap(~Root.unwrap(root)), path);
        bytes32[] memory nodes = new bytes32[](1);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, 3));
        disputes.enterTensor(_at, pick, record, nodes); // no counter
        record.data[0] = 0x02;
        _refuseProof();
        disputes.proveStateLeaf(_at, pick, record, root, path);
    }

    function test_proveStateLeaf_counterReverts() public {
        _reach(DisputeWorld.LieKind.CounterByte, 1, 7, IDisputeGame.Phase.State);
        _step();
        (, IDisputeGame.Pick memory pick, IStepReferee.Record memory record,) =
            abi.decode(_arguments(), (IDisputeGame.Position, IDisputeGame.Pick, IStepReferee.Record, bytes32[]));
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongLeaf.selector, 1));
        disputes.proveStateLeaf(_at, pick, record, Root.wrap(bytes32(0)), new bytes32[](6));
    }

    /// @dev Every move but the right ones, in every phase.
    function test_moves_wrongPhaseReverts() public {
        for (uint256 phase = 0; phase < 6; ++phase) {
            bool state = phase == uint256(IDisputeGame.Phase.State);
            _reach(
                state ? DisputeWorld.LieKind.StateRoot : DisputeWorld.LieKind.ElementByte,
                3,
                8,
                IDisputeGame.Phase(phase)
            );
            _tryAllMoves(IDisputeGame.Phase(phase));
        }
    }

    function _tryAllMoves(IDisputeGame.Phase phase) private {
        IDisputeGame.Pick memory pick;
        IDisputeGame.ProgramProof memory proof;
        IStepReferee.Record memory record;
        IStepReferee.Evidence memory evidence;
        bytes32[] memory none = new bytes32[](0);
        Root root;
        uint256 trees = 0x0e; // Trace, State, Tensor
        _tryMove(phase, 0x01, abi.encodeCall(disputes.narrow, (_at, 0, none)));
        _tryMove(phase, 0x01, abi.encodeCall(disputes.enterRun, (_at, 0, root, proof, none, none)));
        _tryMove(phase, trees, abi.encodeCall(disputes.descend, (_at, pick, none)));
        _tryMove(phase, 0x06, abi.encodeCall(disputes.enterTensor, (_at, pick, record, none)));
        _tryMove(phase, 0x02, abi.encodeCall(disputes.enterState, (_at, pick, none)));
        _tryMove(phase, 0x08, abi.encodeCall(disputes.openChunk, (_at, pick, "")));
        _tryMove(phase, 0x10, abi.encodeCall(disputes.openFold, (_at, "", "", 0, 0, none)));
        _tryMove(phase, 0x20, abi.encodeCall(disputes.narrowFold, (_at, 0, none)));
        _tryMove(phase, 0x10, abi.encodeCall(disputes.proveElement, (_at, "", 0, evidence)));
        _tryMove(phase, 0x20, abi.encodeCall(disputes.proveBlock, (_at, 0, evidence)));
        _tryMove(phase, 0x20, abi.encodeCall(disputes.proveRounding, (_at, evidence)));
        _tryMove(phase, 0x04, abi.encodeCall(disputes.proveStateLeaf, (_at, pick, record, root, none)));
        _tryMove(phase, trees, abi.encodeCall(disputes.provePadding, (_at, pick)));
        _tryMove(phase, 0x10, abi.encodeCall(disputes.provePaddingBytes, (_at, "")));
    }

    function _spoilPicks(IDisputeGame.Pick memory pick) private {
        bytes32[] memory nodes = new bytes32[](2);
        uint64 place = pick.place;
        pick.place = 64;
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongPlace.selector, 64, 64));
        disputes.descend(_at, pick, nodes);
        pick.place = place ^ 1;
        _refuseProof();
        disputes.descend(_at, pick, nodes);
        pick.place = place;
        pick.node = ~pick.node;
        _refuseProof();
        disputes.descend(_at, pick, nodes);
        pick.node = ~pick.node;
        bytes32[] memory siblings = pick.siblings;
        pick.siblings = new bytes32[](5);
        _refuse(abi.encodeWithSelector(IDisputeGame.WrongCount.selector, 5, 6));
        disputes.descend(_at, pick, nodes);
        pick.siblings = siblings;
        siblings[5] = ~siblings[5];
        _refuseProof();
        disputes.descend(_at, pick, nodes);
        siblings[5] = ~siblings[5];
    }

    /// @dev Leftmost node of the trace's view, about which both agree.
}
