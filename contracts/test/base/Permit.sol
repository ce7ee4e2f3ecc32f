// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingToken} from "./ITrainingToken.sol";

/// @title The digest that an EIP-2612 permit signs
library Permit {
    bytes32 private constant TYPE =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    function digest(ITrainingToken token, address owner, address spender, uint256 value, uint256 deadline)
        internal
        view
        returns (bytes32)
    {
        bytes32 content = keccak256(abi.encode(TYPE, owner, spender, value, token.nonces(owner), deadline));
        return keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), content));
    }
}
