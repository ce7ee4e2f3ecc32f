// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "../../libraries/Float32.sol";
import {Vm} from "../base/Vm.sol";

/// @title What holds of binary32 for all arguments, proved by halmos
/// @dev `make analyse` runs these; forge passes over names that begin with `check_`.
contract Float32Symbolic {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint32 private constant SIGN = 0x80000000;
    uint32 private constant MAGNITUDE = 0x7fffffff;
    uint32 private constant INFINITY = 0x7f800000;
    uint32 private constant ONE = 0x3f800000;

    function check_lessThan_leavesOneOfThreeRelations(uint32 a, uint32 b) public pure {
        uint256 holding = _one(Float32.lessThan(a, b)) + _one(Float32.lessThan(b, a)) + _one(Float32.equal(a, b));
        vm.assertEq(holding, _one(!_isNaN(a) && !_isNaN(b)), "one relation, none of NaN");
    }

    function check_lessThan_isTransitive(uint32 a, uint32 b, uint32 c) public pure {
        vm.assume(Float32.lessThan(a, b) && Float32.lessThan(b, c));
        vm.assertTrue(Float32.lessThan(a, c), "a < c");
    }

    function check_lessOrEqual_isTransitive(uint32 a, uint32 b, uint32 c) public pure {
        vm.assume(Float32.lessOrEqual(a, b) && Float32.lessOrEqual(b, c));
        vm.assertTrue(Float32.lessOrEqual(a, c), "a <= c");
    }

    function check_lessOrEqual_isLessThanOrEqual(uint32 a, uint32 b) public pure {
        bool either = Float32.lessThan(a, b) || Float32.equal(a, b);
        vm.assertEq(Float32.lessOrEqual(a, b), either, "<= is < or =");
    }

    function check_equal_isTheSameBitsButForZeros(uint32 a, uint32 b) public pure {
        bool same = !_isNaN(a) && (a == b || (a & MAGNITUDE == 0 && b & MAGNITUDE == 0));
        vm.assertEq(Float32.equal(a, b), same, "a = b");
    }

    function check_lessThan_turnsWithTheSigns(uint32 a, uint32 b) public pure {
        vm.assertEq(Float32.lessThan(a, b), Float32.lessThan(b ^ SIGN, a ^ SIGN), "-b < -a");
    }

    function check_canonical_changesNaNsOnly(uint32 a) public pure {
        uint32 once = Float32.canonical(a);
        vm.assertEq(uint256(once), _isNaN(a) ? Float32.NAN : a, "value");
        vm.assertEq(uint256(Float32.canonical(once)), once, "twice");
    }

    function check_key_isUndoneByFromKey(uint32 a) public pure {
        vm.assertEq(uint256(Float32.fromKey(Float32.key(a))), Float32.canonical(a), "value of the key");
    }

    function check_key_keepsTheOrder(uint32 a, uint32 b) public pure {
        if (Float32.lessThan(a, b)) vm.assertTrue(Float32.key(a) < Float32.key(b), "order");
        bool same = Float32.canonical(a) == Float32.canonical(b);
        vm.assertEq(Float32.key(a) == Float32.key(b), same, "one key for each value");
    }

    function check_add_ofMinusZeroChangesNothing(uint32 a) public pure {
        vm.assertEq(uint256(Float32.add(a, SIGN)), Float32.canonical(a), "a + -0");
    }

    function check_add_givesTheOneNaN(uint32 a, uint32 b) public pure {
        _demandOneNaN(Float32.add(a, b));
    }

    function check_sub_ofItselfIsZero(uint32 a) public pure {
        uint32 expected = a & MAGNITUDE < INFINITY ? 0 : Float32.NAN;
        vm.assertEq(uint256(Float32.sub(a, a)), expected, "a - a");
    }

    function check_mul_turnsWithTheSign(uint32 a, uint32 b) public pure {
        uint32 product = Float32.mul(a, b);
        uint32 turned = Float32.mul(a ^ SIGN, b);
        vm.assertEq(uint256(turned), product == Float32.NAN ? product : product ^ SIGN, "-a * b");
    }

    function check_mul_givesTheOneNaN(uint32 a, uint32 b) public pure {
        _demandOneNaN(Float32.mul(a, b));
    }

    function check_mul_byOneChangesNothing(uint32 a) public pure {
        vm.assertEq(uint256(Float32.mul(a, ONE)), Float32.canonical(a), "a * 1");
    }

    function check_div_byOneChangesNothing(uint32 a) public pure {
        vm.assertEq(uint256(Float32.div(a, ONE)), Float32.canonical(a), "a / 1");
    }

    function check_div_givesTheOneNaN(uint32 a, uint32 b) public pure {
        _demandOneNaN(Float32.div(a, b));
    }

    function check_sqrt_givesTheOneNaN(uint32 a) public pure {
        _demandOneNaN(Float32.sqrt(a));
    }

    function check_scaleByPowerOfTwo_givesTheOneNaN(uint32 a, int256 n) public pure {
        _demandOneNaN(Float32.scaleByPowerOfTwo(a, n));
    }

    function check_scaleByPowerOfTwo_byZeroChangesNothing(uint32 a) public pure {
        vm.assertEq(uint256(Float32.scaleByPowerOfTwo(a, 0)), Float32.canonical(a), "a * 2**0");
    }

    function _demandOneNaN(uint32 result) private pure {
        vm.assertTrue(!_isNaN(result) || result == Float32.NAN, "another NaN");
    }

    function _isNaN(uint32 a) private pure returns (bool) {
        return a & MAGNITUDE > INFINITY;
    }

    function _one(bool condition) private pure returns (uint256) {
        return condition ? 1 : 0;
    }
}
