// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {IRoundBook} from "../../interfaces/IRoundBook.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {IStakeVault} from "../../interfaces/IStakeVault.sol";
import {DecidedDisputeGame} from "../../mocks/DecidedDisputeGame.sol";
import {ITrainingToken} from "./ITrainingToken.sol";
import {Root, TaskId} from "../../types/Identifiers.sol";
import {RoundFixture} from "./RoundFixture.sol";

/// @title What people do with rounds of several slots, in any order
/// @notice As `Handler` does it for one slot: actions that can be done now, and books kept from what the rules promise.
/// There is a truth: the right state of a slot follows from its task, round, number and start. Some submit something
/// else, and a challenger wins exactly against those.
contract RoundHandler is RoundFixture {
    address[] public people;
    TaskId[] public tasks;
    mapping(string action => uint256) public done;
    mapping(TaskId task => uint256) public posted;
    mapping(TaskId task => uint256) public paid;
    mapping(address owner => uint256) public bonds;
    uint256 public burned;

    struct Fallen {
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        address worker;
    }

    Fallen[] private _fallen;

    constructor(
        ITrainingToken token_,
        IStakeVault vault_,
        ITrainingLedger ledger_,
        DecidedDisputeGame game_,
        IRoundBook book_
    ) {
        (token, vault, ledger, game, book) = (token_, vault_, ledger_, game_, book_);
        people = [WORKER, OTHER, STRANGER, CHALLENGER];
    }

    function setUp() public override {}

    function newTask(uint256 luck) external {
        ITrainingLedger.TaskParameters memory p = groupParameters(uint32(2 + (luck >> 40) % 3));
        (p.rounds, p.challengeWindow) = (uint32(1 + luck % 3), luck & 16 == 0 ? WINDOW : 4 * LEASE);
        p.quorum = uint32(1 + (luck >> 8) % p.slotsPerRound);
        (p.roundSeconds, p.mergeReward) = (luck & 32 == 0 ? LEASE : ROUND_SECONDS, uint96(1 + (luck >> 16) % 9 ether));
        TaskId task = post(p);
        tasks.push(task);
        posted[task] = p.rounds * (p.slotsPerRound * uint256(p.slotReward) + p.mergeReward);
        ++done["post"];
    }

    /// @dev The next step that brings a round to its end, whatever that is.
    function playOn(uint256 luck) external {
        (bool found, TaskId task,,) = _pick(luck);
        if (!found) return;
        uint32 slots = _slots(task);
        for (uint32 slot = 0; slot <= slots; ++slot) {
            ITrainingLedger.Slot memory held = slotOf(task, slot);
            if (held.status == ITrainingLedger.SlotStatus.Leased && block.timestamp <= held.deadline) {
                return _submitAt(task, slot, held, luck);
            }
            bool free = held.status < ITrainingLedger.SlotStatus.Submitted;
            if (free && _mayClaim(task, slot)) return _claimAt(task, slot, held, luck);
        }
        _collectAt(task, luck);
    }

    function claimOne(uint256 luck) external {
        (bool found, TaskId task, uint32 slot, ITrainingLedger.Slot memory held) = _pick(luck);
        if (found) _claimAt(task, slot, held, luck);
    }

    function submitOne(uint256 luck) external {
        (bool found, TaskId task, uint32 slot, ITrainingLedger.Slot memory held) = _pick(luck);
        if (found) _submitAt(task, slot, held, luck);
    }

    function collectOne(uint256 luck) external {
        (bool found, TaskId task,,) = _pick(luck);
        if (found) _collectAt(task, luck);
    }

    function finaliseOne(uint256 luck) external {
        (bool found, TaskId task, uint32 slot, ITrainingLedger.Slot memory held) = _pick(luck);
        if (!found || held.status != ITrainingLedger.SlotStatus.Submitted) return;
        uint32 round = current(task);
        bool merge = slot == _slots(task);
        IRoundBook.Round memory state = stateOf(task);
        bool allowed = block.timestamp > held.deadline && held.openGames == 0;
        if (merge && (state.collected != slot + 1 || state.finalised != state.counted)) allowed = false;
        Root inputs = book.inputsOf(task, round, held.generation);
        bool stands = !merge || inputs == book.inputsOf(task, round, state.generation);
        uint256 pay = merge ? ledger.getTask(task).parameters.mergeReward : ledger.payFor(task, round, 100, LOSS_3);
        if (allowed && merge && stands) vm.assertTrue(inputs == inputsRoot(_standing(task)), "merged what is final");
        if (!allowed) vm.expectRevert();
        ledger.finalise(task, round, slot, held.attempt, held.stateRoot);
        if (!allowed) {
            ++done["finalised too early"];
            return;
        }
        bonds[held.worker] -= BOND;
        if (stands) paid[task] += pay;
        ++done[!stands ? "void" : merge ? "finalise a merge" : "finalise"];
    }

    function expireOne(uint256 luck) external {
        (bool found, TaskId task, uint32 slot, ITrainingLedger.Slot memory held) = _pick(luck);
        if (!found || held.status != ITrainingLedger.SlotStatus.Leased) return;
        bool late = (luck >> 16) % 4 == 0; // somebody who does not come back
        if (late && block.timestamp <= held.deadline) vm.warp(uint256(held.deadline) + 1);
        _expireAt(task, slot, held);
    }

    /// @dev A game about a submission, decided at once by what is true, or now and then lost by the clock.
    function disputeOne(uint256 luck) external {
        (bool found, TaskId task, uint32 slot, ITrainingLedger.Slot memory held) = _pick(luck);
        if (found && luck >> 32 & 3 != 0) (slot, held) = _underAMerge(task, slot, held);
        bool open = held.status == ITrainingLedger.SlotStatus.Submitted && block.timestamp <= held.deadline;
        if (!found || !open || stakedOf(CHALLENGER) - lockedOf(CHALLENGER) < BOND) return;
        (uint32 round, Root truth) = (current(task), madeUp(truthAt(task, slot, held.generation)));
        bool wrong = held.stateRoot != truth || (luck >> 16) % 16 == 0;
        vm.prank(CHALLENGER);
        uint256 opened = game.open(task, round, slot, held.attempt, held.stateRoot, truth);
        game.decide(opened, wrong ? IDisputeGame.Outcome.ChallengerWon : IDisputeGame.Outcome.DefenderWon);
        if (wrong) _fallen.push(Fallen(task, round, slot, held.attempt, held.worker));
        else burned += BOND - BOND / 2;
        ++done[!wrong ? "won defence" : slot == _slots(task) ? "fall of a merge" : "fall"];
    }

    function awardOne(uint256 luck) external {
        if (_fallen.length == 0) return;
        uint256 which = luck % _fallen.length;
        Fallen memory fallen = _fallen[which];
        ITrainingLedger.Slot memory slot = ledger.getSlot(fallen.task, fallen.round, fallen.slot);
        bool redone = slot.status == ITrainingLedger.SlotStatus.Finalised;
        ITrainingLedger.Task memory task = ledger.getTask(fallen.task);
        bool over = task.closed || fallen.round < task.currentRound;
        bool given = slot.status == ITrainingLedger.SlotStatus.Open && over;
        if (!redone && !given) return;
        address winner = CHALLENGER;
        if (redone) {
            winner = game.earliest(fallen.task, fallen.round, fallen.slot, fallen.attempt, slot.stateRoot);
        }
        uint256 awarded = winner == address(0) ? 0 : BOND / 2;
        ledger.awardFall(fallen.task, fallen.round, fallen.slot, fallen.attempt);
        bonds[fallen.worker] -= BOND;
        burned += BOND - awarded;
        _fallen[which] = _fallen[_fallen.length - 1];
        _fallen.pop();
        ++done[redone ? "award" : "award of what was not redone"];
    }

    function closeOne(uint256 luck) external {
        (bool found, TaskId task,,) = _pick(luck);
        if (!found || ledger.getTask(task).closed || (luck >> 16) % 8 != 0) return;
        vm.prank(REQUESTER);
        ledger.closeTask(task);
        ++done["close"];
    }

    function wait_(uint256 time) external {
        vm.warp(block.timestamp + between(time, 1, WINDOW));
    }

    /// @notice Whether nothing is left to do in the newest task.
    function idle() external view returns (bool) {
        ITrainingLedger.Task memory newest = ledger.getTask(tasks[tasks.length - 1]);
        return newest.closed || newest.currentRound == newest.parameters.rounds;
    }

    function taskNumbers() external view returns (TaskId[] memory) {
        return tasks;
    }

    /// @notice The seed of a slot's true state, from what it would start from now.
    function truthOf(TaskId task, uint32 slot) public view returns (uint256) {
        return uint256(keccak256(abi.encode(task, current(task), slot, startOf(task, slot))));
    }

    /// @notice The same for a submission, which answers for the inputs of its own generation.
    function truthAt(TaskId task, uint32 slot, uint32 generation) public view returns (uint256) {
        if (slot != _slots(task)) return truthOf(task, slot);
        Root inputs = book.inputsOf(task, current(task), generation);
        return uint256(keccak256(abi.encode(task, current(task), slot, inputs)));
    }

    function _claimAt(TaskId task, uint32 slot, ITrainingLedger.Slot memory held, uint256 luck) private {
        if (ledger.getTask(task).closed) return;
        address person = people[(luck >> 16) % people.length];
        if (held.status == ITrainingLedger.SlotStatus.Open && block.timestamp <= held.deadline) person = held.worker;
        bool lapsed = held.status == ITrainingLedger.SlotStatus.Leased && block.timestamp > held.deadline;
        bool taken = held.status != ITrainingLedger.SlotStatus.Open && !lapsed;
        if (stakedOf(person) - lockedOf(person) < BOND) return;
        bool allowed = !taken && _mayClaim(task, slot);
        ITrainingLedger.Claim memory request = claimSlotOf(task, slot, person);
        uint256 fee = lapsed ? _feeOf(task, slot, held) : 0;
        vm.prank(person);
        if (!allowed) vm.expectRevert();
        ledger.claim(request);
        if (!allowed) {
            ++done["claim refused"];
            return;
        }
        if (lapsed) _expired(held, fee);
        bonds[person] += BOND;
        ++done[slot == _slots(task) ? "claim of a merge" : "claim"];
    }

    function _submitAt(TaskId task, uint32 slot, ITrainingLedger.Slot memory held, uint256 luck) private {
        if (held.status != ITrainingLedger.SlotStatus.Leased || block.timestamp > held.deadline) return;
        uint256 seed = (luck >> 16) % 6 == 0 ? luck : truthOf(task, slot);
        bool merge = slot == _slots(task);
        IRoundBook.Round memory state = stateOf(task);
        bool allowed = merge ? state.collected == slot + 1 : state.frozenAt == 0 && _mayClaim(task, slot);
        ITrainingLedger.Submission memory result = slotResult(task, slot, merge ? 1 : 100, seed);
        vm.prank(held.worker);
        if (!allowed) vm.expectRevert();
        ledger.submit(result);
        ++done[!allowed ? "submission refused" : merge ? "submit a merge" : "submit"];
    }

    function _collectAt(TaskId task, uint256 luck) private {
        // A late slot may be claimed in the last moment: the round goes on without it.
        for (uint32 slot = 0; slot < _slots(task) && luck >> 48 & 1 == 0; ++slot) {
            ITrainingLedger.Slot memory late = slotOf(task, slot);
            bool free = late.status == ITrainingLedger.SlotStatus.Open && _mayClaim(task, slot);
            if (free && book.isReady(task, current(task))) _claimAt(task, slot, late, luck);
        }
        IRoundBook.Round memory state = stateOf(task);
        bool allowed = state.frozenAt != 0 ? state.collected <= _slots(task) : book.isReady(task, current(task));
        uint32 round = current(task);
        if (!allowed) vm.expectRevert();
        book.collect(task, round, state.generation, 1 + (luck >> 16) % 6);
        ++done[allowed ? "collect" : "collection refused"];
        if (!allowed) return;
        // Whoever still trains comes too late now.
        for (uint32 slot = 0; slot < _slots(task); ++slot) {
            ITrainingLedger.Slot memory held = slotOf(task, slot);
            _submitAt(task, slot, held, luck);
            if (held.status == ITrainingLedger.SlotStatus.Leased && luck >> 40 & 1 == 0) _expireAt(task, slot, held);
        }
    }

    function _expireAt(TaskId task, uint32 slot, ITrainingLedger.Slot memory held) private {
        uint32 round = current(task);
        uint256 fee = _feeOf(task, slot, held);
        bool allowed = block.timestamp > held.deadline || fee == 0;
        if (!allowed) vm.expectRevert();
        ledger.expireLease(task, round, slot, held.attempt);
        if (allowed) _expired(held, fee);
        ++done[!allowed ? "running lease expired" : fee == 0 ? "free release" : "expire"];
    }

    function _mayClaim(TaskId task, uint32 slot) private view returns (bool) {
        IRoundBook.Round memory state = stateOf(task);
        if (slot == _slots(task)) return state.collected == slot + 1;
        if (state.frozenAt != 0) return false;
        (, uint256 counted) = book.slotsOf(task, current(task));
        bool redo = state.counted != 0 && block.timestamp <= state.deadline;
        return !redo || (counted >> slot) & 1 == 1;
    }

    /// @dev What ending this lease now burns.
    function _feeOf(TaskId task, uint32 slot, ITrainingLedger.Slot memory held) private view returns (uint256) {
        IRoundBook.Round memory state = stateOf(task);
        bool free = state.frozenAt == 0 ? !_mayClaim(task, slot) : state.frozenAt <= held.deadline;
        if (slot == _slots(task)) {
            uint32 round = current(task);
            free = book.inputsOf(task, round, held.generation) != book.inputsOf(task, round, state.generation);
        }
        return free ? 0 : FEE;
    }

    function _expired(ITrainingLedger.Slot memory held, uint256 fee) private {
        bonds[held.worker] -= BOND;
        burned += fee;
    }

    /// @dev Where a merge is submitted already, a false slot under it that can still be challenged; else what is given.
    function _underAMerge(TaskId task, uint32 slot, ITrainingLedger.Slot memory held)
        private
        view
        returns (uint32, ITrainingLedger.Slot memory)
    {
        uint32 slots = _slots(task);
        if (slotOf(task, slots).status != ITrainingLedger.SlotStatus.Submitted) return (slot, held);
        for (uint32 other = 0; other < slots; ++other) {
            ITrainingLedger.Slot memory one = slotOf(task, other);
            bool open = one.status == ITrainingLedger.SlotStatus.Submitted && block.timestamp <= one.deadline;
            if (open && one.stateRoot != madeUp(truthOf(task, other))) return (other, one);
        }
        return (slot, held);
    }

    /// @dev The base, and what stands in each slot, or the base.
    function _standing(TaskId task) private view returns (Root[] memory roots) {
        uint32 slots = _slots(task);
        (uint256 there,) = book.slotsOf(task, current(task));
        roots = new Root[](slots + 1);
        roots[0] = ledger.baseRoot(task, current(task));
        for (uint32 slot = 0; slot < slots; ++slot) {
            roots[slot + 1] = (there >> slot) & 1 == 1 ? slotOf(task, slot).stateRoot : roots[0];
        }
    }

    function _slots(TaskId task) private view returns (uint32) {
        return ledger.getTask(task).parameters.slotsPerRound;
    }

    /// @dev Any slot of the current round of one of the newest tasks.
    function _pick(uint256 luck)
        private
        view
        returns (bool found, TaskId task, uint32 slot, ITrainingLedger.Slot memory held)
    {
        if (tasks.length == 0) return (false, task, 0, held);
        task = tasks[tasks.length - 1 - luck % (tasks.length < 3 ? tasks.length : 3)];
        ITrainingLedger.Task memory t = ledger.getTask(task);
        if (t.currentRound == t.parameters.rounds) return (false, task, 0, held);
        slot = uint32((luck >> 8) % (t.parameters.slotsPerRound + 1));
        return (true, task, slot, ledger.getSlot(task, t.currentRound, slot));
    }
}
