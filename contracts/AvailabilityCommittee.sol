// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {OpenTerms} from "./OpenTerms.sol";
import {IAuditCommittee} from "./interfaces/IAuditCommittee.sol";
import {IAvailabilityCommittee} from "./interfaces/IAvailabilityCommittee.sol";
import {IOpenLedger} from "./interfaces/IOpenLedger.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {Root, SlotKey, TaskId, slotKey, slotOfKey} from "./types/Identifiers.sol";

/// @title Whether the state of an open task's slot can be fetched
/// @dev Calls its ledger, the committee whose seats it reads, and the vault for views; all are fixed at deployment.
contract AvailabilityCommittee is OpenTerms {
    /// @notice Votes drawn in an inquiry.
    uint256 public constant VOTES = 9;
    /// @notice Votes that make an agreement: two thirds of those drawn, whether they were cast or not.
    uint256 public constant AGREEMENT = 6;
    /// @notice Blocks from a question to the one whose hash is the seed.
    uint256 public constant SEED_DELAY = 2;
    /// @notice Blocks for which a block's hash is known.
    uint256 private constant HASHES_KEPT = 256;

    IOpenLedger private immutable _LEDGER;
    IAuditCommittee private immutable _COMMITTEE;
    IStakeVault private immutable _VAULT;
    uint32 private immutable _PERIOD;

    mapping(SlotKey inquiry => Inquiry) private _inquiries;
    mapping(SlotKey inquiry => mapping(address auditor => Ballot)) private _ballots;
    mapping(SlotKey inquiry => mapping(bytes32 saltedRoot => uint256)) private _votesFor;

    /// @param ledger_ Whose states are asked about. May have no code yet.
    /// @param committee_ Whose seats are drawn from.
    /// @param vault_ Knows operators and payout addresses.
    /// @param periodSeconds_ Seconds to commit in, and again to reveal in. The other parameters are `OpenTerms`'.
    constructor(
        address ledger_,
        address committee_,
        address vault_,
        uint32 periodSeconds_,
        uint96 minimumBond_,
        uint32 minimumWindow_,
        uint32 minimumLease_
    ) OpenTerms(minimumBond_, minimumWindow_, minimumLease_) {
        require(ledger_ != address(0), InvalidParameter("ledger", 0));
        require(committee_ != address(0), InvalidParameter("auditCommittee", 0));
        require(vault_ != address(0), InvalidParameter("vault", 0));
        require(periodSeconds_ > 0, InvalidParameter("periodSeconds", 0));
        _LEDGER = IOpenLedger(ledger_);
        _COMMITTEE = IAuditCommittee(committee_);
        _VAULT = IStakeVault(vault_);
        _PERIOD = periodSeconds_;
    }

    /// @inheritdoc IAvailabilityCommittee
    function unavailable(TaskId task, uint32 round, uint32 slot, Root trainedRoot, address asker) external {
        _checkAuthorised(asker);
        SlotKey key = slotKey(task, round, slot);
        uint256 seats = _COMMITTEE.seatCount();
        require(seats >= VOTES, TooFewSeats(seats, VOTES));
        Inquiry storage inquiry = _inquiries[key];
        inquiry.askedAt = uint40(block.timestamp);
        inquiry.seedBlock = uint40(block.number + SEED_DELAY);
        // forge-lint: disable-next-line(unsafe-typecast)
        inquiry.seats = uint32(seats); // each has cost stake: there are never 2^32
        (inquiry.asker, inquiry.trainedRoot) = (asker, trainedRoot);
        emit UnavailableClaimed(key, asker, trainedRoot, inquiry.seedBlock, seats);
        // The ledger refuses a second question about a slot, so nothing above was there before.
        // slither-disable-next-line reentrancy-no-eth -- the ledger calls the vault only, which does not call back
        (inquiry.bond, inquiry.fee) = _LEDGER.questioned(task, round, slot, trainedRoot, asker);
    }

    /// @inheritdoc IAvailabilityCommittee
    function acknowledge(TaskId task, uint32 round, uint32 slot) external {
        SlotKey key = slotKey(task, round, slot);
        Inquiry storage inquiry = _undecided(key);
        address requester = _LEDGER.getTask(task).requester;
        require(msg.sender == requester, OnlyRequesterAcknowledges(msg.sender, requester));
        inquiry.closed = true;
        emit Acknowledged(key, requester);
        emit InquiryClosed(key, true, inquiry.fee);
        _LEDGER.takeDeposit(inquiry.asker, inquiry.bond, inquiry.fee, address(0));
        _LEDGER.answered(task, round, slot, true);
    }

    /// @inheritdoc IAvailabilityCommittee
    function draw(SlotKey key) external {
        Inquiry storage inquiry = _undecided(key);
        require(inquiry.seed == 0, AlreadyDrawn(key));
        uint256 seedBlock = inquiry.seedBlock;
        bytes32 seed = blockhash(seedBlock);
        if (seed == 0) {
            require(block.number > seedBlock + HASHES_KEPT, SeedUnavailable(seedBlock, block.number));
            inquiry.seedBlock = uint40(block.number + SEED_DELAY);
            emit Reseeded(key, inquiry.seedBlock);
            return;
        }
        (uint256 commitEnd, uint256 revealEnd) = (block.timestamp + _PERIOD, block.timestamp + 2 * uint256(_PERIOD));
        (inquiry.seed, inquiry.commitEnd, inquiry.revealEnd) = (seed, uint40(commitEnd), uint40(revealEnd));
        emit InquiryDrawn(key, seed, commitEnd, revealEnd);
    }

    /// @inheritdoc IAvailabilityCommittee
    function commit(SlotKey key, bytes32 seed, address auditor, bytes32 commitment) external {
        Inquiry storage inquiry = _undecided(key);
        require(inquiry.seed != 0, NotDrawn(key));
        require(seed == inquiry.seed, WrongSeed(seed, inquiry.seed));
        _checkAuthorised(auditor);
        require(commitment != 0, EmptyCommitment());
        require(block.timestamp <= inquiry.commitEnd, CommitOver(inquiry.commitEnd, block.timestamp));
        Ballot storage ballot = _ballots[key][auditor];
        require(ballot.commitment == 0, AlreadyCommitted(key, auditor));
        uint256 votes = votesOf(key, auditor);
        require(votes > 0, NotDrawnInto(key, auditor));
        // forge-lint: disable-next-line(unsafe-typecast)
        (ballot.commitment, ballot.votes) = (commitment, uint8(votes)); // at most nine
        inquiry.committed += ballot.votes;
        emit Committed(key, auditor, votes);
    }

    /// @inheritdoc IAvailabilityCommittee
    function reveal(SlotKey key, address auditor, bytes32 saltedRoot, bytes32 salt) external {
        Inquiry storage inquiry = _known(key);
        Ballot storage ballot = _ballots[key][auditor];
        require(ballot.commitment != 0, NotDrawnInto(key, auditor));
        require(ballot.saltedRoot == 0, AlreadyRevealed(key, auditor));
        // INVARIANT: nobody can still commit once anybody has revealed.
        bool over = block.timestamp > inquiry.commitEnd || inquiry.committed == VOTES;
        require(over, CommitStillOpen(inquiry.commitEnd, block.timestamp));
        require(block.timestamp <= inquiry.revealEnd, RevealOver(inquiry.revealEnd, block.timestamp));
        bytes32 opened = commitmentOf(key, inquiry.seed, auditor, saltedRoot, salt);
        require(saltedRoot != 0 && opened == ballot.commitment, WrongOpening(ballot.commitment, opened));

        uint256 votes = _votesFor[key][saltedRoot] + ballot.votes;
        ballot.saltedRoot = saltedRoot;
        _votesFor[key][saltedRoot] = votes;
        emit Revealed(key, auditor, saltedRoot, ballot.votes);
        if (votes < AGREEMENT || inquiry.agreed != 0 || inquiry.closed) return;
        inquiry.agreed = saltedRoot;
        emit Agreed(key, saltedRoot);
        (TaskId task, uint32 round, uint32 slot) = slotOfKey(key);
        _LEDGER.answered(task, round, slot, true);
    }

    /// @inheritdoc IAvailabilityCommittee
    function collect(SlotKey key, address auditor) external {
        Inquiry storage inquiry = _inquiries[key];
        Ballot storage ballot = _ballots[key][auditor];
        bytes32 found = ballot.saltedRoot;
        require(found != 0 && found == inquiry.agreed && !ballot.paid, NothingToCollect(key, auditor));
        ballot.paid = true;
        uint256 share = inquiry.bond / VOTES * ballot.votes;
        address payout = _VAULT.payoutOf(auditor);
        emit ShareTaken(key, auditor, payout, share / 2);
        _LEDGER.takeDeposit(inquiry.asker, share, share, payout);
    }

    /// @inheritdoc IAvailabilityCommittee
    function close(SlotKey key) external {
        Inquiry storage inquiry = _known(key);
        require(!inquiry.closed, AlreadyDecided(key));
        require(inquiry.seed != 0, NotDrawn(key));
        require(block.timestamp > inquiry.revealEnd, InquiryStillRuns(key));
        inquiry.closed = true;
        bytes32 agreed = inquiry.agreed;
        if (agreed != 0) {
            uint256 rest = inquiry.bond - inquiry.bond / VOTES * _votesFor[key][agreed];
            emit InquiryClosed(key, true, rest);
            _LEDGER.takeDeposit(inquiry.asker, rest, rest, address(0));
            return;
        }
        emit InquiryClosed(key, false, 0);
        _LEDGER.takeDeposit(inquiry.asker, inquiry.bond, 0, address(0));
        (TaskId task, uint32 round, uint32 slot) = slotOfKey(key);
        _LEDGER.answered(task, round, slot, false);
    }

    /// @inheritdoc IAvailabilityCommittee
    function checkStake(address worker, uint96 minimumStake) external view {
        uint256 staked = _VAULT.stakeOf(worker).staked;
        require(staked >= minimumStake, ITrainingLedger.StakeTooSmall(worker, staked, minimumStake));
    }

    /// @inheritdoc IAvailabilityCommittee
    function openLedger() external view returns (address) {
        return address(_LEDGER);
    }

    /// @inheritdoc IAvailabilityCommittee
    function auditCommittee() external view returns (address) {
        return address(_COMMITTEE);
    }

    /// @inheritdoc IAvailabilityCommittee
    function periodSeconds() external view returns (uint32) {
        return _PERIOD;
    }

    /// @inheritdoc IAvailabilityCommittee
    function getInquiry(SlotKey key) external view returns (Inquiry memory) {
        return _inquiries[key];
    }

    /// @inheritdoc IAvailabilityCommittee
    function ballotOf(SlotKey key, address auditor) external view returns (Ballot memory) {
        return _ballots[key][auditor];
    }

    /// @inheritdoc IAvailabilityCommittee
    function votesOf(SlotKey key, address auditor) public view returns (uint256 votes) {
        Inquiry storage inquiry = _known(key);
        require(inquiry.seed != 0, NotDrawn(key));
        (uint256 seats, uint256 asked, uint256 age) = (_COMMITTEE.seatCount(), inquiry.askedAt, _COMMITTEE.seatAge());
        for (uint256 vote = 0; vote < VOTES; ++vote) {
            uint256 index = uint256(keccak256(abi.encode(inquiry.seed, key, vote))) % inquiry.seats;
            if (index >= seats) continue;
            IAuditCommittee.Seat memory seat = _COMMITTEE.seatAt(index);
            if (seat.owner == auditor && seat.placed <= asked && seat.since + age <= asked) ++votes;
        }
    }

    /// @inheritdoc IAvailabilityCommittee
    function commitmentOf(SlotKey key, bytes32 seed, address auditor, bytes32 saltedRoot, bytes32 salt)
        public
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(auditor, key, seed, saltedRoot, salt));
    }

    function _checkAuthorised(address account) private view {
        bool good = msg.sender == account || _VAULT.isOperator(account, msg.sender);
        require(good, NotAuthorisedFor(msg.sender, account));
    }

    function _known(SlotKey key) private view returns (Inquiry storage inquiry) {
        inquiry = _inquiries[key];
        require(inquiry.askedAt != 0, UnknownInquiry(key));
    }

    function _undecided(SlotKey key) private view returns (Inquiry storage inquiry) {
        inquiry = _known(key);
        require(!inquiry.closed && inquiry.agreed == 0, AlreadyDecided(key));
    }
}
