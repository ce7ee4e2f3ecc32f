"""What evidence proves: chunks of committed tensors against what both parties agree on (docs/dispute.md).

The reference for contracts/libraries/SourceProof.sol. Nothing is read that is not proved, dtype and size are bound by
the tensor's seal, and the length of every proof follows from a committed number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from ledger.disputes.moves import Record, Source
from ledger.errors import SpecificationError
from trainer.commit.hashing import CHUNK, Kind, depth, leaf, seal
from trainer.commit.proofs import (
    before_depth,
    climb,
    parting_height,
    range_proof_length,
    range_root,
    root_before,
)
from trainer.dispute.committed import WIDTHS
from trainer.program.exact.encoding import decode_constant

UINT16 = 6  # dtype number of tokens
_PROGRAM = 1  # type in the seal of a single program
_PARTS = 4  # of a data set


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What both parties agree on; field by field `IStepReferee.Scene`.

    Attributes:
        state_before: root of the state before the run; of a merge, of its inputs.
        inputs: states that a merge takes beside its base; 0 in every other run.
        reached: leaf of the trace in question; outputs before it are proved against `frontier`.
    """

    state_before: bytes
    program: bytes
    inputs: int
    states: int
    constants: int
    operations: int
    reached: int
    frontier: tuple[bytes, ...]
    dataset: bytes
    seed: int
    slot: int


class EvidenceRefused(ValueError):
    """Evidence that is malformed, with the contract's error for it.

    Attributes:
        error: name of the custom error of `IStepReferee`. arguments: its values by name.
    """

    def __init__(self, error: str, **arguments: int | bytes) -> None:
        shown = {name: f"0x{one.hex()}" if isinstance(one, bytes) else one for name, one in arguments.items()}
        super().__init__(f"{error}({', '.join(f'{name}={one}' for name, one in shown.items())})")
        self.error, self.arguments = error, arguments


class Proved:
    """A source that has been proved, and what can be read from it."""

    def __init__(self, source: Source) -> None:
        if source.dtype not in WIDTHS:
            refuse("WrongDtype", given=source.dtype, needed=0)
        self.source = source
        self.dtype = source.dtype
        self.width = WIDTHS[source.dtype]

    def expect(self, dtype: int) -> Proved:
        """Itself, where it is of this dtype."""
        if self.dtype != dtype:
            refuse("WrongDtype", given=self.dtype, needed=dtype)
        return self

    def raw(self, element: int, count: int = 1) -> bytes:
        """The bytes of `count` elements from `element` on, which the chunks must hold."""
        source = self.source
        start = source.first_chunk * CHUNK
        first, end = element * self.width, (element + count) * self.width
        for needed in (first, end - 1):
            if not start <= needed < start + len(source.chunks):
                refuse("MissingChunk", firstChunk=source.first_chunk, chunkBytes=len(source.chunks), neededByte=needed)
        return source.chunks[first - start : end - start]

    def unsigned(self, element: int) -> int:
        """The little-endian bytes of an element as an unsigned number."""
        return int.from_bytes(self.raw(element), "little")

    def signed(self, element: int) -> int:
        """The same in two's complement."""
        return int.from_bytes(self.raw(element), "little", signed=True)


def prove_output(scene: Scene, source: Source, number: int) -> Proved:
    """Accepts the output of an operation before the one in question."""
    _check_number(source, number)
    if number >= scene.reached:
        refuse("WrongSource", given=number, needed=scene.reached)
    height = parting_height(number, scene.reached)
    if height >= len(scene.frontier):
        refuse("WrongProofLength", length=len(scene.frontier), needed=height + 1)
    check_length(source.path, height)
    top = climb(Kind.TRACE, leaf(Kind.TRACE, _root(Kind.TENSOR, source)), number, source.path)
    _check(top, scene.frontier[height])
    return Proved(source)


def prove_state(scene: Scene, source: Source, number: int) -> Proved:
    """Accepts a tensor of the state before the run; of a merge, of its inputs side by side."""
    _check_number(source, number)
    tensors = scene.states * (scene.inputs + 1)
    if number >= tensors:
        refuse("WrongSource", given=number, needed=tensors)
    check_length(source.path, before_depth(scene.states, scene.inputs))
    root = root_before(scene.states, scene.inputs, number, _root(Kind.TENSOR, source), source.path)
    _check(root, scene.state_before)
    return Proved(source)


def prove_constant(scene: Scene, source: Source, record: Record, number: int) -> Proved:
    """Accepts a constant of the program, whose record is given beside it."""
    _check_number(source, number)
    if number >= scene.constants:
        refuse("WrongSource", given=number, needed=scene.constants)
    records = 1 + scene.states + scene.constants + scene.operations
    check_length(record.siblings, depth(records))
    place = 1 + scene.states + number
    top = climb(Kind.PROGRAM, leaf(Kind.PROGRAM, record.data), place, record.siblings)
    _check(seal(Kind.PROGRAM, _PROGRAM, records, top), scene.program)
    try:
        constant = decode_constant(record.data)
    except SpecificationError:
        refuse("WrongRecord", record=record.data)
    check_length(source.path, 0)
    _check(_root(Kind.TENSOR, source), constant.root)
    return Proved(source)


def prove_part(scene: Scene, source: Source, number: int) -> Proved:
    """Accepts tokens of a part of the data set."""
    _check_number(source, number)
    if source.dtype != UINT16:
        refuse("WrongDtype", given=source.dtype, needed=UINT16)
    check_length(source.path, depth(_PARTS))
    top = climb(Kind.DATASET, leaf(Kind.DATASET, _root(Kind.DATASET, source)), number, source.path)
    _check(seal(Kind.DATASET, 0, _PARTS, top), scene.dataset)
    return Proved(source)


def check_length(proof: Sequence[bytes], needed: int) -> None:
    """Refuses a proof of another length than committed sizes ask for."""
    if len(proof) != needed:
        refuse("WrongProofLength", length=len(proof), needed=needed)


def refuse(error: str, **arguments: int | bytes) -> NoReturn:
    """Raises EvidenceRefused."""
    raise EvidenceRefused(error, **arguments)


def _root(kind: Kind, source: Source) -> bytes:
    """Root of the tensor that the chunks are part of."""
    chunks = -(-source.size // CHUNK)
    given, rest = divmod(len(source.chunks), CHUNK)
    if not given or rest or source.first_chunk + given > chunks:
        refuse("NoSuchChunks", firstChunk=source.first_chunk, chunkBytes=len(source.chunks), size=source.size)
    first, height = source.first_chunk, depth(chunks)
    check_length(source.siblings, range_proof_length(first, first + given - 1, height))
    leaves = [leaf(kind, source.chunks[at : at + CHUNK]) for at in range(0, len(source.chunks), CHUNK)]
    return seal(kind, source.dtype, source.size, range_root(kind, leaves, first, height, source.siblings))


def _check_number(source: Source, needed: int) -> None:
    if source.number != needed:
        refuse("WrongSource", given=source.number, needed=needed)


def _check(computed: bytes, expected: bytes) -> None:
    if computed != expected:
        refuse("WrongProof", computed=computed, expected=expected)
