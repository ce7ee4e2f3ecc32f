// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "./interfaces/IStepReferee.sol";
import {BatchPosition} from "./libraries/BatchPosition.sol";
import {Float32} from "./libraries/Float32.sol";
import {Fold} from "./libraries/Fold.sol";
import {Kernel} from "./libraries/Kernel.sol";
import {OperationRecord} from "./libraries/OperationRecord.sol";
import {SourceProof} from "./libraries/SourceProof.sol";

/// @title The judge of one element
/// @dev INVARIANT: what it reads is proved first (`SourceProof`), where it reads follows from the record alone
/// (`OperationRecord`), and what it computes with that never reverts (`Float32`, `Kernel`, `Fold`).
contract StepReferee is IStepReferee {
    using OperationRecord for OperationRecord.Operation;
    using SourceProof for Source;

    /// @dev Elements of a block of a fold, and the longest fold that is computed in one call.
    uint256 private constant BLOCK = 1024;
    /// @dev Number of `counter.step` in every state (docs/formats.md, section 2).
    uint256 private constant COUNTER_STEP = 1;

    /// @inheritdoc IStepReferee
    function element(Scene calldata scene, uint64 index, Evidence calldata evidence)
        external
        view
        returns (uint64 bits)
    {
        OperationRecord.Operation memory one = OperationRecord.parse(evidence.record, index);
        if (one.code != OperationRecord.CONST) _needNoOther(evidence);
        uint256 word;
        if (one.folds()) {
            _needSources(evidence, one.operands);
            uint256 length = one.foldLength();
            require(length <= BLOCK, WrongBlock(uint64(length), 0));
            uint32 exponent = _exponent(scene, one, evidence);
            one.count = length;
            word = _rounded(scene, one, evidence, exponent, _block(scene, one, evidence, exponent, _start(one)));
        } else {
            word = _elementwise(scene, one, index, evidence);
        }
        return uint64(word & ((1 << (8 * SourceProof.widthOf(one.dtype))) - 1));
    }

    /// @inheritdoc IStepReferee
    function stateElement(Scene calldata scene, uint64 index, Evidence calldata evidence)
        external
        view
        returns (uint64 bits)
    {
        _needNoOther(evidence);
        uint256 operation = OperationRecord.parseCounter(evidence.record, index);
        _needSources(evidence, 1);
        Source calldata source = evidence.sources[0];
        SourceProof.checkOutput(scene, source, operation);
        source.checkDtype(SourceProof.INT32);
        return uint64(source.read(index));
    }

    /// @inheritdoc IStepReferee
    function foldBlock(
        Scene calldata scene,
        uint64 index,
        uint64 first,
        uint256 accumulator,
        Evidence calldata evidence
    ) external view returns (uint256) {
        OperationRecord.Operation memory one = _parseFold(index, evidence);
        _needSources(evidence, one.code == OperationRecord.MATMUL ? 2 : one.operands);
        uint256 length = one.foldLength();
        one.start = first * BLOCK;
        require(one.start < length, WrongBlock(uint64(length), first));
        one.count = length - one.start < BLOCK ? length - one.start : BLOCK;
        uint32 exponent = _exponent(scene, one, evidence);
        return _block(scene, one, evidence, exponent, first == 0 ? _start(one) : accumulator);
    }

    /// @inheritdoc IStepReferee
    function foldRounding(Scene calldata scene, uint64 index, uint256 accumulator, Evidence calldata evidence)
        external
        view
        returns (uint64 bits)
    {
        OperationRecord.Operation memory one = _parseFold(index, evidence);
        uint256 needed = one.code == OperationRecord.MATMUL ? 2 : (one.code == OperationRecord.MAX ? 0 : 1);
        _needSources(evidence, needed);
        return uint64(_rounded(scene, one, evidence, _exponent(scene, one, evidence), accumulator));
    }

    // --- operations that do not fold ---

    function _elementwise(
        Scene calldata scene,
        OperationRecord.Operation memory one,
        uint64 index,
        Evidence calldata evidence
    ) private view returns (uint256) {
        if (one.code == OperationRecord.POINTWISE) return _pointwise(scene, one, evidence);
        if (one.code == OperationRecord.TAKE) return _take(scene, one, evidence);
        if (one.code == OperationRecord.CAT) return _cat(scene, one, evidence);
        if (one.code == OperationRecord.BATCH) return _batch(scene, one, evidence);
        _needSources(evidence, 1);
        if (one.code == OperationRecord.VIEW) return _operand(scene, one, evidence.sources[0], 0);
        return _copied(scene, one, index, evidence);
    }

    /// @dev LOAD and CONST.
    function _copied(
        Scene calldata scene,
        OperationRecord.Operation memory one,
        uint64 index,
        Evidence calldata evidence
    ) private view returns (uint256) {
        Source calldata source = evidence.sources[0];
        uint256 number = one.wordAt(one.attributes);
        uint256 dtype = one.dtype;
        if (one.code == OperationRecord.LOAD) {
            SourceProof.checkState(scene, source, number);
            if (dtype == SourceProof.INT32) dtype = SourceProof.INT64;
        } else {
            SourceProof.checkConstant(scene, source, evidence.other, number);
        }
        source.checkDtype(dtype);
        uint32 word = uint32(source.read(index));
        return dtype == SourceProof.FLOAT32 ? Float32.canonical(word) : word;
    }

    function _pointwise(Scene calldata scene, OperationRecord.Operation memory one, Evidence calldata evidence)
        private
        view
        returns (uint256)
    {
        _needSources(evidence, one.operands);
        uint32[] memory words = new uint32[](one.operands);
        for (uint256 place = 0; place < words.length; ++place) {
            words[place] = uint32(_operand(scene, one, evidence.sources[place], place));
        }
        return Kernel.store(Kernel.run(one.rest(one.attributes), words), uint8(one.dtype));
    }

    function _take(Scene calldata scene, OperationRecord.Operation memory one, Evidence calldata evidence)
        private
        view
        returns (uint256)
    {
        uint256 given = evidence.sources.length;
        if (given == 0) _needSources(evidence, 1);
        uint256 row = uint32(_operand(scene, one, evidence.sources[given - 1], 1));
        // From 2**31 on the word is a negative number.
        bool inside = row < one.wordAt(one.attributes) && row < 1 << 31;
        _needSources(evidence, inside ? 2 : 1);
        if (!inside) return 0;
        (uint256 number, uint256 named) = one.operand(0);
        named += row * one.wordAt(one.attributes + 4);
        return _output(scene, one, evidence.sources[0], 0, number).read(named);
    }

    function _cat(Scene calldata scene, OperationRecord.Operation memory one, Evidence calldata evidence)
        private
        view
        returns (uint256)
    {
        uint256 place = one.covering();
        if (place < one.operands) {
            _needSources(evidence, 1);
            return _operand(scene, one, evidence.sources[0], place);
        }
        _needSources(evidence, 0);
        return one.wordAt(one.attributes + 1 + 4 * one.operands);
    }

    /// @dev Held-out parts are read from their beginning; a train part from where seed, slot and step say.
    function _batch(Scene calldata scene, OperationRecord.Operation memory one, Evidence calldata evidence)
        private
        view
        returns (uint256)
    {
        uint256 part = one.byteAt(one.attributes);
        (uint256 sample, uint256 context) = (one.index[0], one.wordAt(8));
        bool trains = part == BatchPosition.TRAIN;
        _needSources(evidence, trains ? 2 : 1);
        Source calldata source = evidence.sources[0];
        SourceProof.checkPart(scene, source, part);
        uint256 tokens = source.size / 2;
        uint256 position = sample * context;
        if (trains) {
            Source calldata counter = evidence.sources[1];
            SourceProof.checkState(scene, counter, COUNTER_STEP);
            counter.checkDtype(SourceProof.INT64);
            uint64 step = uint64(counter.read(0));
            position = BatchPosition.ofSample(scene.seed, scene.slot, step, uint32(sample), tokens, context);
        }
        position += one.byteAt(one.attributes + 1) + one.index[1];
        // A negative number would be a token above 32,767: tokens are unsigned.
        return position < tokens ? source.read(position) & 0xffff : 0;
    }

    // --- folds ---

    /// @dev E of SUM and SCATTER_ADD, always their last source; 0 of the others.
    function _exponent(Scene calldata scene, OperationRecord.Operation memory one, Evidence calldata evidence)
        private
        view
        returns (uint32)
    {
        if (one.code == OperationRecord.MATMUL || one.code == OperationRecord.MAX) return 0;
        return uint32(_operand(scene, one, evidence.sources[evidence.sources.length - 1], one.operands - 1));
    }

    /// @dev The accumulator after the part of the run that `start` and `count` name.
    function _block(
        Scene calldata scene,
        OperationRecord.Operation memory one,
        Evidence calldata evidence,
        uint32 exponent,
        uint256 accumulator
    ) private view returns (uint256) {
        (bytes memory x, uint256 from, uint256 dtype) = _run(scene, one, evidence, 0);
        if (one.code == OperationRecord.MAX) return Fold.maximum(accumulator, x, from, one.count, _ofMagnitudes(one));
        if (one.code == OperationRecord.SUM) return Fold.sum(accumulator, x, from, one.count, exponent);
        (bytes memory y, uint256 yFrom, uint256 yDtype) = _run(scene, one, evidence, 1);
        if (one.code == OperationRecord.SCATTER_ADD) {
            return Fold.scatter(accumulator, x, from, y, yFrom, one.count, one.index[0], exponent);
        }
        (uint256 width, uint256 yWidth) = (_quantisedWidth(dtype), _quantisedWidth(yDtype));
        return uint256(Fold.dot(int256(accumulator), x, from, width, y, yFrom, yWidth, one.count));
    }

    /// @dev The element that the last accumulator gives; a product's scales are always its last two sources.
    function _rounded(
        Scene calldata scene,
        OperationRecord.Operation memory one,
        Evidence calldata evidence,
        uint32 exponent,
        uint256 accumulator
    ) private view returns (uint256) {
        if (one.code == OperationRecord.MAX) {
            return Fold.roundMaximum(accumulator, _ofMagnitudes(one));
        }
        if (one.code != OperationRecord.MATMUL) return Fold.roundSum(accumulator, exponent);
        uint256 last = evidence.sources.length - 1;
        uint32 left = uint32(_operand(scene, one, evidence.sources[last - 1], 2));
        uint32 right = uint32(_operand(scene, one, evidence.sources[last], 3));
        return Fold.roundProduct(int256(accumulator), left, right);
    }

    // --- sources ---

    /// @dev The chunks of operand `place`, which source `place` holds, where in them the part of the run begins that is
    /// read, in elements, and of which dtype.
    function _run(Scene calldata scene, OperationRecord.Operation memory one, Evidence calldata evidence, uint256 place)
        private
        view
        returns (bytes memory chunks, uint256 from, uint256 dtype)
    {
        (uint256 number, uint256 named) = one.operand(place);
        Source calldata source = _output(scene, one, evidence.sources[place], place, number);
        named += one.start;
        return (source.chunks, source.offsetOf(named, named + one.count - 1), source.dtype);
    }

    /// @dev The element that operand `place` names.
    function _operand(Scene calldata scene, OperationRecord.Operation memory one, Source calldata source, uint256 place)
        private
        view
        returns (uint256)
    {
        (uint256 number, uint256 named) = one.operand(place);
        return _output(scene, one, source, place, number).read(named);
    }

    /// @dev The source, once it is proved to hold part of operand `place`, which is the output of operation `number`.
    function _output(
        Scene calldata scene,
        OperationRecord.Operation memory one,
        Source calldata source,
        uint256 place,
        uint256 number
    ) private view returns (Source calldata) {
        SourceProof.checkOutput(scene, source, number);
        source.checkDtype(one.takes(place));
        return source;
    }

    // --- of the question alone ---

    function _parseFold(uint64 index, Evidence calldata evidence)
        private
        pure
        returns (OperationRecord.Operation memory one)
    {
        _needNoOther(evidence);
        one = OperationRecord.parse(evidence.record, index);
        require(one.folds(), WrongRecord(evidence.record));
    }

    function _start(OperationRecord.Operation memory one) private pure returns (uint256) {
        if (one.code == OperationRecord.MATMUL) return uint256(Fold.PRODUCT_START);
        return one.code == OperationRecord.MAX ? Fold.MAXIMUM_START : Fold.SUM_START;
    }

    function _ofMagnitudes(OperationRecord.Operation memory one) private pure returns (bool) {
        return one.byteAt(one.attributes + 4) == 1;
    }

    function _quantisedWidth(uint256 dtype) private pure returns (uint256) {
        if (dtype == SourceProof.INT8) return 1;
        require(dtype == SourceProof.INT16, WrongDtype(dtype, SourceProof.INT16));
        return 2;
    }

    function _needSources(Evidence calldata evidence, uint256 needed) private pure {
        require(evidence.sources.length == needed, WrongSourceCount(evidence.sources.length, needed));
    }

    function _needNoOther(Evidence calldata evidence) private pure {
        bool none = evidence.other.data.length == 0 && evidence.other.siblings.length == 0;
        require(none, WrongRecord(evidence.other.data));
    }
}
