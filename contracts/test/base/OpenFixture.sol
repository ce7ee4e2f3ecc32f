// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAvailabilityCommittee} from "../../interfaces/IAvailabilityCommittee.sol";
import {IOpenLedger} from "../../interfaces/IOpenLedger.sol";
import {DecidedDisputeGame} from "../../mocks/DecidedDisputeGame.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {Fixture} from "./Fixture.sol";
import {HeldOutTree} from "./HeldOutTree.sol";
import {StateTree} from "./StateTree.sol";

/// @title A deployment with open tasks, and the steps of their rounds
abstract contract OpenFixture is Fixture {
    uint32 internal constant COMMIT = 600;
    uint32 internal constant REVEAL = 300;
    uint32 internal constant HELD_OUT = 400;
    uint96 internal constant FLOOR = 1 ether;
    uint96 internal constant SCORE_REWARD = 2 ether;
    uint32 internal constant SLOTS = 3;
    uint32 internal constant ROUNDS = 2;
    uint32 internal constant ONE = 0x3f800000;
    uint32 internal constant LOSS_1 = 0x3f800000;
    /// @dev 3.5.
    uint32 internal constant LOSS_3H = 0x40600000;
    bytes32 internal constant TRAIN_LEAF = keccak256("train leaf");
    bytes32 internal constant PUBLIC_NODE = keccak256("header and tokenizer");

    /// @dev Of a round; few, because roots are computed by code that is not optimised.
    uint32 internal heldOutBytes = 34;
    IOpenLedger internal open;
    DecidedDisputeGame internal openGame;
    IAvailabilityCommittee internal availability;

    function setUp() public virtual override {
        super.setUp();
        arm(STRANGER);
        arm(CHALLENGER);
    }

    function deployMore() internal override {
        uint256 nonce = vm.getNonce(address(this));
        require(vm.computeCreateAddress(address(this), nonce) == openLedgerAddress, "open ledger");
        address gameAddress = vm.computeCreateAddress(address(this), nonce + 1);
        address availabilityAddress = vm.computeCreateAddress(address(this), nonce + 2);
        bytes memory openArguments = abi.encode(vault, gameAddress, availabilityAddress);
        open = IOpenLedger(vm.deployCode("OpenLedger.sol:OpenLedger", openArguments));
        openGame =
            DecidedDisputeGame(vm.deployCode("DecidedDisputeGame.sol:DecidedDisputeGame", abi.encode(address(open))));
        bytes memory asked =
            abi.encode(open, committee, vault, REVEAL_SECONDS, MINIMUM_BOND, MINIMUM_WINDOW, MINIMUM_LEASE);
        availability = IAvailabilityCommittee(vm.deployCode("AvailabilityCommittee.sol:AvailabilityCommittee", asked));
        require(address(openGame) == gameAddress && address(availability) == availabilityAddress, "addresses");
    }

    function openParameters() internal view returns (IOpenLedger.TaskParameters memory p) {
        p.specificationHash = Root.wrap(keccak256("specification"));
        p.programRoot = Root.wrap(keccak256("program"));
        p.initialStateRoot = Root.wrap(keccak256("initial"));
        (p.trainLeaf, p.publicNode, p.heldOutBytes) = (TRAIN_LEAF, PUBLIC_NODE, heldOutBytes);
        (p.stateTensors, p.slotsPerRound, p.fullGain) = (TENSORS, SLOTS, ONE);
        (p.slotReward, p.floorReward, p.scoreReward) = (REWARD, FLOOR, SCORE_REWARD);
        (p.bond, p.fee) = (BOND, FEE);
        (p.commitSeconds, p.revealSeconds, p.heldOutSeconds) = (COMMIT, REVEAL, HELD_OUT);
        (p.leaseSeconds, p.challengeWindow) = (LEASE, WINDOW);
    }

    function heldOutTokens(uint32 round) internal view returns (bytes memory) {
        bytes memory tokens = new bytes(heldOutBytes);
        for (uint256 i = 0; i < tokens.length; ++i) {
            tokens[i] = bytes1(uint8(i * 7 + round));
        }
        return tokens;
    }

    function heldOutRoots(uint32 rounds) internal view returns (Root[] memory roots) {
        roots = new Root[](rounds);
        for (uint32 round = 0; round < rounds; ++round) {
            roots[round] = HeldOutTree.dataSetRoot(heldOutTokens(round), TRAIN_LEAF, PUBLIC_NODE);
        }
    }

    function postOpen() internal returns (TaskId) {
        return postOpen(openParameters(), ROUNDS);
    }

    function postOpen(IOpenLedger.TaskParameters memory p, uint32 rounds) internal returns (TaskId) {
        Root[] memory roots = heldOutRoots(rounds);
        vm.prank(REQUESTER);
        return open.postTask(p, roots, "https://store.example/");
    }

    function saltOf(address worker) internal pure returns (bytes32) {
        return keccak256(abi.encode("salt", worker));
    }

    function commitOf(TaskId task, address worker, Root state) internal view returns (IOpenLedger.Commit memory) {
        IOpenLedger.Task memory posted = open.getTask(task);
        uint32 round = posted.currentRound;
        return IOpenLedger.Commit({
            task: task,
            round: round,
            specificationHash: posted.parameters.specificationHash,
            baseRoot: open.baseRoot(task, round),
            worker: worker,
            commitment: open.commitmentOf(task, round, worker, state, saltOf(worker))
        });
    }

    function commitAs(TaskId task, address worker, Root state) internal returns (uint32) {
        IOpenLedger.Commit memory request = commitOf(task, worker, state);
        vm.prank(worker);
        return open.commit(request);
    }

    function revealAs(TaskId task, address worker, Root state) internal {
        uint32 round = open.getTask(task).currentRound;
        open.reveal(task, round, open.slotOf(task, round, worker) - 1, state, saltOf(worker));
    }

    function showHeldOut(TaskId task) internal {
        uint32 round = open.getTask(task).currentRound;
        open.revealHeldOut(task, round, heldOutTokens(round));
    }

    function trained(uint256 seed) internal pure returns (Root) {
        return Root.wrap(keccak256(abi.encode("trained", seed)));
    }

    /// @dev The score that would succeed now: a made-up state which has this loss.
    function scoreOf(TaskId task, uint32 slot, address worker, uint32 loss)
        internal
        view
        returns (IOpenLedger.Score memory result)
    {
        (result.task, result.round, result.slot) = (task, open.getTask(task).currentRound, slot);
        (result.worker, result.heldOutLoss) = (worker, loss);
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(task, result.round, slot);
        (result.attempt, result.trainedRoot) = (held.attempt, held.trainedRoot);
        uint256 seed = uint256(Root.unwrap(held.trainedRoot));
        bytes32[] memory roots = StateTree.tensorRoots(loss, TENSORS, seed);
        (result.scoredRoot, result.lossProof) = StateTree.commit(roots);
    }

    function scoreAs(TaskId task, uint32 slot, address worker, uint32 loss) internal returns (Root) {
        IOpenLedger.Score memory result = scoreOf(task, slot, worker, loss);
        vm.prank(worker);
        open.score(result);
        return result.scoredRoot;
    }

    function finaliseScore(TaskId task, uint32 slot) internal {
        uint32 round = open.getTask(task).currentRound;
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(task, round, slot);
        if (block.timestamp <= held.deadline) vm.warp(uint256(held.deadline) + 1);
        open.finalise(task, round, slot, held.attempt, held.scoredRoot);
    }

    /// @dev A round whose three states are revealed: WORKER's, OTHER's and STRANGER's, trained(1) to trained(3).
    function revealedRound() internal returns (TaskId task) {
        task = postOpen();
        commitAs(task, WORKER, trained(1));
        commitAs(task, OTHER, trained(2));
        commitAs(task, STRANGER, trained(3));
        revealAs(task, WORKER, trained(1));
        revealAs(task, OTHER, trained(2));
        revealAs(task, STRANGER, trained(3));
    }

    /// @dev As `revealedRound`, with the baseline final at a loss of 4.
    function openedRound() internal returns (TaskId task) {
        task = revealedRound();
        showHeldOut(task);
    }

    function stageOf(TaskId task, uint32 round, uint32 slot) internal view returns (IOpenLedger.Stage) {
        return open.getOpenSlot(task, round, slot).stage;
    }

    function assertStage(TaskId task, uint32 slot, IOpenLedger.Stage stage) internal view {
        uint32 round = open.getTask(task).currentRound;
        vm.assertEq(uint256(stageOf(task, round, slot)), uint256(stage), "stage");
    }

    function escrowOf(TaskId task) internal view returns (uint256) {
        return vault.escrowOf(TaskId.wrap(TaskId.unwrap(task) | (uint64(1) << 62)));
    }
}
