"""What the ledger of open tasks and its availability committee keep, as typed records (docs/open-tasks.md).

Amounts are wei, times Unix seconds, periods seconds, roots 32 bytes, losses IEEE-754 binary32 bit patterns.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from eth_abi.abi import encode
from eth_utils.crypto import keccak

__all__ = [
    "AGREEMENT",
    "KNOWN_BLOCKS",
    "NO_LOSS",
    "VOTES",
    "Inquiry",
    "InquiryStage",
    "OpenParameters",
    "OpenPhase",
    "OpenRound",
    "OpenSlot",
    "OpenTask",
    "Question",
    "Stage",
    "commitment_of",
    "escrow_number",
    "finding_commitment_of",
    "slot_key",
    "split_slot_key",
]

VOTES = 9
AGREEMENT = 6
# The chain knows the hashes of so many blocks before the newest (Yellow Paper, section 9.4.3: BLOCKHASH).
KNOWN_BLOCKS = 256
NO_LOSS = 0x7FC00000  # of a baseline that is missing: not finite
_ESCROW_BIT = 1 << 62  # of the vault's number of an open task's escrow


class OpenPhase(enum.IntEnum):
    """The values are IOpenLedger.Phase's.

    `CLOSED`: the requester stopped it, or did not show its held-out data. A round that runs goes on to its end.
    """

    RUNNING = 0
    CLOSED = 1
    COMPLETE = 2


class Stage(enum.IntEnum):
    """Life of a slot; the values are IOpenLedger.Stage's.

    The baseline begins as `REVEALED`. `COPY`: an earlier commit had the same state. `MISSING`: never revealed, never
    scored, or not to be fetched.
    """

    EMPTY = 0
    COMMITTED = 1
    REVEALED = 2
    SCORED = 3
    FINALISED = 4
    COPY = 5
    MISSING = 6

    @property
    def settled(self) -> bool:
        """Whether nothing changes a slot of this stage any more."""
        return self in (Stage.FINALISED, Stage.COPY, Stage.MISSING)


class Question(enum.IntEnum):
    """Whether a slot's state can be fetched: nobody asked, it is being decided, it was decided.

    The values are IOpenLedger.Question's.
    """

    NONE = 0
    OPEN = 1
    CLEARED = 2


class InquiryStage(enum.Enum):
    """Where an inquiry stands at a moment."""

    NONE = "not asked"
    ASKED = "waits for its draw"
    COMMITTING = "auditors commit"
    REVEALING = "auditors reveal"
    OVER = "over, and to be closed"
    DECIDED = "decided"


@dataclass(frozen=True, kw_only=True)
class OpenParameters:
    """What a requester fixes when posting; field by field IOpenLedger.TaskParameters.

    Attributes:
        train_leaf, public_node: in every round's data set the leaf of the train part, and the node over header and
            tokenizer. held_out_bytes: size of its held-out part.
        state_tensors: of a state. slots_per_round: states that a round takes, 1 to 255.
        full_gain: improvement of the held-out loss for which all of `slot_reward` is paid, binary32 bits.
        floor_reward: for every scored state that is no copy. score_reward: for scoring the base.
        bond: locked with a commit or a score. fee: of it burned where one does not go on. Both wei.
        minimum_stake: that a worker needs to commit, wei; may be 0.
        lease_seconds: for which a state can be scored by its worker only; for as long again by anybody.
    """

    specification_hash: bytes
    program_root: bytes
    initial_state_root: bytes
    train_leaf: bytes
    public_node: bytes
    state_tensors: int
    slots_per_round: int
    full_gain: int
    held_out_bytes: int
    slot_reward: int
    floor_reward: int
    score_reward: int
    bond: int
    fee: int
    minimum_stake: int = 0
    commit_seconds: int
    reveal_seconds: int
    held_out_seconds: int
    lease_seconds: int
    challenge_window: int

    def total_reward(self, rounds: int) -> int:
        """Escrow at posting of a task of so many rounds, wei."""
        return rounds * (self.slots_per_round * self.slot_reward + self.score_reward)

    @property
    def baseline(self) -> int:
        """Number of the slot in which the base itself is scored."""
        return self.slots_per_round


@dataclass(frozen=True, kw_only=True)
class OpenTask:
    """A posted task. `current_round` counts from 0 and equals `rounds` once all have ended."""

    number: int
    parameters: OpenParameters
    requester: str
    rounds: int
    current_round: int
    phase: OpenPhase

    @property
    def closed(self) -> bool:
        return self.phase is OpenPhase.CLOSED

    @property
    def complete(self) -> bool:
        return self.current_round >= self.rounds


@dataclass(frozen=True, kw_only=True)
class OpenRound:
    """Where a round stands. Times are the last seconds of periods, 0 until they are known.

    Attributes:
        commit_end: 0 until somebody commits. held_out_end: earlier where revealing is over early.
        held_out_at: when the held-out data was shown; 0 before.
        committed: slots taken. opened: of them, commitments opened. revealed: of those, states that are no copies.
        resolved: revealed states, and the baseline, that are final or missing.
        best: the slot with the lowest loss of those that are final; None while there is none.
    """

    task: int
    round: int
    commit_end: int
    reveal_end: int
    held_out_end: int
    held_out_at: int
    committed: int
    opened: int
    revealed: int
    resolved: int
    best: int | None

    def commits_over(self, slots: int, now: int) -> bool:
        """Whether a round of so many slots takes no more commits at chain time `now`: commitments can be opened."""
        return self.committed == slots or (self.committed > 0 and now > self.commit_end)

    def reveals_over(self, slots: int, now: int) -> bool:
        """Whether nobody can reveal any more at chain time `now`: the held-out data can be shown."""
        opened = self.opened == self.committed and self.commits_over(slots, now)
        return self.committed > 0 and (opened or now > self.reveal_end)

    def defaulted(self, slots: int, now: int) -> bool:
        """Whether the requester has not shown the held-out data in time, so that revealed states are paid in full."""
        late = self.held_out_at == 0 and now > self.held_out_end
        return late and self.reveals_over(slots, now) and self.revealed > 0


@dataclass(frozen=True, kw_only=True)
class OpenSlot:
    """One slot: of a worker, or the baseline.

    Attributes:
        worker: whose bond answers for it, where `bonded`. payout: who is paid.
        deadline: end of the challenge window once scored; while revealed after a fall, end of the lease of `worker`,
            who won the game, and 0 otherwise.
        held_out_loss: of the scored state, binary32 bits.
        commitment: what was committed to; kept after revealing.
        trained_root: the state revealed. scored_root: the state after evaluation, which holds the loss. 32 zero bytes
            for what there is not yet.
    """

    task: int
    round: int
    slot: int
    worker: str
    attempt: int
    deadline: int
    stage: Stage
    open_games: int
    payout: str
    held_out_loss: int
    bonded: bool
    question: Question
    commitment: bytes
    trained_root: bytes
    scored_root: bytes

    def owners_end(self, parameters: OpenParameters, state: OpenRound) -> int:
        """Last second in which only `worker` may score a revealed state whose round's held-out data was shown."""
        return self.deadline or state.held_out_at + parameters.lease_seconds

    def expires(self, parameters: OpenParameters, state: OpenRound) -> int:
        """Last second in which anybody may score a revealed state: after it, it is missing."""
        return self.owners_end(parameters, state) + parameters.lease_seconds


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """Whether the state of a slot can be fetched. Times are Unix seconds; zero, or 32 zero bytes, for what is not yet.

    Attributes:
        asked_at: 0: nobody has asked. seats: that there were then. seed_block: whose hash is the seed.
        committed: votes whose auditors have committed.
        closed: decided, and what of the deposit nobody is owed is gone.
        bond: the deposit of `asker`. fee: what an acknowledgement burns of it. Both wei.
        agreed: the salted root that six votes share.
    """

    task: int
    round: int
    slot: int
    asked_at: int
    seed_block: int
    seats: int
    commit_end: int
    reveal_end: int
    committed: int
    closed: bool
    asker: str
    bond: int
    fee: int
    trained_root: bytes
    seed: bytes
    agreed: bytes

    @property
    def key(self) -> int:
        """The contracts' key of the slot, which names its inquiry."""
        return slot_key(self.task, self.round, self.slot)

    @property
    def drawn(self) -> bool:
        return any(self.seed)

    @property
    def decided(self) -> bool:
        """Whether it is known if the state is there; `closed` or not."""
        return self.closed or any(self.agreed)

    def stage(self, now: int) -> InquiryStage:
        """Where it stands at chain time `now`. One with an agreement is `DECIDED`, though auditors may still reveal."""
        if self.asked_at == 0:
            return InquiryStage.NONE
        if self.decided:
            return InquiryStage.DECIDED
        if not self.drawn:
            return InquiryStage.ASKED
        if now > self.reveal_end:
            return InquiryStage.OVER
        everybody = self.committed == VOTES
        return InquiryStage.REVEALING if everybody or now > self.commit_end else InquiryStage.COMMITTING


