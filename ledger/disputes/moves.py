"""The moves of a dispute (docs/dispute.md, "Moves"), each as a record with the arguments of its contract function.

Roots and hashes are 32 bytes; lists are tuples. Records follow `contracts/interfaces/IDisputeGame.sol` and
`IStepReferee.sol` field by field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ledger.disputes.abi import AbiRecord, Address, Blob, Uint8, Uint32, Uint64, Uint256, Word

__all__ = [
    "Descend",
    "EnterRun",
    "EnterState",
    "EnterTensor",
    "Evidence",
    "Move",
    "Narrow",
    "NarrowFold",
    "OpenChunk",
    "OpenFold",
    "Opening",
    "Pick",
    "ProgramProof",
    "ProveBlock",
    "ProveElement",
    "ProvePadding",
    "ProvePaddingBytes",
    "ProveRounding",
    "ProveStateLeaf",
    "Record",
    "Release",
    "SettleLate",
    "Source",
]

# --- what moves are made of ---


@dataclass(frozen=True)
class Record(AbiRecord):
    """A record of a program with its proof in the program's tree, siblings from the bottom up."""

    data: Blob
    siblings: tuple[Word, ...]


@dataclass(frozen=True)
class Source(AbiRecord):
    """Whole chunks of one committed tensor, or of a part of the data set, with a range proof.

    Attributes:
        number: of the operation, of the tensor of the state before (of a merge, tensor i of input j of n tensors is
            n · j + i), of the constant, or of the data set's part.
        dtype: number of the dtype (docs/formats.md, section 1).
        size: bytes of the whole tensor.
        first_chunk: index of the first chunk given.
        chunks: a multiple of 1,024 bytes.
        siblings: range proof of the chunks in the tensor's tree.
        path: of the tensor's root to the frontier, the state or the data set; of a merge, to the state and then of that
            to the inputs; empty for a constant.
    """

    number: Uint32
    dtype: Uint8
    size: Uint64
    first_chunk: Uint64
    chunks: Blob
    siblings: tuple[Word, ...]
    path: tuple[Word, ...]


NOTHING = Record(b"", ())


@dataclass(frozen=True)
class Evidence(AbiRecord):
    """Everything that the referee is shown for one question.

    Attributes:
        record: of the operation, or of a tensor of the state.
        other: the constant's record where the operation is CONST, else `NOTHING`.
        sources: in the order of the operands.
    """

    record: Blob
    other: Record
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Pick(AbiRecord):
    """One of the nodes of a posted view: its place from the left, its hash, its siblings from the bottom up."""

    place: Uint64
    node: Word
    siblings: tuple[Word, ...]


@dataclass(frozen=True)
class ProgramProof(AbiRecord):
    """The program of a run, proved against the task's program root.

    Attributes:
        seed: of the task's batches.
        program: root of the training, the evaluation or the merge program.
        header: the program's record 0.
    """

    seed: Uint64
    seed_siblings: tuple[Word, ...]
    program: Word
    program_siblings: tuple[Word, ...]
    header: Record


@dataclass(frozen=True)
class Opening(AbiRecord):
    """The submission that is challenged, and whose stake is bonded for it."""

    challenger: Address
    task: Uint64
    round: Uint32
    slot: Uint32
    attempt: Uint32
    submitted: Word


# --- moves ---


class _Move(AbiRecord):
    """A call of the contract that takes the position and then the fields."""

    function: ClassVar[str]

    def arguments(self, position: Any) -> tuple[Any, ...]:
        """All arguments of the contract function, for web3: the encoded position first."""
        return (position, *self.to_abi())


@dataclass(frozen=True)
class Narrow(_Move):
    """Picks a point of the interval of runs and posts own state roots in the interval that ends there."""

    function: ClassVar[str] = "narrow"
    place: Uint256
    points: tuple[Word, ...]


@dataclass(frozen=True)
class EnterRun(_Move):
    """The interval is one run: posts own state after it and the view of own trace.

    Attributes:
        place: of the point that is disputed.
        state_after: own state after the run.
        nodes: the view of own trace.
        state_siblings: proof that the last leaf of own trace is that state.
    """

    function: ClassVar[str] = "enterRun"
    place: Uint256
    state_after: Word
    proof: ProgramProof
    nodes: tuple[Word, ...]
    state_siblings: tuple[Word, ...]


