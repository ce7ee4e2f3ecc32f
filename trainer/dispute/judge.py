"""The judge of one element: what contracts/StepReferee.sol computes from evidence, and must (docs/dispute.md).

It shares nothing with what builds evidence but the formats. It refuses malformed evidence, and never fails on data.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final, NamedTuple

import numpy as np
import torch

from ledger.disputes.moves import NOTHING, Evidence
from ledger.disputes.positions import BLOCK
from ledger.errors import SpecificationError
from trainer.dispute.committed import WIDTHS
from trainer.dispute.sources import (
    EvidenceRefused,
    Proved,
    Scene,
    prove_constant,
    prove_output,
    prove_part,
    prove_state,
    refuse,
)
from trainer.engine.exact import folds
from trainer.engine.exact.kernels import run_kernel
from trainer.program.exact import DType, Operation, Part
from trainer.program.exact.encoding import decode_operation, decode_state
from trainer.program.exact.operations import (
    KINDS,
    MAXIMUM_ELEMENTS,
    MAXIMUM_RANK,
    Batch,
    Cat,
    Code,
    Constant,
    Load,
    Matmul,
    Max,
    Operand,
    Pointwise,
    ScatterAdd,
    Sum,
    Take,
    View,
)

__all__ = ["EvidenceRefused", "Scene", "element", "fold_block", "fold_rounding", "state_element"]

_STEP: Final = 1  # place of counter.step in every state
_NAN, _MAGNITUDE, _INFINITY = 0x7FC00000, 0x7FFFFFFF, 0x7F800000
_BATCHES: Final = b"trainledger/batch/1\0"
_FLAGS: Final = folds.SUM_NAN | folds.SUM_ABOVE | folds.SUM_BELOW
_FOLDS = (Matmul, Sum, Max, ScatterAdd)
_LEAST_RANKS: Final = {Code.BATCH: 2, Code.MATMUL: 2, Code.SCATTER_ADD: 1, Code.CAT: 1}


def element(scene: Scene, index: int, evidence: Evidence) -> int:
    """An element of an operation's output: its committed bytes, little-endian, as an unsigned number.

    Raises:
        EvidenceRefused: the evidence is malformed, or the fold longer than 1,024 elements.
    """
    one, at = _operation(evidence, index)
    if not isinstance(one.attributes, Constant):
        _check_nothing_else(evidence)
    if isinstance(one.attributes, _FOLDS):
        _check_sources(evidence, len(one.operands))
        if one.fold > BLOCK:
            refuse("WrongBlock", length=one.fold, first=0)
        word = _rounded(scene, one, at, evidence, _folded(scene, one, at, evidence, 0, one.fold))
    else:
        word = _elementwise(scene, one, at, index, evidence)
    return word & ((1 << 8 * WIDTHS[one.dtype]) - 1)


def state_element(scene: Scene, index: int, evidence: Evidence) -> int:
    """An element of a state's int64 tensor that an int32 operation writes, as two's complement. Raises as `element`."""
    _check_nothing_else(evidence)
    try:
        state = decode_state(evidence.record)
    except SpecificationError:
        refuse("WrongRecord", record=evidence.record)
    if state.dtype is not DType.INT64 or state.source is None:
        refuse("WrongRecord", record=evidence.record)
    _index(state.shape, index)
    _check_sources(evidence, 1)
    output = prove_output(scene, evidence.sources[0], state.source).expect(DType.INT32)
    return output.signed(index) % (1 << 64)


def fold_block(scene: Scene, index: int, first: int, accumulator: int, evidence: Evidence) -> int:
    """The accumulator of a fold after one more block, number `first`; for block 0 the one given is ignored.

    Raises as `element`.
    """
    one, at = _fold(evidence, index)
    _check_sources(evidence, 2 if isinstance(one.attributes, Matmul) else len(one.operands))
    start = first * BLOCK
    if not 0 <= start < one.fold:
        refuse("WrongBlock", length=one.fold, first=first)
    added = _folded(scene, one, at, evidence, start, min(BLOCK, one.fold - start))
    return added if first == 0 else _joined(one, accumulator, added)


def fold_rounding(scene: Scene, index: int, accumulator: int, evidence: Evidence) -> int:
    """The element that a fold's last accumulator gives, whatever word it is. Raises as `element`."""
    one, at = _fold(evidence, index)
    needed = {Code.MATMUL: 2, Code.MAX: 0}.get(one.code, 1)
    _check_sources(evidence, needed)
    return _rounded(scene, one, at, evidence, accumulator)


