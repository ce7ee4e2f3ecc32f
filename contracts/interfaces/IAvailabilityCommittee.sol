// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {Root, SlotKey, TaskId} from "../types/Identifiers.sol";
import {IOpenLedger} from "./IOpenLedger.sol";

/// @title Whether the state of an open task's slot can be fetched
/// @notice docs/open-tasks.md, "A state that nobody can fetch". Anybody asks, with a deposit. The requester says that it is there, or
/// nine votes drawn among the audit committee's seats commit to, and reveal, a root that takes every byte of it.
/// @dev An inquiry's key is that of its slot: each is asked about once. No call loops over seats, inquiries or auditors.
interface IAvailabilityCommittee {
    /// @notice One question. Times are in seconds; all that follows from the draw is zero before it.
    /// @param askedAt Zero: nobody has asked. Only seats that were there, and aged, at this time count.
    /// @param seedBlock Number of the block whose hash is the seed.
    /// @param seats Number of seats at `askedAt`: what is drawn from.
    /// @param committed Votes whose auditors have committed.
    /// @param closed Decided, and what of the deposit nobody is owed is gone.
    /// @param bond The deposit, in wei. @param fee What an acknowledgement burns of it.
    /// @param agreed The salted root that six votes share, or zero.
    struct Inquiry {
        uint40 askedAt;
        uint40 seedBlock;
        uint32 seats;
        uint40 commitEnd;
        uint40 revealEnd;
        uint8 committed;
        bool closed;
        address asker;
        uint96 bond;
        uint96 fee;
        Root trainedRoot;
        bytes32 seed;
        bytes32 agreed;
    }

    /// @notice One auditor's part. Zero: not committed, or not revealed, yet.
    struct Ballot {
        bytes32 commitment;
        bytes32 saltedRoot;
        uint8 votes;
        bool paid;
    }

    event UnavailableClaimed(
        SlotKey indexed inquiry, address indexed asker, Root trainedRoot, uint256 seedBlock, uint256 seats
    );
    /// @notice The hash of the seed's block was not used in time: another block's is.
    event Reseeded(SlotKey indexed inquiry, uint256 seedBlock);
    event Acknowledged(SlotKey indexed inquiry, address indexed requester);
    event InquiryDrawn(SlotKey indexed inquiry, bytes32 seed, uint256 commitEnd, uint256 revealEnd);
    event Committed(SlotKey indexed inquiry, address indexed auditor, uint256 votes);
    event Revealed(SlotKey indexed inquiry, address indexed auditor, bytes32 saltedRoot, uint256 votes);
    /// @notice Six votes share a root: the state is there.
    event Agreed(SlotKey indexed inquiry, bytes32 saltedRoot);
    event ShareTaken(SlotKey indexed inquiry, address indexed auditor, address payout, uint256 amount);
    event InquiryClosed(SlotKey indexed inquiry, bool available, uint256 burned);

    /// @notice Thrown at deployment; `field` is the parameter's name and `value` what it was.
    error InvalidParameter(string field, uint256 value);
    /// @notice Thrown when the caller is neither that account nor an operator of its.
    error NotAuthorisedFor(address caller, address account);
    /// @notice Thrown when somebody but the requester acknowledges.
    error OnlyRequesterAcknowledges(address caller, address requester);
    /// @notice Thrown when fewer seats are taken than votes are drawn.
    error TooFewSeats(uint256 seats, uint256 needed);
    /// @notice Thrown when nobody has asked about this slot.
    error UnknownInquiry(SlotKey inquiry);
    /// @notice Thrown when an inquiry is decided already.
    error AlreadyDecided(SlotKey inquiry);
    error AlreadyDrawn(SlotKey inquiry);
    error NotDrawn(SlotKey inquiry);
    /// @notice Thrown when the seed's block has not been mined.
    error SeedUnavailable(uint256 seedBlock, uint256 nowBlock);
    /// @notice Thrown when the seed named is not the inquiry's.
    error WrongSeed(bytes32 given, bytes32 expected);
    /// @notice Thrown when no seat drawn is this auditor's, or it has not committed.
    error NotDrawnInto(SlotKey inquiry, address auditor);
    error AlreadyCommitted(SlotKey inquiry, address auditor);
    error AlreadyRevealed(SlotKey inquiry, address auditor);
    error EmptyCommitment();
    error CommitOver(uint256 commitEnd, uint256 nowTime);
    error CommitStillOpen(uint256 commitEnd, uint256 nowTime);
    error RevealOver(uint256 revealEnd, uint256 nowTime);
    /// @notice Thrown when what is opened is not what was committed to.
    error WrongOpening(bytes32 committed, bytes32 opened);
    /// @notice Thrown when an inquiry is closed that still runs.
    error InquiryStillRuns(SlotKey inquiry);
    /// @notice Thrown when an auditor is owed nothing, or has it.
    error NothingToCollect(SlotKey inquiry, address auditor);
    /// @notice Thrown when held-out tokens are not as many bytes as the task was posted with.
    error WrongHeldOutSize(uint256 size, uint256 needed);

