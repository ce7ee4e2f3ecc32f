// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {LedgerInvariantsTest} from "./LedgerInvariants.t.sol";
import {DisputeHandler} from "./base/DisputeHandler.sol";
import {Handler} from "./base/Handler.sol";

/// @title What holds whatever people do, with the real game
/// @notice All that holds with games that end as they are told, and: a bond leaves once; nobody but the side to move
/// moves; no game is stuck once its clocks have run out.
/// forge-config: default.invariant.runs = 16
/// forge-config: default.fuzz.runs = 3
/// forge-config: full.invariant.runs = 128
/// forge-config: full.fuzz.runs = 30
contract DisputeInvariantsTest is LedgerInvariantsTest {
    function targetSelectors() external view override returns (FuzzSelector[] memory targets) {
        bytes4[] memory actions = ledgerActions(4);
        actions[22] = DisputeHandler.move.selector;
        actions[23] = DisputeHandler.move.selector;
        actions[24] = DisputeHandler.release.selector;
        actions[25] = Handler.settleGame.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(_handler), actions);
    }

    function deployGame() internal override returns (address) {
        // No game gets as far as to a referee here.
        return vm.deployCode("DisputeGame.sol:DisputeGame", abi.encode(ledger, address(1), uint32(600), uint32(60)));
    }

    function makeHandler() internal override returns (Handler) {
        bytes memory arguments = abi.encode(token, vault, ledger, game);
        return Handler(vm.deployCode("DisputeHandler.sol:DisputeHandler", arguments));
    }

    function neverDone() internal view override returns (string memory) {
        string[9] memory actions = [
            "move",
            "release",
            "opened with another's stake",
            "moved out of turn",
            "moved for somebody else",
            "moved late",
            "moved twice for one position",
            "settled before the clock ran out",
            "released from a submission that stands"
        ];
        for (uint256 i = 0; i < actions.length; ++i) {
            if (_handler.done(actions[i]) == 0) return actions[i];
        }
        return super.neverDone();
    }

    function _act(uint256 luck) internal override {
        DisputeHandler handler = DisputeHandler(address(_handler));
        uint256 choice = (luck >> 240) % 8;
        if (choice == 0) handler.move((luck >> 8) % 64, luck >> 16);
        else if (choice == 1) handler.release((luck >> 8) % 64);
        else if (choice == 2) handler.settleGame((luck >> 8) % 64, false);
        else super._act(luck);
    }
}
