// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title IEEE 754 binary32 in integers
/// @notice docs/arithmetic.md: round to nearest, ties to even; subnormals are kept; every NaN result is 0x7fc00000.
/// Values are bit patterns. Every function is total: it gives an answer for every argument and never reverts.
/// @dev A finite value is read as m * 2**(e - 150) with m < 2**24 and 1 <= e <= 254, so that subnormals (e = 1 and
/// m < 2**23) need no case of their own. Results are made exact, or exact but for a lowest bit that stands for all that
/// was cut off, and `_round` rounds them once.
library Float32 {
    /// @notice The one NaN.
    uint32 internal constant NAN = 0x7fc00000;

    uint256 private constant SIGN = 0x80000000;
    uint256 private constant MAGNITUDE = 0x7fffffff;
    uint256 private constant INFINITY = 0x7f800000;
    uint256 private constant FRACTION = 0x7fffff;
    /// @dev 2**31: from here on a value is clamped when it is converted to int32.
    uint256 private constant TWO_TO_31 = 0x4f000000;
    int32 private constant GREATEST_INT = 2147483520;
    /// @dev What is this far below a result's last bit decides nothing but that it is there.
    uint256 private constant FARTHEST = 32;
    /// @dev floor(log2(i)) for i < 16, a byte each.
    uint256 private constant SMALL_LOGARITHMS = 0x0000010102020202030303030303030300000000000000000000000000000000;

    /// @notice a + b.
    function add(uint32 a, uint32 b) internal pure returns (uint32) {
        unchecked {
            (uint256 x, uint256 y) = (a, b);
            if (x & MAGNITUDE < y & MAGNITUDE) (x, y) = (y, x);
            bool subtracts = (x ^ y) & SIGN != 0;
            if (x & MAGNITUDE >= INFINITY) {
                bool undefined = x & MAGNITUDE > INFINITY || (subtracts && y & MAGNITUDE == INFINITY);
                return undefined ? NAN : uint32(x);
            }
            (uint256 m, uint256 e) = _parts(x);
            (uint256 n, uint256 f) = _parts(y);
            uint256 distance = e - f;
            if (distance > FARTHEST) distance = FARTHEST;
            m <<= distance;
            m = subtracts ? m - n : m + n;
            // Only equal zeros keep their sign: x - x is +0.
            if (m == 0) return uint32(x & y & SIGN);
            // The leading bit is that of x or a neighbour's, but where much is cancelled or x is subnormal.
            uint256 top = m >> (distance + 22);
            uint256 bit = top == 0 ? _log2(m) : distance + 22 + _bit(top > 1) + _bit(top > 3);
            return _round(x & SIGN, m, int256(e - distance) - 150, bit);
        }
    }

    /// @notice a - b.
    function sub(uint32 a, uint32 b) internal pure returns (uint32) {
        return add(a, b ^ uint32(SIGN));
    }

    /// @notice a * b.
    function mul(uint32 a, uint32 b) internal pure returns (uint32) {
        unchecked {
            uint256 sign = (a ^ b) & SIGN;
            (uint256 x, uint256 y) = (a & MAGNITUDE, b & MAGNITUDE);
            if (x >= INFINITY || y >= INFINITY) {
                bool undefined = x > INFINITY || y > INFINITY || x == 0 || y == 0;
                return undefined ? NAN : uint32(sign | INFINITY);
            }
            (uint256 m, uint256 e) = _parts(x);
            (uint256 n, uint256 f) = _parts(y);
            m *= n;
            if (m == 0) return uint32(sign);
            uint256 bit = m >> 46 == 0 ? _log2(m) : 46 + (m >> 47);
            return _round(sign, m, int256(e + f) - 300, bit);
        }
    }

    /// @notice a / b.
    function div(uint32 a, uint32 b) internal pure returns (uint32) {
        unchecked {
            uint256 sign = (a ^ b) & SIGN;
            (uint256 x, uint256 y) = (a & MAGNITUDE, b & MAGNITUDE);
            if (x >= INFINITY || y >= INFINITY || x == 0 || y == 0) return _divideSpecial(sign, x, y);
            (uint256 m, uint256 e) = _parts(x);
            (uint256 n, uint256 f) = _parts(y);
            // 40 bits or more, of which the lowest also stands for the remainder.
            m <<= 64;
            // slither-disable-next-line divide-before-multiply -- multiplied again to see whether anything remains
            uint256 quotient = m / n;
            quotient |= _bit(quotient * n != m);
            uint256 top = quotient >> 63;
            uint256 bit = top == 0 || top > 3 ? _log2(quotient) : 63 + (top >> 1);
            return _round(sign, quotient, int256(e) - int256(f) - 64, bit);
        }
    }

    /// @notice The square root of a; NaN below zero, and a itself where it is a zero.
    function sqrt(uint32 a) internal pure returns (uint32) {
        unchecked {
            if (a & MAGNITUDE == 0 || a == INFINITY) return a;
            if (a > INFINITY) return NAN;
            (uint256 m, uint256 e) = _parts(a);
            int256 exponent = int256(e) - 150;
            if (m <= FRACTION) {
                uint256 missing = 23 - _log2(m);
                m <<= missing;
                exponent -= int256(missing);
            }
            // An even exponent, and m between 2**51 and 2**53.
            uint256 places = 28 + uint256(exponent & 1);
            m <<= places;
            exponent -= int256(places);
            // The tangent at 2**52 is within 6.1 %; three steps of Newton give the root's whole part, or that and one.
            uint256 root = (m >> 27) + (1 << 25);
            root = (root + m / root) >> 1;
            root = (root + m / root) >> 1;
            root = (root + m / root) >> 1;
            if (root * root > m) --root;
            root = root << 1 | _bit(root * root != m);
            return _round(0, root, exponent / 2 - 1, 26 + (root >> 27));
        }
    }

    /// @notice Whether a < b; false where either is NaN. -0 equals +0.
    function lessThan(uint32 a, uint32 b) internal pure returns (bool) {
        return !_unordered(a, b) && (a | b) & MAGNITUDE != 0 && _key(a) < _key(b);
    }

    /// @notice Whether a <= b; false where either is NaN. -0 equals +0.
    function lessOrEqual(uint32 a, uint32 b) internal pure returns (bool) {
        return !_unordered(a, b) && ((a | b) & MAGNITUDE == 0 || _key(a) <= _key(b));
    }

    /// @notice Whether a = b; false where either is NaN. -0 equals +0.
    function equal(uint32 a, uint32 b) internal pure returns (bool) {
        return !_unordered(a, b) && ((a | b) & MAGNITUDE == 0 || a == b);
    }

    /// @notice a rounded to an integer, ties to even, and clamped to -2**31 ... 2**31 - 128; 0 for NaN.
    function toInt(uint32 a) internal pure returns (int32) {
        unchecked {
            uint256 magnitude = a & MAGNITUDE;
            if (magnitude > INFINITY) return 0;
            bool negative = a & SIGN != 0;
            if (magnitude >= TWO_TO_31) return negative ? type(int32).min : GREATEST_INT;
            (uint256 m, uint256 e) = _parts(magnitude);
            m = e < 150 ? _shiftRight(m, 150 - e) : m << (e - 150);
            return negative ? -int32(uint32(m)) : int32(uint32(m));
        }
    }

    /// @notice The binary32 nearest to n, ties to even: f32(n).
    function fromInt(int256 n) internal pure returns (uint32) {
        unchecked {
            if (n == 0) return 0;
            bool negative = n < 0;
            uint256 m = negative ? uint256(-n) : uint256(n);
            return _round(negative ? SIGN : 0, m, 0, _log2(m));
        }
    }

    /// @notice a * 2**n, rounded once.
    function scaleByPowerOfTwo(uint32 a, int256 n) internal pure returns (uint32) {
        unchecked {
            uint256 magnitude = a & MAGNITUDE;
            if (magnitude >= INFINITY || magnitude == 0) return canonical(a);
            // Farther than this nothing changes any more: all is infinite, or zero.
            if (n > 512) n = 512;
            if (n < -512) n = -512;
            (uint256 m, uint256 e) = _parts(magnitude);
            return _round(a & SIGN, m, int256(e) - 150 + n, _log2(m));
        }
    }

    /// @notice The place of a in the total order: -infinity < ... < -0 < +0 < ... < +infinity < NaN.
    function key(uint32 a) internal pure returns (int32) {
        return int32(_key(canonical(a)));
    }

    /// @notice The value whose key this is; NaN for keys that no value has.
    function fromKey(int32 key_) internal pure returns (uint32) {
        uint32 bits = uint32(key_);
        return canonical(key_ < 0 ? bits ^ uint32(MAGNITUDE) : bits);
    }

    /// @notice a, or the one NaN if a is any NaN.
    function canonical(uint32 a) internal pure returns (uint32) {
        return a & MAGNITUDE > INFINITY ? NAN : a;
    }

    /// @dev x and y are magnitudes, of which one at least is zero, infinite or NaN.
    function _divideSpecial(uint256 sign, uint256 x, uint256 y) private pure returns (uint32) {
        if (x > INFINITY || y > INFINITY || x == y) return NAN; // of the equal: 0 / 0 and infinity / infinity
        return uint32(x == INFINITY || y == 0 ? sign | INFINITY : sign);
    }

    /// @dev The binary32 nearest to m * 2**exponent, where `bit` is the place of m's leading bit (m > 0).
    function _round(uint256 sign, uint256 m, int256 exponent, uint256 bit) private pure returns (uint32) {
        unchecked {
            // The result's exponent field; that of subnormals counts as 1.
            int256 field = exponent + int256(bit) + 127;
            if (field < 1) field = 1;
            int256 places = field - 150 - exponent;
            m = places > 0 ? _shiftRight(m, uint256(places)) : m << uint256(-places);
            // m's leading bit, where it has one, adds the 1 that is missing here; so does a carry into the next binade.
            m += uint256(field - 1) << 23;
            return uint32(sign | (m > INFINITY ? INFINITY : m));
        }
    }

    /// @dev m / 2**places to the nearest integer, ties to even; places > 0.
    function _shiftRight(uint256 m, uint256 places) private pure returns (uint256) {
        unchecked {
            return (m + (1 << (places - 1)) - 1 + ((m >> places) & 1)) >> places;
        }
    }

    /// @dev (m, e) of a finite value m * 2**(e - 150), its sign ignored.
    function _parts(uint256 bits) private pure returns (uint256 m, uint256 e) {
        assembly ("memory-safe") {
            e := and(shr(23, bits), 0xff)
            let subnormal := iszero(e)
            m := or(and(bits, FRACTION), shl(23, iszero(subnormal)))
            e := or(e, subnormal)
        }
    }

    /// @dev floor(log2(x)) for x > 0.
    function _log2(uint256 x) private pure returns (uint256 bit) {
        assembly ("memory-safe") {
            bit := shl(7, lt(0xffffffffffffffffffffffffffffffff, x))
            bit := or(bit, shl(6, lt(0xffffffffffffffff, shr(bit, x))))
            bit := or(bit, shl(5, lt(0xffffffff, shr(bit, x))))
            bit := or(bit, shl(4, lt(0xffff, shr(bit, x))))
            bit := or(bit, shl(3, lt(0xff, shr(bit, x))))
            bit := or(bit, shl(2, lt(0xf, shr(bit, x))))
            bit := or(bit, byte(shr(bit, x), SMALL_LOGARITHMS))
        }
    }

    function _bit(bool condition) private pure returns (uint256 bit) {
        assembly ("memory-safe") {
            bit := condition
        }
    }

    function _unordered(uint256 a, uint256 b) private pure returns (bool) {
        return a & MAGNITUDE > INFINITY || b & MAGNITUDE > INFINITY;
    }

    function _key(uint32 a) private pure returns (int256) {
        return int256(int32(a & uint32(SIGN) == 0 ? a : a ^ uint32(MAGNITUDE)));
    }
}
