// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {TrainingToken} from "../TrainingToken.sol";

/// @title A token that calls somebody in the middle of every movement; for tests only
/// @notice Stands for tokens with hooks (ERC-777 and alike), by which a receiver could re-enter the vault.
contract HookedToken is TrainingToken {
    address private _target;
    bytes private _call;
    bool private _inside;

    /// @notice How many of the hook's calls succeeded.
    uint256 public succeeded;
    /// @notice How many of them reverted, and with what.
    uint256 public failed;
    bytes public lastFailure;

    constructor(address recipient, uint256 supply) TrainingToken(recipient, supply) {}

    /// @notice From now on each movement makes this call once. A target of zero ends it.
    function setHook(address target, bytes calldata call) external {
        (_target, _call) = (target, call);
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (_target == address(0) || _inside) return;
        _inside = true;
        // solhint-disable-next-line avoid-low-level-calls
        (bool good, bytes memory answer) = _target.call(_call);
        if (good) ++succeeded;
        else (failed, lastFailure) = (failed + 1, answer);
        _inside = false;
    }
}
