// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IAuditCommittee} from "./interfaces/IAuditCommittee.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";

/// @title The seats that auditors are drawn from
/// @dev One word a seat. Giving up a seat moves the last one into its place, so nothing is ever searched; `placed` tells
/// an audit that was asked for earlier that the seat drawn is no longer there.
abstract contract SeatRegister is IAuditCommittee {
    /// @notice Most seats taken in one call.
    uint32 public constant MOST_SEATS_AT_ONCE = 32;

    IStakeVault internal immutable _VAULT;
    uint96 private immutable _SEAT_STAKE;
    uint32 private immutable _SEAT_AGE;

    Seat[] private _seats;
    /// @inheritdoc IAuditCommittee
    mapping(address owner => uint256) public seatsOf;
    /// @inheritdoc IAuditCommittee
    mapping(address owner => uint256) public busyUntil;

    constructor(address vault_, uint96 seatStake_, uint32 seatAge_) {
        require(vault_ != address(0), InvalidParameter("vault", 0));
        require(seatStake_ > 0, InvalidParameter("seatStake", 0));
        // INVARIANT: a seat taken in the block of a request never counts in it.
        require(seatAge_ > 0, InvalidParameter("seatAge", 0));
        _VAULT = IStakeVault(vault_);
        _SEAT_STAKE = seatStake_;
        _SEAT_AGE = seatAge_;
    }

    /// @inheritdoc IAuditCommittee
    function enrol(uint32 count) external {
        require(count > 0 && count <= MOST_SEATS_AT_ONCE, WrongSeatCount(count, MOST_SEATS_AT_ONCE));
        uint256 first = _seats.length;
        uint48 time = uint48(block.timestamp);
        for (uint256 taken = 0; taken < count; ++taken) {
            _seats.push(Seat({owner: msg.sender, since: time, placed: time}));
        }
        seatsOf[msg.sender] += count;
        emit SeatsTaken(msg.sender, first, count);
        _VAULT.lockSeats(msg.sender, uint256(count) * _SEAT_STAKE);
    }

    /// @inheritdoc IAuditCommittee
    function resign(uint256 index) external {
        address owner = seatAt(index).owner;
        require(owner == msg.sender, NotYourSeat(index, owner));
        _remove(index, owner, false);
    }

    /// @inheritdoc IAuditCommittee
    function vault() external view returns (address) {
        return address(_VAULT);
    }

    /// @inheritdoc IAuditCommittee
    function seatStake() external view returns (uint96) {
        return _SEAT_STAKE;
    }

    /// @inheritdoc IAuditCommittee
    function seatAge() external view returns (uint32) {
        return _SEAT_AGE;
    }

    /// @inheritdoc IAuditCommittee
    function seatCount() public view returns (uint256) {
        return _seats.length;
    }

    /// @inheritdoc IAuditCommittee
    function seatAt(uint256 index) public view returns (Seat memory) {
        require(index < _seats.length, UnknownSeat(index, _seats.length));
        return _seats[index];
    }

    /// @dev INVARIANT: whoever has committed in an audit keeps its seats until the window that it may shorten is over.
    function _remove(uint256 index, address owner, bool evicted) internal {
        require(block.timestamp > busyUntil[owner], SeatBusy(owner, busyUntil[owner]));
        uint256 last = _seats.length - 1;
        if (index != last) {
            Seat memory moved = _seats[last];
            moved.placed = uint48(block.timestamp);
            _seats[index] = moved;
        }
        _seats.pop();
        seatsOf[owner] -= 1;
        emit SeatGivenUp(owner, index, evicted);
        _VAULT.freeSeats(owner, _SEAT_STAKE);
    }

    function _keepSeats(address owner, uint256 untilTime) internal {
        if (busyUntil[owner] < untilTime) busyUntil[owner] = untilTime;
    }

    /// @dev The owner of a seat, and whether it counts at a time in the past: it was there, in this place, and aged.
    function _seatAtTime(uint256 index, uint256 time) internal view returns (address owner, bool counts) {
        if (index >= _seats.length) return (address(0), false);
        Seat memory seat = _seats[index];
        return (seat.owner, seat.placed <= time && uint256(seat.since) + _SEAT_AGE <= time);
    }
}