# --- operations that do not fold ---


def _elementwise(scene: Scene, one: Operation, at: tuple[int, ...], index: int, evidence: Evidence) -> int:
    """The element's word; the bits above those of its dtype do not count."""
    sources = evidence.sources
    match one.attributes:
        case Load(number):
            _check_sources(evidence, 1)
            wanted = DType.INT64 if one.dtype is DType.INT32 else DType.FLOAT32
            return _read(one, prove_state(scene, sources[0], number).expect(wanted).unsigned(index))
        case Constant(number):
            _check_sources(evidence, 1)
            constant = prove_constant(scene, sources[0], evidence.other, number)
            return _read(one, constant.expect(one.dtype).unsigned(index))
        case Batch():
            return _token(scene, one, at, evidence)
        case View():
            _check_sources(evidence, 1)
            return _operand(scene, one, evidence, 0, 0).expect(one.dtype).unsigned(_named(one.operands[0], at))
        case Pointwise():
            return _pointwise(scene, one, at, evidence)
        case Take(rows, row_stride):
            return _taken(scene, one, at, evidence, rows, row_stride)
        case Cat():
            return _concatenated(scene, one, at, evidence)
    raise AssertionError(f"{one.code.name} folds")


def _pointwise(scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence) -> int:
    assert isinstance(one.attributes, Pointwise)
    _check_sources(evidence, len(one.operands))
    words = []
    for place, operand in enumerate(one.operands):
        read = _operand(scene, one, evidence, place, place)
        words.append(torch.tensor([read.signed(_named(operand, at))]).to(torch.int32))
    word = int(run_kernel(one.attributes.kernel, words).reshape(-1)[0])
    if one.dtype in (DType.INT8, DType.INT16):
        return min(max(word, -one.dtype.largest), one.dtype.largest)
    return _read(one, word & 0xFFFFFFFF)


def _taken(scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence, rows: int, row_stride: int) -> int:
    given = len(evidence.sources)
    if not given:
        _check_sources(evidence, 1)
    table, places = one.operands
    row = _operand(scene, one, evidence, given - 1, 1).expect(DType.INT32).signed(_named(places, at))
    inside = 0 <= row < rows
    _check_sources(evidence, 2 if inside else 1)
    if not inside:
        return 0
    read = _operand(scene, one, evidence, 0, 0).expect(one.dtype)
    return read.unsigned(_named(table, at) + row * row_stride)


def _concatenated(scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence) -> int:
    cat = one.attributes
    assert isinstance(cat, Cat)
    rest = at[cat.axis]
    for place, extent in enumerate(cat.extents):
        if rest < extent:
            _check_sources(evidence, 1)
            covered = (*at[: cat.axis], rest, *at[cat.axis + 1 :])
            read = _operand(scene, one, evidence, 0, place).expect(one.dtype)
            return read.unsigned(_named(one.operands[place], covered))
        rest -= extent
    _check_sources(evidence, 0)
    return cat.padding


def _token(scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence) -> int:
    batch = one.attributes
    assert isinstance(batch, Batch)
    sample, context = at[0], one.shape[1]
    _check_sources(evidence, 2 if batch.part is Part.TRAIN else 1)
    part = prove_part(scene, evidence.sources[0], batch.part)
    tokens = part.source.size // 2
    position = sample * context
    if batch.part is Part.TRAIN:
        step = prove_state(scene, evidence.sources[1], _STEP).expect(DType.INT64).unsigned(0)
        position = _position(scene, step, sample, tokens, context)
    position += batch.shift + at[1]
    return part.unsigned(position) if position < tokens else 0


