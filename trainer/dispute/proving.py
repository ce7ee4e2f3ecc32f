"""What moves prove against roots, and the verdicts that end a game (docs/dispute.md, "Moves")."""

from __future__ import annotations

import math
from typing import Protocol

from ledger.disputes.moves import (
    Evidence,
    ProgramProof,
    ProveBlock,
    ProveElement,
    ProvePadding,
    ProvePaddingBytes,
    ProveRounding,
    ProveStateLeaf,
    Record,
)
from ledger.disputes.positions import BLOCK, NO_ROOT, Matter, Phase, Position, Run, Subject
from trainer.commit.hashing import CHUNK, Kind, depth, leaf, pad, seal
from trainer.commit.proofs import before_depth, climb, parting_height, root_before
from trainer.dispute.sources import Scene
from trainer.program.exact.operations import MAXIMUM_RANK, UNCHANGED, Code, DType

_TASK_RECORDS, _TASK_TYPE = 6, 2  # of a task's programs (docs/programs.md)
_PROGRAM_TYPE = 1
_TASK_HEAD = b"TLXT\x00\x02\x00\x00"
_TRAINING, _EVALUATION, _MERGE = 1, 2, 5  # places of programs among them
_HEAD, _HEADER_BYTES, _INPUTS = b"TLXP\x00\x01", 20, 7
_WIDTHS = {int(dtype): dtype.size for dtype in DType}
_FOLDS = (Code.MATMUL, Code.SUM, Code.MAX, Code.SCATTER_ADD)


class Refused(ValueError):
    """A move that the contract would revert. `error` is the contract's error, `values` what it carries."""

    def __init__(self, error: str, *values: object) -> None:
        shown = (f"0x{value.hex()}" if isinstance(value, bytes) else str(value) for value in values)
        super().__init__(f"{error}({', '.join(shown)})")
        self.error = error
        self.values = values


class Referee(Protocol):
    """The judge of one element (`IStepReferee.sol`), as `trainer.dispute.judge`. Raises ValueError for evidence."""

    def element(self, scene: Scene, index: int, evidence: Evidence, /) -> int: ...

    def state_element(self, scene: Scene, index: int, evidence: Evidence, /) -> int: ...

    def fold_block(self, scene: Scene, index: int, block: int, accumulator: int, evidence: Evidence, /) -> int: ...

    def fold_rounding(self, scene: Scene, index: int, accumulator: int, evidence: Evidence, /) -> int: ...


def check_proof(computed: bytes, expected: bytes) -> None:
    """Refuses a proof that does not lead to what it should."""
    # INVARIANT: whatever the game believes hangs on a root that both parties agreed on.
    if computed != expected:
        raise Refused("WrongProof", computed, expected)


def check_length(given: int, needed: int) -> None:
    """Refuses a proof of another length than committed sizes ask for."""
    if given != needed:
        raise Refused("WrongProofLength", given, needed)


def tensor_root(subject: Subject, merkle: bytes) -> bytes:
    """Sealed root of the subject from the Merkle root over its chunks."""
    return seal(Kind.TENSOR, subject.dtype, subject.size, merkle)


def state_root(states: int, merkle: bytes) -> bytes:
    """Sealed root of a state from the Merkle root over its leaves."""
    return seal(Kind.STATE, 0, states, merkle)


def entered_run(matter: Matter, number: int, state_before: bytes, proof: ProgramProof) -> Run:
    """The run entered, its program proved against the task's.

    Raises:
        Refused: a proof is wrong, or the header is none.
    """
    place = program_place(number, steps=matter.steps, merge=matter.merge)
    levels = depth(_TASK_RECORDS)
    for index, record, siblings in (
        (0, _TASK_HEAD + proof.seed.to_bytes(8, "big"), proof.seed_siblings),
        (place, proof.program, proof.program_siblings),
    ):
        check_length(len(siblings), levels)
        merkle = climb(Kind.PROGRAM, leaf(Kind.PROGRAM, record), index, siblings)
        check_proof(seal(Kind.PROGRAM, _TASK_TYPE, _TASK_RECORDS, merkle), matter.task_program)
    data = proof.header.data
    if len(data) != _HEADER_BYTES or not data.startswith(_HEAD):
        raise Refused("WrongRecord", data)
    # INVARIANT: what a run begins with is inputs in run 0 of a merge and a state in all others, whatever the header.
    inputs = data[_INPUTS]
    if not (inputs > 1 if place == _MERGE else inputs == 0):
        raise Refused("WrongRecord", data)
    states, constants, operations = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16))
    run = Run(
        number=number,
        state_before=state_before,
        program=proof.program,
        inputs=inputs,
        states=states,
        constants=constants,
        operations=operations,
        seed=proof.seed,
        reached=0,
        frontier=(NO_ROOT,) * depth(operations + 1),
    )
    _check_record(run, 0, proof.header)
    return run


