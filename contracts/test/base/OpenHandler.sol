// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAvailabilityCommittee} from "../../interfaces/IAvailabilityCommittee.sol";
import {IDisputeGame} from "../../interfaces/IDisputeGame.sol";
import {IOpenLedger} from "../../interfaces/IOpenLedger.sol";
import {IStakeVault} from "../../interfaces/IStakeVault.sol";
import {DecidedDisputeGame} from "../../mocks/DecidedDisputeGame.sol";
import {Root, SlotKey, TaskId, slotKey} from "../../types/Identifiers.sol";
import {ITrainingToken} from "./ITrainingToken.sol";
import {OpenFixture} from "./OpenFixture.sol";
import {StateTree} from "./StateTree.sol";

/// @title What people do with open tasks, in any order
/// @notice Actions that can be done now, and books kept from what the rules promise. There is a truth: the score of a
/// state follows from its root. Some submit something else, and a challenger wins exactly against those.
contract OpenHandler is OpenFixture {
    struct Fallen {
        TaskId task;
        uint32 round;
        uint32 slot;
        uint32 attempt;
        address worker;
    }

    address[] public people;
    TaskId[] public tasks;
    mapping(string action => uint256) public done;
    mapping(TaskId task => uint256) public posted;
    mapping(TaskId task => uint256) public paid;
    mapping(address owner => uint256) public bonds;
    mapping(SlotKey key => address) private _bonded;
    mapping(SlotKey key => Root) private _state;
    mapping(bytes32 made => uint32) private _makers;
    uint256 public burned;
    SlotKey[] private _asked;
    Fallen[] private _fallen;

    constructor(
        ITrainingToken token_,
        IStakeVault vault_,
        IOpenLedger open_,
        DecidedDisputeGame game_,
        IAvailabilityCommittee availability_
    ) {
        (token, vault, open, openGame, availability) = (token_, vault_, open_, game_, availability_);
        people = [WORKER, OTHER, STRANGER];
    }

    function setUp() public override {}

    function newTask(uint256 luck) external {
        IOpenLedger.TaskParameters memory p = openParameters();
        (p.slotsPerRound, p.floorReward) = (uint32(1 + luck % 3), luck & 8 == 0 ? 0 : FLOOR);
        p.fullGain = luck & 16 == 0 ? ONE : LOSS_2;
        uint32 rounds = uint32(1 + (luck >> 8) % 3);
        TaskId task = postOpen(p, rounds);
        tasks.push(task);
        posted[task] = rounds * (p.slotsPerRound * uint256(p.slotReward) + p.scoreReward);
        ++done["post"];
    }

    /// @dev The next step that brings a round to its end, whatever that is.
    function playOn(uint256 luck) external {
        (bool found, TaskId task, uint32 round,) = _pick(luck);
        if (!found) return;
        IOpenLedger.Round memory state = open.getRound(task, round);
        uint32 slots = _slots(task);
        bool commits = state.commitEnd == 0 || block.timestamp <= state.commitEnd;
        if (commits && state.committed < slots) return _commitAt(task, round, luck);
        for (uint32 i = 0; i <= slots; ++i) {
            // forge-lint: disable-next-line(unsafe-typecast)
            uint32 slot = (i + uint32(luck % 256)) % (slots + 1);
            IOpenLedger.Stage stage = stageOf(task, round, slot);
            if (stage == IOpenLedger.Stage.Committed && block.timestamp <= state.revealEnd) {
                return _revealAt(task, round, slot);
            }
            if (stage == IOpenLedger.Stage.Revealed && state.heldOutAt != 0) return _scoreAt(task, round, slot, luck);
            if (stage == IOpenLedger.Stage.Scored && luck & 1 << 60 == 0) return _finaliseAt(task, round, slot);
        }
        if (state.heldOutAt == 0) _showAt(task, round);
    }

    function commitOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round,) = _pick(luck);
        if (found) _commitAt(task, round, luck);
    }

    function revealOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round, uint32 slot) = _pick(luck);
        if (found) _revealAt(task, round, slot);
    }

    function showOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round,) = _pick(luck);
        if (found) _showAt(task, round);
    }

    function scoreOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round, uint32 slot) = _pick(luck);
        if (found) _scoreAt(task, round, slot, luck);
    }

    function finaliseOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round, uint32 slot) = _pick(luck);
        if (found) _finaliseAt(task, round, slot);
    }

    function giveUpOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round, uint32 slot) = _pick(luck);
        if (!found) return;
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(task, round, slot);
        IOpenLedger.Round memory state = open.getRound(task, round);
        SlotKey key = slotKey(task, round, slot);
        if (held.stage == IOpenLedger.Stage.Committed) {
            bool past = block.timestamp > state.revealEnd;
            if (!past) vm.expectRevert();
            open.forfeit(task, round, slot);
            if (past) _fee(key, "forfeit");
        } else if (held.stage == IOpenLedger.Stage.Revealed && state.heldOutAt != 0) {
            uint256 end = (held.deadline != 0 ? held.deadline : uint256(state.heldOutAt) + LEASE) + LEASE;
            // Somebody who does not come back.
            if (luck % 4 == 0 && block.timestamp <= end) vm.warp(end + 1);
            bool allowed = block.timestamp > end && held.question != IOpenLedger.Question.Open;
            if (!allowed) vm.expectRevert();
            open.expire(task, round, slot, held.attempt);
            if (!allowed) return _did("expired too early");
            if (_bonded[key] != address(0)) _fee(key, "expire");
            else ++done["expire without a bond"];
        } else if (held.stage == IOpenLedger.Stage.Revealed) {
            bool allowed = block.timestamp > state.heldOutEnd && held.question != IOpenLedger.Question.Open;
            if (!allowed) vm.expectRevert();
            open.settleDefault(task, round, slot, held.trainedRoot);
            if (!allowed) return;
            _free(key);
            paid[task] += REWARD;
            ++done["default"];
        }
    }

    function skipOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round,) = _pick(luck);
        if (!found) return;
        IOpenLedger.Round memory state = open.getRound(task, round);
        bool allowed = state.revealed == 0 && state.heldOutAt == 0 && _revealed(task, state);
        if (!allowed) vm.expectRevert();
        open.skip(task, round);
        if (allowed) ++done["skip"];
    }

    /// @dev A game about a score, decided at once by what is true, or now and then lost by the clock.
    function disputeOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round, uint32 slot) = _pick(luck);
        if (!found || stageOf(task, round, slot) != IOpenLedger.Stage.Scored) return;
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(task, round, slot);
        if (block.timestamp > held.deadline || stakedOf(CHALLENGER) - lockedOf(CHALLENGER) < BOND) return;
        Root truth = _scored(held.trainedRoot);
        bool wrong = held.scoredRoot != truth || (luck >> 16) % 16 == 0;
        vm.prank(CHALLENGER);
        uint256 opened = openGame.open(task, round, slot, held.attempt, held.scoredRoot, truth);
        openGame.decide(opened, wrong ? IDisputeGame.Outcome.ChallengerWon : IDisputeGame.Outcome.DefenderWon);
        if (!wrong) {
            burned += BOND - BOND / 2;
            return _did("won defence");
        }
        SlotKey key = slotKey(task, round, slot);
        _fallen.push(Fallen(task, round, slot, held.attempt, _bonded[key]));
        _bonded[key] = address(0);
        ++done["fall"];
    }

    function awardOne(uint256 luck) external {
        if (_fallen.length == 0) return;
        uint256 which = luck % _fallen.length;
        Fallen memory fall = _fallen[which];
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(fall.task, fall.round, fall.slot);
        bool missing = held.stage == IOpenLedger.Stage.Missing;
        bool allowed = missing || held.stage == IOpenLedger.Stage.Finalised;
        if (!allowed) vm.expectRevert();
        open.awardFall(fall.task, fall.round, fall.slot, fall.attempt);
        if (!allowed) return _did("award refused");
        // The challenger had committed to the truth: it is paid where the slot took that, or took nothing.
        bool prize = missing || held.scoredRoot == _scored(held.trainedRoot);
        burned += prize ? BOND - BOND / 2 : BOND;
        bonds[fall.worker] -= BOND;
        _fallen[which] = _fallen[_fallen.length - 1];
        _fallen.pop();
        _did(prize ? "award" : "award to nobody");
    }

    /// @dev Questions; half of them are acknowledged, and to the others nobody answers.
    function askOne(uint256 luck) external {
        (bool found, TaskId task, uint32 round, uint32 slot) = _pick(luck);
        if (!found || slot == _slots(task) || stakedOf(CHALLENGER) - lockedOf(CHALLENGER) < BOND) return;
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(task, round, slot);
        bool open_ = held.stage == IOpenLedger.Stage.Revealed
            || (held.stage == IOpenLedger.Stage.Scored && block.timestamp <= held.deadline);
        if (!open_ || held.question != IOpenLedger.Question.None) return;
        vm.prank(CHALLENGER);
        availability.unavailable(task, round, slot, held.trainedRoot, CHALLENGER);
        bonds[CHALLENGER] += BOND;
        _asked.push(slotKey(task, round, slot));
        ++done["ask"];
    }

    function answerOne(uint256 luck) external {
        if (_asked.length == 0) return;
        uint256 which = luck % _asked.length;
        SlotKey key = _asked[which];
        uint256 word = SlotKey.unwrap(key);
        (TaskId task, uint32 round, uint32 slot) = (TaskId.wrap(uint64(word >> 64)), uint32(word >> 32), uint32(word));
        IAvailabilityCommittee.Inquiry memory inquiry = availability.getInquiry(key);
        if (luck & 256 == 0 && inquiry.seed == 0) {
            vm.prank(REQUESTER);
            availability.acknowledge(task, round, slot);
            burned += FEE;
            ++done["acknowledge"];
        } else if (inquiry.seed == 0) {
            vm.roll(inquiry.seedBlock + 1);
            vm.setBlockhash(inquiry.seedBlock, keccak256(abi.encode(luck)));
            availability.draw(key);
            return;
        } else {
            if (block.timestamp <= inquiry.revealEnd) vm.warp(uint256(inquiry.revealEnd) + 1);
            bool copy = stageOf(task, round, slot) == IOpenLedger.Stage.Copy;
            availability.close(key);
            if (!copy && _bonded[key] != address(0)) _fee(key, "not to be fetched");
        }
        bonds[CHALLENGER] -= BOND;
        _asked[which] = _asked[_asked.length - 1];
        _asked.pop();
    }

    function closeOne(uint256 luck) external {
        TaskId task = tasks[luck % tasks.length];
        bool allowed = open.getTask(task).phase == IOpenLedger.Phase.Running;
        vm.prank(REQUESTER);
        if (!allowed) vm.expectRevert();
        open.closeTask(task);
        if (allowed) ++done["close"];
    }

    function wait_(uint256 seconds_) external {
        vm.warp(block.timestamp + seconds_ % 1000);
    }

    function taskNumbers() external view returns (TaskId[] memory) {
        return tasks;
    }

    /// @dev The true loss of a state: one of four, by its root.
    function lossOf(Root state) public pure returns (uint32) {
        uint32[4] memory losses = [LOSS_2, LOSS_3, LOSS_4, NAN];
        return losses[uint256(Root.unwrap(state)) % 4];
    }

    function _commitAt(TaskId task, uint32 round, uint256 luck) private {
        address worker = people[(luck >> 16) % 3];
        IOpenLedger.Task memory told = open.getTask(task);
        IOpenLedger.Round memory state = open.getRound(task, round);
        bool late = state.commitEnd != 0 && block.timestamp > state.commitEnd;
        bool full = state.committed == told.parameters.slotsPerRound;
        bool allowed = told.phase == IOpenLedger.Phase.Running && !late && !full;
        allowed = allowed && open.slotOf(task, round, worker) == 0;
        // Some have the state of another, and some the base.
        Root root = trained((luck >> 24) % 2 == 0 ? 7 : uint256(keccak256(abi.encode(luck, worker))));
        if ((luck >> 32) % 16 == 0) root = open.baseRoot(task, round);
        IOpenLedger.Commit memory request = commitOf(task, worker, root);
        vm.prank(worker);
        if (!allowed) vm.expectRevert();
        uint32 slot = open.commit(request);
        if (!allowed) return _did("commit refused");
        _bonded[slotKey(task, round, slot)] = worker;
        _state[slotKey(task, round, slot)] = root;
        bonds[worker] += BOND;
        ++done["commit"];
    }

    function _revealAt(TaskId task, uint32 round, uint32 slot) private {
        if (stageOf(task, round, slot) != IOpenLedger.Stage.Committed) return;
        IOpenLedger.Round memory state = open.getRound(task, round);
        bool full = state.committed == open.getTask(task).parameters.slotsPerRound;
        bool allowed = (full || block.timestamp > state.commitEnd) && block.timestamp <= state.revealEnd;
        SlotKey key = slotKey(task, round, slot);
        (Root root, address worker) = (_state[key], _bonded[key]);
        Root base = open.baseRoot(task, round);
        bytes32 salt = saltOf(worker);
        if (!allowed) vm.expectRevert();
        open.reveal(task, round, slot, root, salt);
        if (!allowed) return _did("reveal refused");
        ++done["reveal"];
        if (root == base) {
            _free(key);
            return _did("base handed in");
        }
        bytes32 made = keccak256(abi.encode(task, round, root));
        uint32 maker = _makers[made];
        if (maker == 0) {
            _makers[made] = slot + 1;
        } else if (maker - 1 < slot) {
            _free(key);
            ++done["copy"];
        } else {
            if (stageOf(task, round, maker - 1) == IOpenLedger.Stage.Copy) _free(slotKey(task, round, maker - 1));
            _makers[made] = slot + 1;
            ++done["copy revealed first"];
        }
    }

    function _showAt(TaskId task, uint32 round) private {
        IOpenLedger.Round memory state = open.getRound(task, round);
        bytes memory tokens = heldOutTokens(round);
        bool allowed = _revealed(task, state) && state.heldOutAt == 0 && block.timestamp <= state.heldOutEnd
            && state.revealed != 0;
        if (!allowed) vm.expectRevert();
        open.revealHeldOut(task, round, tokens);
        _did(allowed ? "held-out" : "held-out refused");
    }

    function _scoreAt(TaskId task, uint32 round, uint32 slot, uint256 luck) private {
        if (stageOf(task, round, slot) != IOpenLedger.Stage.Revealed) return;
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(task, round, slot);
        IOpenLedger.Round memory state = open.getRound(task, round);
        address worker = (luck >> 16) % 4 == 0 || held.worker == address(0) ? people[(luck >> 24) % 3] : held.worker;
        if (stakedOf(worker) - lockedOf(worker) < BOND) return;
        uint256 end = held.deadline != 0 ? held.deadline : uint256(state.heldOutAt) + LEASE;
        bool mine = held.worker == worker || held.worker == address(0) || block.timestamp > end;
        bool allowed = mine && state.heldOutAt != 0;
        uint32 loss = (luck >> 40) % 3 == 0 ? LOSS_1 : lossOf(held.trainedRoot);
        IOpenLedger.Score memory result = scoreOf(task, slot, worker, loss);
        vm.prank(worker);
        if (!allowed) vm.expectRevert();
        open.score(result);
        if (!allowed) return _did("score refused");
        SlotKey key = slotKey(task, round, slot);
        if (_bonded[key] != worker) {
            if (_bonded[key] != address(0)) _fee(key, "taken over");
            _bonded[key] = worker;
            bonds[worker] += BOND;
        }
        _did(slot == _slots(task) ? "score of the base" : "score");
    }

    function _finaliseAt(TaskId task, uint32 round, uint32 slot) private {
        if (stageOf(task, round, slot) != IOpenLedger.Stage.Scored) return;
        IOpenLedger.OpenSlot memory held = open.getOpenSlot(task, round, slot);
        IOpenLedger.OpenSlot memory baseline = open.getOpenSlot(task, round, _slots(task));
        bool known = slot == _slots(task) || baseline.stage >= IOpenLedger.Stage.Finalised;
        bool allowed = block.timestamp > held.deadline && held.openGames == 0 && known
            && held.question != IOpenLedger.Question.Open;
        uint256 pay = SCORE_REWARD;
        if (slot != _slots(task)) {
            uint32 base = baseline.stage == IOpenLedger.Stage.Finalised ? baseline.heldOutLoss : NAN;
            pay = open.payFor(task, base, held.heldOutLoss);
        }
        if (!allowed) vm.expectRevert();
        open.finalise(task, round, slot, held.attempt, held.scoredRoot);
        if (!allowed) return _did("finalised too early");
        _free(slotKey(task, round, slot));
        paid[task] += pay;
        ++done["finalise"];
    }

    function _free(SlotKey key) private {
        bonds[_bonded[key]] -= BOND;
        _bonded[key] = address(0);
    }

    function _fee(SlotKey key, string memory action) private {
        _free(key);
        burned += FEE;
        ++done[action];
    }

    function _did(string memory action) private {
        ++done[action];
    }

    function _revealed(TaskId task, IOpenLedger.Round memory state) private view returns (bool) {
        bool full = state.committed == _slots(task);
        bool opened = state.opened == state.committed && (full || block.timestamp > state.commitEnd);
        return state.committed != 0 && (opened || block.timestamp > state.revealEnd);
    }

    function _slots(TaskId task) private view returns (uint32) {
        return open.getTask(task).parameters.slotsPerRound;
    }

    function _scored(Root state) private pure returns (Root root) {
        (root,) = StateTree.commit(StateTree.tensorRoots(lossOf(state), TENSORS, uint256(Root.unwrap(state))));
    }

    /// @dev One of the newest tasks, its current round, and any slot of it.
    function _pick(uint256 luck) private view returns (bool found, TaskId task, uint32 round, uint32 slot) {
        uint256 newest = tasks.length < 3 ? tasks.length : 3;
        task = tasks[tasks.length - 1 - (luck >> 64) % newest];
        IOpenLedger.Task memory told = open.getTask(task);
        round = told.currentRound;
        // forge-lint: disable-next-line(unsafe-typecast)
        slot = uint32((luck >> 96) % (told.parameters.slotsPerRound + 1)); // at most 255
        found = round < told.rounds;
    }
}
