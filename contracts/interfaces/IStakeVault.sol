// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {TaskId} from "../types/Identifiers.sol";

/// @title The only holder of funds: stakes, task escrows and credits to be pulled
/// @notice Amounts are wei of the token. The vault knows one ledger, one ledger of open tasks and one audit committee, fixed
/// at deployment. Only the ledgers move tasks' escrows (those of open tasks have bit 62 of the number set) and bonds; only
/// the committee moves audit budgets (the highest bit set) and the stake of seats. There is no owner and no way to pause or
/// upgrade.
/// @dev Solvency invariant: `token.balanceOf(vault) >= totalStaked() + totalOwed()` at every moment.
/// The token must move exactly the amount asked for (no fee on transfer, no rebasing); tokens sent to the vault by
/// mistake are lost.
interface IStakeVault {
    /// @notice What an account has staked. `locked` is the part of `staked` that stands as bond for running claims and
    /// games, or for seats of auditors.
    struct StakeAccount {
        uint128 staked;
        uint128 locked;
    }

    /// @notice Stake on its way out: still in the vault, no longer usable as bond.
    struct Unbonding {
        uint128 amount;
        uint64 releaseTime;
    }

    event Staked(address indexed owner, address indexed from, uint256 amount, uint256 stakedAfter);
    event UnbondingRequested(address indexed owner, uint256 amount, uint256 unbondingTotal, uint256 releaseTime);
    event Unbonded(address indexed owner, uint256 amount);
    event OperatorSet(address indexed owner, address indexed operator, bool allowed);
    event PayoutSet(address indexed owner, address indexed payout);
    event EscrowOpened(TaskId indexed task, address indexed requester, uint256 amount);
    event EscrowPaid(TaskId indexed task, address indexed to, uint256 amount, uint256 escrowAfter);
    event BondLocked(address indexed owner, uint256 amount, uint256 lockedAfter);
    event BondReleased(address indexed owner, uint256 amount, uint256 lockedAfter);
    /// @notice A lease fee or slashed bond left `owner`'s stake: `burned` was destroyed, `awarded` credited to `winner`.
    event BondTaken(address indexed owner, address indexed winner, uint256 burned, uint256 awarded);
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    /// @notice Thrown when anybody but the ledger that a function, or an escrow, is reserved for calls it.
    error OnlyLedger(address caller);
    /// @notice Thrown when anybody but the audit committee calls a function reserved for it.
    error OnlyCommittee(address caller);
    /// @notice Thrown when an amount of zero is given.
    error ZeroAmount();
    /// @notice Thrown when an address argument is zero.
    error ZeroAddress();
    /// @notice Thrown when an amount does not fit the 128 bits in which the vault keeps it.
    error AmountTooLarge(uint256 amount);
    /// @notice Thrown when a bond or an unbonding asks for more than the free (staked and not locked) stake.
    error InsufficientFreeStake(address owner, uint256 free, uint256 needed);
    /// @notice Thrown when more bond would be released or taken than is locked.
    error InsufficientLockedStake(address owner, uint256 locked, uint256 needed);
    /// @notice Thrown when a payment would exceed the task's escrow.
    error InsufficientEscrow(TaskId task, uint256 escrow, uint256 needed);
    /// @notice Thrown when more than half of what is taken from a bond would be given to anybody.
    error AwardTooLarge(uint256 taken, uint256 awarded);
    /// @notice Thrown when the token moved another amount into the vault than was asked for.
    error WrongAmountReceived(uint256 asked, uint256 received);
    /// @notice Thrown when there is nothing to withdraw.
    error NothingToWithdraw(address account);
    /// @notice Thrown when there is no unbonding stake.
    error NothingUnbonding(address owner);
    /// @notice Thrown when unbonding stake is asked for before its release time.
    error StillUnbonding(address owner, uint256 releaseTime, uint256 nowTime);

    /// @notice Stakes `amount` of the caller's tokens for `owner` (needs an allowance to the vault).
    function stake(address owner, uint256 amount) external;

    /// @notice As `stake`, with an EIP-2612 permit of the caller. A permit somebody already used is no failure as long
    /// as the allowance is there.
    function stakeWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;

    /// @notice Starts to withdraw free stake. Each further request adds to the amount and restarts the delay for all.
    function requestUnbond(uint256 amount) external;

    /// @notice Pays out the caller's unbonding stake once its delay has passed.
    function completeUnbond() external;

    /// @notice Allows or forbids `operator` (a hot key) to claim and submit on the caller's stake.
    /// @dev An operator can cost its owner lease fees and bonds, but can never move stake nor choose the payout.
    function setOperator(address operator, bool allowed) external;

    /// @notice Names the address that claims made from now on will pay. Zero means the stake's owner.
    function setPayout(address payout) external;

    /// @notice Sends all of the caller's credit to the caller.
    function withdraw() external returns (uint256 amount);

    /// @notice Sends all of the caller's credit to `to`.
    function withdrawTo(address to) external returns (uint256 amount);

    /// @notice Ledger only: pulls a task's whole reward from the requester. For an audit budget: committee only.
    function openEscrow(TaskId task, address requester, uint256 amount) external;

    /// @notice Ledger only: turns escrow of a task into credit of `to` (nothing where `amount` is zero) and unlocks a
    /// bond, in one call.
    function settle(TaskId task, address to, uint256 amount, address owner, uint256 bond) external;

    /// @notice Ledger only: turns whatever is left of a task's escrow, but for `keep`, into credit of `to`. For an audit
    /// budget: committee only.
    function refundEscrow(TaskId task, address to, uint256 keep) external returns (uint256 amount);

    /// @notice Ledger only: locks free stake as a bond.
    /// @return payout The address that the owner has named to be paid.
    function lockBond(address owner, uint256 amount) external returns (address payout);

    /// @notice Ledger only: takes `taken` out of a locked bond of `bond` and unlocks the rest. `awarded` of it is
    /// credited to `winner`, what remains is burned.
    /// @dev INVARIANT: awarded <= taken / 2, whoever calls: disputing oneself never pays.
    function takeBond(address owner, uint256 bond, uint256 taken, address winner, uint256 awarded) external;

    /// @notice Committee only: locks free stake for seats.
    function lockSeats(address owner, uint256 amount) external;

    /// @notice Committee only: unlocks stake that it has locked for seats.
    function freeSeats(address owner, uint256 amount) external;

    function token() external view returns (address);
    function ledger() external view returns (address);
    function openLedger() external view returns (address);
    function committee() external view returns (address);
    /// @notice What of an owner's locked stake the open ledger has locked.
    function pledgedOf(address owner) external view returns (uint256);
    function unbondingDelay() external view returns (uint64);
    function stakeOf(address owner) external view returns (StakeAccount memory);
    function unbondingOf(address owner) external view returns (Unbonding memory);
    function isOperator(address owner, address operator) external view returns (bool);
    /// @notice The part of an owner's locked stake that is locked for seats.
    function seatedOf(address owner) external view returns (uint256);
    function payoutOf(address owner) external view returns (address);
    function escrowOf(TaskId task) external view returns (uint256);
    function creditOf(address account) external view returns (uint256);
    /// @notice All stake in the vault: free, locked and unbonding.
    function totalStaked() external view returns (uint256);
    /// @notice All escrows and credits together.
    function totalOwed() external view returns (uint256);
}
