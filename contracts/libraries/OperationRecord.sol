// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../interfaces/IStepReferee.sol";

/// @title Records of operations
/// @notice docs/programs.md, "Operands" and "Encoding": what an operation gives, and which element of which earlier
/// output each operand names at an index of its own output.
/// @dev INVARIANT: `parse` leaves every field that the other functions read inside the record, so they read it where it
/// lies, without checks. It refuses what has no meaning; that operands stay inside their sources is a program's promise,
/// which a source's proof asks for again.
library OperationRecord {
    using OperationRecord for Operation;

    /// @notice What a record says; operands and attributes stay where they are.
    /// @param position Where the record begins in calldata.
    /// @param length Bytes of the record.
    /// @param code Number of the operation.
    /// @param dtype Number of its output's dtype.
    /// @param operands Number of operands.
    /// @param attributes Where in the record the attributes begin.
    /// @param start Of a fold: element of the run from which it is read, 0 at first.
    /// @param count Of a fold: how many elements are read from there, 0 at first.
    /// @param index Index of the output element in question, one number for each dimension.
    struct Operation {
        uint256 position;
        uint256 length;
        uint256 code;
        uint256 dtype;
        uint256 operands;
        uint256 attributes;
        uint256 start;
        uint256 count;
        uint256[] index;
    }

    uint256 internal constant LOAD = 1;
    uint256 internal constant CONST = 2;
    uint256 internal constant BATCH = 3;
    uint256 internal constant VIEW = 4;
    uint256 internal constant POINTWISE = 5;
    uint256 internal constant MATMUL = 6;
    uint256 internal constant SUM = 7;
    uint256 internal constant MAX = 8;
    uint256 internal constant TAKE = 9;
    uint256 internal constant SCATTER_ADD = 10;
    uint256 internal constant CAT = 11;

    uint256 private constant MAXIMUM_RANK = 6;
    uint256 private constant MAXIMUM_OPERANDS = 16;
    uint256 private constant MAXIMUM_ELEMENTS = type(uint32).max;
    /// @dev Code, dtype, rank and number of operands, one byte each.
    uint256 private constant HEAD = 4;
    uint256 private constant INT64 = 2;
    /// @dev Source of a state's tensor that no operation writes.
    uint256 private constant UNCHANGED = type(uint32).max;

    // Below, a hexadecimal digit for each code, that of code 0 lowest.

    /// @dev Least number of operands; the greatest too, but for POINTWISE and CAT.
    uint256 private constant OPERANDS = 0x132124010000;
    /// @dev Bytes of the attributes; of CAT, without its extents; POINTWISE has its kernel.
    uint256 private constant ATTRIBUTES = 0x548544002440;
    /// @dev Least rank of the output; the greatest too for BATCH.
    uint256 private constant RANKS = 0x110002002000;
    /// @dev Dtypes of the output: 1 float32, 2 int32, 4 int8, 8 int16, added up.
    uint256 private constant DTYPES = 0xf1f111ff2330;

    /// @dev Dtypes of the operands, four digits for each code from MATMUL to SCATTER_ADD, that of operand 0 lowest; 0
    /// where an operand may have several, OWN where it has the output's.
    uint256 private constant TAKES = 0x0331003f000100311100 << 96;
    uint256 private constant OWN = 15;

    /// @notice Reads a record, for one element of its output.
    /// @dev Reverts with `WrongRecord`, or with `NoSuchElement` where the output has no such element.
    function parse(bytes calldata record, uint64 element) internal pure returns (Operation memory one) {
        require(record.length >= HEAD, IStepReferee.WrongRecord(record));
        one.length = record.length;
        assembly ("memory-safe") {
            mstore(one, record.offset)
        }
        one.code = one.byteAt(0);
        one.dtype = one.byteAt(1);
        one.operands = one.byteAt(3);
        uint256 rank = one.byteAt(2);
        one.attributes = HEAD + 4 * rank + one.operands * (8 + 4 * rank);
        require(_hasShape(one, rank) && _hasAttributes(one), IStepReferee.WrongRecord(record));
        one.index = new uint256[](rank);
        _checkElement(record, element, _locate(one, HEAD, element));
    }

    /// @notice Reads the record of a state's tensor of int64 that an operation writes.
    /// @return source Number of that operation.
    /// @dev Reverts with `WrongRecord`, or with `NoSuchElement` where the tensor has no such element.
    function parseCounter(bytes calldata record, uint64 element) internal pure returns (uint256 source) {
        require(record.length >= HEAD, IStepReferee.WrongRecord(record));
        Operation memory one;
        one.length = record.length;
        assembly ("memory-safe") {
            mstore(one, record.offset)
        }
        uint256 rank = one.byteAt(1);
        uint256 end = 2 + 4 * rank + 5; // of the length of the name
        bool whole = rank <= MAXIMUM_RANK && one.length >= end && one.length == end + one.byteAt(end - 1);
        source = one.wordAt(end - 5);
        require(whole && one.byteAt(0) == INT64 && source != UNCHANGED, IStepReferee.WrongRecord(record));
        one.index = new uint256[](rank);
        _checkElement(record, element, _locate(one, 2, element));
    }

    /// @notice The byte at a place of the record.
    function byteAt(Operation memory one, uint256 place) internal pure returns (uint256 value) {
        uint256 position = one.position;
        assembly ("memory-safe") {
            value := byte(0, calldataload(add(position, place)))
        }
    }

    /// @notice The big-endian u32 at a place of the record.
    function wordAt(Operation memory one, uint256 place) internal pure returns (uint256 value) {
        uint256 position = one.position;
        assembly ("memory-safe") {
            value := shr(224, calldataload(add(position, place)))
        }
    }

    /// @notice Bytes from a place of the record to its end.
    function rest(Operation memory one, uint256 place) internal pure returns (bytes memory data) {
        (uint256 from, uint256 count) = (one.position + place, one.length - place);
        data = new bytes(count);
        assembly ("memory-safe") {
            calldatacopy(add(data, 32), from, count)
        }
    }

    /// @notice What operand `place` names at the operation's index.
    /// @return source Number of an operation.
    /// @return element Element of its output: the first of the run where the operation folds, that of row 0 for TAKE.
    function operand(Operation memory one, uint256 place) internal pure returns (uint256 source, uint256 element) {
        unchecked {
            uint256 rank = one.index.length;
            uint256 start = HEAD + 4 * rank + place * (8 + 4 * rank);
            source = one.wordAt(start);
            element = one.wordAt(start + 4);
            // At most 2**32 + 6 * 2**64.
            for (uint256 axis = 0; axis < rank; ++axis) {
                element += one.index[axis] * one.wordAt(start + 8 + 4 * axis);
            }
        }
    }

    /// @notice The dtype of what operand `place` reads; 0 where it may have several.
    function takes(Operation memory one, uint256 place) internal pure returns (uint256 dtype) {
        if (one.code == POINTWISE) return 0;
        if (one.code == VIEW || one.code == CAT) return one.dtype;
        dtype = _digit(TAKES, 4 * one.code + place);
        if (dtype == OWN) dtype = one.dtype;
    }

    /// @notice Whether each element of the output folds a run of elements.
    function folds(Operation memory one) internal pure returns (bool) {
        return (one.code >= MATMUL && one.code <= MAX) || one.code == SCATTER_ADD;
    }

    /// @notice Of an operation that folds: how many elements.
    function foldLength(Operation memory one) internal pure returns (uint256) {
        return one.wordAt(one.attributes);
    }

    /// @notice Of CAT: the input whose extent covers the index, which is made the index in that input.
    /// @return place Number of the operand; the number of operands where none covers it.
    function covering(Operation memory one) internal pure returns (uint256 place) {
        unchecked {
            uint256 axis = one.byteAt(one.attributes);
            uint256 left = one.index[axis];
            for (; place < one.operands; ++place) {
                uint256 extent = one.wordAt(one.attributes + 1 + 4 * place);
                if (left < extent) {
                    one.index[axis] = left;
                    return place;
                }
                left -= extent;
            }
        }
    }

    /// @dev Whether code, dtype, rank and number of operands go together.
    function _hasShape(Operation memory one, uint256 rank) private pure returns (bool) {
        unchecked {
            (uint256 code, uint256 operands) = (one.code, one.operands);
            uint256 least = _digit(OPERANDS, code);
            uint256 most = code == POINTWISE || code == CAT ? MAXIMUM_OPERANDS : least;
            uint256 greatestRank = code == BATCH ? 2 : MAXIMUM_RANK;
            return _digit(DTYPES, code) & _bitOf(one.dtype) != 0 && operands >= least && operands <= most
                && rank >= _digit(RANKS, code) && rank <= greatestRank;
        }
    }

    /// @dev Whether a record of this shape has the right length, and attributes with a meaning. Of POINTWISE any length
    /// is right, because the kernel is refused where it is computed.
    function _hasAttributes(Operation memory one) private pure returns (bool) {
        unchecked {
            (uint256 code, uint256 start) = (one.code, one.attributes);
            if (code == POINTWISE) return one.length >= start;
            uint256 size = _digit(ATTRIBUTES, code);
            if (code == CAT) size += 4 * one.operands;
            if (one.length != start + size) return false;
            if (code == CAT) return one.byteAt(start) < one.byteAt(2); // the axis
            if (code == MAX && one.byteAt(start + 4) > 1) return false;
            if (code == BATCH) return one.byteAt(start) >> 1 == 1; // part 2 or 3
            return !one.folds() || one.wordAt(start) != 0;
        }
    }

    function _checkElement(bytes calldata record, uint64 element, uint256 elements) private pure {
        require(elements != 0 && elements <= MAXIMUM_ELEMENTS, IStepReferee.WrongRecord(record));
        require(element < elements, IStepReferee.NoSuchElement(element, uint64(elements)));
    }

    /// @dev Writes the index of an element into the tensor whose dimensions stand at a place of the record, and returns
    /// the number of elements; 0 where a dimension is 0.
    function _locate(Operation memory one, uint256 place, uint256 element) private pure returns (uint256 elements) {
        unchecked {
            elements = 1;
            for (uint256 axis = one.index.length; axis > 0;) {
                uint256 extent = one.wordAt(place + 4 * --axis);
                if (extent == 0) return 0;
                elements *= extent; // below 2**192
                one.index[axis] = element % extent;
                element /= extent;
            }
        }
    }

    function _digit(uint256 digits, uint256 code) private pure returns (uint256) {
        return (digits >> (4 * code)) & 15;
    }

    /// @dev The digit of DTYPES of one dtype: of 1, 3, 4 and 9; 0 of others.
    function _bitOf(uint256 dtype) private pure returns (uint256) {
        return _digit(0x8000042010, dtype);
    }
}
