// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {IRoundBook} from "../../interfaces/IRoundBook.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {Fixture} from "./Fixture.sol";
import {StateTree} from "./StateTree.sol";

/// @title The steps of a round of many slots
/// @notice Each helper acts in the current round, as `WORKER` where nobody is named. Slot `SLOTS` is the merge.
abstract contract RoundFixture is Fixture {
    uint32 internal constant SLOTS = 4;

    function setUp() public virtual override {
        super.setUp();
        stakeAs(WORKER, 10_000 ether);
        arm(CHALLENGER);
    }

    function postGroup() internal returns (TaskId) {
        return post(groupParameters(SLOTS));
    }

    function current(TaskId task) internal view returns (uint32) {
        return ledger.getTask(task).currentRound;
    }

    function slotOf(TaskId task, uint32 slot) internal view returns (ITrainingLedger.Slot memory) {
        return ledger.getSlot(task, current(task), slot);
    }

    /// @dev What a slot starts from: the round's base, or a merge's inputs.
    function startOf(TaskId task, uint32 slot) internal view returns (Root) {
        uint32 round = current(task);
        if (slot < ledger.getTask(task).parameters.slotsPerRound) return ledger.baseRoot(task, round);
        return book.inputsOf(task, round, book.roundOf(task, round).generation);
    }

    function claimSlotOf(TaskId task, uint32 slot, address worker)
        internal
        view
        returns (ITrainingLedger.Claim memory request)
    {
        request = claimOf(task, worker);
        request.slot = slot;
        request.attempt = ledger.nextAttempt(task, request.round, slot);
        request.baseRoot = startOf(task, slot);
    }

    function claimSlot(TaskId task, uint32 slot, address worker) internal {
        ITrainingLedger.Claim memory request = claimSlotOf(task, slot, worker);
        vm.prank(worker);
        ledger.claim(request);
    }

    /// @dev The submission that would succeed now, of a state made up from `seed`.
    function slotResult(TaskId task, uint32 slot, uint32 steps, uint256 seed)
        internal
        view
        returns (ITrainingLedger.Submission memory result)
    {
        (result.task, result.round, result.slot) = (task, current(task), slot);
        result.attempt = slotOf(task, slot).attempt;
        result.baseRoot = startOf(task, slot);
        (result.steps, result.heldOutLoss) = (steps, LOSS_3);
        (result.stateRoot, result.lossProof) = StateTree.commit(StateTree.tensorRoots(LOSS_3, TENSORS, seed));
    }

    function madeUp(uint256 seed) internal pure returns (Root root) {
        (root,) = StateTree.commit(StateTree.tensorRoots(LOSS_3, TENSORS, seed));
    }

    function submitSlot(TaskId task, uint32 slot, address worker, uint256 seed) internal returns (Root) {
        bool merge = slot == ledger.getTask(task).parameters.slotsPerRound;
        ITrainingLedger.Submission memory result = slotResult(task, slot, merge ? 1 : 100, seed);
        vm.prank(worker);
        ledger.submit(result);
        return result.stateRoot;
    }

    function play(TaskId task, uint32 slot, uint256 seed) internal {
        claimSlot(task, slot, WORKER);
        submitSlot(task, slot, WORKER, seed);
    }

    /// @dev All training slots, each with a state made up from its number.
    function playAll(TaskId task) internal {
        for (uint32 slot = 0; slot < SLOTS; ++slot) {
            play(task, slot, slot);
        }
    }

    function collectAll(TaskId task) internal returns (Root) {
        uint32 round = current(task);
        uint32 generation = book.roundOf(task, round).generation;
        book.collect(task, round, generation, type(uint256).max);
        return book.inputsOf(task, round, generation);
    }

    function finaliseSlot(TaskId task, uint32 slot) internal {
        uint32 round = current(task);
        ITrainingLedger.Slot memory done = ledger.getSlot(task, round, slot);
        if (block.timestamp <= done.deadline) vm.warp(uint256(done.deadline) + 1);
        ledger.finalise(task, round, slot, done.attempt, done.stateRoot);
    }

    /// @dev CHALLENGER proves the submission of a slot wrong; its own root is that of `seed`.
    function fell(TaskId task, uint32 slot, uint256 seed) internal {
        ITrainingLedger.Slot memory wrong = slotOf(task, slot);
        (uint32 round, Root own) = (current(task), madeUp(seed));
        vm.prank(CHALLENGER);
        uint256 opened = game.open(task, round, slot, wrong.attempt, wrong.stateRoot, own);
        game.decide(opened, IDisputeGame.Outcome.ChallengerWon);
    }

    function stateOf(TaskId task) internal view returns (IRoundBook.Round memory) {
        return book.roundOf(task, current(task));
    }

    /// @dev The inputs' root as docs/rounds.md writes it, sharing no code with `InputsTree`.
    function inputsRoot(Root[] memory roots) internal pure returns (Root) {
        uint256 width = 1;
        while (width < roots.length) width *= 2;
        bytes32[] memory level = new bytes32[](width);
        for (uint256 i = 0; i < width; ++i) {
            bytes memory leaf = i < roots.length ? bytes.concat(hex"0007", Root.unwrap(roots[i])) : bytes(hex"0207");
            level[i] = sha256(leaf);
        }
        for (; width > 1; width /= 2) {
            for (uint256 i = 0; i < width / 2; ++i) {
                level[i] = sha256(bytes.concat(hex"0107", level[2 * i], level[2 * i + 1]));
            }
        }
        return Root.wrap(sha256(bytes.concat(hex"030700", bytes8(uint64(roots.length)), level[0])));
    }
}
