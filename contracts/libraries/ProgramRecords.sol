// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../interfaces/IDisputeGame.sol";
import {IStepReferee} from "../interfaces/IStepReferee.sol";
import {Root} from "../types/Identifiers.sol";
import {Commitments} from "./Commitments.sol";

/// @title What the game reads in the records of a program
/// @notice docs/programs.md, "Encoding" and "A task's programs". Integers there are big-endian. Records that are too
/// short, or name what does not exist, revert with `IStepReferee.WrongRecord`; programs that parties accepted have none.
library ProgramRecords {
    uint8 internal constant INT64 = 2;
    /// @notice Source of a state's tensor that no operation writes.
    uint32 internal constant UNCHANGED = 0xffffffff;

    uint256 private constant TASK_RECORDS = 6;
    uint256 private constant TRAINING = 1;
    uint256 private constant EVALUATION = 2;
    uint256 private constant MERGE = 5;
    bytes8 private constant TASK_HEAD = "TLXT\x00\x02\x00\x00";
    bytes6 private constant PROGRAM_HEAD = "TLXP\x00\x01";
    uint256 private constant HEADER_BYTES = 20;
    uint256 private constant LARGEST_RANK = 6;

    uint8 private constant MATMUL = 6;
    uint8 private constant SUM = 7;
    uint8 private constant MAX = 8;
    uint8 private constant SCATTER_ADD = 10;

    /// @notice Proves the program of run `run.number` against the task's program root, and reads what it takes and how
    /// many records it has.
    /// @param run Gets program, seed, inputs and counts.
    function enterProgram(
        IDisputeGame.Run memory run,
        IDisputeGame.Matter memory matter,
        IDisputeGame.ProgramProof calldata proof
    ) internal view {
        bytes32 seedLeaf = sha256(abi.encodePacked(uint8(0), Commitments.PROGRAM, TASK_HEAD, proof.seed));
        _checkTaskRecord(seedLeaf, 0, proof.seedSiblings, matter.taskProgram);
        uint256 place = _placeOf(run.number, matter);
        bytes32 programLeaf = Commitments.leafOfRoot(Commitments.PROGRAM, Root.unwrap(proof.program));
        _checkTaskRecord(programLeaf, place, proof.programSiblings, matter.taskProgram);

        bytes calldata header = proof.header.data;
        bool good = header.length == HEADER_BYTES && bytes6(header) == PROGRAM_HEAD;
        require(good, IStepReferee.WrongRecord(header));
        run.inputs = uint8(header[7]);
        // INVARIANT: what a run begins with is inputs in run 0 of a merge and a state in all others, whatever the header.
        require(place == MERGE ? run.inputs > 1 : run.inputs == 0, IStepReferee.WrongRecord(header));
        (run.program, run.seed) = (proof.program, proof.seed);
        (run.states, run.constants, run.operations) = (_word(header, 8), _word(header, 12), _word(header, 16));
        checkRecord(run, 0, proof.header);
    }

    /// @notice Proves that a record is the one at this place of the run's program.
    function checkRecord(IDisputeGame.Run memory run, uint256 index, IStepReferee.Record calldata record)
        internal
        view
    {
        uint256 count = 1 + uint256(run.states) + run.constants + run.operations;
        Commitments.checkLength(record.siblings.length, Commitments.depth(count));
        bytes32 hash = Commitments.leaf(Commitments.PROGRAM, record.data);
        hash = Commitments.climb(Commitments.PROGRAM, hash, index, record.siblings);
        // forge-lint: disable-next-line(unsafe-typecast)
        hash = Commitments.seal(Commitments.PROGRAM, Commitments.TYPE_PROGRAM, uint64(count), hash); // below 2**34
        Commitments.checkProof(hash, Root.unwrap(run.program));
    }

    /// @notice Dtype and bytes of an operation's output.
    function outputOf(bytes calldata record) internal pure returns (uint8 dtype, uint64 size) {
        dtype = _byte(record, 1);
        size = _size(record, dtype, _byte(record, 2), 4);
    }

    /// @notice Dtype and bytes of a state's tensor, and the operation that writes it, or `UNCHANGED`.
    function stateTensorOf(bytes calldata record) internal pure returns (uint8 dtype, uint64 size, uint32 source) {
        dtype = _byte(record, 0);
        uint256 rank = _byte(record, 1);
        size = _size(record, dtype, rank, 2);
        source = _word(record, 2 + 4 * rank);
    }

    /// @notice Elements that one element of an operation's output folds; 0 of operations that do not fold.
    function foldLength(bytes calldata record) internal pure returns (uint32) {
        uint8 code = _byte(record, 0);
        if (code != MATMUL && code != SUM && code != MAX && code != SCATTER_ADD) return 0;
        uint256 rank = _byte(record, 2);
        return _word(record, 4 + 4 * rank + _byte(record, 3) * (8 + 4 * rank));
    }

    /// @notice Bytes of one element.
    function width(uint8 dtype) internal pure returns (uint64) {
        if (dtype == 1 || dtype == 3) return 4;
        if (dtype == INT64) return 8;
        if (dtype == 9) return 2;
        return dtype == 4 ? 1 : 0;
    }

    function _checkTaskRecord(bytes32 hash, uint256 index, bytes32[] calldata siblings, Root taskProgram) private view {
        Commitments.checkLength(siblings.length, Commitments.depth(TASK_RECORDS));
        hash = Commitments.climb(Commitments.PROGRAM, hash, index, siblings);
        hash = Commitments.seal(Commitments.PROGRAM, Commitments.TYPE_TASK_PROGRAMS, uint64(TASK_RECORDS), hash);
        Commitments.checkProof(hash, Root.unwrap(taskProgram));
    }

    /// @dev Which of a task's records names the program of a run.
    function _placeOf(uint32 number, IDisputeGame.Matter memory matter) private pure returns (uint256) {
        if (number >= matter.steps) return EVALUATION;
        return matter.merge && number == 0 ? MERGE : TRAINING;
    }

    function _size(bytes calldata record, uint8 dtype, uint256 rank, uint256 start) private pure returns (uint64) {
        uint256 size = width(dtype);
        require(rank <= LARGEST_RANK, IStepReferee.WrongRecord(record));
        for (uint256 axis = 0; axis < rank; ++axis) {
            size *= _word(record, start + 4 * axis); // at most 8 * 2**192
        }
        require(size > 0 && size <= type(uint64).max, IStepReferee.WrongRecord(record));
        // forge-lint: disable-next-line(unsafe-typecast)
        return uint64(size); // just checked
    }

    function _byte(bytes calldata record, uint256 offset) private pure returns (uint8) {
        require(offset < record.length, IStepReferee.WrongRecord(record));
        return uint8(record[offset]);
    }

    function _word(bytes calldata record, uint256 offset) private pure returns (uint32) {
        require(offset + 4 <= record.length, IStepReferee.WrongRecord(record));
        return uint32(bytes4(record[offset:offset + 4]));
    }
}
