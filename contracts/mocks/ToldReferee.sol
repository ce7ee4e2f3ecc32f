// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStepReferee} from "../interfaces/IStepReferee.sol";

/// @title A referee that answers as it was told; for tests only
/// @notice It knows questions by the hash of all that they say but the evidence, so a question about another scene,
/// element, block or accumulator than the test expects has no answer.
contract ToldReferee is IStepReferee {
    mapping(bytes32 question => uint256) private _answers;
    mapping(bytes32 question => bool) private _told;

    error NeverTold(bytes32 question);

    /// @notice Sets the answer to a question: `questionOf` with the selector of the function that asks it.
    function tell(bytes32 question, uint256 answer) external {
        (_answers[question], _told[question]) = (answer, true);
    }

    /// @inheritdoc IStepReferee
    function element(Scene calldata scene, uint64 index, Evidence calldata) external view returns (uint64) {
        return uint64(_answer(questionOf(this.element.selector, scene, index, 0, 0)));
    }

    /// @inheritdoc IStepReferee
    function stateElement(Scene calldata scene, uint64 index, Evidence calldata) external view returns (uint64) {
        return uint64(_answer(questionOf(this.stateElement.selector, scene, index, 0, 0)));
    }

    /// @inheritdoc IStepReferee
    function foldBlock(Scene calldata scene, uint64 index, uint64 first, uint256 accumulator, Evidence calldata)
        external
        view
        returns (uint256)
    {
        return _answer(questionOf(this.foldBlock.selector, scene, index, first, accumulator));
    }

    /// @inheritdoc IStepReferee
    function foldRounding(Scene calldata scene, uint64 index, uint256 accumulator, Evidence calldata)
        external
        view
        returns (uint64)
    {
        return uint64(_answer(questionOf(this.foldRounding.selector, scene, index, 0, accumulator)));
    }

    /// @notice Hash of a question.
    function questionOf(bytes4 selector, Scene memory scene, uint64 index, uint64 first, uint256 accumulator)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(selector, scene, index, first, accumulator));
    }

    function _answer(bytes32 question) private view returns (uint256) {
        require(_told[question], NeverTold(question));
        return _answers[question];
    }
}
