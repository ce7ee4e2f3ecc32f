// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "../libraries/Float32.sol";
import {Fold} from "../libraries/Fold.sol";
import {Kernel} from "../libraries/Kernel.sol";

/// @title The arithmetic of disputes, open to tests and benchmarks
/// @notice Batches come as packed big-endian words, so that a call can hold many cases.
contract ArithmeticProbe {
    /// @notice There is no such operation.
    error NoSuchOperation(uint256 operation);

    /// @notice Kernel.run and its gas.
    function run(bytes memory kernel, uint32[] memory words) external view returns (uint32 word, uint256 used) {
        used = gasleft();
        word = Kernel.run(kernel, words);
        used -= gasleft();
    }

    /// @notice Fold.dot and its gas.
    function dot(
        int256 accumulator,
        bytes memory a,
        uint256 aOffset,
        uint256 aWidth,
        bytes memory b,
        uint256 bOffset,
        uint256 bWidth,
        uint256 count
    ) external view returns (int256 result, uint256 used) {
        used = gasleft();
        result = Fold.dot(accumulator, a, aOffset, aWidth, b, bOffset, bWidth, count);
        used -= gasleft();
    }

    /// @notice Fold.sum and its gas.
    function sum(uint256 accumulator, bytes memory x, uint256 offset, uint256 count, uint32 exponent)
        external
        view
        returns (uint256 result, uint256 used)
    {
        used = gasleft();
        result = Fold.sum(accumulator, x, offset, count, exponent);
        used -= gasleft();
    }

    /// @notice Fold.scatter and its gas.
    function scatter(
        uint256 accumulator,
        bytes memory x,
        uint256 offset,
        bytes memory index,
        uint256 indexOffset,
        uint256 count,
        uint256 row,
        uint32 exponent
    ) external view returns (uint256 result, uint256 used) {
        used = gasleft();
        result = Fold.scatter(accumulator, x, offset, index, indexOffset, count, row, exponent);
        used -= gasleft();
    }

    /// @notice Fold.maximum and its gas.
    function maximum(uint256 accumulator, bytes memory x, uint256 offset, uint256 count, bool magnitudes)
        external
        view
        returns (uint256 result, uint256 used)
    {
        used = gasleft();
        result = Fold.maximum(accumulator, x, offset, count, magnitudes);
        used -= gasleft();
    }

    /// @notice Results of one operation for many cases.
    /// @param operation its code as a kernel's instruction, or 0xc0 key, 0xc1 fromKey, 0xc2 canonical,
    /// 0xc3 scaleByPowerOfTwo(a, int32 b), 0xc4 fromInt of the 64 bits of a and b.
    /// @param pairs (a, b) for each case, 4 bytes each.
    /// @return results 4 bytes for each case.
    function evaluate(uint256 operation, bytes calldata pairs) external pure returns (bytes memory results) {
        uint256 count = pairs.length / 8;
        results = new bytes(4 * count);
        for (uint256 i = 0; i < count; ++i) {
            uint256 place = 8 * i;
            uint32 a = uint32(bytes4(pairs[place:place + 4]));
            uint32 b = uint32(bytes4(pairs[place + 4:place + 8]));
            uint32 result = _result(operation, a, b);
            assembly ("memory-safe") {
                // The 28 bytes after the result are written back as they were.
                let target := add(add(results, 0x20), shl(2, i))
                mstore(target, or(shl(224, result), and(mload(target), not(shl(224, 0xffffffff)))))
            }
        }
    }

    /// @notice Kernel.store.
    function store(uint32 word, uint8 dtype) external pure returns (uint32) {
        return Kernel.store(word, dtype);
    }

    /// @notice Fold.roundProduct.
    function roundProduct(int256 accumulator, uint32 scaleA, uint32 scaleB) external pure returns (uint32) {
        return Fold.roundProduct(accumulator, scaleA, scaleB);
    }

    /// @notice Fold.roundSum.
    function roundSum(uint256 accumulator, uint32 exponent) external pure returns (uint32) {
        return Fold.roundSum(accumulator, exponent);
    }

    /// @notice Fold.roundMaximum.
    function roundMaximum(uint256 accumulator, bool magnitudes) external pure returns (uint32) {
        return Fold.roundMaximum(accumulator, magnitudes);
    }

    function _result(uint256 operation, uint32 a, uint32 b) private pure returns (uint32) {
        if (operation == 0x10) return Float32.add(a, b);
        if (operation == 0x11) return Float32.sub(a, b);
        if (operation == 0x12) return Float32.mul(a, b);
        if (operation == 0x13) return Float32.div(a, b);
        if (operation == 0x14) return Float32.sqrt(a);
        if (operation == 0x18) return Float32.lessThan(a, b) ? 1 : 0;
        if (operation == 0x19) return Float32.lessOrEqual(a, b) ? 1 : 0;
        if (operation == 0x1a) return Float32.equal(a, b) ? 1 : 0;
        if (operation == 0x1c) return uint32(Float32.toInt(a));
        if (operation == 0x1d) return Float32.fromInt(int32(a));
        if (operation == 0xc0) return uint32(Float32.key(a));
        if (operation == 0xc1) return Float32.fromKey(int32(a));
        if (operation == 0xc2) return Float32.canonical(a);
        if (operation == 0xc3) return Float32.scaleByPowerOfTwo(a, int32(b));
        if (operation == 0xc4) return Float32.fromInt(int64((uint64(a) << 32) | b));
        revert NoSuchOperation(operation);
    }
}
