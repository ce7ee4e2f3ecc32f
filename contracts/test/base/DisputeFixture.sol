// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {ToldReferee} from "../../mocks/ToldReferee.sol";
import {DisputePlayer} from "./DisputePlayer.sol";
import {DisputeWorld} from "./DisputeWorld.sol";
import {Fixture} from "./Fixture.sol";

/// @title A deployment with the real game, a referee that is told what is true, and both sides of a game
abstract contract DisputeFixture is Fixture {
    uint32 internal constant CLOCK = 1500;
    uint32 internal constant MOVE = 100;

    ToldReferee internal referee;
    IDisputeGame internal disputes;
    DisputePlayer internal player;

    function setUp() public virtual override {
        referee = ToldReferee(vm.deployCode("ToldReferee.sol:ToldReferee", ""));
        super.setUp();
        disputes = IDisputeGame(address(game));
        player = DisputePlayer(vm.deployCode("DisputePlayer.sol:DisputePlayer", abi.encode(disputes, referee, ledger)));
        arm(CHALLENGER);
        arm(STRANGER);
    }

    function deployGame() internal override returns (address) {
        return vm.deployCode("DisputeGame.sol:DisputeGame", abi.encode(ledger, referee, CLOCK, MOVE));
    }

    /// @dev A submission and a game about it, one side of which lies.
    function begin(DisputeWorld.LieKind kind, uint32 run, uint32 number, uint32 index, bool challengerLies) internal {
        player.prepare(DisputeWorld.Lie(kind, run, number, index), challengerLies);
        player.open(CHALLENGER);
    }

    function assertOutcome(uint256 number, IDisputeGame.Outcome expected) internal view {
        (,, IDisputeGame.Outcome outcome) = disputes.getGame(number);
        vm.assertEq(uint256(outcome), uint256(expected), "outcome");
    }
}