    /// @notice Says that a revealed state cannot be fetched. Locks the task's bond in the stake of `asker`.
    function unavailable(TaskId task, uint32 round, uint32 slot, Root trainedRoot, address asker) external;

    /// @notice Requester of the task: the state can be fetched.
    function acknowledge(TaskId task, uint32 round, uint32 slot) external;

    /// @notice Draws nine votes once the seed's block is there; names another block where its hash is gone.
    function draw(SlotKey inquiry) external;

    /// @notice Commits to `commitmentOf` what was found.
    function commit(SlotKey inquiry, bytes32 seed, address auditor, bytes32 commitment) external;

    /// @notice Opens a commitment, once nobody can commit any more.
    function reveal(SlotKey inquiry, address auditor, bytes32 saltedRoot, bytes32 salt) external;

    /// @notice Pays an auditor who found what was agreed on: a ninth of the deposit for each vote, half of which is burned.
    function collect(SlotKey inquiry, address auditor) external;

    /// @notice Ends an inquiry after its time: without an agreement, the slot is missing and the deposit free.
    function close(SlotKey inquiry) external;

    /// @notice Reverts as `IOpenLedger.postTask` does where a task asks for what it may not.
    function checkTerms(IOpenLedger.TaskParameters calldata parameters, Root[] calldata heldOutRoots) external view;

    function minimumBond() external view returns (uint96);
    function minimumWindow() external view returns (uint32);
    function minimumLease() external view returns (uint32);

    /// @notice The root of the data set whose held-out part is `tokens`, `size` bytes of them.
    /// @param trainLeaf, publicNode Siblings of the part's leaf, from the bottom up.
    function dataSetRoot(bytes calldata tokens, uint32 size, bytes32 trainLeaf, bytes32 publicNode)
        external
        view
        returns (Root);

    /// @notice Reverts, with the errors of `ITrainingLedger.submit`, where a state has not this held-out loss.
    function checkLoss(Root stateRoot, uint32 heldOutLoss, uint32 stateTensors, bytes32[] calldata lossProof)
        external
        view;

    /// @notice Reverts with `ITrainingLedger.StakeTooSmall` where a worker has staked less.
    function checkStake(address worker, uint96 minimumStake) external view;

    function openLedger() external view returns (address);
    function auditCommittee() external view returns (address);
    /// @notice Seconds to commit in, and again to reveal in.
    function periodSeconds() external view returns (uint32);
    function getInquiry(SlotKey inquiry) external view returns (Inquiry memory);
    function ballotOf(SlotKey inquiry, address auditor) external view returns (Ballot memory);
    /// @notice Votes drawn for an auditor.
    function votesOf(SlotKey inquiry, address auditor) external view returns (uint256);
    function commitmentOf(SlotKey inquiry, bytes32 seed, address auditor, bytes32 saltedRoot, bytes32 salt)
        external
        pure
        returns (bytes32);
    /// @notice Pay of a worker's slot; losses and the full gain are binary32 bits.
    function payOf(uint96 slotReward, uint96 floorReward, uint32 fullGain, uint32 baselineLoss, uint32 heldOutLoss)
        external
        pure
        returns (uint256);
}
