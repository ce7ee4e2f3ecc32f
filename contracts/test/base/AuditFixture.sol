// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAuditCommittee} from "../../interfaces/IAuditCommittee.sol";
import {AttemptKey, Root, TaskId, attemptKey} from "../../types/Identifiers.sol";
import {Fixture} from "./Fixture.sol";

/// @title Auditors with seats, a task with an audit budget, and the steps of an audit
abstract contract AuditFixture is Fixture {
    address internal constant ANNA = address(0xA1);
    address internal constant BORIS = address(0xA2);
    uint256 internal constant SEATS_EACH = 6;
    uint96 internal constant VOTE_FEE = 0.25 ether;
    uint256 internal constant VOTES = 9;
    bytes32 internal constant TRACE = keccak256("trace root");
    bytes32 internal constant SALT = keccak256("salt");

    TaskId internal _task;
    Root internal _root;
    AttemptKey internal _audit;

    /// @dev Anna has the seats 0 to 5, Boris 6 to 11, all old enough; the first round of a task is submitted.
    function setUp() public virtual override {
        super.setUp();
        arm(ANNA);
        arm(BORIS);
        enrolAs(ANNA, SEATS_EACH);
        enrolAs(BORIS, SEATS_EACH);
        vm.warp(block.timestamp + SEAT_AGE);
        (_task, _root) = submitted();
        _audit = attemptKey(_task, 0, 0, 0);
        vm.prank(REQUESTER);
        committee.fund(_task, VOTE_FEE, 10 * VOTES * VOTE_FEE);
    }

    function enrolAs(address owner, uint256 count) internal {
        vm.prank(owner);
        committee.enrol(uint32(count));
    }

    /// @dev A seed by which exactly `votes` of nine votes fall on Anna's seats, of the twelve there are.
    function seedFor(uint256 votes) internal pure returns (bytes32 seed) {
        for (uint256 tried = 1;; ++tried) {
            seed = keccak256(abi.encode("seed", tried));
            uint256 hers = 0;
            for (uint256 vote = 0; vote < VOTES; ++vote) {
                if (uint256(keccak256(abi.encode(seed, vote))) % (2 * SEATS_EACH) < SEATS_EACH) ++hers;
            }
            if (hers == votes) return seed;
        }
    }

    function ask() internal {
        committee.request(_task, 0, 0, 0, _root);
    }

    /// @dev Asks and draws, so that Anna has `votes` and Boris the rest.
    function drawn(uint256 votes) internal returns (bytes32 seed) {
        ask();
        seed = drawWith(seedFor(votes));
    }

    function drawWith(bytes32 seed) internal returns (bytes32) {
        uint256 seedBlock = committee.getAudit(_audit).seedBlock;
        vm.roll(seedBlock + 1);
        vm.setBlockhash(seedBlock, seed);
        committee.draw(_audit);
        return seed;
    }

    function commitAs(address auditor, bytes32 seed, Root found) internal {
        bytes32 commitment = committee.commitmentOf(_audit, seed, auditor, TRACE, found, SALT);
        vm.prank(auditor);
        committee.commit(_audit, seed, auditor, commitment);
    }

    function revealAs(address auditor, Root found) internal {
        committee.reveal(_audit, auditor, TRACE, found, SALT);
    }

    function windowEnd() internal view returns (uint256) {
        return ledger.getSlot(_task, 0, 0).deadline;
    }

    function refused(bytes4 selector) internal {
        vm.expectPartialRevert(selector);
    }

    function refusedOf(bytes4 selector) internal {
        vm.expectRevert(abi.encodeWithSelector(selector, _audit));
    }

    function audit() internal view returns (IAuditCommittee.Audit memory) {
        return committee.getAudit(_audit);
    }
}
