// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {ERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Permit.sol";

/// @title The token in which rewards and bonds are held
/// @notice 18 decimals. All of it is minted once, at deployment; it can only be burned afterwards. There is no owner.
contract TrainingToken is ERC20, ERC20Burnable, ERC20Permit {
    /// @notice Thrown when the supply is zero or does not fit the 128 bits in which the vault keeps amounts.
    error SupplyOutOfRange(uint256 supply);

    /// @param recipient Who is given the whole supply.
    /// @param supply In wei; 1 to 2**128 - 1.
    constructor(address recipient, uint256 supply) ERC20("Training Token", "TRAIN") ERC20Permit("Training Token") {
        require(supply > 0 && supply <= type(uint128).max, SupplyOutOfRange(supply));
        _mint(recipient, supply);
    }
}
