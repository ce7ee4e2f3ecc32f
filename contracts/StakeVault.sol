// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ERC20Burnable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Burnable.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {TaskId} from "./types/Identifiers.sol";

/// @title The only holder of funds
/// @dev Every function that calls the token is guarded, has its effects before the call, and calls it once; the guard
/// is there so that the measured change of balance in `_pull` is this call's alone.
contract StakeVault is IStakeVault, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @dev Both totals fit one storage slot, so moving value from stake to credit writes once.
    struct Totals {
        uint128 staked;
        uint128 owed;
    }

    /// @notice Longest delay that a deployment may ask of unbonding stake, in seconds.
    uint64 public constant MAXIMUM_UNBONDING_DELAY = 365 days;

    IERC20 private immutable _TOKEN;
    address private immutable _LEDGER;
    address private immutable _OPEN_LEDGER;
    address private immutable _COMMITTEE;
    uint64 private immutable _UNBONDING_DELAY;

    Totals private _totals;
    mapping(address owner => StakeAccount) private _accounts;
    mapping(address owner => Unbonding) private _unbonding;
    mapping(address owner => address) private _payouts;
    mapping(address owner => mapping(address operator => bool)) private _operators;
    mapping(TaskId task => uint256) private _escrows;
    mapping(address owner => uint256) private _seated;
    mapping(address owner => uint256) private _pledged;
    mapping(address account => uint256) private _credits;

    modifier onlyCommittee() {
        _checkCommittee();
        _;
    }

    /// @dev INVARIANT: no controller reaches an escrow of another's: a ledger's tasks have numbers below 2**62, open tasks
    /// from there to 2**63, audit budgets from there on.
    modifier onlyKeeperOf(TaskId task) {
        if (TaskId.unwrap(task) >> 63 == 0) _checkLedgerOf(task);
        else _checkCommittee();
        _;
    }

    /// @param token_ An exact, burnable ERC-20; with EIP-2612 for the calls that take a permit.
    /// @param ledger_ The only caller that moves tasks' escrows and bonds. May have no code yet: it is fixed by its address.
    /// @param openLedger_ The same for open tasks; it frees and takes no more of anybody's stake than it has locked.
    /// @param committee_ The only caller that moves audit budgets and seats. May have no code yet either.
    /// @param unbondingDelay_ Seconds between asking for stake and getting it; 1 to a year.
    constructor(address token_, address ledger_, address openLedger_, address committee_, uint64 unbondingDelay_) {
        require(token_ != address(0) && ledger_ != address(0), ZeroAddress());
        require(openLedger_ != address(0) && committee_ != address(0), ZeroAddress());
        require(unbondingDelay_ > 0, ZeroAmount());
        require(unbondingDelay_ <= MAXIMUM_UNBONDING_DELAY, AmountTooLarge(unbondingDelay_));
        _TOKEN = IERC20(token_);
        _LEDGER = ledger_;
        _OPEN_LEDGER = openLedger_;
        _COMMITTEE = committee_;
        _UNBONDING_DELAY = unbondingDelay_;
    }

    /// @inheritdoc IStakeVault
    function stake(address owner, uint256 amount) external nonReentrant {
        _stake(owner, amount);
    }

    /// @inheritdoc IStakeVault
    function stakeWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        nonReentrant
    {
        // Whoever saw the permit in the mempool may have used it first: only the allowance counts.
        try IERC20Permit(address(_TOKEN)).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        _stake(owner, amount);
    }

    /// @inheritdoc IStakeVault
    function requestUnbond(uint256 amount) external {
        require(amount > 0, ZeroAmount());
        StakeAccount storage account = _accounts[msg.sender];
        (uint128 staked, uint128 locked) = (account.staked, account.locked);
        require(amount <= staked - locked, InsufficientFreeStake(msg.sender, staked - locked, amount));

        // forge-lint: disable-next-line(unsafe-typecast)
        uint128 part = uint128(amount); // at most `staked`
        Unbonding storage unbonding = _unbonding[msg.sender];
        uint128 total = unbonding.amount + part;
        uint64 releaseTime = uint64(block.timestamp) + _UNBONDING_DELAY;
        account.staked = staked - part;
        (unbonding.amount, unbonding.releaseTime) = (total, releaseTime);
        emit UnbondingRequested(msg.sender, amount, total, releaseTime);
    }

    /// @inheritdoc IStakeVault
    function completeUnbond() external nonReentrant {
        Unbonding memory unbonding = _unbonding[msg.sender];
        require(unbonding.amount > 0, NothingUnbonding(msg.sender));
        require(
            block.timestamp >= unbonding.releaseTime, StillUnbonding(msg.sender, unbonding.releaseTime, block.timestamp)
        );

        delete _unbonding[msg.sender];
        _totals.staked -= unbonding.amount;
        emit Unbonded(msg.sender, unbonding.amount);
        _TOKEN.safeTransfer(msg.sender, unbonding.amount);
    }

    /// @inheritdoc IStakeVault
    function setOperator(address operator, bool allowed) external {
        require(operator != address(0), ZeroAddress());
        _operators[msg.sender][operator] = allowed;
        emit OperatorSet(msg.sender, operator, allowed);
    }

    /// @inheritdoc IStakeVault
    function setPayout(address payout) external {
        _payouts[msg.sender] = payout;
        emit PayoutSet(msg.sender, payout);
    }

    /// @inheritdoc IStakeVault
    function withdraw() external nonReentrant returns (uint256 amount) {
        return _withdraw(msg.sender);
    }

    /// @inheritdoc IStakeVault
    function withdrawTo(address to) external nonReentrant returns (uint256 amount) {
        require(to != address(0), ZeroAddress());
        return _withdraw(to);
    }

    /// @inheritdoc IStakeVault
    function openEscrow(TaskId task, address requester, uint256 amount) external onlyKeeperOf(task) nonReentrant {
        require(amount > 0, ZeroAmount());
        _totals.owed = _sum(_totals.owed, amount);
        _escrows[task] += amount;
        emit EscrowOpened(task, requester, amount);
        _pull(requester, amount);
    }

    /// @inheritdoc IStakeVault
    function settle(TaskId task, address to, uint256 amount, address owner, uint256 bond) external {
        if (msg.sender != _LEDGER || _rangeOf(task) != 0) {
            _checkLedgerOf(task);
            _takeBack(owner, bond);
        }
        uint256 escrow = _escrows[task];
        require(amount <= escrow, InsufficientEscrow(task, escrow, amount));
        _unlock(owner, bond);
        _pay(task, to, amount, escrow - amount);
    }

    /// @inheritdoc IStakeVault
    function refundEscrow(TaskId task, address to, uint256 keep) external onlyKeeperOf(task) returns (uint256 amount) {
        uint256 escrow = _escrows[task];
        require(keep <= escrow, InsufficientEscrow(task, escrow, keep));
        amount = escrow - keep;
        _pay(task, to, amount, keep);
    }

    /// @inheritdoc IStakeVault
    function lockBond(address owner, uint256 amount) external returns (address payout) {
        if (msg.sender != _LEDGER) _pledge(owner, amount);
        _lock(owner, amount);
        return payoutOf(owner);
    }

    /// @inheritdoc IStakeVault
    function lockSeats(address owner, uint256 amount) external onlyCommittee {
        _seated[owner] += amount;
        _lock(owner, amount);
    }

    /// @inheritdoc IStakeVault
    function freeSeats(address owner, uint256 amount) external onlyCommittee {
        // INVARIANT: the committee never unlocks what the ledger has locked.
        uint256 seated = _seated[owner];
        require(amount <= seated, InsufficientLockedStake(owner, seated, amount));
        _seated[owner] = seated - amount;
        _unlock(owner, amount);
    }

    /// @inheritdoc IStakeVault
    function takeBond(address owner, uint256 bond, uint256 taken, address winner, uint256 awarded)
        external
        nonReentrant
    {
        if (msg.sender != _LEDGER) _takeBack(owner, bond);
        StakeAccount storage account = _accounts[owner];
        (uint128 staked, uint128 locked) = (account.staked, account.locked);
        require(bond <= locked, InsufficientLockedStake(owner, locked, bond));
        require(taken <= bond, InsufficientLockedStake(owner, bond, taken));
        // INVARIANT: at least half of what is taken is burned, whoever calls: disputing oneself never pays.
        require(awarded <= taken / 2, AwardTooLarge(taken, awarded));
        require(awarded == 0 || winner != address(0), ZeroAddress());

        // forge-lint: disable-next-line(unsafe-typecast)
        (staked, locked) = (staked - uint128(taken), locked - uint128(bond)); // taken <= bond <= locked <= staked
        (account.staked, account.locked) = (staked, locked);
        Totals memory totals = _totals;
        // forge-lint: disable-next-line(unsafe-typecast)
        _totals = Totals(totals.staked - uint128(taken), totals.owed + uint128(awarded)); // awarded <= taken
        if (awarded > 0) _credits[winner] += awarded;

        uint256 burned = taken - awarded;
        emit BondTaken(owner, winner, burned, awarded);
        emit BondReleased(owner, bond - taken, locked);
        if (burned > 0) ERC20Burnable(address(_TOKEN)).burn(burned);
    }

    /// @inheritdoc IStakeVault
    function token() external view returns (address) {
        return address(_TOKEN);
    }

    /// @inheritdoc IStakeVault
    function ledger() external view returns (address) {
        return _LEDGER;
    }

    /// @inheritdoc IStakeVault
    function openLedger() external view returns (address) {
        return _OPEN_LEDGER;
    }

    /// @inheritdoc IStakeVault
    function pledgedOf(address owner) external view returns (uint256) {
        return _pledged[owner];
    }

    /// @inheritdoc IStakeVault
    function committee() external view returns (address) {
        return _COMMITTEE;
    }

    /// @inheritdoc IStakeVault
    function seatedOf(address owner) external view returns (uint256) {
        return _seated[owner];
    }

    /// @inheritdoc IStakeVault
    function unbondingDelay() external view returns (uint64) {
        return _UNBONDING_DELAY;
    }

    /// @inheritdoc IStakeVault
    function stakeOf(address owner) external view returns (StakeAccount memory) {
        return _accounts[owner];
    }

    /// @inheritdoc IStakeVault
    function unbondingOf(address owner) external view returns (Unbonding memory) {
        return _unbonding[owner];
    }

    /// @inheritdoc IStakeVault
    function isOperator(address owner, address operator) external view returns (bool) {
        return _operators[owner][operator];
    }

    /// @inheritdoc IStakeVault
    function escrowOf(TaskId task) external view returns (uint256) {
        return _escrows[task];
    }

    /// @inheritdoc IStakeVault
    function creditOf(address account) external view returns (uint256) {
        return _credits[account];
    }

    /// @inheritdoc IStakeVault
    function totalStaked() external view returns (uint256) {
        return _totals.staked;
    }

    /// @inheritdoc IStakeVault
    function totalOwed() external view returns (uint256) {
        return _totals.owed;
    }

    /// @inheritdoc IStakeVault
    function payoutOf(address owner) public view returns (address) {
        address payout = _payouts[owner];
        return payout == address(0) ? owner : payout;
    }

    function _stake(address owner, uint256 amount) private {
        require(owner != address(0), ZeroAddress());
        require(amount > 0, ZeroAmount());
        _totals.staked = _sum(_totals.staked, amount);
        uint256 stakedAfter = _accounts[owner].staked + amount;
        // forge-lint: disable-next-line(unsafe-typecast)
        _accounts[owner].staked = uint128(stakedAfter); // at most the total, which fits
        emit Staked(owner, msg.sender, amount, stakedAfter);
        _pull(msg.sender, amount);
    }

    function _lock(address owner, uint256 amount) private {
        StakeAccount storage account = _accounts[owner];
        (uint128 staked, uint128 locked) = (account.staked, account.locked);
        require(amount <= staked - locked, InsufficientFreeStake(owner, staked - locked, amount));
        // forge-lint: disable-next-line(unsafe-typecast)
        locked += uint128(amount); // at most `staked`
        (account.staked, account.locked) = (staked, locked); // the whole word: nothing is read again
        emit BondLocked(owner, amount, locked);
    }

    function _unlock(address owner, uint256 amount) private {
        StakeAccount storage account = _accounts[owner];
        (uint128 staked, uint128 locked) = (account.staked, account.locked);
        require(amount <= locked, InsufficientLockedStake(owner, locked, amount));
        // forge-lint: disable-next-line(unsafe-typecast)
        locked -= uint128(amount); // at most `locked`
        (account.staked, account.locked) = (staked, locked); // the whole word: nothing is read again
        emit BondReleased(owner, amount, locked);
    }

    function _withdraw(address to) private returns (uint256 amount) {
        amount = _credits[msg.sender];
        require(amount > 0, NothingToWithdraw(msg.sender));
        _credits[msg.sender] = 0;
        // forge-lint: disable-next-line(unsafe-typecast)
        _totals.owed -= uint128(amount); // a part of it
        emit Withdrawn(msg.sender, to, amount);
        _TOKEN.safeTransfer(to, amount);
    }

    /// @dev Escrow becomes credit: both are owed, so the totals stay.
    function _pay(TaskId task, address to, uint256 amount, uint256 escrowAfter) private {
        if (amount == 0) return;
        require(to != address(0), ZeroAddress());
        _escrows[task] = escrowAfter;
        _credits[to] += amount;
        emit EscrowPaid(task, to, amount, escrowAfter);
    }

    /// @dev INVARIANT: the vault gets what it books. A token that takes a fee on transfer cannot be used.
    function _pull(address from, uint256 amount) private {
        uint256 before = _TOKEN.balanceOf(address(this));
        _TOKEN.safeTransferFrom(from, address(this), amount);
        uint256 received = _TOKEN.balanceOf(address(this)) - before;
        // slither-disable-next-line incorrect-equality -- a difference within this guarded call, not a balance
        require(received == amount, WrongAmountReceived(amount, received));
    }

    /// @dev Stake that the open ledger locks. Nobody but a ledger comes here: not the ledger itself, which it costs nothing.
    function _pledge(address owner, uint256 amount) private {
        require(msg.sender == _OPEN_LEDGER, OnlyLedger(msg.sender));
        _pledged[owner] += amount;
    }

    /// @dev INVARIANT: the open ledger never unlocks what the ledger or the committee has locked.
    function _takeBack(address owner, uint256 bond) private {
        require(msg.sender == _OPEN_LEDGER, OnlyLedger(msg.sender));
        uint256 pledged = _pledged[owner];
        require(bond <= pledged, InsufficientLockedStake(owner, pledged, bond));
        _pledged[owner] = pledged - bond;
    }

    function _checkLedgerOf(TaskId task) private view {
        uint256 range = _rangeOf(task);
        address keeper = range == 0 ? _LEDGER : _OPEN_LEDGER;
        require(range <= 1 && msg.sender == keeper, OnlyLedger(msg.sender));
    }

    function _checkCommittee() private view {
        require(msg.sender == _COMMITTEE, OnlyCommittee(msg.sender));
    }

    /// @dev 0: a task's escrow. 1: an open task's. 2 and 3: an audit budget, which no ledger keeps.
    function _rangeOf(TaskId task) private pure returns (uint256) {
        return TaskId.unwrap(task) >> 62;
    }

    function _sum(uint128 total, uint256 amount) private pure returns (uint128) {
        require(amount <= type(uint128).max - total, AmountTooLarge(amount));
        // forge-lint: disable-next-line(unsafe-typecast)
        return total + uint128(amount); // just checked
    }
}
