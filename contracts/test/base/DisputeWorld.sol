// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../../interfaces/IStepReferee.sol";
import {Root} from "../../types/Identifiers.sol";
import {Fixture} from "./Fixture.sol";
import {Trees} from "./Trees.sol";

/// @title A segment of a made-up program, and what a liar says of it
/// @notice The data of outputs are hashes: nothing is computed, and the referee is told what is true. What is real are
/// the trees, whose shapes are chosen so that every kind of view occurs: 70 tensors of a state, 70 operations, tensors
/// of 1, 2 and 79 chunks, a fold of 71 blocks. A liar's data differ from the truth at one place of the run `lie.run`,
/// and everything above and after that place differs with it.
abstract contract DisputeWorld is Fixture {
    /// @dev What a liar is wrong about. `ElementByte`: byte `index` of the output `number`. `StateRoot`: the root of
    /// tensor `number` of the state after, not its output's. `CounterByte`: byte `index` of the counter in the state after.
    /// `DirtyByte`: byte `index` of the last chunk of the output `number`, behind its data. `TensorPad`, `StatePad`,
    /// `TracePad`: leaf `index` of a tree, behind its last one. `Rounding`: as `ElementByte`, with true accumulators.
    enum LieKind {
        ElementByte,
        StateRoot,
        CounterByte,
        DirtyByte,
        TensorPad,
        StatePad,
        TracePad,
        Rounding
    }

    struct Lie {
        LieKind kind;
        uint32 run;
        uint32 number;
        uint32 index;
    }

    uint8 internal constant TENSOR = 1;
    uint8 internal constant STATE = 2;
    uint8 internal constant TRACE = 3;
    uint8 internal constant PROGRAM = 4;

    uint32 internal constant STEPS = 100;
    uint32 internal constant STATES = 70;
    uint32 internal constant OPERATIONS = 70;
    uint32 internal constant COUNTER_OUTPUT = 0;
    uint32 internal constant LOSS_OUTPUT = 1;
    uint32 internal constant WEIGHT_OUTPUT = 2;
    uint32 internal constant PRODUCT = 3;
    uint32 internal constant LARGE_OUTPUT = 4;
    uint32 internal constant WEIGHT = 3;
    uint32 internal constant FOLD_LENGTH = 71 * 1024 - 5;
    uint32 internal constant BLOCKS = 71;
    uint64 internal constant SEED = 0x0102030405060708;

    Lie internal lie;

    function outputSize(uint32 number) internal pure returns (uint8 dtype, uint64 size) {
        if (number == COUNTER_OUTPUT) return (3, 4);
        if (number == LOSS_OUTPUT) return (1, 4);
        if (number == WEIGHT_OUTPUT) return (1, 1200);
        if (number == PRODUCT) return (1, 16);
        return number == LARGE_OUTPUT ? (9, 80_000) : (4, 10);
    }

    function outputData(uint32 run, uint32 number, bool lying) internal view returns (bytes memory data) {
        (, uint64 size) = outputSize(number);
        data = new bytes(size);
        if (number == LOSS_OUTPUT) {
            (data[2], data[3]) = (0x40, 0x40); // 3.0
        } else if (number == COUNTER_OUTPUT) {
            data[0] = bytes1(uint8(run + 1));
        } else {
            _fill(data, keccak256(abi.encode(run, number)));
        }
        bool wrong = _lies(LieKind.ElementByte, run, number) || _lies(LieKind.Rounding, run, number);
        if (lying && wrong) data[lie.index] = ~data[lie.index];
    }

    function outputChunk(uint32 run, uint32 number, bool lying, uint256 index)
        internal
        view
        returns (bytes memory chunk)
    {
        bytes memory data = outputData(run, number, lying);
        chunk = Trees.chunk(data, index);
        bool last = index == (data.length - 1) / 1024;
        if (lying && last && _lies(LieKind.DirtyByte, run, number)) chunk[lie.index] = 0x01;
    }

    function outputRows(uint32 run, uint32 number, bool lying) internal view returns (bytes32[][] memory) {
        bytes memory data = outputData(run, number, lying);
        bytes32[] memory leaves = new bytes32[]((data.length + 1023) / 1024);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = Trees.leaf(TENSOR, Trees.chunk(data, i));
        }
        if (lying && _lies(LieKind.DirtyByte, run, number)) {
            leaves[leaves.length - 1] = Trees.leaf(TENSOR, outputChunk(run, number, true, leaves.length - 1));
        }
        return _spoilt(TENSOR, leaves, lying && _lies(LieKind.TensorPad, run, number));
    }

    function outputRoot(uint32 run, uint32 number, bool lying) internal view returns (bytes32) {
        (uint8 dtype, uint64 size) = outputSize(number);
        return Trees.seal(TENSOR, dtype, size, Trees.top(outputRows(run, number, lying)));
    }

    /// @dev The counter of the state after a run: int64, sign-extended.
    function counterChunk(uint32 run, bool lying) internal view returns (bytes memory chunk) {
        bytes memory output = outputData(run, COUNTER_OUTPUT, lying);
        chunk = new bytes(1024);
        for (uint256 i = 0; i < 8; ++i) {
            chunk[i] = i < 4 ? output[i] : uint8(output[3]) > 127 ? bytes1(0xff) : bytes1(0);
        }
        if (lying && _lies(LieKind.CounterByte, run, 1)) chunk[lie.index] = ~chunk[lie.index];
    }

    /// @dev Roots of the tensors of the state before run `number` (0: the base).
    function stateTensors(uint32 number, bool lying) internal view returns (bytes32[] memory roots) {
        roots = new bytes32[](STATES);
        // Two runs after its lie, a liar's state is anything at all.
        bool lost = lying && number > lie.run + 1;
        for (uint256 i = 0; i < STATES; ++i) {
            roots[i] = keccak256(abi.encode("unchanged", i, lost));
        }
        uint32 run = number == 0 ? 0 : number - 1;
        roots[0] = outputRoot(run, LOSS_OUTPUT, lying);
        roots[1] =
            number == 0 ? keccak256("counter") : Trees.seal(TENSOR, 2, 8, Trees.leaf(TENSOR, counterChunk(run, lying)));
        roots[WEIGHT] = number == 0 ? keccak256("weight") : outputRoot(run, WEIGHT_OUTPUT, lying);
        if (!lying || number != lie.run + 1) return roots;
        if (lie.kind == LieKind.StateRoot) roots[lie.number] = keccak256("not its output");
        // What is wrong in an output is wrong in the state after, too: here, in its last tensor.
        else if (lie.kind != LieKind.CounterByte && lie.kind != LieKind.StatePad) roots[STATES - 1] = keccak256("wrong");
    }

    function stateRows(uint32 number, bool lying) internal view returns (bytes32[][] memory) {
        bytes32[] memory leaves = stateTensors(number, lying);
        for (uint256 i = 0; i < STATES; ++i) {
            leaves[i] = Trees.leafOfRoot(STATE, leaves[i]);
        }
        return _spoilt(STATE, leaves, lying && number == lie.run + 1 && lie.kind == LieKind.StatePad);
    }

    function stateRoot(uint32 number, bool lying) internal view returns (bytes32) {
        return Trees.seal(STATE, 0, STATES, Trees.top(stateRows(number, lying && number > lie.run)));
    }

    function traceRows(uint32 run, bool lying) internal view returns (bytes32[][] memory) {
        bytes32[] memory leaves = new bytes32[](OPERATIONS + 1);
        for (uint32 i = 0; i < OPERATIONS; ++i) {
            leaves[i] = Trees.leafOfRoot(TRACE, outputRoot(run, i, lying));
        }
        // The pad of a trace is in question only where everything before it is true.
        bool state = lying && lie.kind != LieKind.TracePad;
        leaves[OPERATIONS] = Trees.leafOfRoot(TRACE, stateRoot(run + 1, state));
        return _spoilt(TRACE, leaves, lying && run == lie.run && lie.kind == LieKind.TracePad);
    }

    function records(bool training) internal pure returns (bytes[] memory all) {
        all = new bytes[](2 + STATES + OPERATIONS);
        all[0] = abi.encodePacked("TLXP", uint16(1), uint8(training ? 1 : 2), uint8(0), STATES, uint32(1), OPERATIONS);
        for (uint32 i = 0; i < STATES; ++i) {
            uint32 source = i == 0 ? LOSS_OUTPUT : i == 1 ? COUNTER_OUTPUT : i == WEIGHT ? WEIGHT_OUTPUT : 0xffffffff;
            uint32 extent = i < 2 ? 1 : i == WEIGHT ? 300 : 8;
            all[1 + i] = abi.encodePacked(uint8(i == 1 ? 2 : 1), uint8(1), extent, source, uint8(1), "x");
        }
        all[1 + STATES] = abi.encodePacked(uint8(1), uint8(0), bytes32(uint256(9)));
        for (uint32 i = 0; i < OPERATIONS; ++i) {
            (uint8 dtype, uint64 size) = outputSize(i);
            uint64 width = dtype == 4 ? 1 : dtype == 9 ? 2 : 4;
            all[2 + STATES + i] = abi.encodePacked(uint8(5), dtype, uint8(1), uint8(0), uint32(size / width));
        }
        bytes memory operand = new bytes(16);
        bytes memory operands = bytes.concat(operand, operand, operand, operand);
        all[2 + STATES + PRODUCT] = abi.encodePacked(hex"06010204", uint32(2), uint32(2), operands, FOLD_LENGTH);
    }

    function programRows(bool training) internal view returns (bytes32[][] memory) {
        bytes[] memory all = records(training);
        bytes32[] memory leaves = new bytes32[](all.length);
        for (uint256 i = 0; i < all.length; ++i) {
            leaves[i] = Trees.leaf(PROGRAM, all[i]);
        }
        return Trees.build(PROGRAM, leaves);
    }

    function programRoot(bool training) internal view returns (bytes32) {
        return Trees.seal(PROGRAM, 1, 2 + STATES + OPERATIONS, Trees.top(programRows(training)));
    }

    function recordOf(bool training, uint256 index) internal view returns (IStepReferee.Record memory) {
        return IStepReferee.Record(records(training)[index], Trees.proof(programRows(training), index));
    }

    function taskRows() internal view returns (bytes32[][] memory) {
        bytes32[] memory leaves = new bytes32[](6);
        leaves[0] = Trees.leaf(PROGRAM, abi.encodePacked("TLXT", uint16(2), uint16(0), SEED));
        leaves[1] = Trees.leafOfRoot(PROGRAM, programRoot(true));
        leaves[2] = Trees.leafOfRoot(PROGRAM, programRoot(false));
        leaves[3] = Trees.leafOfRoot(PROGRAM, bytes32(0));
        leaves[4] = Trees.leafOfRoot(PROGRAM, keccak256("description"));
        leaves[5] = Trees.leafOfRoot(PROGRAM, bytes32(0));
        return Trees.build(PROGRAM, leaves);
    }

    function taskProgramRoot() internal view returns (Root) {
        return Root.wrap(Trees.seal(PROGRAM, 2, 6, Trees.top(taskRows())));
    }

    /// @dev A made-up accumulator of the product's fold after `blocks` blocks. A liar's differ from block 40 on, unless
    /// it is only its rounding that is wrong.
    function accumulator(uint64 element, uint64 blocks, bool lying) internal view returns (bytes32) {
        bool wrong = lying && blocks > 40 && lie.kind != LieKind.Rounding;
        return keccak256(abi.encode("accumulator", element, blocks, wrong));
    }

    /// @dev Words that follow from a seed. Memory is handed out in whole words, so the last one has room.
    function _fill(bytes memory data, bytes32 seed) private pure {
        assembly ("memory-safe") {
            let word := seed
            let size := mload(data)
            for { let i := 0 } lt(i, size) { i := add(i, 32) } {
                mstore(0, word)
                word := keccak256(0, 32)
                mstore(add(add(data, 32), i), word)
            }
        }
    }

    function _lies(LieKind kind, uint32 run, uint32 number) private view returns (bool) {
        return lie.kind == kind && lie.run == run && lie.number == number;
    }

    function _spoilt(uint8 kind, bytes32[] memory leaves, bool spoil) private view returns (bytes32[][] memory rows) {
        rows = Trees.build(kind, leaves);
        if (!spoil) return rows;
        rows[0][lie.index] = keccak256("not a pad");
        Trees.raise(kind, rows);
    }
}