def program_place(number: int, *, steps: int, merge: bool) -> int:
    """Which of a task's records names the program of a run."""
    if number >= steps:
        return _EVALUATION
    return _MERGE if merge and number == 0 else _TRAINING


def entered_tensor(at: Position, record: Record) -> Subject:
    """The tensor at the leaf picked: an operation's output, or a counter of the state that an operation writes.

    Raises:
        Refused: the leaf is another one, or the record is not the leaf's.
    """
    index, run, of_state = at.tree.index, at.run, at.phase is Phase.STATE
    if index >= (run.states if of_state else run.operations):
        raise Refused("WrongLeaf", index)
    _check_record(run, 1 + index + (0 if of_state else run.states + run.constants), record)
    if of_state and not _is_counter(record.data):
        raise Refused("WrongLeaf", index)
    dtype, rank, start = (0, 1, 2) if of_state else (1, 2, 4)
    return Subject(
        of_state=of_state,
        number=index,
        dtype=_byte(record.data, dtype),
        size=_size(record.data, dtype=dtype, rank=rank, start=start),
        record=leaf(Kind.PROGRAM, record.data),
    )


def blocks_of(position: Position, record: bytes) -> int:
    """Blocks of the subject's fold. Refuses records of other tensors, and folds that one call can compute."""
    subject = position.subject
    if leaf(Kind.PROGRAM, record) != subject.record:
        raise Refused("WrongProof", leaf(Kind.PROGRAM, record), subject.record)
    length = 0 if subject.of_state else fold_length(record)
    if length <= BLOCK:
        raise Refused("WrongRecord", record)
    return -(-length // BLOCK)


def fold_length(record: bytes) -> int:
    """Elements that one element of the operation's output folds; 0 of operations that do not fold."""
    if _byte(record, 0) not in _FOLDS:
        return 0
    rank, operands = _byte(record, 2), _byte(record, 3)
    return _word(record, 4 + 4 * rank + operands * (8 + 4 * rank))


def posted_bits(position: Position, chunk: bytes, element: int) -> int:
    """An element of the chunk on the table, its little-endian bytes as a number.

    Raises:
        Refused: the chunk is not the one on the table, or does not hold the element.
    """
    _check_chunk(position, chunk)
    subject, width = position.subject, DType(position.subject.dtype).size
    if element * width // CHUNK != position.tree.index or element * width >= subject.size:
        raise Refused("NoSuchElement", element, subject.size // width)
    start = element * width % CHUNK
    return int.from_bytes(chunk[start : start + width], "little")


def refutes(
    position: Position, move: ProveElement | ProveBlock | ProveRounding | ProvePaddingBytes, referee: Referee
) -> bool:
    """Whether the truth is another one than what the other side has on the table.

    Raises:
        Refused: the move is not one of this position. ValueError: the referee refuses the evidence.
    """
    phase = Phase.CHUNK if isinstance(move, ProveElement | ProvePaddingBytes) else Phase.FOLD
    if position.phase is not phase:
        raise Refused("WrongPhase", int(position.phase), int(phase))
    scene, fold = scene_of(position), position.fold
    match move:
        case ProvePaddingBytes():
            return _refutes_padding(position, move.chunk)
        case ProveElement():
            posted = posted_bits(position, move.chunk, move.element)
            _check_subject(position, move.evidence)
            ask = referee.state_element if position.subject.of_state else referee.element
            return ask(scene, move.element, move.evidence) != posted
        case ProveRounding():
            if not fold.opening:
                raise Refused("WrongPhase", int(position.phase), int(phase))
            _check_subject(position, move.evidence)
            last = int.from_bytes(position.points[-1], "big")
            return referee.fold_rounding(scene, fold.element, last, move.evidence) != fold.bits
        case ProveBlock():
            if move.place >= len(position.points):
                raise Refused("WrongPlace", move.place, len(position.points))
            low = position.places[move.place - 1] if move.place else position.low
            if position.places[move.place] - low != 1:
                raise Refused("WrongCount", position.places[move.place] - low, 1)
            _check_subject(position, move.evidence)
            agreed = int.from_bytes(position.points[move.place - 1] if move.place else position.agreed, "big")
            posted = int.from_bytes(position.points[move.place], "big")
            return referee.fold_block(scene, fold.element, low, agreed, move.evidence) != posted


def refutes_leaf(at: Position, move: ProveStateLeaf | ProvePadding) -> bool:
    """Whether the leaf picked is not the true one.

    Raises:
        Refused: the leaf is of another kind than the move, or a proof is wrong.
    """
    if isinstance(move, ProvePadding):
        if at.tree.index < at.tree.leaves:
            raise Refused("WrongLeaf", at.tree.index)
        kind = {Phase.TRACE: Kind.TRACE, Phase.STATE: Kind.STATE}.get(at.phase, Kind.TENSOR)
        return at.tree.node != pad(kind)
    if at.phase is not Phase.STATE:
        raise Refused("WrongPhase", int(at.phase), int(Phase.STATE))
    index, run = at.tree.index, at.run
    if index >= run.states:
        raise Refused("WrongLeaf", index)
    _check_record(run, 1 + index, move.record)
    source = _source(move.record.data)
    if source == UNCHANGED:
        # Of a merge, an unchanged tensor is the base's: its first input's.
        check_length(len(move.path), before_depth(run.states, run.inputs))
        check_proof(root_before(run.states, run.inputs, index, move.tensor_root, move.path), run.state_before)
    elif _is_counter(move.record.data):
        raise Refused("WrongLeaf", index)
    else:
        height = parting_height(source, run.operations)
        check_length(len(move.path), height)
        made = climb(Kind.TRACE, leaf(Kind.TRACE, move.tensor_root), source, move.path)
        check_proof(made, run.frontier[height])
    return at.tree.node != leaf(Kind.STATE, move.tensor_root)


def scene_of(position: Position) -> Scene:
    """What the referee is told that both parties agree on."""
    run = position.run
    return Scene(
        state_before=run.state_before,
        program=run.program,
        inputs=run.inputs,
        states=run.states,
        constants=run.constants,
        operations=run.operations,
        reached=run.reached,
        frontier=run.frontier,
        dataset=position.matter.dataset,
        seed=run.seed,
        slot=position.matter.slot,
    )


def _refutes_padding(position: Position, chunk: bytes) -> bool:
    _check_chunk(position, chunk)
    used = position.subject.size - position.tree.index * CHUNK
    if used >= CHUNK:
        raise Refused("WrongLeaf", position.tree.index)
    return any(chunk[used:])


def _check_chunk(position: Position, chunk: bytes) -> None:
    if len(chunk) != CHUNK:
        raise Refused("WrongCount", len(chunk), CHUNK)
    check_proof(leaf(Kind.TENSOR, chunk), position.tree.node)


def _check_subject(position: Position, evidence: Evidence) -> None:
    """The record shown is the one of the tensor entered, which was proved then."""
    check_proof(leaf(Kind.PROGRAM, evidence.record), position.subject.record)


def _check_record(run: Run, index: int, record: Record) -> None:
    count = 1 + run.states + run.constants + run.operations
    check_length(len(record.siblings), depth(count))
    merkle = climb(Kind.PROGRAM, leaf(Kind.PROGRAM, record.data), index, record.siblings)
    check_proof(seal(Kind.PROGRAM, _PROGRAM_TYPE, count, merkle), run.program)


def _byte(record: bytes, at: int) -> int:
    if at >= len(record):
        raise Refused("WrongRecord", record)
    return record[at]


def _word(record: bytes, at: int) -> int:
    if at + 4 > len(record):
        raise Refused("WrongRecord", record)
    return int.from_bytes(record[at : at + 4], "big")


def _size(record: bytes, *, dtype: int, rank: int, start: int) -> int:
    """Bytes of a tensor whose dtype and rank stand at these bytes of its record, its dimensions from `start` on."""
    number, axes = _byte(record, dtype), _byte(record, rank)
    if number not in _WIDTHS or axes > MAXIMUM_RANK:
        raise Refused("WrongRecord", record)
    size = math.prod((_word(record, start + 4 * axis) for axis in range(axes)), start=_WIDTHS[number])
    if not 0 < size < 2**64:
        raise Refused("WrongRecord", record)
    return size


def _source(record: bytes) -> int:
    return _word(record, 2 + 4 * _byte(record, 1))


def _is_counter(record: bytes) -> bool:
    """Whether a tensor of the state is an int64 that an operation writes: of another dtype than the output."""
    return _byte(record, 0) == DType.INT64 and _source(record) != UNCHANGED