@dataclass(frozen=True)
class Descend(_Move):
    """Picks a node above the leaves and posts own view of it."""

    function: ClassVar[str] = "descend"
    pick: Pick
    nodes: tuple[Word, ...]


@dataclass(frozen=True)
class EnterTensor(_Move):
    """Picks the leaf of a tensor and posts the view of own tensor; `record` is the operation's or the state's."""

    function: ClassVar[str] = "enterTensor"
    pick: Pick
    record: Record
    nodes: tuple[Word, ...]


@dataclass(frozen=True)
class EnterState(_Move):
    """Picks the last leaf of the trace and posts the view of own state after the run."""

    function: ClassVar[str] = "enterState"
    pick: Pick
    nodes: tuple[Word, ...]


@dataclass(frozen=True)
class OpenChunk(_Move):
    """Picks the leaf of a chunk and posts own 1,024 bytes of it."""

    function: ClassVar[str] = "openChunk"
    pick: Pick
    chunk: Blob


@dataclass(frozen=True)
class OpenFold(_Move):
    """Names an element whose fold is too long for one call, and posts own value and own accumulators.

    Attributes:
        chunk: the other side's chunk, as posted.
        record: of the operation.
        element: index in the tensor.
        bits: own value: the element's little-endian bytes as an unsigned number.
        points: own accumulators.
    """

    function: ClassVar[str] = "openFold"
    chunk: Blob
    record: Blob
    element: Uint64
    bits: Uint64
    points: tuple[Word, ...]


@dataclass(frozen=True)
class NarrowFold(_Move):
    """Picks a point of the interval of blocks and posts own accumulators in the interval that ends there."""

    function: ClassVar[str] = "narrowFold"
    place: Uint256
    points: tuple[Word, ...]


@dataclass(frozen=True)
class ProveElement(_Move):
    """Has the referee compute an element of the chunk posted. Ends the game."""

    function: ClassVar[str] = "proveElement"
    chunk: Blob
    element: Uint64
    evidence: Evidence


@dataclass(frozen=True)
class ProveBlock(_Move):
    """Has the referee add one block to the agreed accumulator. Ends the game."""

    function: ClassVar[str] = "proveBlock"
    place: Uint256
    evidence: Evidence


@dataclass(frozen=True)
class ProveRounding(_Move):
    """Has the referee round the last accumulator, right after `OpenFold`. Ends the game."""

    function: ClassVar[str] = "proveRounding"
    evidence: Evidence


@dataclass(frozen=True)
class ProveStateLeaf(_Move):
    """Shows what a leaf of the state after the run must be. Ends the game.

    Attributes:
        record: of the tensor of the state, with its proof in the program.
        tensor_root: the true leaf's tensor root.
        path: of that root to the state before or to the frontier.
    """

    function: ClassVar[str] = "proveStateLeaf"
    pick: Pick
    record: Record
    tensor_root: Word
    path: tuple[Word, ...]


@dataclass(frozen=True)
class ProvePadding(_Move):
    """Shows that a leaf past a tree's end is not its pad. Ends the game."""

    function: ClassVar[str] = "provePadding"
    pick: Pick


@dataclass(frozen=True)
class ProvePaddingBytes(_Move):
    """Shows that bytes of the chunk posted, past the tensor's end, are not zero. Ends the game."""

    function: ClassVar[str] = "provePaddingBytes"
    chunk: Blob


@dataclass(frozen=True)
class SettleLate(_Move):
    """Ends a game whose side to move is late. Anybody's."""

    function: ClassVar[str] = "settleLate"


@dataclass(frozen=True)
class Release(_Move):
    """Ends a game whose submission fell in another one. Anybody's."""

    function: ClassVar[str] = "release"


Move = (
    Narrow
    | EnterRun
    | Descend
    | EnterTensor
    | EnterState
    | OpenChunk
    | OpenFold
    | NarrowFold
    | ProveElement
    | ProveBlock
    | ProveRounding
    | ProveStateLeaf
    | ProvePadding
    | ProvePaddingBytes
    | SettleLate
    | Release
)
