"""Frozen records of what is on chain, as Python sees it. Amounts are wei, times Unix seconds, roots 32 bytes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

ZERO_ADDRESS = "0x" + "00" * 20


class Admission(enum.IntEnum):
    """Who may claim a slot; the values are ITrainingLedger.Admission's."""

    OPEN = 0
    STAKE = 1
    TICKET = 2
    STAKE_AND_TICKET = 3

    @property
    def needs_stake(self) -> bool:
        return self in (Admission.STAKE, Admission.STAKE_AND_TICKET)

    @property
    def needs_ticket(self) -> bool:
        return self in (Admission.TICKET, Admission.STAKE_AND_TICKET)


class SlotStatus(enum.IntEnum):
    """Life of a slot; the values are ITrainingLedger.SlotStatus's."""

    OPEN = 0
    LEASED = 1
    SUBMITTED = 2
    FINALISED = 3


@dataclass(frozen=True, kw_only=True)
class TaskParameters:
    """What a requester fixes when posting; field by field ITrainingLedger.TaskParameters.

    quorum, round_seconds and merge_reward (wei) are 0 with one slot a round. base_loss and target_loss are IEEE-754
    binary32 bit patterns (both 0 without a target).
    """

    specification_hash: bytes
    program_root: bytes
    dataset_root: bytes
    initial_state_root: bytes
    state_tensors: int
    rounds: int
    slots_per_round: int = 1
    steps_per_round: int
    minimum_steps: int
    slot_reward: int
    bond: int
    lease_fee: int
    lease_seconds: int
    challenge_window: int
    admission: Admission = Admission.OPEN
    minimum_stake: int = 0
    ticket_target: int = 0
    has_target: bool = False
    base_loss: int = 0
    target_loss: int = 0
    quorum: int = 0
    round_seconds: int = 0
    merge_reward: int = 0

    @property
    def total_reward(self) -> int:
        """Escrow at posting, wei."""
        return self.rounds * (self.slots_per_round * self.slot_reward + self.merge_reward)

    @property
    def merges(self) -> bool:
        """Whether a round has several slots, and ends with a merge (docs/rounds.md)."""
        return self.slots_per_round > 1

    @property
    def last_slot(self) -> int:
        """The slot whose state its round leads to: the merge, or the only one."""
        return self.slots_per_round if self.merges else 0

    def is_merge(self, slot: int) -> bool:
        """Whether a slot is that of the merges."""
        return self.merges and slot == self.slots_per_round


@dataclass(frozen=True, kw_only=True)
class Task:
    """A posted task. `current_round` equals `parameters.rounds` once all rounds are finalised."""

    number: int
    parameters: TaskParameters
    requester: str
    current_round: int
    closed: bool

    @property
    def complete(self) -> bool:
        return self.current_round >= self.parameters.rounds


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One slot of a round. `deadline` ends the lease (LEASED) or the challenge window (SUBMITTED).

    An open slot whose submission fell is kept for `worker`, who won the dispute, until `deadline`. `generation` is that
    of the inputs that a merge answers for, 0 otherwise.
    """

    task: int
    round: int
    slot: int
    worker: str
    attempt: int
    deadline: int
    status: SlotStatus
    open_games: int
    payout: str
    steps: int
    heldout_loss: int
    generation: int = 0
    state_root: bytes

    def reserved_for(self, now: int) -> str | None:
        """Who alone may claim an open slot at chain time `now`; None where anybody may."""
        kept = self.status is SlotStatus.OPEN and self.worker != ZERO_ADDRESS and now <= self.deadline
        return self.worker if kept else None


@dataclass(frozen=True, kw_only=True)
class Round:
    """Where a round of many slots stands (IRoundBook.Round). Times are Unix seconds, 0 where there is none yet.

    Attributes:
        deadline: after which the quorum is enough. frozen_at: when it was decided which slots count.
        generation: how often a slot that counted fell. running: training slots leased or submitted, not final.
        submitted, finalised: training slots whose submission stands, and those of them that are final.
        counted: slots that counted when last frozen. collected: inputs read of this generation, the base first.
        submitted_slots, counted_slots: which they are.
        inputs_root: what a merge starts from; 32 zero bytes until all inputs are collected.
        ready: whether `collect` would freeze the round now.
    """

    task: int
    round: int
    deadline: int
    frozen_at: int
    generation: int
    running: int
    submitted: int
    finalised: int
    counted: int
    collected: int
    submitted_slots: frozenset[int]
    counted_slots: frozenset[int]
    inputs_root: bytes
    ready: bool

    def is_missing(self, slot: int, now: int) -> bool:
        """Whether the round goes on without a training slot at chain time `now`: it did not count when last frozen.

        After a thaw that lasts until the deadline.
        """
        decided = self.frozen_at != 0 or (self.counted != 0 and now <= self.deadline)
        return decided and slot not in self.counted_slots


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A lineage entry: the state that a finalised slot led to. `heldout_loss` is binary32 bits."""

    task: int
    round: int
    parent: bytes
    state_root: bytes
    worker: str
    steps: int
    heldout_loss: int


@dataclass(frozen=True, kw_only=True)
class StakeAccount:
    """An account in the vault, all in wei. `free` can stand as a new bond."""

    staked: int
    locked: int
    unbonding: int
    unbonding_release: int
    credit: int
    payout: str

    @property
    def free(self) -> int:
        return self.staked - self.locked


@dataclass(frozen=True, kw_only=True)
class VaultTotals:
    """The vault's books, wei; `solvent` is the conservation rule held >= staked + owed."""

    held: int
    staked: int
    owed: int

    @property
    def solvent(self) -> bool:
        return self.held >= self.staked + self.owed


@dataclass(frozen=True, kw_only=True)
class Event:
    """One decoded log of the ledger, the vault, the token or the dispute game; `arguments` by ABI name."""

    contract: str
    name: str
    arguments: dict[str, object]
    block_number: int
    block_hash: bytes
    transaction: bytes
    log_index: int
