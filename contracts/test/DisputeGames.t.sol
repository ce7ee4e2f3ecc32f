// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {DisputeFixture} from "./base/DisputeFixture.sol";
import {DisputeWorld} from "./base/DisputeWorld.sol";

/// @title Whole games: whoever tells the truth wins, on either side
contract DisputeGamesTest is DisputeFixture {
    uint32 private constant TRAINING = 36;
    uint32 private constant EVALUATION = 100;

    function test_playOut_elementOfALargeOutput() public {
        _bothWays(DisputeWorld.LieKind.ElementByte, TRAINING, 4, 77_777, IDisputeGame.proveElement.selector);
    }

    function test_playOut_firstByteOfAnOutput() public {
        _bothWays(DisputeWorld.LieKind.ElementByte, TRAINING, 2, 0, IDisputeGame.proveElement.selector);
    }

    function test_playOut_lastElementOfTheEvaluation() public {
        _bothWays(DisputeWorld.LieKind.ElementByte, EVALUATION, 2, 1199, IDisputeGame.proveElement.selector);
    }

    function test_playOut_firstRun() public {
        _bothWays(DisputeWorld.LieKind.ElementByte, 0, 5, 3, IDisputeGame.proveElement.selector);
    }

    function test_playOut_counterOutput() public {
        _bothWays(DisputeWorld.LieKind.ElementByte, TRAINING, 0, 1, IDisputeGame.proveElement.selector);
    }

    function test_playOut_blockOfAFold() public {
        _bothWays(DisputeWorld.LieKind.ElementByte, TRAINING, 3, 8, IDisputeGame.proveBlock.selector);
    }

    function test_playOut_roundingOfAFold() public {
        _bothWays(DisputeWorld.LieKind.Rounding, TRAINING, 3, 8, IDisputeGame.proveRounding.selector);
    }

    function test_playOut_bytesBehindAnOutput() public {
        _bothWays(DisputeWorld.LieKind.DirtyByte, TRAINING, 2, 1023, IDisputeGame.provePaddingBytes.selector);
    }

    function test_playOut_padOfATensor() public {
        _bothWays(DisputeWorld.LieKind.TensorPad, TRAINING, 4, 127, IDisputeGame.provePadding.selector);
    }

    function test_playOut_counterOfTheState() public {
        _bothWays(DisputeWorld.LieKind.CounterByte, TRAINING, 1, 7, IDisputeGame.proveElement.selector);
    }

    function test_playOut_stateThatIsNotItsOutput() public {
        _bothWays(DisputeWorld.LieKind.StateRoot, TRAINING, 3, 0, IDisputeGame.proveStateLeaf.selector);
    }

    function test_playOut_unchangedTensorChanged() public {
        _bothWays(DisputeWorld.LieKind.StateRoot, TRAINING, 68, 0, IDisputeGame.proveStateLeaf.selector);
    }

    function test_playOut_lossOfTheEvaluation() public {
        _bothWays(DisputeWorld.LieKind.StateRoot, EVALUATION, 2, 0, IDisputeGame.proveStateLeaf.selector);
    }

    function test_playOut_padOfAState() public {
        _bothWays(DisputeWorld.LieKind.StatePad, TRAINING, 0, 127, IDisputeGame.provePadding.selector);
    }

    function test_playOut_padOfATrace() public {
        begin(DisputeWorld.LieKind.TracePad, TRAINING, 0, 100, false);
        (IDisputeGame.Outcome outcome,) = player.playOut();
        vm.assertEq(uint256(outcome), uint256(IDisputeGame.Outcome.ChallengerWon), "the liar won");
        vm.assertEq(bytes32(player.lastMove()), bytes32(IDisputeGame.provePadding.selector), "ended by another proof");
    }

    /// @dev A lie that the challenger tells about a true submission, and one that the defender submitted.
    function _bothWays(DisputeWorld.LieKind kind, uint32 run, uint32 number, uint32 index, bytes4 end) private {
        for (uint256 i = 0; i < 2; ++i) {
            bool challengerLies = i == 0;
            begin(kind, run, number, index, challengerLies);
            (IDisputeGame.Outcome outcome, uint256 moves) = player.playOut();
            vm.assertEq(bytes32(player.lastMove()), bytes32(end), "ended by another proof");
            IDisputeGame.Outcome right =
                challengerLies ? IDisputeGame.Outcome.DefenderWon : IDisputeGame.Outcome.ChallengerWon;
            vm.assertEq(uint256(outcome), uint256(right), "the liar won");
            vm.assertLe(moves, 12, "moves");
        }
    }
}
