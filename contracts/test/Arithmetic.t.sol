// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Float32} from "../libraries/Float32.sol";
import {Fold} from "../libraries/Fold.sol";
import {Kernel} from "../libraries/Kernel.sol";
import {IArithmeticProbe} from "./base/IArithmeticProbe.sol";
import {Vm} from "./base/Vm.sol";

/// @dev Solidity against the shared vectors, and what has to hold whatever the words are. Kernels and folds are held
/// against their Python reference in tests/contracts.
contract ArithmeticTest {
    struct Vector {
        string name;
        uint256 code;
        bytes specials;
        bytes pairs;
        bytes results;
    }

    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    string private constant VECTORS = "tests/vectors/float32.json";
    string private constant VECTOR_TYPE =
        "ArithmeticVector(string name,uint256 code,bytes specials,bytes pairs,bytes results)";
    uint32 private constant ONE = 0x3f800000;

    IArithmeticProbe private _probe;

    function setUp() public {
        _probe = IArithmeticProbe(vm.deployCode("ArithmeticProbe.sol:ArithmeticProbe", ""));
    }

    function test_evaluate_sharedVectors() public view {
        string memory json = vm.readFile(VECTORS);
        bytes memory specials = vm.parseJsonBytes(json, ".specials");
        Vector[] memory vectors = abi.decode(vm.parseJsonTypeArray(json, ".operations", VECTOR_TYPE), (Vector[]));
        vm.assertGe(vectors.length, 15, "too few operations");
        for (uint256 i = 0; i < vectors.length; ++i) {
            Vector memory one = vectors[i];
            vm.assertGe(one.results.length, 4 * 200, "too few cases");
            _demandEqual(_probe.evaluate(one.code, one.pairs), one.results, one.name);
            bytes memory pairs = one.specials.length == specials.length ? _besideZero(specials) : _everyPair(specials);
            _demandEqual(_probe.evaluate(one.code, pairs), one.specials, string.concat(one.name, " of special values"));
        }
    }

    function testFuzz_add_commutesAndSubIsAddOfTheOpposite(uint32 a, uint32 b) public pure {
        vm.assertEq(Float32.add(a, b), Float32.add(b, a), "a + b");
        vm.assertEq(Float32.sub(a, b), Float32.add(a, b ^ 0x80000000), "a - b");
        vm.assertEq(Float32.mul(a, b), Float32.mul(b, a), "a * b");
    }

    function testFuzz_operations_giveTheOneNaN(uint32 a, uint32 b) public pure {
        uint32[7] memory results = [
            Float32.add(a, b),
            Float32.sub(a, b),
            Float32.mul(a, b),
            Float32.div(a, b),
            Float32.sqrt(a),
            Float32.canonical(a),
            Float32.scaleByPowerOfTwo(a, int32(b))
        ];
        for (uint256 i = 0; i < results.length; ++i) {
            vm.assertTrue(results[i] & 0x7fffffff <= 0x7f800000 || results[i] == Float32.NAN, "another NaN");
        }
    }

    function testFuzz_neutralOperands_changeNothing(uint32 a) public pure {
        vm.assertEq(Float32.mul(a, ONE), Float32.canonical(a), "a * 1");
        vm.assertEq(Float32.div(a, ONE), Float32.canonical(a), "a / 1");
        vm.assertEq(Float32.add(a, 0x80000000), Float32.canonical(a), "a + -0");
        vm.assertEq(Float32.scaleByPowerOfTwo(a, 0), Float32.canonical(a), "a * 2**0");
    }

    function testFuzz_fromKey_undoesKeyAndKeepsTheOrder(uint32 a, uint32 b) public pure {
        vm.assertEq(Float32.fromKey(Float32.key(a)), Float32.canonical(a), "value of the key");
        if (Float32.lessThan(a, b)) vm.assertLt(_biased(a), _biased(b), "order");
        bool ordered = Float32.lessOrEqual(a, b) || Float32.lessThan(b, a);
        bool eitherIsNaN = Float32.canonical(a) == Float32.NAN || Float32.canonical(b) == Float32.NAN;
        vm.assertEq(ordered, !eitherIsNaN, "ordered but for NaN");
    }

    function testFuzz_fromInt_isMonotone(int256 n) public pure {
        vm.assume(n < type(int256).max);
        vm.assertTrue(Float32.lessOrEqual(Float32.fromInt(n), Float32.fromInt(n + 1)), "n, n + 1");
    }

    function testFuzz_sqrt_isBetweenNeighbours(uint32 a) public pure {
        a &= 0x7fffffff;
        vm.assume(a != 0 && a < 0x7f800000);
        uint32 root = Float32.sqrt(a);
        vm.assertTrue(Float32.lessOrEqual(Float32.mul(root - 1, root - 1), a), "root too large");
        vm.assertTrue(Float32.lessOrEqual(a, Float32.mul(root + 1, root + 1)), "root too small");
    }

    /// @dev Of all significands, Newton's steps end one too high for 73, and for these that would be another result.
    function test_sqrt_whereNewtonEndsOneTooHigh() public pure {
        vm.assertEq(uint256(Float32.sqrt(0x4b01ef9f)), 0x45366217, "0x4b01ef9f");
        vm.assertEq(uint256(Float32.sqrt(0x4b0b2241)), 0x453cba5d, "0x4b0b2241");
        vm.assertEq(uint256(Float32.sqrt(0x4b0fe042)), 0x453fead5, "0x4b0fe042");
        vm.assertEq(uint256(Float32.sqrt(0x4bf4b74a)), 0x45b0fc20, "0x4bf4b74a");
        vm.assertEq(uint256(Float32.sqrt(0x4bf75852)), 0x45b1eeda, "0x4bf75852");
        vm.assertEq(uint256(Float32.sqrt(0x4bf7f4d6)), 0x45b2271d, "0x4bf7f4d6");
    }

    function test_run_malformedKernelsAreRefused() public {
        _refused("", abi.encodeWithSelector(Kernel.KernelLength.selector, 0));
        _refused(hex"01000000000000", abi.encodeWithSelector(Kernel.KernelLength.selector, 7));
        _refused(new bytes(513 * 8), abi.encodeWithSelector(Kernel.KernelLength.selector, 513 * 8));
        bytes8[9] memory stray = [
            bytes8(0x0200000000000000), // no such code: 02, 1f, 31, ff
            0x1f00000000000000,
            0x3100000000000000,
            0xff00000000000000,
            0x0000000100000001, // INPUT and CONST with an operand too many
            0x0100000100000001,
            0x1001000000000000, // the byte after the code
            0x1400000000010000, // FSQRT and FADD with an operand too many
            0x1000000000000001
        ];
        for (uint256 i = 0; i < stray.length; ++i) {
            bytes memory kernel = abi.encodePacked(bytes8(0x0100000000000007), bytes8(0x0100000000000008), stray[i]);
            _refused(kernel, abi.encodeWithSelector(Kernel.NotAnInstruction.selector, 2, stray[i]));
        }
    }

    function test_run_registersNotYetWrittenAreRefused() public {
        bytes8 first = 0x0100000000000001;
        _refused(abi.encodePacked(bytes8(0x1000000000000000)), _notEarlier(0, 0));
        _refused(abi.encodePacked(first, bytes8(0x1000000100000000)), _notEarlier(1, 1));
        _refused(abi.encodePacked(first, bytes8(0x1000000000010000)), _notEarlier(1, 1));
        _refused(abi.encodePacked(first, bytes8(0x1400ffff00000000)), _notEarlier(1, 0xffff));
        // SELECT reads what it does not choose, too: 1 chooses register 0.
        _refused(abi.encodePacked(first, bytes8(0x3000000000000002)), _notEarlier(1, 2));
        _refused(abi.encodePacked(first, bytes8(0x3000000000020000)), _notEarlier(1, 2));
    }

    function test_run_missingInputsAreRefused() public {
        _refused(hex"0000000200000000", abi.encodeWithSelector(Kernel.NoSuchInput.selector, 0, 2, 2));
        _refused(hex"0000ffff00000000", abi.encodeWithSelector(Kernel.NoSuchInput.selector, 0, 0xffff, 2));
    }

    function test_store_unknownTypeIsRefused() public {
        vm.expectRevert(abi.encodeWithSelector(Kernel.NotAnOutputType.selector, 2));
        _probe.store(1, 2);
    }

    function test_folds_pastTheEndAreRefused() public {
        vm.expectRevert(abi.encodeWithSelector(Fold.PastTheEnd.selector, 1, 3, 12));
        _probe.sum(0, new bytes(12), 1, 3, 0);
        vm.expectRevert(abi.encodeWithSelector(Fold.PastTheEnd.selector, type(uint256).max, 2, 12));
        _probe.maximum(0, new bytes(12), type(uint256).max, 2, true);
        vm.expectRevert(abi.encodeWithSelector(Fold.PastTheEnd.selector, 0, 3, 8));
        _probe.scatter(0, new bytes(12), 0, new bytes(8), 0, 3, 0, 0);
        vm.expectRevert(abi.encodeWithSelector(Fold.PastTheEnd.selector, 1, 2, 4));
        _probe.dot(0, new bytes(4), 0, 2, new bytes(4), 1, 2, 2);
        vm.expectRevert(abi.encodeWithSelector(Fold.NotAWidth.selector, 3));
        _probe.dot(0, new bytes(4), 0, 2, new bytes(4), 0, 3, 1);
    }

    /// @dev However a run is cut in two, the accumulator is the same.
    function testFuzz_folds_areTheSameHoweverTheyAreCut(bytes memory x, uint256 cut, uint32 exponent) public pure {
        uint256 count = x.length / 4;
        cut = count == 0 ? 0 : cut % (count + 1);
        uint256 whole = Fold.sum(Fold.SUM_START, x, 0, count, exponent);
        uint256 first = Fold.sum(Fold.SUM_START, x, 0, cut, exponent);
        vm.assertEq(Fold.sum(first, x, cut, count - cut, exponent), whole, "sum");
        whole = Fold.maximum(Fold.MAXIMUM_START, x, 0, count, false);
        first = Fold.maximum(Fold.MAXIMUM_START, x, 0, cut, false);
        vm.assertEq(Fold.maximum(first, x, cut, count - cut, false), whole, "maximum");
        int256 product = Fold.dot(Fold.PRODUCT_START, x, 0, 2, x, 0, 1, count);
        int256 part = Fold.dot(Fold.PRODUCT_START, x, 0, 2, x, 0, 1, cut);
        vm.assertEq(Fold.dot(part, x, cut, 2, x, cut, 1, count - cut), product, "product");
    }

    function _refused(bytes memory kernel, bytes memory reason) private {
        vm.expectRevert(reason);
        _probe.run(kernel, new uint32[](2));
    }

    function _notEarlier(uint256 position, uint256 register) private pure returns (bytes memory) {
        return abi.encodeWithSelector(Kernel.RegisterNotEarlier.selector, position, register);
    }

    function _demandEqual(bytes memory actual, bytes memory wanted, string memory name) private pure {
        vm.assertEq(actual.length, wanted.length, name);
        for (uint256 place = 0; place < wanted.length; place += 4) {
            if (_word(actual, place) != _word(wanted, place)) {
                string memory text = string.concat(name, ", case ", vm.toString(place / 4));
                vm.assertEq(uint256(_word(actual, place)), uint256(_word(wanted, place)), text);
            }
        }
    }

    function _everyPair(bytes memory words) private pure returns (bytes memory pairs) {
        uint256 count = words.length / 4;
        pairs = new bytes(count * count * 8);
        for (uint256 a = 0; a < count; ++a) {
            for (uint256 b = 0; b < count; ++b) {
                _put(pairs, (a * count + b) * 2, _word(words, 4 * a));
                _put(pairs, (a * count + b) * 2 + 1, _word(words, 4 * b));
            }
        }
    }

    function _besideZero(bytes memory words) private pure returns (bytes memory pairs) {
        pairs = new bytes(words.length * 2);
        for (uint256 i = 0; i < words.length / 4; ++i) {
            _put(pairs, 2 * i, _word(words, 4 * i));
        }
    }

    function _word(bytes memory data, uint256 place) private pure returns (uint32 word) {
        assembly ("memory-safe") {
            word := shr(224, mload(add(add(data, 0x20), place)))
        }
    }

    function _put(bytes memory data, uint256 number, uint32 word) private pure {
        for (uint256 i = 0; i < 4; ++i) {
            data[4 * number + i] = bytes1(uint8(word >> (24 - 8 * i)));
        }
    }

    function _biased(uint32 a) private pure returns (uint256) {
        return uint256(int256(Float32.key(a)) + (1 << 31));
    }
}