def _position(scene: Scene, step: int, sample: int, tokens: int, context: int) -> int:
    """First token of a sample of the train part (formats.md, section 5)."""
    if tokens <= context:
        return 0
    numbers = ((scene.seed, 8), (scene.slot, 4), (step, 8), (sample, 4))
    digest = hashlib.sha256(_BATCHES + b"".join(number.to_bytes(size, "big") for number, size in numbers)).digest()
    return int.from_bytes(digest[:8], "big") % (tokens - context)


# --- folds ---


def _folded(scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence, start: int, count: int) -> int:
    """The accumulator of `count` elements of the run from its element `start` on."""
    first = _run(scene, one, at, evidence, 0, start, count)
    match one.attributes:
        case Matmul():
            second = _run(scene, one, at, evidence, 1, start, count)
            left, right = (run.integers(DType.INT8, DType.INT16) for run in (first, second))
            return folds.product_accumulators(left, right, count)[0]
        case Max(_, magnitudes):
            return folds.maximum_accumulators(first.floats(), magnitudes, count)[0]
        case Sum():
            return folds.sum_accumulators(first.floats(), _exponent(scene, one, at, evidence), count)[0]
    exponent = _exponent(scene, one, at, evidence)
    rows = _run(scene, one, at, evidence, 1, start, count).integers(DType.INT32)
    return folds.scatter_accumulators(first.floats(), rows, at[0], exponent, count)[0]


def _joined(one: Operation, accumulator: int, added: int) -> int:
    """An accumulator, which may be any word, and what more elements add to it."""
    if isinstance(one.attributes, Matmul):
        return (accumulator + added) % (1 << 256)
    if isinstance(one.attributes, Max):
        return max(accumulator, added)
    return _packed((accumulator + added) % (1 << 64), (accumulator | added) & _FLAGS)


def _packed(total: int, flags: int) -> int:
    """The one word for a sum and the flags seen."""
    both = folds.SUM_ABOVE | folds.SUM_BELOW
    if flags & folds.SUM_NAN or flags & both == both:
        return folds.SUM_NAN
    return flags or total


def _rounded(scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence, accumulator: int) -> int:
    """The bits that an accumulator rounds to; a product's scales are the last two sources in every question."""
    if isinstance(one.attributes, Max):
        return int(folds.round_maximum(accumulator & 0xFFFFFFFF, one.attributes.magnitudes))
    if not isinstance(one.attributes, Matmul):
        exponent = _exponent(scene, one, at, evidence)
        return int(folds.round_sum(_packed(accumulator % (1 << 64), accumulator & _FLAGS), exponent))
    scales = []
    for place in (2, 3):
        read = _operand(scene, one, evidence, place - 4, place).expect(DType.FLOAT32)
        scales.append(np.frombuffer(read.raw(_named(one.operands[place], at)), "<f4")[0])
    with np.errstate(all="ignore"):
        product = np.float32(np.float32(_nearest(accumulator) * scales[0]) * scales[1])
    return _canonical(int(product.view(np.uint32)))


def _nearest(accumulator: int) -> np.float32:
    """The float32 nearest to a word in two's complement, ties to even."""
    value = accumulator - (1 << 256) if accumulator >> 255 else accumulator
    size = abs(value)
    if size.bit_length() > 128:
        return np.float32(np.copysign(np.inf, value))
    # At most 62 bits, the last one also standing for all that were cut off; then one rounding.
    cut = max(0, size.bit_length() - 62)
    kept = size >> cut | (size & ((1 << cut) - 1) != 0)
    with np.errstate(over="ignore"):
        near = np.int64(kept).astype(np.float32) * np.float32(2.0**cut)
    return np.float32(np.copysign(near, value))


