// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../interfaces/IStepReferee.sol";
import {OperationRecord} from "../libraries/OperationRecord.sol";
import {Fixture} from "./base/Fixture.sol";

/// @title What the referee reads in a record, open to tests
contract RecordHarness {
    using OperationRecord for OperationRecord.Operation;

    struct Reading {
        uint256 code;
        uint256 dtype;
        uint256 operands;
        uint256 length;
        uint256[] index;
        uint256[] sources;
        uint256[] elements;
        uint256 covering;
        bytes rest;
    }

    function read(bytes calldata record, uint64 element) external pure returns (Reading memory reading) {
        OperationRecord.Operation memory one = OperationRecord.parse(record, element);
        (reading.code, reading.dtype, reading.operands) = (one.code, one.dtype, one.operands);
        if (one.folds()) reading.length = one.foldLength();
        reading.index = new uint256[](one.index.length);
        for (uint256 axis = 0; axis < one.index.length; ++axis) {
            reading.index[axis] = one.index[axis];
        }
        reading.sources = new uint256[](one.operands);
        reading.elements = new uint256[](one.operands);
        for (uint256 place = 0; place < one.operands; ++place) {
            (reading.sources[place], reading.elements[place]) = one.operand(place);
            one.takes(place);
        }
        reading.rest = one.rest(one.attributes);
        if (one.code == OperationRecord.CAT) reading.covering = one.covering();
    }

    function counter(bytes calldata record, uint64 element) external pure returns (uint256) {
        return OperationRecord.parseCounter(record, element);
    }
}