def slot_key(task: int, round_number: int, slot: int) -> int:
    """The contracts' key of a slot."""
    return task << 64 | round_number << 32 | slot


def split_slot_key(key: int) -> tuple[int, int, int]:
    """(task, round, slot) of a key."""
    mask = 2**32 - 1
    return key >> 64, key >> 32 & mask, key & mask


def escrow_number(task: int) -> int:
    """The vault's number of an open task's escrow."""
    return task | _ESCROW_BIT


def commitment_of(
    *, chain_id: int, ledger: str, task: int, round_number: int, worker: str, trained_root: bytes, salt: bytes
) -> bytes:
    """What a worker commits to. Its own address is in it, so a copied commitment opens for nobody else.

    Args:
        ledger: address of the ledger of open tasks. salt: 32 bytes that nobody can guess.
    """
    kinds = ["uint256", "address", "uint64", "uint32", "address", "bytes32", "bytes32"]
    return bytes(keccak(encode(kinds, [chain_id, ledger, task, round_number, worker, trained_root, salt])))


def finding_commitment_of(key: int, seed: bytes, auditor: str, salted_root: bytes, salt: bytes) -> bytes:
    """What an auditor commits to who was drawn into the inquiry of a slot (`slot_key`)."""
    kinds = ["address", "uint256", "bytes32", "bytes32", "bytes32"]
    return bytes(keccak(encode(kinds, [auditor, key, seed, salted_root, salt])))