def _exponent(scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence) -> int:
    """E of SUM and SCATTER_ADD: the last operand, and the last source in every question."""
    place = len(one.operands) - 1
    read = _operand(scene, one, evidence, -1, place).expect(DType.INT32)
    return read.signed(_named(one.operands[place], at))


def _run(
    scene: Scene, one: Operation, at: tuple[int, ...], evidence: Evidence, place: int, start: int, count: int
) -> _Run:
    """`count` elements of a folded operand's run, from its element `start` on."""
    read = _operand(scene, one, evidence, place, place)
    return _Run(read, read.raw(_named(one.operands[place], at) + start, count))


class _Run(NamedTuple):
    read: Proved
    raw: bytes

    def floats(self) -> folds.Words:
        """The bits of float32 elements."""
        self.read.expect(DType.FLOAT32)
        return np.frombuffer(self.raw, "<u4")

    def integers(self, *dtypes: DType) -> list[int]:
        """Signed elements of one of these dtypes."""
        if self.read.dtype not in dtypes:
            self.read.expect(dtypes[-1])
        values: list[int] = np.frombuffer(self.raw, f"<i{self.read.width}").tolist()
        return values


# --- records and sources ---


def _fold(evidence: Evidence, index: int) -> tuple[Operation, tuple[int, ...]]:
    _check_nothing_else(evidence)
    one, at = _operation(evidence, index)
    if not isinstance(one.attributes, _FOLDS):
        refuse("WrongRecord", record=evidence.record)
    return one, at


def _operation(evidence: Evidence, index: int) -> tuple[Operation, tuple[int, ...]]:
    """The operation in question, and the index in its output."""
    try:
        one = decode_operation(evidence.record)
    except SpecificationError:
        refuse("WrongRecord", record=evidence.record)
    if not _has_meaning(one):
        refuse("WrongRecord", record=evidence.record)
    return one, _index(one.shape, index)


def _has_meaning(one: Operation) -> bool:
    """Whether the rest of this page can work with the operation; that its operands fit, their proofs will show."""
    kind, rank = KINDS[one.code], len(one.shape)
    least, most = kind.operands
    ranks = range(_LEAST_RANKS.get(one.code, 0), (2 if one.code is Code.BATCH else MAXIMUM_RANK) + 1)
    if not least <= len(one.operands) <= most or one.dtype not in kind.gives or rank not in ranks:
        return False
    axis = one.attributes.axis if isinstance(one.attributes, Cat) else -1
    return 0 < math.prod(one.shape) <= MAXIMUM_ELEMENTS and one.fold > 0 and axis < rank


def _index(shape: tuple[int, ...], element: int) -> tuple[int, ...]:
    """The index of an element in row-major order."""
    elements = math.prod(shape)
    if not 0 <= element < elements:
        refuse("NoSuchElement", element=element, elements=elements)
    at = []
    for extent in reversed(shape):
        element, rest = divmod(element, extent)
        at.append(rest)
    return tuple(reversed(at))


def _operand(scene: Scene, one: Operation, evidence: Evidence, source: int, place: int) -> Proved:
    """Operand `place`, shown as source number `source`."""
    return prove_output(scene, evidence.sources[source], one.operands[place].source)


def _named(operand: Operand, at: tuple[int, ...]) -> int:
    """The element of its source that an operand names."""
    return operand.offset + sum(i * stride for i, stride in zip(at, operand.strides, strict=True))


def _read(one: Operation, word: int) -> int:
    """What an output holds of a word: floats with the one NaN, and the low 32 bits."""
    return _canonical(word) if one.dtype is DType.FLOAT32 else word & 0xFFFFFFFF


def _canonical(bits: int) -> int:
    return _NAN if bits & _MAGNITUDE > _INFINITY else bits


def _check_sources(evidence: Evidence, needed: int) -> None:
    if len(evidence.sources) != needed:
        refuse("WrongSourceCount", given=len(evidence.sources), needed=needed)


def _check_nothing_else(evidence: Evidence) -> None:
    if evidence.other != NOTHING:
        refuse("WrongRecord", record=evidence.other.data)
