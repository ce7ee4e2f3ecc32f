// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {ITrainingToken} from "./ITrainingToken.sol";

/// @title What tests call of `HookedToken`
interface IHookedToken is ITrainingToken {
    function setHook(address target, bytes calldata call) external;
    function succeeded() external view returns (uint256);
    function failed() external view returns (uint256);
    function lastFailure() external view returns (bytes memory);
}
