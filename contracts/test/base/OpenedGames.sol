// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {DisputeFixture} from "./DisputeFixture.sol";
import {Vm} from "./Vm.sol";

/// @title One submission, and games about it that are opened and narrowed
/// @dev Roots are made up.
abstract contract OpenedGames is DisputeFixture {
    Root internal constant ANSWER = Root.wrap(bytes32(uint256(0xa)));

    TaskId internal _task;
    Root internal _root;
    /// @dev The time. The compiler takes `block.timestamp` for constant in one call, which it is not in a test.
    uint256 internal _now;

    function setUp() public override {
        super.setUp();
        _now = block.timestamp;
        (_task, _root) = submitted();
    }

    function _refuseDeployment(
        address ledger_,
        address referee_,
        uint32 clock,
        uint32 move,
        string memory field,
        uint256 value
    ) internal {
        vm.expectRevert(abi.encodeWithSelector(ITrainingLedger.InvalidParameter.selector, field, value));
        this.construct("DisputeGame.sol:DisputeGame", abi.encode(ledger_, referee_, clock, move));
    }

    function _wait(uint256 time) internal {
        _waitUntil(_now + time);
    }

    function _waitUntil(uint256 time) internal {
        _now = time;
        vm.warp(time);
    }

    /// @dev A game about a submission of this many steps.
    function _openFor(uint32 steps) internal returns (IDisputeGame.Position memory) {
        ITrainingLedger.TaskParameters memory p = parameters();
        p.stepsPerRound = steps;
        _task = post(p);
        claimAs(_task, WORKER);
        _root = submitAs(_task, WORKER, steps, LOSS_3);
        return _open(CHALLENGER, ANSWER);
    }

    function _open(address challenger, Root claimed) internal returns (IDisputeGame.Position memory) {
        return _open(challenger, claimed, 32);
    }

    function _open(address challenger, Root claimed, uint256 count) internal returns (IDisputeGame.Position memory) {
        IDisputeGame.Opening memory opening = _opening(challenger);
        vm.recordLogs();
        vm.prank(challenger);
        disputes.open(opening, _points(claimed, count));
        return _started();
    }

    function _started() internal returns (IDisputeGame.Position memory position) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        (, position) = abi.decode(logs[logs.length - 1].data, (address, IDisputeGame.Position));
    }

    /// @dev Narrows to the last point but one: three runs or more, of which own roots are made up.
    function _narrow(address mover, IDisputeGame.Position memory position, uint256 place)
        internal
        returns (IDisputeGame.Position memory next)
    {
        uint256 length = position.high - position.low;
        uint256 low = length * place / 32;
        uint256 count = length * (place + 1) / 32 - low;
        vm.recordLogs();
        vm.prank(mover);
        disputes.narrow(position, place, _points(Root.wrap(keccak256(abi.encode(mover, low))), count < 32 ? count : 32));
        (next,) = abi.decode(vm.getRecordedLogs()[0].data, (IDisputeGame.Position, bytes));
    }

    /// @dev A move of the wrong account or for the wrong position.
    function _refuseMove(address who, IDisputeGame.Position memory position, bytes memory refusal) internal {
        vm.prank(who);
        vm.expectRevert(refusal);
        disputes.narrow(position, 9, new bytes32[](3));
    }

    function _opening(address challenger) internal view returns (IDisputeGame.Opening memory) {
        return IDisputeGame.Opening(challenger, _task, 0, 0, ledger.getSlot(_task, 0, 0).attempt, _root);
    }

    function _earliest(Root root) internal view returns (address) {
        return disputes.earliest(_task, 0, 0, 0, root);
    }

    function _redone() internal view returns (Root) {
        return redoneRoot(_task, 0, 1, LOSS_3);
    }

    function _points(Root last, uint256 count) internal pure returns (bytes32[] memory points) {
        points = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            points[i] = keccak256(abi.encode("point", i));
        }
        points[count - 1] = Root.unwrap(last);
    }

    function _wrongPosition(IDisputeGame.Position memory given, IDisputeGame.Position memory expected)
        internal
        pure
        returns (bytes memory)
    {
        return abi.encodeWithSelector(
            IDisputeGame.WrongPosition.selector, keccak256(abi.encode(given)), keccak256(abi.encode(expected))
        );
    }
}
