// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";

/// @title What tests call of the token
/// @dev Tests know contracts by interfaces only: a test that imported one would compile it again, with its own settings.
interface ITrainingToken is IERC20Metadata, IERC20Permit {
    error SupplyOutOfRange(uint256 supply);

    function burn(uint256 amount) external;
}
