// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IStakeVault} from "../../interfaces/IStakeVault.sol";
import {IAuditCommittee} from "../../interfaces/IAuditCommittee.sol";
import {IRoundBook} from "../../interfaces/IRoundBook.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {ITrainingToken} from "./ITrainingToken.sol";
import {DecidedDisputeGame} from "../../mocks/DecidedDisputeGame.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {StateTree} from "./StateTree.sol";
import {Vm} from "./Vm.sol";

/// @title A deployment, people with money, and the steps of a round
abstract contract Fixture {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant SUPPLY = 1_000_000_000 ether;
    uint256 internal constant FUNDS = 1_000_000 ether;
    uint64 internal constant UNBONDING_DELAY = 20 minutes;
    uint96 internal constant MINIMUM_BOND = 1 ether;
    uint32 internal constant MINIMUM_WINDOW = 60;
    uint32 internal constant MINIMUM_LEASE = 10;
    uint96 internal constant SEAT_STAKE = 3 ether;
    uint32 internal constant SEAT_AGE = 300;
    uint32 internal constant REVEAL_SECONDS = 120;

    uint96 internal constant REWARD = 10 ether;
    uint96 internal constant BOND = 5 ether;
    uint96 internal constant FEE = 0.5 ether;
    uint32 internal constant LEASE = 600;
    uint32 internal constant WINDOW = 900;
    uint32 internal constant TENSORS = 5;
    uint32 internal constant ROUND_SECONDS = 1800;
    uint96 internal constant MERGE_REWARD = 2 ether;

    uint32 internal constant LOSS_4 = 0x40800000;
    uint32 internal constant LOSS_3 = 0x40400000;
    uint32 internal constant LOSS_2 = 0x40000000;
    uint32 internal constant NAN = 0x7fc00000;

    address internal constant REQUESTER = address(0xA11CE);
    address internal constant WORKER = address(0xB0B);
    address internal constant OTHER = address(0x0D0);
    address internal constant STRANGER = address(0x57A);
    address internal constant CHALLENGER = address(0xC4A);

    ITrainingToken internal token;
    IStakeVault internal vault;
    ITrainingLedger internal ledger;
    DecidedDisputeGame internal game;
    IAuditCommittee internal committee;
    IRoundBook internal book;
    /// @dev Where the ledger of open tasks comes to be, in tests that have one.
    address internal openLedgerAddress;

    function setUp() public virtual {
        vm.warp(1_800_000_000);
        vm.roll(1000);
        deploy(ITrainingToken(vm.deployCode("TrainingToken.sol:TrainingToken", abi.encode(address(this), SUPPLY))));
        fund(REQUESTER);
        fund(WORKER);
        fund(OTHER);
        stakeAs(WORKER, 100 ether);
        stakeAs(OTHER, 100 ether);
    }

    /// @dev As a real deployment does it: the four contracts know each other by addresses computed before. The code is
    /// that of the compiled artifacts; `new` would compile the whole ledger again into every test contract.
    function deploy(ITrainingToken token_) internal {
        token = token_;
        uint256 nonce = vm.getNonce(address(this));
        address vaultAddress = vm.computeCreateAddress(address(this), nonce);
        address ledgerAddress = vm.computeCreateAddress(address(this), nonce + 1);
        address gameAddress = vm.computeCreateAddress(address(this), nonce + 2);
        address committeeAddress = vm.computeCreateAddress(address(this), nonce + 3);
        address bookAddress = vm.computeCreateAddress(address(this), nonce + 4);
        openLedgerAddress = vm.computeCreateAddress(address(this), nonce + 5);
        bytes memory vaultArguments =
            abi.encode(token, ledgerAddress, openLedgerAddress, committeeAddress, UNBONDING_DELAY);
        bytes memory ledgerArguments = abi.encode(
            vaultAddress, gameAddress, committeeAddress, bookAddress, MINIMUM_BOND, MINIMUM_WINDOW, MINIMUM_LEASE
        );
        vault = IStakeVault(vm.deployCode("StakeVault.sol:StakeVault", vaultArguments));
        ledger = ITrainingLedger(vm.deployCode("TrainingLedger.sol:TrainingLedger", ledgerArguments));
        game = DecidedDisputeGame(deployGame());
        bytes memory committeeArguments = abi.encode(vault, ledger, SEAT_STAKE, SEAT_AGE, REVEAL_SECONDS);
        committee = IAuditCommittee(vm.deployCode("AuditCommittee.sol:AuditCommittee", committeeArguments));
        book = IRoundBook(vm.deployCode("RoundBook.sol:RoundBook", abi.encode(ledger)));
        require(address(book) == bookAddress, "book");
        require(address(ledger) == ledgerAddress && address(game) == gameAddress, "addresses");
        require(address(committee) == committeeAddress, "committee");
        deployMore();
    }

    /// @dev What else belongs to the deployment; the first contract made here is the vault's ledger of open tasks.
    function deployMore() internal virtual {}

    function deployGame() internal virtual returns (address) {
        return vm.deployCode("DecidedDisputeGame.sol:DecidedDisputeGame", abi.encode(ledger));
    }

    /// @dev External, so that what a constructor says when it reverts comes through.
    function construct(string calldata artifact, bytes calldata arguments) external returns (address made) {
        bytes memory code = bytes.concat(vm.getCode(artifact), arguments);
        assembly ("memory-safe") {
            made := create(0, add(code, 32), mload(code))
            if iszero(made) {
                returndatacopy(0, 0, returndatasize())
                revert(0, returndatasize())
            }
        }
    }

    function fund(address who) internal {
        require(token.transfer(who, FUNDS), "transfer");
        vm.prank(who);
        token.approve(address(vault), type(uint256).max);
    }

    /// @dev Money and stake for somebody who opens games.
    function arm(address who) internal {
        fund(who);
        stakeAs(who, 100 ether);
    }

    function stakeAs(address who, uint256 amount) internal {
        vm.prank(who);
        vault.stake(who, amount);
    }

    function parameters() internal pure returns (ITrainingLedger.TaskParameters memory p) {
        p.specificationHash = Root.wrap(keccak256("specification"));
        p.programRoot = Root.wrap(keccak256("program"));
        p.datasetRoot = Root.wrap(keccak256("dataset"));
        p.initialStateRoot = Root.wrap(keccak256("initial"));
        p.stateTensors = TENSORS;
        p.rounds = 3;
        p.slotsPerRound = 1;
        p.stepsPerRound = 100;
        p.minimumSteps = 10;
        p.slotReward = REWARD;
        p.bond = BOND;
        p.leaseFee = FEE;
        p.leaseSeconds = LEASE;
        p.challengeWindow = WINDOW;
        p.hasTarget = true;
        p.baseLoss = LOSS_4;
        p.targetLoss = LOSS_2;
    }

    /// @dev A task of this many slots a round; half of them are a quorum.
    function groupParameters(uint32 slots) internal pure returns (ITrainingLedger.TaskParameters memory p) {
        p = parameters();
        (p.slotsPerRound, p.quorum) = (slots, (slots + 1) / 2);
        (p.roundSeconds, p.mergeReward) = (ROUND_SECONDS, MERGE_REWARD);
    }

    function post() internal returns (TaskId) {
        return post(parameters());
    }

    function post(ITrainingLedger.TaskParameters memory p) internal returns (TaskId) {
        vm.prank(REQUESTER);
        return ledger.postTask(p, "https://store.example/");
    }

    /// @dev The claim that would succeed now for `worker`.
    function claimOf(TaskId task, address worker) internal view returns (ITrainingLedger.Claim memory) {
        ITrainingLedger.Task memory posted = ledger.getTask(task);
        uint32 round = posted.currentRound;
        return ITrainingLedger.Claim({
            task: task,
            round: round,
            slot: 0,
            attempt: ledger.nextAttempt(task, round, 0),
            specificationHash: posted.parameters.specificationHash,
            baseRoot: ledger.baseRoot(task, round),
            worker: worker,
            ticketBlock: 0,
            ticketNonce: 0
        });
    }

    function claimAs(TaskId task, address worker) internal {
        ITrainingLedger.Claim memory request = claimOf(task, worker);
        vm.prank(worker);
        ledger.claim(request);
    }

    /// @dev The submission that would succeed now, of a state made up from the task, round and attempt.
    function resultOf(TaskId task, uint32 steps, uint32 lossBits)
        internal
        view
        returns (ITrainingLedger.Submission memory result)
    {
        ITrainingLedger.Task memory posted = ledger.getTask(task);
        (result.task, result.round) = (task, posted.currentRound);
        result.attempt = ledger.getSlot(task, result.round, 0).attempt;
        result.baseRoot = ledger.baseRoot(task, result.round);
        (result.steps, result.heldOutLoss) = (steps, lossBits);
        uint256 seed = uint256(keccak256(abi.encode(task, result.round, result.attempt)));
        bytes32[] memory roots = StateTree.tensorRoots(lossBits, posted.parameters.stateTensors, seed);
        (result.stateRoot, result.lossProof) = StateTree.commit(roots);
    }

    /// @dev The root that `resultOf` gives for this attempt.
    function redoneRoot(TaskId task, uint32 round, uint32 attempt, uint32 lossBits) internal view returns (Root root) {
        uint256 seed = uint256(keccak256(abi.encode(task, round, attempt)));
        uint32 tensors = ledger.getTask(task).parameters.stateTensors;
        (root,) = StateTree.commit(StateTree.tensorRoots(lossBits, tensors, seed));
    }

    function submitAs(TaskId task, address worker, uint32 steps, uint32 lossBits) internal returns (Root) {
        ITrainingLedger.Submission memory result = resultOf(task, steps, lossBits);
        vm.prank(worker);
        ledger.submit(result);
        return result.stateRoot;
    }

    /// @dev A posted task whose first round is claimed and submitted by WORKER.
    function submitted() internal returns (TaskId task, Root root) {
        task = post();
        claimAs(task, WORKER);
        root = submitAs(task, WORKER, 100, LOSS_3);
    }

    /// @dev Ends the window and finalises what is in the current round's slot.
    function finaliseNow(TaskId task) internal {
        uint32 round = ledger.getTask(task).currentRound;
        ITrainingLedger.Slot memory slot = ledger.getSlot(task, round, 0);
        vm.warp(uint256(slot.deadline) + 1);
        ledger.finalise(task, round, 0, slot.attempt, slot.stateRoot);
    }

    function playRound(TaskId task, address worker, uint32 steps, uint32 lossBits) internal {
        claimAs(task, worker);
        submitAs(task, worker, steps, lossBits);
        finaliseNow(task);
    }

    /// @dev `value` itself where it fits, else folded into the range.
    function between(uint256 value, uint256 least, uint256 most) internal pure returns (uint256) {
        if (value >= least && value <= most) return value;
        uint256 span = most - least + 1; // not the whole range, or the value would have fitted
        return least + value % span;
    }

    function lockedOf(address owner) internal view returns (uint256) {
        return vault.stakeOf(owner).locked;
    }

    function stakedOf(address owner) internal view returns (uint256) {
        return vault.stakeOf(owner).staked;
    }

    function assertSolvent() internal view {
        uint256 booked = vault.totalStaked() + vault.totalOwed();
        vm.assertEq(token.balanceOf(address(vault)), booked, "the vault holds what it books");
    }

    function assertStatus(TaskId task, uint32 round, ITrainingLedger.SlotStatus status) internal view {
        vm.assertEq(uint256(ledger.getSlot(task, round, 0).status), uint256(status), "status");
    }
}
