// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "./Float32.sol";

/// @title Folds that can be cut into blocks
/// @notice MATMUL, SUM, SCATTER_ADD and MAX of docs/arithmetic.md: each folds a run of elements into one word, the
/// accumulator, and rounds it once at the end. Elements are little-endian, as they lie in committed chunks; offsets and
/// counts are in elements.
/// @dev Accumulators are what `trainer/engine/exact/folds.py` calls them too:
///
/// | fold | word |
/// | --- | --- |
/// | product | the sum, in two's complement |
/// | sum | bits 0-63: the sum of q in two's complement; or, with these bits 0, bit 64: NaN, 65: +infinity, 66: -infinity |
/// | maximum of values | the greatest key + 2**31 (Float32.key) |
/// | maximum of magnitudes | the greatest bits without their sign |
///
/// A sum has one word for each way in which it can still go on: what is finite is forgotten beside an infinity, and
/// infinities of both signs are NaN. Words that no fold gives have a result too: only reading past the end of an
/// operand reverts, or a width other than 1 and 2, and both are the caller's mistakes, never the data's.
library Fold {
    int256 internal constant PRODUCT_START = 0;
    uint256 internal constant SUM_START = 0;
    /// @notice Of values and of magnitudes: less than any element's.
    uint256 internal constant MAXIMUM_START = 0;

    /// @notice Flags of a sum.
    uint256 internal constant SUM_NAN = 1 << 64;
    uint256 internal constant SUM_ABOVE = 1 << 65;
    uint256 internal constant SUM_BELOW = 1 << 66;

    int256 private constant LEAST_EXPONENT = -96;
    int256 private constant GREATEST_EXPONENT = 128;
    uint256 private constant SUM_LIMIT = 1 << 30;
    /// @dev m * 2**(e - 150) * 2**(30 - E) is m / 2**(BIAS + E - e).
    int256 private constant BIAS = 150 - 30;

    uint256 private constant SIGN = 0x80000000;
    uint256 private constant MAGNITUDE = 0x7fffffff;
    uint256 private constant INFINITY = 0x7f800000;
    uint256 private constant NAN = 0x7fc00000;
    uint256 private constant ODD_BYTES = 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
    uint256 private constant ODD_PAIRS = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;

    /// @notice An operand of `length` bytes has no elements up to offset + count.
    error PastTheEnd(uint256 offset, uint256 count, uint256 length);

    /// @notice Quantised elements have one byte or two.
    error NotAWidth(uint256 width);

    /// @notice The accumulator plus the products of `count` pairs of signed integers.
    /// @param aWidth bytes of an element of a: 1 or 2; so for b.
    function dot(
        int256 accumulator,
        bytes memory a,
        uint256 aOffset,
        uint256 aWidth,
        bytes memory b,
        uint256 bOffset,
        uint256 bWidth,
        uint256 count
    ) internal pure returns (int256) {
        unchecked {
            uint256 x = _place(a, aOffset, count, aWidth);
            uint256 y = _place(b, bOffset, count, bWidth);
            if (aWidth > bWidth) (x, aWidth, y, bWidth) = (y, bWidth, x, aWidth);
            // As many pairs at a time as fit a word of memory each, then one by one.
            uint256 whole = aWidth + bWidth == 2 ? count & ~uint256(31) : count & ~uint256(15);
            uint256 end = x + whole * aWidth;
            if (aWidth == 2) accumulator = _dotTwoByTwo(accumulator, x, y, end);
            else if (bWidth == 2) accumulator = _dotOneByTwo(accumulator, x, y, end);
            else accumulator = _dotOneByOne(accumulator, x, y, end);
            return _dotRest(accumulator, end, aWidth, y + whole * bWidth, bWidth, count - whole);
        }
    }

    /// @notice The element of a MATMUL: (f32(accumulator) * scaleA) * scaleB.
    function roundProduct(int256 accumulator, uint32 scaleA, uint32 scaleB) internal pure returns (uint32) {
        return Float32.mul(Float32.mul(Float32.fromInt(accumulator), scaleA), scaleB);
    }

    /// @notice The accumulator plus `count` binary32 elements of x, each rounded to an integer as SUM does.
    /// @param exponentWord E, an int32.
    function sum(uint256 accumulator, bytes memory x, uint256 offset, uint256 count, uint32 exponentWord)
        internal
        pure
        returns (uint256)
    {
        unchecked {
            uint256 place = _place(x, offset, count, 4);
            int256 bias = _exponent(exponentWord) + BIAS;
            (int256 total, uint256 flags) = _addRun(int64(uint64(accumulator)), accumulator, place, count, bias);
            return _packed(total, flags);
        }
    }

    /// @notice `sum` of those elements of x beside which the index, an int32, equals `row`.
    function scatter(
        uint256 accumulator,
        bytes memory x,
        uint256 offset,
        bytes memory index,
        uint256 indexOffset,
        uint256 count,
        uint256 row,
        uint32 exponentWord
    ) internal pure returns (uint256) {
        unchecked {
            uint256 place = _place(x, offset, count, 4);
            uint256 indexPlace = _place(index, indexOffset, count, 4);
            int256 bias = _exponent(exponentWord) + BIAS;
            int256 total = int64(uint64(accumulator));
            uint256 flags = accumulator;
            // No int32 is a row from 2**31 on.
            if (row > MAGNITUDE) count = 0;
            uint256 wanted = _swapped(row << 224) >> 224;
            for (uint256 end = indexPlace + 4 * count; indexPlace < end; indexPlace += 4) {
                uint256 word;
                assembly ("memory-safe") {
                    word := shr(224, mload(indexPlace))
                }
                if (word == wanted) (total, flags) = _addRun(total, flags, place, 1, bias);
                place += 4;
            }
            return _packed(total, flags);
        }
    }

    /// @notice The element of a SUM or SCATTER_ADD: f32(sum) * 2**(E - 30), or what its flags say.
    function roundSum(uint256 accumulator, uint32 exponentWord) internal pure returns (uint32) {
        uint256 word = _packed(int64(uint64(accumulator)), accumulator);
        if (word == SUM_NAN) return uint32(NAN);
        if (word == SUM_ABOVE) return uint32(INFINITY);
        if (word == SUM_BELOW) return uint32(SIGN | INFINITY);
        return Float32.scaleByPowerOfTwo(Float32.fromInt(int64(uint64(word))), _exponent(exponentWord) - 30);
    }

    /// @notice The greater of the accumulator and the greatest of `count` binary32 elements of x.
    /// @param magnitudes whether signs are left out.
    function maximum(uint256 accumulator, bytes memory x, uint256 offset, uint256 count, bool magnitudes)
        internal
        pure
        returns (uint256)
    {
        unchecked {
            uint256 place = _place(x, offset, count, 4);
            while (count != 0) {
                uint256 lanes = count < 8 ? count : 8;
                uint256 word = _eightWords(place);
                accumulator =
                    magnitudes ? _greatestBits(accumulator, word, lanes) : _greatestKey(accumulator, word, lanes);
                count -= lanes;
                place += 32;
            }
            return accumulator;
        }
    }

    /// @notice The element of a MAX.
    function roundMaximum(uint256 accumulator, bool magnitudes) internal pure returns (uint32) {
        uint32 word = uint32(accumulator);
        return magnitudes ? Float32.canonical(word & uint32(MAGNITUDE)) : Float32.fromKey(int32(word ^ uint32(SIGN)));
    }

    /// @dev Where in memory element `offset` of an operand is, once `count` elements from there on are in it.
    function _place(bytes memory operand, uint256 offset, uint256 count, uint256 width)
        private
        pure
        returns (uint256 place)
    {
        unchecked {
            if (width == 0 || (width > 2 && width != 4)) revert NotAWidth(width);
            uint256 length = operand.length;
            if (offset > length || count > length || (offset + count) * width > length) {
                revert PastTheEnd(offset, count, length);
            }
            assembly ("memory-safe") {
                place := add(add(operand, 0x20), mul(offset, width))
            }
        }
    }

    /// @dev The total plus products of elements of two bytes, sixteen at a time, from x up to `end` and from y on. The last
    /// element of a word of memory comes first, where signextend finds it. Shifts are literals, for the optimiser's sake.
    function _dotTwoByTwo(int256 total, uint256 x, uint256 y, uint256 end) private pure returns (int256) {
        assembly ("memory-safe") {
            for {} lt(x, end) {} {
                let a := mload(x)
                let b := mload(y)
                x := add(x, 32)
                y := add(y, 32)
                a := or(and(shr(8, a), ODD_BYTES), shl(8, and(a, ODD_BYTES)))
                b := or(and(shr(8, b), ODD_BYTES), shl(8, and(b, ODD_BYTES)))
                for { let left := 4 } left { left := sub(left, 1) } {
                    total := add(total, mul(signextend(1, a), signextend(1, b)))
                    total := add(total, mul(signextend(1, shr(16, a)), signextend(1, shr(16, b))))
                    total := add(total, mul(signextend(1, shr(32, a)), signextend(1, shr(32, b))))
                    total := add(total, mul(signextend(1, shr(48, a)), signextend(1, shr(48, b))))
                    a := shr(64, a)
                    b := shr(64, b)
                }
            }
        }
        return total;
    }

    /// @dev The same of one byte by two: sixteen at a time, of which those at x fill half a word of memory.
    function _dotOneByTwo(int256 total, uint256 x, uint256 y, uint256 end) private pure returns (int256) {
        assembly ("memory-safe") {
            for {} lt(x, end) {} {
                let a := shr(128, mload(x))
                let b := mload(y)
                x := add(x, 16)
                y := add(y, 32)
                b := or(and(shr(8, b), ODD_BYTES), shl(8, and(b, ODD_BYTES)))
                for { let left := 4 } left { left := sub(left, 1) } {
                    total := add(total, mul(signextend(0, a), signextend(1, b)))
                    total := add(total, mul(signextend(0, shr(8, a)), signextend(1, shr(16, b))))
                    total := add(total, mul(signextend(0, shr(16, a)), signextend(1, shr(32, b))))
                    total := add(total, mul(signextend(0, shr(24, a)), signextend(1, shr(48, b))))
                    a := shr(32, a)
                    b := shr(64, b)
                }
            }
        }
        return total;
    }

    /// @dev The same of one byte by one, thirty-two at a time.
    function _dotOneByOne(int256 total, uint256 x, uint256 y, uint256 end) private pure returns (int256) {
        assembly ("memory-safe") {
            for {} lt(x, end) {} {
                let a := mload(x)
                let b := mload(y)
                x := add(x, 32)
                y := add(y, 32)
                for { let left := 8 } left { left := sub(left, 1) } {
                    total := add(total, mul(signextend(0, a), signextend(0, b)))
                    total := add(total, mul(signextend(0, shr(8, a)), signextend(0, shr(8, b))))
                    total := add(total, mul(signextend(0, shr(16, a)), signextend(0, shr(16, b))))
                    total := add(total, mul(signextend(0, shr(24, a)), signextend(0, shr(24, b))))
                    a := shr(32, a)
                    b := shr(32, b)
                }
            }
        }
        return total;
    }

    /// @dev The same of `count` pairs of any widths, one at a time.
    function _dotRest(int256 total, uint256 x, uint256 xWidth, uint256 y, uint256 yWidth, uint256 count)
        private
        pure
        returns (int256)
    {
        assembly ("memory-safe") {
            // The word of memory that ends with an element: its last byte is the signed one, the byte before it the
            // low one of two. It may begin in the operand's length, and is never before it.
            function element(place, width) -> value {
                let word := mload(sub(add(place, width), 32))
                value := signextend(0, word)
                if eq(width, 2) { value := or(shl(8, value), byte(30, word)) }
            }
            for { let end := add(x, mul(count, xWidth)) } lt(x, end) {} {
                total := add(total, mul(element(x, xWidth), element(y, yWidth)))
                x := add(x, xWidth)
                y := add(y, yWidth)
            }
        }
        return total;
    }

    /// @dev Adds q of `count` elements at a place in memory to a total, and their flags to `flags`; bias = BIAS + E.
    /// Beside a flag the total means nothing.
    function _addRun(int256 total, uint256 flags, uint256 place, uint256 count, int256 bias)
        private
        pure
        returns (int256, uint256)
    {
        unchecked {
            while (count != 0) {
                uint256 lanes = count < 8 ? count : 8;
                uint256 word = _eightWords(place);
                count -= lanes;
                place += 32;
                assembly ("memory-safe") {
                    for {} lanes { lanes := sub(lanes, 1) } {
                        let field := and(shr(247, word), 0xff)
                        let m := and(shr(224, word), 0x7fffff)
                        if eq(field, 0xff) {
                            // NaN, else the infinity of this sign.
                            switch m
                            case 0 { flags := or(flags, shl(shr(255, word), SUM_ABOVE)) }
                            default { flags := or(flags, SUM_NAN) }
                        }
                        let normal := iszero(iszero(field))
                        m := or(m, shl(23, normal))
                        // |x| * 2**(30 - E) = m / 2**places, to the nearest integer, ties to even.
                        let places := sub(bias, add(field, iszero(normal)))
                        switch sgt(places, 0)
                        case 0 {
                            m := shl(sub(0, places), m)
                            if gt(m, SUM_LIMIT) { m := SUM_LIMIT }
                        }
                        default {
                            // slither-disable-next-line incorrect-shift -- shl(n, 1) is 2**n
                            m := shr(places, add(add(m, sub(shl(sub(places, 1), 1), 1)), and(shr(places, m), 1)))
                        }
                        total := add(total, xor(sub(m, shr(255, word)), sub(0, shr(255, word))))
                        word := shl(32, word)
                    }
                }
            }
            return (total, flags);
        }
    }

    /// @dev The greater of the accumulator and the magnitudes of the first `lanes` of eight elements.
    function _greatestBits(uint256 accumulator, uint256 word, uint256 lanes) private pure returns (uint256 greatest) {
        assembly ("memory-safe") {
            greatest := accumulator
            for {} lanes { lanes := sub(lanes, 1) } {
                let bits := and(shr(224, word), MAGNITUDE)
                if gt(bits, greatest) { greatest := bits }
                word := shl(32, word)
            }
            if gt(greatest, INFINITY) { greatest := NAN }
        }
    }

    /// @dev The greater of the accumulator and the keys + 2**31 of the first `lanes` of eight elements.
    function _greatestKey(uint256 accumulator, uint256 word, uint256 lanes) private pure returns (uint256 greatest) {
        assembly ("memory-safe") {
            greatest := accumulator
            for {} lanes { lanes := sub(lanes, 1) } {
                let bits := shr(224, word)
                word := shl(32, word)
                if gt(and(bits, MAGNITUDE), INFINITY) { bits := NAN }
                // Of positive values all but the sign stays as it is; negative ones are turned round.
                switch gt(bits, MAGNITUDE)
                case 0 { bits := add(bits, SIGN) }
                default { bits := sub(0xffffffff, bits) }
                if gt(bits, greatest) { greatest := bits }
            }
        }
    }

    /// @dev The one word for a sum and the flags seen.
    function _packed(int256 total, uint256 flags) private pure returns (uint256) {
        bool above = flags & SUM_ABOVE != 0;
        bool below = flags & SUM_BELOW != 0;
        if (flags & SUM_NAN != 0 || (above && below)) return SUM_NAN;
        if (above) return SUM_ABOVE;
        if (below) return SUM_BELOW;
        return uint64(int64(total));
    }

    /// @dev E, clamped.
    function _exponent(uint32 word) private pure returns (int256) {
        int256 exponent = int32(word);
        if (exponent < LEAST_EXPONENT) return LEAST_EXPONENT;
        return exponent > GREATEST_EXPONENT ? GREATEST_EXPONENT : exponent;
    }

    /// @dev Eight little-endian words of memory, the first one highest.
    function _eightWords(uint256 place) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := mload(place)
        }
        return _swapped(word);
    }

    /// @dev The bytes of each of eight 32-bit words reversed.
    function _swapped(uint256 word) private pure returns (uint256) {
        word = ((word >> 8) & ODD_BYTES) | ((word & ODD_BYTES) << 8);
        return ((word >> 16) & ODD_PAIRS) | ((word & ODD_PAIRS) << 16);
    }
}
