// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {IStakeVault} from "../../interfaces/IStakeVault.sol";
import {DecidedDisputeGame} from "../../mocks/DecidedDisputeGame.sol";
import {ITrainingToken} from "./ITrainingToken.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {Fixture} from "./Fixture.sol";

/// @title What people do, in any order
/// @notice Each action looks for something that can be done now and does it; it counts what it did, and keeps its own
/// books from the amounts that the rules promise, never from the vault's. Calls that must fail are tried, too, and
/// counted where they did not: `broken` has to stay 0.
contract Handler is Fixture {
    uint256 private constant MAXIMUM_TASKS = 300;
    uint256 internal constant LIVELY_TASKS = 6;

    /// @dev A fallen submission whose bond nobody has taken yet.
    struct Fallen {
        TaskId task;
        uint32 round;
        uint32 attempt;
        address worker;
        address winner;
    }

    address[] public people;
    TaskId[] public tasks;
    mapping(string action => uint256) public done;
    mapping(TaskId task => uint256) public escrowed;
    mapping(TaskId task => uint256) public paidOut;
    mapping(address owner => uint256) public bonds;
    uint256 public burned;
    uint256 public broken;
    string public breach;
    Fallen[] internal _fallen;

    constructor(ITrainingToken token_, IStakeVault vault_, ITrainingLedger ledger_, DecidedDisputeGame game_) {
        (token, vault, ledger, game) = (token_, vault_, ledger_, game_);
        people = [WORKER, OTHER, STRANGER, CHALLENGER];
    }

    function setUp() public override {}

    function postTask(uint96 reward, uint96 bond, uint32 rounds, bool hasTarget) external {
        if (tasks.length == MAXIMUM_TASKS) return;
        ITrainingLedger.TaskParameters memory p = parameters();
        p.slotReward = uint96(between(reward, 1, 1000 ether));
        p.bond = uint96(between(bond, MINIMUM_BOND, 20 ether));
        p.leaseFee = p.bond / 3;
        p.rounds = uint32(between(rounds, 1, 4));
        if (!hasTarget) (p.hasTarget, p.baseLoss, p.targetLoss) = (false, 0, 0);
        TaskId task = post(p);
        tasks.push(task);
        escrowed[task] = uint256(p.slotReward) * p.rounds;
        ++done["post"];
    }

    function stake(uint256 who, uint256 amount) external {
        address person = _person(who);
        stakeAs(person, between(amount, 1, 50 ether));
        ++done["stake"];
    }

    function claim(uint256 which, uint256 who) external {
        (bool found, TaskId task, ITrainingLedger.Task memory t, ITrainingLedger.Slot memory slot) = _pick(which);
        if (!found || t.closed || t.currentRound == t.parameters.rounds) return;
        // The winner of a game comes back for its slot more often than others do, who then try in vain.
        bool open = slot.status == ITrainingLedger.SlotStatus.Open;
        bool kept = open && slot.worker != address(0);
        address person = kept && who & 64 == 0 ? slot.worker : _person(who);
        bool lapsed = slot.status == ITrainingLedger.SlotStatus.Leased && block.timestamp > slot.deadline;
        ITrainingLedger.Claim memory request = claimOf(task, person);
        bytes memory call = abi.encodeCall(ITrainingLedger.claim, (request));
        if (!open && !lapsed) {
            _mustFail(person, address(ledger), call, "claim of a taken slot");
            return;
        }
        if (kept && block.timestamp <= slot.deadline) {
            request.worker = slot.worker == WORKER ? OTHER : WORKER;
            call = abi.encodeCall(ITrainingLedger.claim, (request));
            _mustFail(request.worker, address(ledger), call, "claim of a slot kept for the winner");
            if (person != slot.worker) return;
            request.worker = person;
        }
        uint256 free = stakedOf(person) - lockedOf(person);
        if (free < t.parameters.bond) return;
        if (lapsed) _bookExpiry(slot, t);
        vm.prank(person);
        ledger.claim(request);
        bonds[person] += t.parameters.bond;
        ++done[lapsed ? "claim over a lapsed lease" : "claim"];
        // A winner has the state at hand.
        if (kept) submitAs(task, person, t.parameters.stepsPerRound, LOSS_3);
    }

    function submit(uint256 which, uint256 steps, uint32 loss) external {
        (bool found, TaskId task, ITrainingLedger.Task memory t, ITrainingLedger.Slot memory slot) = _pick(which);
        if (!found || slot.status != ITrainingLedger.SlotStatus.Leased) return;
        // Most submissions have the loss that challengers of the attempt before have committed to.
        uint32 bits = steps & 7 > 0 ? LOSS_3 : uint32(between(loss, LOSS_2 - 0x400000, LOSS_4 + 0x400000));
        ITrainingLedger.Submission memory result =
            resultOf(task, uint32(between(steps, t.parameters.minimumSteps, t.parameters.stepsPerRound)), bits);
        bytes memory call = abi.encodeCall(ITrainingLedger.submit, (result));
        if (block.timestamp > slot.deadline) {
            _mustFail(slot.worker, address(ledger), call, "submission after the lease");
            return;
        }
        address stranger = slot.worker == WORKER ? OTHER : WORKER;
        _mustFail(stranger, address(ledger), call, "submission for another's lease");
        vm.prank(slot.worker);
        ledger.submit(result);
        _mustFail(slot.worker, address(ledger), call, "second submission");
        ++done["submit"];
    }

    function finalise(uint256 which) external {
        (bool found, TaskId task, ITrainingLedger.Task memory t, ITrainingLedger.Slot memory slot) = _pick(which);
        if (!found || slot.status != ITrainingLedger.SlotStatus.Submitted) return;
        bytes memory call =
            abi.encodeCall(ITrainingLedger.finalise, (task, t.currentRound, 0, slot.attempt, slot.stateRoot));
        if (block.timestamp <= slot.deadline || slot.openGames > 0) {
            _mustFail(OTHER, address(ledger), call, "finalised too early");
            return;
        }
        uint256 pay = ledger.payFor(task, t.currentRound, slot.steps, slot.heldOutLoss);
        ledger.finalise(task, t.currentRound, 0, slot.attempt, slot.stateRoot);
        paidOut[task] += pay;
        bonds[slot.worker] -= t.parameters.bond;
        _mustFail(OTHER, address(ledger), call, "finalised twice");
        ++done["finalise"];
    }

    function expireLease(uint256 which) external {
        (bool found, TaskId task, ITrainingLedger.Task memory t, ITrainingLedger.Slot memory slot) = _pick(which);
        if (!found || slot.status != ITrainingLedger.SlotStatus.Leased) return;
        bytes memory call = abi.encodeCall(ITrainingLedger.expireLease, (task, t.currentRound, 0, slot.attempt));
        if (block.timestamp <= slot.deadline) {
            _mustFail(OTHER, address(ledger), call, "running lease expired");
            return;
        }
        _bookExpiry(slot, t);
        ledger.expireLease(task, t.currentRound, 0, slot.attempt);
        _mustFail(OTHER, address(ledger), call, "lease expired twice");
        ++done["expire"];
    }

    function closeTask(uint256 which, uint256 luck) external {
        (bool found, TaskId task, ITrainingLedger.Task memory t,) = _pick(which);
        // Seldom, so that most tasks live on.
        if (!found || luck % 8 != 0 || t.closed || t.currentRound == t.parameters.rounds) return;
        vm.prank(REQUESTER);
        ledger.closeTask(task);
        ++done["close"];
    }

    /// @dev Most challengers commit to the root that the next attempt may submit.
    function openGame(uint256 which, uint256 who) external virtual {
        (bool found, TaskId task, ITrainingLedger.Task memory t, ITrainingLedger.Slot memory slot) = _pick(which);
        bool open = slot.status == ITrainingLedger.SlotStatus.Submitted && block.timestamp <= slot.deadline;
        address person = _person(who);
        if (!found || !open || stakedOf(person) - lockedOf(person) < t.parameters.bond) return;
        Root claimed =
            who & 3 > 0 ? redoneRoot(task, t.currentRound, slot.attempt + 1, LOSS_3) : Root.wrap(bytes32(uint256(1)));
        vm.prank(person);
        game.open(task, t.currentRound, 0, slot.attempt, slot.stateRoot, claimed);
        bonds[person] += t.parameters.bond;
        ++done["open game"];
    }

    function settleGame(uint256 which, bool fell) external virtual {
        uint256 count = game.count();
        if (count == 0) return;
        uint256 number = count - 1 - which % (count < LIVELY_TASKS ? count : LIVELY_TASKS);
        DecidedDisputeGame.Game memory played = game.getGame(number);
        if (played.outcome != IDisputeGame.Outcome.Running) return;
        ITrainingLedger.Slot memory slot = ledger.getSlot(played.task, played.round, 0);
        IDisputeGame.Outcome outcome = fell ? IDisputeGame.Outcome.ChallengerWon : IDisputeGame.Outcome.DefenderWon;
        if (slot.attempt != played.attempt) outcome = IDisputeGame.Outcome.Void;
        _bookEnd(played.task, played.round, played.attempt, played.challenger, outcome);
        game.decide(number, outcome);
    }

    /// @notice Ends all games that are still open.
    function endGames() external virtual {
        for (uint256 i = 0; i < game.count(); ++i) {
            if (game.getGame(i).outcome != IDisputeGame.Outcome.Running) continue;
            game.decide(i, IDisputeGame.Outcome.DefenderWon);
        }
    }

    function awardFall(uint256 which) external {
        if (_fallen.length == 0) return;
        which = which % _fallen.length;
        Fallen memory fallen = _fallen[which];
        bytes memory call = abi.encodeCall(ITrainingLedger.awardFall, (fallen.task, fallen.round, 0, fallen.attempt));
        ITrainingLedger.Task memory task = ledger.getTask(fallen.task);
        ITrainingLedger.Slot memory slot = ledger.getSlot(fallen.task, fallen.round, 0);
        bool redone = slot.status == ITrainingLedger.SlotStatus.Finalised;
        if (!redone && !(task.closed && slot.status == ITrainingLedger.SlotStatus.Open)) {
            _mustFail(OTHER, address(ledger), call, "bond taken before the slot has its state");
            return;
        }
        address winner = fallen.winner;
        if (redone) winner = game.earliest(fallen.task, fallen.round, 0, fallen.attempt, slot.stateRoot);
        uint256 awarded = winner == address(0) ? 0 : task.parameters.bond / 2;
        uint256 credit = vault.creditOf(winner);
        ledger.awardFall(fallen.task, fallen.round, 0, fallen.attempt);
        vm.assertEq(vault.creditOf(winner), credit + awarded, "award");
        bonds[fallen.worker] -= task.parameters.bond;
        burned += task.parameters.bond - awarded;
        _mustFail(OTHER, address(ledger), call, "bond taken twice");
        _fallen[which] = _fallen[_fallen.length - 1];
        _fallen.pop();
        ++done[!redone ? "award of a closed task" : awarded > 0 ? "award" : "award to nobody"];
    }

    function withdraw(uint256 who) external {
        address person = who % 5 == 4 ? REQUESTER : _person(who);
        if (vault.creditOf(person) == 0) return;
        vm.prank(person);
        vault.withdraw();
        ++done["withdraw"];
    }

    function requestUnbond(uint256 who, uint256 amount) external {
        address person = _person(who);
        uint256 free = stakedOf(person) - lockedOf(person);
        _mustFail(
            person, address(vault), abi.encodeCall(IStakeVault.requestUnbond, (free + 1)), "locked stake unbonded"
        );
        if (free == 0) return;
        vm.prank(person);
        vault.requestUnbond(between(amount, 1, free));
        ++done["unbond"];
    }

    function completeUnbond(uint256 who) external {
        address person = _person(who);
        IStakeVault.Unbonding memory unbonding = vault.unbondingOf(person);
        if (unbonding.amount == 0) return;
        if (block.timestamp < unbonding.releaseTime) {
            _mustFail(person, address(vault), abi.encodeCall(IStakeVault.completeUnbond, ()), "unbonded early");
            return;
        }
        vm.prank(person);
        vault.completeUnbond();
        ++done["unbonded"];
    }

    function wait_(uint256 time) external {
        vm.warp(block.timestamp + between(time, 1, WINDOW + 1));
    }

    function taskNumbers() external view returns (TaskId[] memory) {
        return tasks;
    }

    /// @notice Bonds of fallen submissions that nobody has taken yet.
    function fallenCount() external view returns (uint256) {
        return _fallen.length;
    }

    function everybody() external view returns (address[] memory) {
        return people;
    }

    /// @dev What the rules promise for this end of a game; called before it.
    function _bookEnd(TaskId task, uint32 round, uint32 attempt, address challenger, IDisputeGame.Outcome outcome)
        internal
    {
        uint256 bond = ledger.getTask(task).parameters.bond;
        bonds[challenger] -= bond;
        if (outcome == IDisputeGame.Outcome.ChallengerWon) {
            _fallen.push(Fallen(task, round, attempt, ledger.getSlot(task, round, 0).worker, challenger));
            ++done["fall"];
        } else if (outcome == IDisputeGame.Outcome.DefenderWon) {
            burned += bond - bond / 2;
            ++done["won defence"];
        } else {
            ++done["void game"];
        }
    }

    function _bookExpiry(ITrainingLedger.Slot memory slot, ITrainingLedger.Task memory t) private {
        burned += t.parameters.leaseFee;
        bonds[slot.worker] -= t.parameters.bond;
    }

    function _mustFail(address who, address target, bytes memory call, string memory what) internal {
        vm.prank(who);
        // solhint-disable-next-line avoid-low-level-calls
        (bool good,) = target.call(call);
        if (good) (broken, breach) = (broken + 1, what);
        ++done[what];
    }

    function _person(uint256 who) internal view returns (address) {
        return people[who % people.length];
    }

    function _pick(uint256 which)
        internal
        view
        returns (bool found, TaskId task, ITrainingLedger.Task memory t, ITrainingLedger.Slot memory slot)
    {
        if (tasks.length == 0) return (false, task, t, slot);
        // Mostly the newest: old ones are closed or complete, or keep their bond for as long as they like.
        task = tasks[tasks.length - 1 - which % (tasks.length < LIVELY_TASKS ? tasks.length : LIVELY_TASKS)];
        t = ledger.getTask(task);
        return (true, task, t, ledger.getSlot(task, t.currentRound, 0));
    }
}
