"""Evidence for the referee, from what is true: exactly what one question reads, with its proofs (docs/dispute.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger.disputes.moves import NOTHING, Evidence, Source
from ledger.disputes.positions import BLOCK
from trainer.commit.hashing import CHUNK
from trainer.commit.proofs import parting_height
from trainer.dispute.committed import CommittedBytes
from trainer.dispute.folding import index_of, named_by
from trainer.dispute.sources import Scene
from trainer.dispute.subjects import Subject
from trainer.program.exact import Operation, Part
from trainer.program.exact.operations import (
    Batch,
    Cat,
    Code,
    Constant,
    Load,
    ScatterAdd,
    Take,
)

if TYPE_CHECKING:
    from trainer.dispute.runs import RunTruth  # which gives evidence about itself

_STEP = 1  # place of counter.step in every state
_LARGEST_INT32 = 2**31 - 1


def scene_of(truth: RunTruth, reached: int) -> Scene:
    """What two parties agree on who have come to this leaf of the trace, if what they agree on is true."""
    return Scene(
        state_before=truth.state_before,
        program=truth.program_root,
        inputs=truth.inputs,
        states=truth.states,
        constants=truth.constants,
        operations=truth.operations,
        reached=reached,
        frontier=tuple(truth.frontier(reached)),
        dataset=truth.data.root,
        seed=truth.seed,
        slot=truth.slot,
    )


def element_evidence(truth: RunTruth, operation: int, element: int) -> Evidence:
    """All that an element of an operation's output depends on, for a fold of at most 1,024 elements."""
    one = truth.operation(operation)
    index = index_of(one, element)
    match one.attributes:
        case Load(number):
            return _evidence(truth, operation, [_state_source(truth, number, element)])
        case Constant(number):
            record = truth.constant_record(number)
            source = _source(number, truth.constant(number), element, 1, ())
            return Evidence(truth.record(Subject(of_state=False, number=operation)).data, record, (source,))
        case Batch():
            return _evidence(truth, operation, _batch_sources(truth, one, index))
        case Take(rows, row_stride):
            return _evidence(truth, operation, _take_sources(truth, operation, index, rows, row_stride))
        case Cat():
            return _evidence(truth, operation, _cat_sources(truth, operation, index))
    return _evidence(truth, operation, _read(truth, operation, index, range(len(one.operands)), 0, one.fold))


def block_evidence(truth: RunTruth, operation: int, element: int, block: int) -> Evidence:
    """What a block of a fold reads. Raises IndexError where the fold has no such block."""
    one = truth.operation(operation)
    start = block * BLOCK
    if not 0 <= start < truth.fold_length(operation):
        raise IndexError(f"no block {block} in a fold of {truth.fold_length(operation)}")
    places = range(2) if one.code is Code.MATMUL else range(len(one.operands))
    count = min(BLOCK, one.fold - start)
    return _evidence(truth, operation, _read(truth, operation, index_of(one, element), places, start, count))


def rounding_evidence(truth: RunTruth, operation: int, element: int) -> Evidence:
    """What rounding a fold's last accumulator reads."""
    one = truth.operation(operation)
    places = {Code.MATMUL: range(2, 4), Code.SUM: range(1, 2), Code.SCATTER_ADD: range(2, 3)}.get(one.code, range(0))
    return _evidence(truth, operation, _read(truth, operation, index_of(one, element), places, 0, 1))


def state_evidence(truth: RunTruth, number: int, element: int) -> Evidence:
    """What an element of a state's int64 tensor depends on, that an operation writes.

    Raises:
        ValueError: no operation writes the tensor.
    """
    source = truth.program.states[number].source
    if source is None:
        raise ValueError(f"tensor {number} of the state is unchanged by the run, and proved by its root")
    held = truth.tensor(Subject(of_state=False, number=source))
    path = truth.trace_path(source, high=parting_height(source, truth.operations))
    record = truth.record(Subject(of_state=True, number=number))
    return Evidence(record.data, NOTHING, (_source(source, held, element, 1, path),))


