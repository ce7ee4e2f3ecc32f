"""Where a dispute stands: `IDisputeGame.Position` and its parts, with the rules that follow from it alone."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from eth_utils.crypto import keccak

from ledger.disputes.abi import AbiRecord, Address, Flag, Uint8, Uint32, Uint64, Uint256, Word

__all__ = [
    "BLOCK",
    "CHUNK",
    "FOLD_POINTS",
    "NO_ROOT",
    "RUN_POINTS",
    "Folding",
    "GameView",
    "Matter",
    "Outcome",
    "Phase",
    "Position",
    "Run",
    "Subject",
    "View",
    "points_of",
    "view_width",
]

RUN_POINTS: Final = 32  # most points of an interval of runs
FOLD_POINTS: Final = 64  # most points of an interval of blocks of a fold
BLOCK: Final = 1024  # elements of a block of a fold
CHUNK: Final = 1024  # bytes of a chunk of a tensor
NO_ROOT: Final = bytes(32)
_VIEW_WIDTH = 6


class Phase(enum.IntEnum):
    """What lies on the table."""

    RUNS = 0
    TRACE = 1
    STATE = 2
    TENSOR = 3
    CHUNK = 4
    FOLD = 5


class Outcome(enum.IntEnum):
    """How a game ended. `VOID`: the submission fell in another game before."""

    RUNNING = 0
    DEFENDER_WON = 1
    CHALLENGER_WON = 2
    VOID = 3


@dataclass(frozen=True, kw_only=True)
class Matter(AbiRecord):
    """What a game is about; never changes.

    Attributes:
        steps: training steps of the submission: it has steps + 1 runs.
        clock: seconds that each side has in all.
        base: state root that the segment starts from; of a merge, the root of its inputs.
        submitted: state root of the defender; `claimed` is the challenger's.
        task_program: program root of the task; `dataset` its data set's.
        merge: whether run 0 is of the task's merge program, not of its training program.
    """

    game: Uint256
    task: Uint64
    round: Uint32
    slot: Uint32
    attempt: Uint32
    steps: Uint32
    clock: Uint32
    defender: Address
    challenger: Address
    base: Word
    submitted: Word
    claimed: Word
    task_program: Word
    dataset: Word
    merge: Flag


@dataclass(frozen=True, kw_only=True)
class Run(AbiRecord):
    """The run entered; all zero before.

    Attributes:
        state_before: root of the state before the run; of a merge, of its inputs.
        inputs: states that a merge takes beside its base; 0 in every other run.
        states, constants, operations: records of each kind in the program.
        reached: leaf of the trace that was entered.
        frontier: by height, from the leaves: where bit k of `reached` is 1, the agreed node of the trace at height k
            and index (reached >> k) - 1. Its length is the depth of the trace.
    """

    number: Uint32
    state_before: Word
    program: Word
    inputs: Uint8
    states: Uint32
    constants: Uint32
    operations: Uint32
    seed: Uint64
    reached: Uint32
    frontier: tuple[Word, ...]


@dataclass(frozen=True, kw_only=True)
class View(AbiRecord):
    """A posted view: the 2**width descendants of the node at `height` and `index`, which hash up to `node`.

    In the phase CHUNK height and width are 0 and `node` is the chunk's leaf hash.
    """

    leaves: Uint64
    index: Uint64
    height: Uint8
    width: Uint8
    node: Word


@dataclass(frozen=True, kw_only=True)
class Subject(AbiRecord):
    """The tensor entered: the output of operation `number`, or tensor `number` of the state after.

    `record` is leaf(program, its record); `size` is in bytes.
    """

    of_state: Flag
    number: Uint32
    dtype: Uint8
    size: Uint64
    record: Word


@dataclass(frozen=True, kw_only=True)
class Folding(AbiRecord):
    """The fold entered. `bits` is what the side that opened it says of `element`; `opening`: it has just done so."""

    element: Uint64
    bits: Uint64
    opening: Flag


@dataclass(frozen=True, kw_only=True)
class Position(AbiRecord):
    """A whole game, as the contract hashes it.

    Attributes:
        moves: made so far, the opening included.
        mover_seconds: left on the clock of the side to move when its turn began, `waiter_seconds` of the other side.
        since: Unix time at which the turn began.
        low, high: the interval of runs (RUNS) or of blocks (FOLD) on the table.
        agreed: the agreed value at `low`: a state root or an accumulator.
        points: values posted at `points_of(low, high, …)`.
    """

    matter: Matter
    phase: Phase
    moves: Uint32
    defender_to_move: Flag
    mover_seconds: Uint32
    waiter_seconds: Uint32
    since: Uint64
    low: Uint64
    high: Uint64
    agreed: Word
    points: tuple[Word, ...]
    run: Run
    tree: View
    subject: Subject
    fold: Folding

    def digest(self) -> bytes:
        """What the contract keeps: keccak256 of the ABI encoding."""
        return bytes(keccak(self.encode()))

    @property
    def mover(self) -> str:
        """The account whose turn it is."""
        return self.matter.defender if self.defender_to_move else self.matter.challenger

    @property
    def places(self) -> list[int]:
        """Runs or blocks at which `points` were posted."""
        return points_of(self.low, self.high, FOLD_POINTS if self.phase is Phase.FOLD else RUN_POINTS)

    def deadline(self, minimum_move: int) -> int:
        """Last second, Unix time, in which the side to move may move."""
        return self.since + max(self.mover_seconds, minimum_move)


@dataclass(frozen=True, kw_only=True)
class GameView:
    """All that a player needs to know of one game.

    Attributes:
        position: where it stands; the last one where it is over.
        posted: what the last move put on the table beside the position's points: the hashes of a view side by side,
            or a chunk. Empty where it put nothing else there.
        deadline: last second, Unix time, in which the side to move may move.
        winner: account that won; None while it runs and where nobody did.
        late: whether it ended by the clock.
        moved_block: block of the last move.
    """

    position: Position
    posted: bytes
    deadline: int
    outcome: Outcome
    winner: str | None
    late: bool
    moved_block: int

    @property
    def number(self) -> int:
        return self.position.matter.game

    @property
    def running(self) -> bool:
        return self.outcome is Outcome.RUNNING

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The hashes posted, where a view was."""
        return tuple(self.posted[start : start + 32] for start in range(0, len(self.posted), 32))


def points_of(low: int, high: int, most: int) -> list[int]:
    """Where the points of [low, high] are: at most `most`, evenly, the last at `high` (docs/dispute.md, "Points")."""
    count = min(most, high - low)
    return [low + (high - low) * number // count for number in range(1, count + 1)]


def view_width(height: int) -> int:
    """Levels below a node of this height that one view shows."""
    return min(_VIEW_WIDTH, height)


def join_nodes(nodes: Sequence[bytes]) -> bytes:
    """A view's hashes as an event carries them."""
    return b"".join(nodes)
