// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Admissions} from "./Admissions.sol";
import {IRoundBook} from "./interfaces/IRoundBook.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {InputsTree} from "./libraries/InputsTree.sol";
import {TaskRules} from "./libraries/TaskRules.sol";
import {Root, TaskId} from "./types/Identifiers.sol";

/// @title Who may claim a slot, which slots of a round count, and what its merge takes
/// @dev Believes its ledger, which calls it for tasks of several slots only; holds no funds. It asks the ledger nothing
/// but views, in `collect`.
contract RoundBook is Admissions {
    using InputsTree for InputsTree.Tree;

    /// @dev What is kept of a round. `inputs` has a root for each generation whose inputs were all collected.
    struct Page {
        Round round;
        uint256 submittedSlots;
        uint256 countedSlots;
        InputsTree.Tree tree;
        mapping(uint32 generation => Root) inputs;
    }

    mapping(TaskId task => Group) private _groups;
    mapping(TaskId task => mapping(uint32 round => Page)) private _pages;

    modifier onlyLedger() {
        require(msg.sender == address(_LEDGER), OnlyLedger(msg.sender));
        _;
    }

    /// @param ledger_ The only ledger whose slots are booked. May have no code yet.
    constructor(address ledger_) Admissions(ledger_) {}

    /// @inheritdoc IRoundBook
    function collect(TaskId task, uint32 round, uint32 generation, uint256 count) external {
        Group memory group = _group(task);
        Page storage page = _pages[task][round];
        Round memory state = page.round;
        require(generation == state.generation, WrongGeneration(generation, state.generation));
        if (state.frozenAt == 0) _freeze(task, round, page, state, group);
        uint256 total = uint256(group.slots) + 1;
        uint256 from = state.collected;
        require(from < total, AlreadyCollected(page.inputs[generation]));

        uint256 to = count < total - from ? from + count : total;
        Root base = _LEDGER.baseRoot(task, round);
        uint256 slots = page.countedSlots;
        for (uint256 place = from; place < to; ++place) {
            bool there = place > 0 && (slots >> (place - 1)) & 1 == 1;
            // forge-lint: disable-next-line(unsafe-typecast)
            Root root = there ? _LEDGER.stateRootOf(task, round, uint32(place - 1)) : base; // at most 255
            page.tree.append(place, root);
        }
        // forge-lint: disable-next-line(unsafe-typecast)
        page.round.collected = uint16(to); // at most 256
        if (to < total) return;
        Root inputs = page.tree.rootOf(total);
        page.inputs[generation] = inputs;
        emit InputsCollected(task, round, generation, inputs);
    }

    /// @inheritdoc IRoundBook
    function opened(
        TaskId task,
        ITrainingLedger.TaskParameters calldata parameters,
        uint96 minimumBond,
        uint32 minimumWindow,
        uint32 minimumLease
    ) external onlyLedger {
        TaskRules.check(parameters, minimumBond, minimumWindow, minimumLease);
        if (parameters.slotsPerRound == 1) return;
        _groups[task] = Group(parameters.slotsPerRound, parameters.quorum, parameters.roundSeconds);
    }

    /// @inheritdoc IRoundBook
    function claimed(TaskId task, uint32 round, uint32 slot) external onlyLedger returns (Root, uint32) {
        Group memory group = _group(task);
        Page storage page = _pages[task][round];
        Round memory state = page.round;
        if (slot == group.slots) return _inputs(page, state, group);
        require(state.frozenAt == 0, RoundIsFrozen(round, state.frozenAt));
        if (state.deadline == 0) {
            state.deadline = uint40(block.timestamp) + group.roundSeconds;
            emit RoundOpened(task, round, state.deadline);
        }
        _checkCounts(page, state, slot);
        ++state.running;
        page.round = state;
        return (Root.wrap(0), 0);
    }

    /// @inheritdoc IRoundBook
    function submitted(TaskId task, uint32 round, uint32 slot) external onlyLedger returns (Root, uint32) {
        Group memory group = _group(task);
        Page storage page = _pages[task][round];
        Round memory state = page.round;
        if (slot == group.slots) return _inputs(page, state, group);
        require(state.frozenAt == 0, RoundIsFrozen(round, state.frozenAt));
        _checkCounts(page, state, slot);
        page.round.submitted = state.submitted + 1;
        page.submittedSlots |= uint256(1) << slot;
        return (Root.wrap(0), 0);
    }

    /// @inheritdoc IRoundBook
    function released(TaskId task, uint32 round, uint32 slot, uint32 generation, uint40 leaseEnd)
        external
        onlyLedger
        returns (bool free)
    {
        Page storage page = _pages[task][round];
        Round memory state = page.round;
        if (slot == _group(task).slots) return page.inputs[generation] != page.inputs[state.generation];
        page.round.running = state.running - 1;
        return (state.frozenAt != 0 && state.frozenAt <= leaseEnd) || _staysMissing(page, state, slot);
    }

    /// @inheritdoc IRoundBook
    function fell(TaskId task, uint32 round, uint32 slot) external onlyLedger {
        Group memory group = _group(task);
        if (slot == group.slots) return;
        Page storage page = _pages[task][round];
        Round memory state = page.round;
        --state.submitted;
        --state.running;
        page.submittedSlots &= ~(uint256(1) << slot);
        if (state.frozenAt != 0) {
            (state.frozenAt, state.collected) = (0, 0);
            ++state.generation;
            state.deadline = uint40(block.timestamp) + group.roundSeconds;
            emit RoundThawed(task, round, slot, state.generation, state.deadline);
        }
        page.round = state;
    }

    /// @inheritdoc IRoundBook
    function finalised(TaskId task, uint32 round, uint32 slot, uint32 generation)
        external
        onlyLedger
        returns (bool stands)
    {
        Group memory group = _group(task);
        Page storage page = _pages[task][round];
        Round memory state = page.round;
        if (slot == group.slots) {
            (Root inputs,) = _inputs(page, state, group);
            require(state.finalised == state.counted, InputsNotFinal(state.finalised, state.counted));
            return inputs == page.inputs[generation];
        }
        ++state.finalised;
        --state.running;
        page.round = state;
        return true;
    }

    /// @inheritdoc IRoundBook
    function groupOf(TaskId task) external view returns (Group memory) {
        return _groups[task];
    }

    /// @inheritdoc IRoundBook
    function roundOf(TaskId task, uint32 round) external view returns (Round memory) {
        return _pages[task][round].round;
    }

    /// @inheritdoc IRoundBook
    function slotsOf(TaskId task, uint32 round) external view returns (uint256 submittedSlots, uint256 countedSlots) {
        Page storage page = _pages[task][round];
        return (page.submittedSlots, page.countedSlots);
    }

    /// @inheritdoc IRoundBook
    function inputsOf(TaskId task, uint32 round, uint32 generation) external view returns (Root) {
        return _pages[task][round].inputs[generation];
    }

    /// @inheritdoc IRoundBook
    function isReady(TaskId task, uint32 round) external view returns (bool) {
        Round memory state = _pages[task][round].round;
        (bool ready,) = _readiness(state, _group(task));
        return state.frozenAt == 0 && ready;
    }

    function _freeze(TaskId task, uint32 round, Page storage page, Round memory state, Group memory group) private {
        (bool ready, uint256 needed) = _readiness(state, group);
        require(ready, RoundNotReady(state.submitted, needed, state.deadline));
        (state.frozenAt, state.counted) = (uint40(block.timestamp), state.submitted);
        page.round = state;
        page.countedSlots = page.submittedSlots;
        emit RoundFrozen(task, round, state.generation, state.counted);
    }

    /// @dev INVARIANT: a slot that did not count stays missing, so that a redo of the same root changes nothing.
    function _checkCounts(Page storage page, Round memory state, uint32 slot) private view {
        require(!_staysMissing(page, state, slot), SlotDidNotCount(slot, state.deadline));
    }

    /// @dev Whether the round was frozen without this slot, has thawed, and still waits for those that counted.
    function _staysMissing(Page storage page, Round memory state, uint32 slot) private view returns (bool) {
        bool redo = state.counted != 0 && block.timestamp <= state.deadline;
        return redo && (page.countedSlots >> slot) & 1 == 0;
    }

    /// @dev Inputs and generation of a round whose inputs have all been collected.
    function _inputs(Page storage page, Round memory state, Group memory group) private view returns (Root, uint32) {
        uint256 needed = uint256(group.slots) + 1;
        require(state.collected == needed, InputsNotCollected(state.collected, needed));
        return (page.inputs[state.generation], state.generation);
    }

    function _group(TaskId task) private view returns (Group memory group) {
        group = _groups[task];
        require(group.slots != 0, NotGrouped(task));
    }

    /// @dev Whether the round can be frozen, and how many submissions it waits for: after a thaw for those that counted,
    /// before for all, and once the deadline has passed for the quorum.
    function _readiness(Round memory state, Group memory group) private view returns (bool ready, uint256 needed) {
        bool late = state.deadline != 0 && block.timestamp > state.deadline;
        if (late) needed = group.quorum;
        else needed = state.counted != 0 ? state.counted : group.slots;
        ready = state.submitted >= needed;
    }
}
