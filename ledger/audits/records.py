"""What the audit committee keeps, as typed records (docs/auditors.md)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from eth_abi.abi import encode
from eth_utils.crypto import keccak

VOTES = 9
AGREEMENT = 6
# The chain knows the hashes of so many blocks before the newest (Yellow Paper, section 9.4.3: BLOCKHASH).
KNOWN_BLOCKS = 256


class Stage(enum.Enum):
    """Where an audit stands at a moment."""

    NONE = "not asked for"
    ASKED = "waits for its seed"
    MISSED = "its seed was missed"
    COMMITTING = "auditors commit"
    REVEALING = "auditors reveal"
    OVER = "over"


@dataclass(frozen=True)
class Seat:
    """A seat of the register. Times are Unix seconds."""

    owner: str
    since: int
    placed: int


@dataclass(frozen=True)
class Budget:
    """What a task pays for audits, wei: `fee` for each vote, of `held` of which audits have reserved `reserved`."""

    fee: int
    reserved: int
    held: int

    @property
    def free(self) -> int:
        """Wei that no audit has reserved."""
        return self.held - self.reserved

    @property
    def audits_left(self) -> int:
        """How many more audits it can pay."""
        return self.free // (self.fee * VOTES) if self.fee else 0


@dataclass(frozen=True)
class Ballot:
    """One auditor's part in an audit; 32 zero bytes for what there is not yet."""

    commitment: bytes
    finding: bytes
    votes: int
    paid: bool

    @property
    def committed(self) -> bool:
        return any(self.commitment)

    @property
    def revealed(self) -> bool:
        return any(self.finding)


@dataclass(frozen=True)
class Audit:
    """The audit of one attempt. Times are Unix seconds; zero, or 32 zero bytes, for what there is not yet.

    Attributes:
        seats: that there were when it was asked for. window_end: of the challenge window, as it was then.
        committed: votes whose auditors have committed.
        fee: wei for each vote. steps: runs of the training program that the submission has done.
        agreed: the finding that six votes share.
    """

    key: int
    requested_at: int
    seed_block: int
    seats: int
    commit_end: int
    reveal_end: int
    window_end: int
    committed: int
    closed: bool
    fee: int
    steps: int
    seed: bytes
    state_root: bytes
    agreed: bytes

    @property
    def drawn_run(self) -> int:
        """The run whose trace root the auditors have to show; only of a drawn audit."""
        return int.from_bytes(self.seed, "big") % self.steps

    def stage(self, *, now: int, block: int) -> Stage:
        """Where it stands. `now` is the chain's time, `block` the number of its newest block."""
        if self.requested_at == 0:
            return Stage.NONE
        if not any(self.seed):
            missed = block >= self.seed_block + KNOWN_BLOCKS or now > self.window_end
            return Stage.MISSED if missed else Stage.ASKED
        if now > self.reveal_end:
            return Stage.OVER
        return Stage.REVEALING if now > self.commit_end or self.committed == VOTES else Stage.COMMITTING


def attempt_key(task: int, round_number: int, attempt: int, slot: int = 0) -> int:
    """The contracts' key of an attempt, which names its audit too."""
    return task << 96 | round_number << 64 | slot << 32 | attempt


def split_key(key: int) -> tuple[int, int, int, int]:
    """(task, round, slot, attempt) of a key."""
    mask = 2**32 - 1
    return key >> 96, key >> 64 & mask, key >> 32 & mask, key & mask


def finding_of(trace_root: bytes, state_root: bytes) -> bytes:
    """What an auditor found: the trace of the run drawn and the state at the end of its own replay."""
    return bytes(keccak(encode(["bytes32", "bytes32"], [trace_root, state_root])))


def commitment_of(key: int, seed: bytes, auditor: str, trace_root: bytes, state_root: bytes, salt: bytes) -> bytes:
    """What an auditor commits to. Its own address is in it, so a copied commitment opens for nobody else."""
    fields = [auditor, key, seed, finding_of(trace_root, state_root), salt]
    return bytes(keccak(encode(["address", "uint256", "bytes32", "bytes32", "bytes32"], fields)))
