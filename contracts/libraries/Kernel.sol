// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "./Float32.sol";

/// @title Interpreter of element-wise kernels
/// @notice docs/arithmetic.md, "Kernels": straight lines of at most 512 instructions over 32-bit registers.
/// @dev INVARIANT: the only thing that reverts is a kernel that no loader accepts; data never do.
library Kernel {
    uint8 internal constant FLOAT32 = 1;
    uint8 internal constant INT32 = 3;
    uint8 internal constant INT8 = 4;
    uint8 internal constant INT16 = 9;

    uint256 private constant MAXIMUM_BYTES = 512 * 8;
    uint256 private constant LAST_CODE = 0x30;
    /// @dev A nibble for each code, the lowest for code 0: one more than the registers it reads, 0 where there is no
    /// such code. INPUT and CONST are not in it.
    uint256 private constant SHAPES =
        4 << 192 | 0x33333333333 << 128 | 0x22 << 112 | 0x333 << 96 | 2 << 80 | 0x3333 << 64;

    /// @notice A kernel is 1 to 512 instructions of 8 bytes.
    error KernelLength(uint256 length);

    /// @notice There is no such code, or a byte that means nothing is not zero.
    error NotAnInstruction(uint256 position, bytes8 instruction);

    /// @notice An instruction reads a register that no earlier one has written.
    error RegisterNotEarlier(uint256 position, uint256 register);

    /// @notice An instruction reads an input that the operation does not have.
    error NoSuchInput(uint256 position, uint256 input, uint256 inputs);

    /// @notice No kernel writes elements of this dtype.
    error NotAnOutputType(uint8 dtype);

    /// @notice The result of a kernel for one element.
    /// @param kernel encoded instructions.
    /// @param words the word of each input.
    function run(bytes memory kernel, uint32[] memory words) internal pure returns (uint32) {
        unchecked {
            if (kernel.length == 0 || kernel.length % 8 != 0 || kernel.length > MAXIMUM_BYTES) {
                revert KernelLength(kernel.length);
            }
            uint256 count = kernel.length / 8;
            uint256 registers;
            assembly ("memory-safe") {
                registers := mload(0x40)
                mstore(0x40, add(registers, shl(5, count)))
            }
            uint256 result;
            for (uint256 position = 0; position < count; ++position) {
                uint256 instruction;
                assembly ("memory-safe") {
                    instruction := shr(192, mload(add(add(kernel, 0x20), shl(3, position))))
                }
                result = _step(instruction, position, registers, words);
                assembly ("memory-safe") {
                    mstore(add(registers, shl(5, position)), result)
                }
            }
            return uint32(result);
        }
    }

    /// @notice A kernel's result as the element that an output of this dtype holds, as a word: floats with the one NaN,
    /// int8 and int16 clamped to what quantised values may be and sign-extended.
    function store(uint32 word, uint8 dtype) internal pure returns (uint32) {
        if (dtype == FLOAT32) return Float32.canonical(word);
        if (dtype == INT32) return word;
        if (dtype == INT16) return _clamp(word, 4095);
        if (dtype == INT8) return _clamp(word, 127);
        revert NotAnOutputType(dtype);
    }

    function _clamp(uint32 word, int32 largest) private pure returns (uint32) {
        int32 value = int32(word);
        if (value > largest) return uint32(largest);
        return value < -largest ? uint32(-largest) : word;
    }

    /// @dev What an instruction writes; `registers` points to those before it, a word of memory each.
    function _step(uint256 instruction, uint256 position, uint256 registers, uint32[] memory words)
        private
        pure
        returns (uint256)
    {
        unchecked {
            uint256 code = instruction >> 56;
            if (code < 2) return code == 0 ? _input(instruction, position, words) : _constant(instruction, position);
            uint256 shape = code > LAST_CODE ? 0 : (SHAPES >> (code << 2)) & 15;
            // The zero byte, and the operands that the instruction does not have.
            uint256 unused = 0xff << 48 | (1 << (64 - (shape << 4))) - 1;
            if (shape == 0 || instruction & unused != 0) _refuse(instruction, position);
            uint256 a = _read(instruction >> 32 & 0xffff, position, registers);
            if (shape == 2) return _unary(code, uint32(a));
            uint256 b = _read(instruction >> 16 & 0xffff, position, registers);
            if (shape == 4) {
                // Read whether it is chosen or not: what is a kernel must not depend on data.
                uint256 c = _read(instruction & 0xffff, position, registers);
                return a != 0 ? b : c;
            }
            return code < 0x20 ? _float(code, uint32(a), uint32(b)) : _integer(code, a, b);
        }
    }

    function _input(uint256 instruction, uint256 position, uint32[] memory words) private pure returns (uint256 word) {
        if (instruction & ~uint256(0xffff << 32) != 0) _refuse(instruction, position);
        uint256 input = instruction >> 32;
        if (input >= words.length) revert NoSuchInput(position, input, words.length);
        return words[input];
    }

    function _constant(uint256 instruction, uint256 position) private pure returns (uint256) {
        if (instruction >> 32 != 1 << 24) _refuse(instruction, position);
        return instruction & 0xffffffff;
    }

    function _refuse(uint256 instruction, uint256 position) private pure {
        revert NotAnInstruction(position, bytes8(uint64(instruction)));
    }

    function _read(uint256 register, uint256 position, uint256 registers) private pure returns (uint256 word) {
        if (register >= position) revert RegisterNotEarlier(position, register);
        assembly ("memory-safe") {
            word := mload(add(registers, shl(5, register)))
        }
    }

    /// @dev FSQRT, F2I, I2F.
    function _unary(uint256 code, uint32 a) private pure returns (uint256) {
        if (code == 0x14) return Float32.sqrt(a);
        if (code == 0x1c) return uint32(Float32.toInt(a));
        return Float32.fromInt(int32(a));
    }

    /// @dev FADD, FSUB, FMUL, FDIV, FLT, FLE, FEQ.
    function _float(uint256 code, uint32 a, uint32 b) private pure returns (uint256) {
        if (code == 0x12) return Float32.mul(a, b);
        if (code == 0x10) return Float32.add(a, b);
        if (code == 0x11) return Float32.sub(a, b);
        if (code == 0x13) return Float32.div(a, b);
        bool holds =
            code == 0x18 ? Float32.lessThan(a, b) : code == 0x19 ? Float32.lessOrEqual(a, b) : Float32.equal(a, b);
        return holds ? 1 : 0;
    }

    /// @dev IADD, ISUB, IMUL, AND; OR, XOR, SHL, SHR; SAR, ILT, IEQ. Results are cut to 32 bits where they can have
    /// more, given that a and b do not.
    function _integer(uint256 code, uint256 a, uint256 b) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            switch shr(2, code)
            case 8 {
                switch and(code, 3)
                case 0 { word := and(add(a, b), 0xffffffff) }
                case 1 { word := and(sub(a, b), 0xffffffff) }
                case 2 { word := and(mul(a, b), 0xffffffff) }
                default { word := and(a, b) }
            }
            case 9 {
                switch and(code, 3)
                case 0 { word := or(a, b) }
                case 1 { word := xor(a, b) }
                case 2 { word := and(shl(and(b, 31), a), 0xffffffff) }
                default { word := shr(and(b, 31), a) }
            }
            default {
                switch and(code, 3)
                case 0 { word := and(sar(and(b, 31), signextend(3, a)), 0xffffffff) }
                case 1 { word := slt(signextend(3, a), signextend(3, b)) }
                default { word := eq(a, b) }
            }
        }
    }
}