/// @title Records against docs/programs.md, "Encoding"
contract OperationRecordTest is Fixture {
    RecordHarness private _harness;

    function setUp() public override {
        _harness = new RecordHarness();
    }

    function testFuzz_parse_anyBytesAreReadOrRefused(bytes calldata record, uint64 element) public view {
        _readOrRefused(record, element);
    }

    function testFuzz_parse_anyBytesBehindAHeadAreReadOrRefused(
        uint8 code,
        uint8 dtype,
        uint8 rank,
        uint8 operands,
        bytes calldata rest,
        uint64 element
    ) public view {
        bytes1[4] memory dtypes = [bytes1(0x01), 0x03, 0x04, 0x09];
        bytes memory head = bytes.concat(bytes1(code % 13), dtypes[dtype % 4], bytes1(rank % 8), bytes1(operands % 18));
        _readOrRefused(bytes.concat(head, rest), element);
    }

    function testFuzz_parse_fuzzedFieldsAreReadOrRefused(uint256 seed, uint64 element) public view {
        bytes memory record = _record(seed);
        uint256 place = uint256(keccak256(abi.encode(seed, "place"))) % record.length;
        record[place] = bytes1(uint8(seed >> 248));
        _readOrRefused(record, element);
    }

    function testFuzz_parse_readsWhatStandsThere(uint256 seed, uint256 element) public view {
        bytes memory record = _record(seed);
        uint256 rank = uint8(record[2]);
        uint256 elements = 1;
        for (uint256 axis = 0; axis < rank; ++axis) {
            elements *= _word(record, 4 + 4 * axis);
        }
        element %= elements;
        RecordHarness.Reading memory reading = _harness.read(record, uint64(element));
        vm.assertEq(reading.code, uint8(record[0]), "code");
        vm.assertEq(reading.dtype, uint8(record[1]), "dtype");
        vm.assertEq(reading.operands, uint8(record[3]), "operands");
        vm.assertEq(_linear(record, reading.index), element, "index");
        for (uint256 place = 0; place < reading.operands; ++place) {
            uint256 start = 4 + 4 * rank + place * (8 + 4 * rank);
            vm.assertEq(reading.sources[place], _word(record, start), "source");
            uint256 expected = _word(record, start + 4);
            for (uint256 axis = 0; axis < rank; ++axis) {
                expected += reading.index[axis] * _word(record, start + 8 + 4 * axis);
            }
            vm.assertEq(reading.elements[place], expected, "element");
        }
        uint256 attributes = 4 + 4 * rank + reading.operands * (8 + 4 * rank);
        vm.assertEq(reading.rest, _slice(record, attributes), "attributes");
        if (reading.length != 0) vm.assertEq(reading.length, _word(record, attributes), "length of a fold");
    }

    function testFuzz_parse_refusesAnotherLength(uint256 seed, uint8 more) public {
        bytes memory record = _record(seed);
        if (record[0] == bytes1(uint8(OperationRecord.POINTWISE))) return; // its kernel says how long it is
        _expectWrongRecord(bytes.concat(record, new bytes(uint256(more) + 1)));
        bytes memory shorter = new bytes(record.length - 1 - more % record.length);
        for (uint256 i = 0; i < shorter.length; ++i) {
            shorter[i] = record[i];
        }
        _expectWrongRecord(shorter);
    }

    function test_parse_refusesWhatHasNoMeaning() public {
        _expectWrongRecord(hex"");
        _expectWrongRecord(hex"0001000000000000"); // no code 0
        _expectWrongRecord(hex"0c01000000000000"); // nor 12
        _expectWrongRecord(hex"0102000000000000"); // LOAD gives no int64
        _expectWrongRecord(hex"0104000000000000"); // nor int8
        _expectWrongRecord(hex"010100010000000000000000"); // and has no operand
        _expectWrongRecord(hex"01010100000000000000000000000000"); // a byte too many
        _expectWrongRecord(hex"010101000000000000000000"); // a dimension of 0
        _expectWrongRecord(hex"01010200ffffffffffffffff00000000"); // too many elements
        _expectWrongRecord(bytes.concat(hex"01010700", new bytes(32))); // seven dimensions
        _expectWrongRecord(
            hex"030302000000000100000001" // no tokens are in part 1
            hex"0100"
        );
        _expectWrongRecord(
            hex"030302000000000100000001" // nor in part 4
            hex"0400"
        );
        _expectWrongRecord(
            hex"0303010000000001" // a batch has two dimensions
            hex"0200"
        );
        _expectWrongRecord(bytes.concat(hex"08010001", new bytes(8), hex"00000000", hex"00")); // a fold of nothing
        _expectWrongRecord(bytes.concat(hex"08010001", new bytes(8), hex"00000001", hex"02")); // neither value
        _expectWrongRecord(bytes.concat(hex"0b010001", new bytes(8), hex"00", hex"00000001", new bytes(4))); // no axis
    }

    function test_parse_refusesElementsThatAreNotThere() public {
        bytes memory record = hex"01010200000000020000000300000007";
        vm.assertEq(_harness.read(record, 5).index[0], 1, "row of the last");
        vm.assertEq(_harness.read(record, 5).index[1], 2, "column of the last");
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.NoSuchElement.selector, 6, 6));
        _harness.read(record, 6);
        // The largest tensor there is.
        record = hex"01010100ffffffff00000007";
        vm.assertEq(_harness.read(record, type(uint32).max - 1).index[0], type(uint32).max - 1, "the last of all");
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.NoSuchElement.selector, 1 << 32, type(uint32).max));
        _harness.read(record, 1 << 32);
    }

    function test_covering_followsTheExtents() public view {
        // Extents 2 and 3 of an axis of 6: element 5 is padding.
        bytes memory record =
            bytes.concat(hex"0b01010200000006", new bytes(24), hex"00", hex"0000000200000003", hex"00000000");
        for (uint64 element = 0; element < 6; ++element) {
            uint256 expected = element < 2 ? 0 : (element < 5 ? 1 : 2);
            vm.assertEq(_harness.read(record, element).covering, expected, "input");
        }
    }

    function test_parseCounter_readsTheSource() public {
        bytes memory record = bytes.concat(hex"020100000003", hex"00000009", hex"04", "step");
        vm.assertEq(_harness.counter(record, 2), 9, "source");
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.NoSuchElement.selector, 3, 3));
        _harness.counter(record, 3);
        bytes[6] memory wrong = [
            bytes.concat(hex"010100000003", hex"00000009", hex"04", "step"), // float32
            bytes.concat(hex"020100000003", hex"ffffffff", hex"04", "step"), // unchanged
            bytes.concat(hex"020100000000", hex"00000009", hex"04", "step"), // a dimension of 0
            bytes.concat(hex"020100000003", hex"00000009", hex"05", "step"), // a name cut short
            bytes.concat(hex"020700000003", hex"00000009", hex"04", "step"), // seven dimensions
            bytes(hex"0200")
        ];
        for (uint256 i = 0; i < wrong.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, wrong[i]));
            _harness.counter(wrong[i], 0);
        }
    }

    function testFuzz_parseCounter_anyBytesAreReadOrRefused(bytes calldata rest, uint64 element) public view {
        bytes memory record = bytes.concat(hex"02", rest);
        try _harness.counter(record, element) returns (uint256 source) {
            vm.assertLt(source, type(uint32).max, "source");
        } catch (bytes memory reason) {
            _assertRefusal(record, reason);
        }
    }

    function _readOrRefused(bytes memory record, uint64 element) private view {
        try _harness.read(record, element) returns (RecordHarness.Reading memory reading) {
            vm.assertEq(_linear(record, reading.index), element, "index");
        } catch (bytes memory reason) {
            _assertRefusal(record, reason);
        }
    }

    function _assertRefusal(bytes memory record, bytes memory reason) private pure {
        if (bytes4(reason) == IStepReferee.NoSuchElement.selector) return;
        vm.assertEq(reason, abi.encodeWithSelector(IStepReferee.WrongRecord.selector, record), "refusal");
    }

    function _expectWrongRecord(bytes memory record) private {
        vm.expectRevert(abi.encodeWithSelector(IStepReferee.WrongRecord.selector, record));
        _harness.read(record, 0);
    }

    /// @dev A record without fault: any operation, small dimensions, any operands.
    function _record(uint256 seed) private pure returns (bytes memory record) {
        uint256 code = 1 + seed % 11;
        uint8[12] memory ranks = [0, 0, 0, 2, 0, 0, 2, 0, 0, 0, 1, 1];
        uint8[12] memory counts = [0, 0, 0, 0, 1, 0, 4, 2, 1, 2, 3, 1];
        uint256 rank = code == 3 ? 2 : ranks[code] + (seed >> 8) % (7 - ranks[code]);
        uint256 operands = counts[code] + (code == 5 || code == 11 ? (seed >> 16) % 16 : 0);
        uint8 dtype = code == 3 ? 3 : 1;
        record = bytes.concat(bytes1(uint8(code)), bytes1(dtype), bytes1(uint8(rank)), bytes1(uint8(operands)));
        for (uint256 axis = 0; axis < rank; ++axis) {
            record = bytes.concat(record, bytes4(uint32(1 + (seed >> (24 + 4 * axis)) % 13)));
        }
        for (uint256 i = 0; i < operands * (2 + rank); ++i) {
            record = bytes.concat(record, bytes4(keccak256(abi.encode(seed, i))));
        }
        return bytes.concat(record, _attributes(code, operands, rank, seed));
    }

    function _attributes(uint256 code, uint256 operands, uint256 rank, uint256 seed)
        private
        pure
        returns (bytes memory)
    {
        bytes4 word = bytes4(keccak256(abi.encode(seed))) | bytes4(uint32(1));
        if (code == 3) return bytes.concat(bytes1(uint8(2 + seed % 2)), bytes1(uint8(seed >> 40)));
        if (code == 4) return hex"";
        if (code == 5) return new bytes(8);
        if (code == 8) return bytes.concat(word, bytes1(uint8(seed >> 40) & 1));
        if (code == 9) return bytes.concat(word, word);
        if (code != 11) return bytes.concat(word);
        bytes memory extents = bytes.concat(bytes1(uint8((seed >> 40) % rank)));
        for (uint256 i = 0; i <= operands; ++i) {
            extents = bytes.concat(extents, bytes4(uint32(1 + i)));
        }
        return extents;
    }

    /// @dev The element with this index, from the dimensions in the record.
    function _linear(bytes memory record, uint256[] memory index) private pure returns (uint256 element) {
        for (uint256 axis = 0; axis < index.length; ++axis) {
            element = element * _word(record, 4 + 4 * axis) + index[axis];
        }
    }

    function _word(bytes memory record, uint256 place) private pure returns (uint256 word) {
        return uint256(uint32(bytes4(_slice(record, place))));
    }

    function _slice(bytes memory record, uint256 start) private pure returns (bytes memory rest) {
        rest = new bytes(record.length - start);
        for (uint256 i = 0; i < rest.length; ++i) {
            rest[i] = record[start + i];
        }
    }
}