def _evidence(truth: RunTruth, operation: int, sources: Sequence[Source]) -> Evidence:
    return Evidence(truth.record(Subject(of_state=False, number=operation)).data, NOTHING, tuple(sources))


def _read(
    truth: RunTruth, operation: int, index: tuple[int, ...], places: range, start: int, count: int
) -> list[Source]:
    """Operands of an operation as sources; of those that are folded `count` elements from the run's `start` on."""
    one = truth.operation(operation)
    operands = [one.operands[place] for place in places]
    truth.outputs([operand.source for operand in operands])  # all at once: each may need a run
    folded = 2 if isinstance(one.attributes, ScatterAdd) or one.code is Code.MATMUL else 1
    sources = []
    for place, operand in zip(places, operands, strict=True):
        runs = one.code in (Code.MATMUL, Code.SUM, Code.MAX, Code.SCATTER_ADD) and place < folded
        named = named_by(operand, index) + (start if runs else 0)
        sources.append(_output_source(truth, operation, operand.source, named, count if runs else 1))
    return sources


def _take_sources(truth: RunTruth, operation: int, index: tuple[int, ...], rows: int, row_stride: int) -> list[Source]:
    table, places = truth.operation(operation).operands
    truth.outputs([table.source, places.source])
    at = named_by(places, index)
    row = truth.element_bits(Subject(of_state=False, number=places.source), at)
    shown = _output_source(truth, operation, places.source, at, 1)
    if row > _LARGEST_INT32 or row >= rows:
        return [shown]
    return [_output_source(truth, operation, table.source, named_by(table, index) + row * row_stride, 1), shown]


def _cat_sources(truth: RunTruth, operation: int, index: tuple[int, ...]) -> list[Source]:
    one = truth.operation(operation)
    assert isinstance(one.attributes, Cat)  # the caller has matched it
    axis, rest = one.attributes.axis, index[one.attributes.axis]
    for operand, extent in zip(one.operands, one.attributes.extents, strict=True):
        if rest < extent:
            named = named_by(operand, (*index[:axis], rest, *index[axis + 1 :]))
            return [_output_source(truth, operation, operand.source, named, 1)]
        rest -= extent
    return []


def _batch_sources(truth: RunTruth, one: Operation, index: tuple[int, ...]) -> list[Source]:
    assert isinstance(one.attributes, Batch)  # the caller has matched it
    part, shift = one.attributes.part, one.attributes.shift
    tokens = truth.data.part(part)
    at = truth.batches.positions(part, one.shape[0], one.shape[1])[index[0]] + shift + index[1]
    shown = _source(part, tokens, min(int(at), tokens.elements - 1), 1, truth.data.path(part))
    return [shown, _state_source(truth, _STEP, 0)] if part is Part.TRAIN else [shown]


def _state_source(truth: RunTruth, number: int, element: int) -> Source:
    return _source(number, truth.state_before_tensor(number), element, 1, truth.state_before_path(number))


def _output_source(truth: RunTruth, reached: int, number: int, element: int, count: int) -> Source:
    held = truth.tensor(Subject(of_state=False, number=number))
    return _source(number, held, element, count, truth.trace_path(number, high=parting_height(number, reached)))


def _source(number: int, held: CommittedBytes, element: int, count: int, path: Sequence[bytes]) -> Source:
    """The chunks that hold `count` elements from `element` on."""
    first = element * held.width // CHUNK
    last = ((element + count) * held.width - 1) // CHUNK
    return Source(
        number=number,
        dtype=held.dtype,
        size=held.size,
        first_chunk=first,
        chunks=b"".join(held.chunk(index) for index in range(first, last + 1)),
        siblings=tuple(held.tree.range_proof(first, last)),
        path=tuple(path),
    )
