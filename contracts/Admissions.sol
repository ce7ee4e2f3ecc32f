// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IRoundBook} from "./interfaces/IRoundBook.sol";
import {IStakeVault} from "./interfaces/IStakeVault.sol";
import {ITrainingLedger} from "./interfaces/ITrainingLedger.sol";
import {Root, TaskId} from "./types/Identifiers.sol";

/// @title Who may claim: stake, and tickets of proof of work
/// @dev The ledger asks where a task wants either; nothing is written.
abstract contract Admissions is IRoundBook {
    ITrainingLedger internal immutable _LEDGER;

    /// @param ledger_ The only ledger whose claims are admitted. May have no code yet.
    constructor(address ledger_) {
        require(ledger_ != address(0), ITrainingLedger.InvalidParameter("ledger", 0));
        _LEDGER = ITrainingLedger(ledger_);
    }

    /// @inheritdoc IRoundBook
    function admit(ITrainingLedger.Claim calldata request, uint96 minimumStake, uint256 ticketTarget) external view {
        if (minimumStake != 0) {
            uint256 staked = IStakeVault(_LEDGER.vault()).stakeOf(request.worker).staked;
            bool enough = staked >= minimumStake;
            require(enough, ITrainingLedger.StakeTooSmall(request.worker, staked, minimumStake));
        }
        if (ticketTarget == 0) return;
        uint256 digest = ticketDigest(
            request.task,
            request.round,
            request.slot,
            request.attempt,
            request.worker,
            request.baseRoot,
            request.ticketBlock,
            request.ticketNonce
        );
        require(digest < ticketTarget, ITrainingLedger.TicketTooWeak(digest, ticketTarget));
    }

    /// @inheritdoc IRoundBook
    function ledger() external view returns (address) {
        return address(_LEDGER);
    }

    /// @inheritdoc IRoundBook
    function ticketDigest(
        TaskId task,
        uint32 round,
        uint32 slot,
        uint32 attempt,
        address worker,
        Root base,
        uint64 ticketBlock,
        uint256 nonce
    ) public view returns (uint256) {
        bytes32 blockHash = blockhash(ticketBlock);
        require(blockHash != 0, ITrainingLedger.TicketBlockUnknown(ticketBlock, block.number));
        bytes memory bound =
            abi.encode(block.chainid, address(_LEDGER), task, round, slot, attempt, worker, base, blockHash, nonce);
        return uint256(keccak256(bound));
    }
}
