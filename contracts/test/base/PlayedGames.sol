// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {IStepReferee} from "../../interfaces/IStepReferee.sol";
import {Root} from "../../types/Identifiers.sol";
import {DisputeFixture} from "./DisputeFixture.sol";
import {DisputeWorld} from "./DisputeWorld.sol";

/// @title Games that are played to a phase, and the right move taken apart there
/// @dev What is refused comes through whole.
abstract contract PlayedGames is DisputeFixture {
    uint32 internal constant RUN = 36;
    uint32 internal constant OPERATIONS = 70;

    IDisputeGame.Position internal _at;

    function _left() internal view returns (IDisputeGame.Pick memory) {
        return player.pickAt(0);
    }

    function _childrenOfPosted() internal view returns (bytes32, bytes32) {
        return player.agreedLeaves();
    }

    function _entering()
        internal
        returns (
            uint256 place,
            Root state,
            IDisputeGame.ProgramProof memory proof,
            bytes32[] memory nodes,
            bytes32[] memory siblings
        )
    {
        _reach(DisputeWorld.LieKind.ElementByte, 4, 77_777, IDisputeGame.Phase.Runs);
        _step();
        (, place, state, proof, nodes, siblings) = abi.decode(
            _arguments(), (IDisputeGame.Position, uint256, Root, IDisputeGame.ProgramProof, bytes32[], bytes32[])
        );
    }

    /// @dev Plays a game, in which the defender lies, up to a phase.
    function _reach(DisputeWorld.LieKind kind, uint32 number, uint32 index, IDisputeGame.Phase phase) internal {
        begin(kind, RUN, number, index, false);
        player.playTo(phase);
        _at = player.position();
    }

    function _step() internal {
        vm.assertTrue(player.step(), "the game goes on");
        _at = player.position();
    }

    /// @dev Arguments of the right move.
    function _arguments() internal returns (bytes memory) {
        return _tail(player.nextCall(), 4);
    }

    /// @dev The next call comes from the side to move and is refused with this error.
    function _refuse(bytes memory refusal) internal {
        vm.prank(player.mover());
        vm.expectRevert(refusal);
    }

    function _refuseProof() internal {
        vm.prank(player.mover());
        vm.expectPartialRevert(IStepReferee.WrongProof.selector);
    }

    function _allow() internal {
        vm.prank(player.mover());
    }

    /// @param phases One bit for each phase that the move belongs to; the error names the first of them.
    function _tryMove(IDisputeGame.Phase phase, uint256 phases, bytes memory call) internal {
        if ((phases >> uint256(phase)) & 1 == 1) return;
        uint256 needed = 0;
        while ((phases >> needed) & 1 == 0) ++needed;
        vm.prank(player.mover());
        // solhint-disable-next-line avoid-low-level-calls
        (bool good, bytes memory answer) = address(disputes).call(call);
        vm.assertTrue(!good, "a move of another phase");
        vm.assertEq(answer, abi.encodeWithSelector(IDisputeGame.WrongPhase.selector, phase, needed), "refusal");
    }

    function _tail(bytes memory data, uint256 start) internal pure returns (bytes memory rest) {
        rest = new bytes(data.length - start);
        for (uint256 i = 0; i < rest.length; i += 32) {
            assembly ("memory-safe") {
                mstore(add(add(rest, 32), i), mload(add(add(add(data, 32), start), i)))
            }
        }
    }
}
