// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title What tests call of `ArithmeticProbe`: the arithmetic libraries compiled as they are deployed
interface IArithmeticProbe {
    function run(bytes memory kernel, uint32[] memory words) external view returns (uint32 word, uint256 used);
    function dot(
        int256 accumulator,
        bytes memory a,
        uint256 aOffset,
        uint256 aWidth,
        bytes memory b,
        uint256 bOffset,
        uint256 bWidth,
        uint256 count
    ) external view returns (int256 result, uint256 used);
    function sum(uint256 accumulator, bytes memory x, uint256 offset, uint256 count, uint32 exponent)
        external
        view
        returns (uint256 result, uint256 used);
    function scatter(
        uint256 accumulator,
        bytes memory x,
        uint256 offset,
        bytes memory index,
        uint256 indexOffset,
        uint256 count,
        uint256 row,
        uint32 exponent
    ) external view returns (uint256 result, uint256 used);
    function maximum(uint256 accumulator, bytes memory x, uint256 offset, uint256 count, bool magnitudes)
        external
        view
        returns (uint256 result, uint256 used);
    function evaluate(uint256 operation, bytes calldata pairs) external pure returns (bytes memory results);
    function store(uint32 word, uint8 dtype) external pure returns (uint32);
}
