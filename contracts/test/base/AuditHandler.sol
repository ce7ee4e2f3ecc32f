// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAuditCommittee} from "../../interfaces/IAuditCommittee.sol";
import {ITrainingLedger} from "../../interfaces/ITrainingLedger.sol";
import {IStakeVault} from "../../interfaces/IStakeVault.sol";
import {DecidedDisputeGame} from "../../mocks/DecidedDisputeGame.sol";
import {AttemptKey, Root, TaskId, attemptKey, attemptOf} from "../../types/Identifiers.sol";
import {Fixture} from "./Fixture.sol";
import {ITrainingToken} from "./ITrainingToken.sol";

/// @title What auditors, requesters and passers-by do, in any order
/// @notice Each action does something that can be done now, and counts it. Books are kept from the amounts that the
/// rules promise, never from the vault's.
contract AuditHandler is Fixture {
    bytes32 private constant TRACE = keccak256("trace");
    bytes32 private constant SALT = keccak256("salt");
    uint256 private constant VOTES = 9;

    address[] public auditors;
    AttemptKey[] public audits;
    TaskId public task;
    Root private _root;
    uint256 public submittedAt;
    mapping(TaskId task => uint256) public funded;
    mapping(TaskId task => uint256) public paid;
    mapping(TaskId task => uint256) public refunded;
    mapping(string action => uint256) public done;
    mapping(AttemptKey audit => mapping(address auditor => Root)) private _found;

    constructor(
        ITrainingToken token_,
        IStakeVault vault_,
        ITrainingLedger ledger_,
        DecidedDisputeGame game_,
        IAuditCommittee committee_,
        address[] memory auditors_
    ) {
        (token, vault, ledger, game, committee) = (token_, vault_, ledger_, game_, committee_);
        auditors = auditors_;
    }

    function setUp() public override {}

    function newWork(uint96 fee) external {
        if (TaskId.unwrap(task) != 0) _close();
        (task, _root) = submitted();
        submittedAt = block.timestamp;
        uint96 vote = uint96(between(fee, 1, 1 ether));
        uint256 amount = 2 * VOTES * uint256(vote) + 5;
        vm.prank(REQUESTER);
        committee.fund(task, vote, amount);
        funded[task] += amount;
        ++done["fund"];
    }

    function enrol(uint256 who, uint256 count) external {
        address auditor = _auditor(who);
        count = between(count, 1, 6);
        if ((stakedOf(auditor) - lockedOf(auditor)) / SEAT_STAKE < count) return;
        vm.prank(auditor);
        committee.enrol(uint32(count));
        ++done["enrol"];
    }

    function resign(uint256 index) external {
        uint256 count = committee.seatCount();
        if (count < VOTES + 1) return;
        address owner = committee.seatAt(index % count).owner;
        if (block.timestamp <= committee.busyUntil(owner)) return;
        vm.prank(owner);
        committee.resign(index % count);
        ++done["resign"];
    }

    function request() external {
        if (TaskId.unwrap(task) == 0 || !_standing()) return;
        AttemptKey key = _key();
        bool time = block.timestamp + LEASE + REVEAL_SECONDS <= ledger.getSlot(task, 0, 0).deadline;
        if (!time || committee.seatCount() < VOTES || committee.getAudit(key).requestedAt != 0) return;
        committee.request(task, 0, 0, 0, _root);
        audits.push(key);
        ++done["request"];
    }

    function draw(uint256 which, bytes32 seed) external {
        (bool found, AttemptKey key, IAuditCommittee.Audit memory audit) = _pick(which);
        if (!found || audit.seed != 0 || seed == 0) return;
        if (block.timestamp + LEASE + REVEAL_SECONDS > audit.windowEnd) return;
        if (block.number > uint256(audit.seedBlock) + 256) return;
        if (block.number <= audit.seedBlock) vm.roll(uint256(audit.seedBlock) + 1);
        vm.setBlockhash(audit.seedBlock, seed);
        committee.draw(key);
        ++done["draw"];
    }

    function commit(uint256 which, uint256 who, bool honest) external {
        (bool found, AttemptKey key, IAuditCommittee.Audit memory audit) = _pick(which);
        address auditor = _auditor(who);
        if (!found || audit.seed == 0 || block.timestamp > audit.commitEnd) return;
        if (committee.ballotOf(key, auditor).commitment != 0 || committee.votesOf(key, auditor) == 0) return;
        Root root = honest ? audit.stateRoot : Root.wrap(keccak256("another"));
        _found[key][auditor] = root;
        bytes32 commitment = committee.commitmentOf(key, audit.seed, auditor, TRACE, root, SALT);
        vm.prank(auditor);
        committee.commit(key, audit.seed, auditor, commitment);
        ++done["commit"];
    }

    function reveal(uint256 which, uint256 who) external {
        (bool found, AttemptKey key, IAuditCommittee.Audit memory audit) = _pick(which);
        address auditor = _auditor(who);
        IAuditCommittee.Ballot memory ballot = committee.ballotOf(key, auditor);
        if (!found || ballot.commitment == 0 || ballot.finding != 0) return;
        bool open = block.timestamp > audit.commitEnd || audit.committed == VOTES;
        if (!open || block.timestamp > audit.revealEnd) return;
        committee.reveal(key, auditor, TRACE, _found[key][auditor], SALT);
        ++done["reveal"];
        if (audit.agreed == 0 && committee.getAudit(key).agreed != 0) ++done["agree"];
    }

    function collect(uint256 which, uint256 who) external {
        (bool found, AttemptKey key, IAuditCommittee.Audit memory audit) = _pick(which);
        address auditor = _auditor(who);
        IAuditCommittee.Ballot memory ballot = committee.ballotOf(key, auditor);
        if (!found || ballot.finding == 0 || ballot.finding != audit.agreed || ballot.paid) return;
        committee.collect(key, auditor);
        (TaskId about,,,) = attemptOf(key);
        paid[about] += uint256(audit.fee) * ballot.votes;
        ++done["collect"];
    }

    function close(uint256 which) external {
        (bool found, AttemptKey key, IAuditCommittee.Audit memory audit) = _pick(which);
        if (!found || audit.closed) return;
        bool missed = block.number > uint256(audit.seedBlock) + 256 || block.timestamp > audit.windowEnd;
        if (audit.seed == 0 ? !missed : block.timestamp <= audit.revealEnd) return;
        committee.close(key);
        ++done["close"];
    }

    function evict(uint256 which, uint256 vote) external {
        (bool found, AttemptKey key, IAuditCommittee.Audit memory audit) = _pick(which);
        if (!found || audit.seed == 0 || block.timestamp <= audit.revealEnd) return;
        (, address owner, bool counts) = committee.drawnSeat(key, vote % VOTES);
        bool due = counts && committee.ballotOf(key, owner).finding == 0;
        if (!due || block.timestamp <= committee.busyUntil(owner)) return;
        committee.evict(key, vote % VOTES);
        ++done["evict"];
    }

    function finalise() external {
        if (TaskId.unwrap(task) == 0 || !_standing()) return;
        if (block.timestamp <= ledger.getSlot(task, 0, 0).deadline) return;
        ledger.finalise(task, 0, 0, 0, _root);
        ++done["finalise"];
    }

    /// @notice Lets time pass; often to where an audit's auditors may reveal, which is a short time to hit by luck.
    function wait_(uint256 seconds_) external {
        (bool found,, IAuditCommittee.Audit memory audit) = _pick(0);
        if (found && seconds_ % 2 == 0 && block.timestamp <= audit.commitEnd && audit.committed > 0) {
            vm.warp(uint256(audit.commitEnd) + 1);
            return;
        }
        vm.warp(block.timestamp + between(seconds_, 1, 120));
        vm.roll(block.number + between(seconds_ >> 128, 1, 40));
    }

    function auditCount() external view returns (uint256) {
        return audits.length;
    }

    /// @dev Ends the task's claims and asks back what no audit has reserved.
    function _close() private {
        if (_standing()) {
            if (block.timestamp <= ledger.getSlot(task, 0, 0).deadline) {
                vm.warp(ledger.getSlot(task, 0, 0).deadline + 1);
            }
            ledger.finalise(task, 0, 0, 0, _root);
        }
        vm.prank(REQUESTER);
        ledger.closeTask(task);
        uint256 before = vault.creditOf(REQUESTER);
        committee.refund(task);
        refunded[task] += vault.creditOf(REQUESTER) - before;
        ++done["refund"];
    }

    function _standing() private view returns (bool) {
        return ledger.getSlot(task, 0, 0).status == ITrainingLedger.SlotStatus.Submitted;
    }

    function _key() private view returns (AttemptKey) {
        return attemptKey(task, 0, 0, 0);
    }

    /// @dev The newest audits, which can still go on.
    function _pick(uint256 which)
        private
        view
        returns (bool found, AttemptKey key, IAuditCommittee.Audit memory audit)
    {
        if (audits.length == 0) {
            return (false, key, audit);
        }
        uint256 lively = audits.length < 3 ? audits.length : 3;
        key = audits[audits.length - 1 - which % lively];
        return (true, key, committee.getAudit(key));
    }

    function _auditor(uint256 who) private view returns (address) {
        return auditors[who % auditors.length];
    }
}
