// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {TrainingToken} from "../TrainingToken.sol";

/// @title A token that keeps one percent of every transfer; for tests only
contract FeeToken is TrainingToken {
    constructor(address recipient, uint256 supply) TrainingToken(recipient, supply) {}

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (from != address(0) && to != address(0)) super._update(to, address(0), value / 100);
    }
}
