"""What a program is made of: tensors, operands and the eleven operations (docs/programs.md).

These are plain records: nothing here checks limits (`validate`), writes bytes (`encoding`) or computes
(`trainer.engine.exact.interpreter`). `KINDS` is the one table of what each operation takes and gives.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from trainer.engine.exact.kernels import Kernel

MAXIMUM_RANK = 6
MAXIMUM_ELEMENTS = 2**32 - 1
MAXIMUM_OPERANDS = 16
MAXIMUM_RECORDS = 65_536
MAXIMUM_RECORD_BYTES = 8_192
LEAST_INPUTS, MAXIMUM_INPUTS = 2, 255  # states that a merge takes beside the base
LEAST_EXPONENT, GREATEST_EXPONENT = -96, 128  # of SUM and SCATTER_ADD, as of Quantise
UNCHANGED = 0xFFFFFFFF

Shape = tuple[int, ...]


class DType(enum.IntEnum):
    """Element types, with their numbers in the formats."""

    FLOAT32 = 1
    INT64 = 2
    INT32 = 3
    INT8 = 4
    INT16 = 9

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return {DType.FLOAT32: 4, DType.INT64: 8, DType.INT32: 4, DType.INT8: 1, DType.INT16: 2}[self]

    @property
    def largest(self) -> int:
        """The greatest magnitude that an element of a quantised type holds: writes saturate there."""
        return {DType.INT8: 127, DType.INT16: 4095}[self]


# Quantised values never leave these, so that exact products have bounds that hold for hostile programs too.
QUANTISED = (DType.INT8, DType.INT16)
# What operations write and constants hold; int64 stands in states only.
COMPUTED = (DType.FLOAT32, DType.INT32, *QUANTISED)
STATE_DTYPES = (DType.FLOAT32, DType.INT64)
CONSTANT_DTYPES = (DType.FLOAT32, DType.INT32)


class Role(enum.IntEnum):
    """What a program is for."""

    TRAIN = 1
    EVALUATE = 2
    GENERATE = 3
    MERGE = 4


class Part(enum.IntEnum):
    """Parts of a data set that BATCH reads, by their place in it (formats.md §5)."""

    TRAIN = 2
    HELDOUT = 3


class Code(enum.IntEnum):
    """Numbers of the operations."""

    LOAD = 1
    CONST = 2
    BATCH = 3
    VIEW = 4
    POINTWISE = 5
    MATMUL = 6
    SUM = 7
    MAX = 8
    TAKE = 9
    SCATTER_ADD = 10
    CAT = 11


@dataclass(frozen=True)
class Operand:
    """A strided view of an earlier operation's output: element offset + Σ i_j · strides[j] for output index i."""

    source: int
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Load:
    """LOAD: tensor `index` of the state; in a merge of states of n tensors, n · j + i is tensor i of state j."""

    index: int


@dataclass(frozen=True)
class Constant:
    """CONST: constant `index` of the program."""

    index: int


@dataclass(frozen=True)
class Batch:
    """BATCH: tokens [B, T] of a part of the data set, `shift` places after each sample's position."""

    part: Part
    shift: int


@dataclass(frozen=True)
class View:
    """VIEW: its operand, written out."""


@dataclass(frozen=True)
class Pointwise:
    """POINTWISE: a kernel on one word of each operand."""

    kernel: Kernel


@dataclass(frozen=True)
class Matmul:
    """MATMUL of a, b, scale_a, scale_b: a fold of `length` products; output [..., rows of a, rows of b]."""

    length: int


@dataclass(frozen=True)
class Sum:
    """SUM of x with exponent E: a fold of `length` elements."""

    length: int


@dataclass(frozen=True)
class Max:
    """MAX of x: a fold of `length` elements, of their magnitudes or of the values themselves."""

    length: int
    magnitudes: bool


@dataclass(frozen=True)
class Take:
    """TAKE of table, index: `row_stride` elements from one of the `rows` rows to the next."""

    rows: int
    row_stride: int


@dataclass(frozen=True)
class ScatterAdd:
    """SCATTER_ADD of x, index, E: a fold of `length` elements; the first axis of the output is the index's value."""

    length: int


@dataclass(frozen=True)
class Cat:
    """CAT along `axis`: operand i covers extents[i] places, and the word `padding` what is left."""

    axis: int
    extents: tuple[int, ...]
    padding: int


Attributes = Load | Constant | Batch | View | Pointwise | Matmul | Sum | Max | Take | ScatterAdd | Cat


@dataclass(frozen=True)
class Operation:
    """One operation: its attributes (whose class says which it is), its output's dtype and shape, its operands."""

    attributes: Attributes
    dtype: DType
    shape: Shape
    operands: tuple[Operand, ...] = ()

    @property
    def code(self) -> Code:
        """The operation's number."""
        return _CODES[type(self.attributes)]

    @property
    def elements(self) -> int:
        """Number of elements of the output."""
        return math.prod(self.shape)

    @property
    def fold(self) -> int:
        """How many elements one output element folds; 1 where the operation is no fold."""
        attributes = self.attributes
        return attributes.length if isinstance(attributes, Matmul | Sum | Max | ScatterAdd) else 1


@dataclass(frozen=True)
class Kind:
    """One row of the table of operations.

    Attributes:
        attributes: the class of the operation's attributes.
        operands: least and greatest number of operands.
        takes: dtypes each operand may have; the last entry holds for all operands that follow.
        gives: dtypes of the output.
        keeps: so many operands, from the first, have the output's dtype.
        folds: numbers of the operands of which one output element reads a run.
        flat: (operand, axis from the end or start): axes along which an operand's stride must be 0.
    """

    attributes: type
    operands: tuple[int, int]
    takes: tuple[tuple[DType, ...], ...]
    gives: tuple[DType, ...]
    keeps: int = 0
    folds: tuple[int, ...] = ()
    flat: tuple[tuple[int, int], ...] = ()


_FLOAT, _WORD = (DType.FLOAT32,), (DType.INT32,)

KINDS: dict[Code, Kind] = {
    Code.LOAD: Kind(Load, (0, 0), (), (DType.FLOAT32, DType.INT32)),
    Code.CONST: Kind(Constant, (0, 0), (), (DType.FLOAT32, DType.INT32)),
    Code.BATCH: Kind(Batch, (0, 0), (), _WORD),
    Code.VIEW: Kind(View, (1, 1), (COMPUTED,), COMPUTED, keeps=1),
    Code.POINTWISE: Kind(Pointwise, (0, MAXIMUM_OPERANDS), (COMPUTED,), COMPUTED),
    Code.MATMUL: Kind(
        Matmul,
        (4, 4),
        (QUANTISED, QUANTISED, _FLOAT, _FLOAT),
        _FLOAT,
        folds=(0, 1),
        flat=((0, -1), (1, -2), (2, -1), (3, -2)),
    ),
    Code.SUM: Kind(Sum, (2, 2), (_FLOAT, _WORD), _FLOAT, folds=(0,)),
    Code.MAX: Kind(Max, (1, 1), (_FLOAT,), _FLOAT, folds=(0,)),
    Code.TAKE: Kind(Take, (2, 2), (COMPUTED, _WORD), COMPUTED, keeps=1),
    Code.SCATTER_ADD: Kind(
        ScatterAdd, (3, 3), (_FLOAT, _WORD, _WORD), _FLOAT, folds=(0, 1), flat=((0, 0), (1, 0), (2, 0))
    ),
    Code.CAT: Kind(Cat, (1, MAXIMUM_OPERANDS), (COMPUTED,), COMPUTED, keeps=MAXIMUM_OPERANDS),
}

_CODES: dict[type, Code] = {kind.attributes: code for code, kind in KINDS.items()}


@dataclass(frozen=True)
class StateTensor:
    """A tensor of the state. `source` is the operation that makes its next value, None where it stays as it is."""

    name: str
    dtype: DType
    shape: Shape
    source: int | None = None


@dataclass(frozen=True)
class ConstantTensor:
    """A tensor that the program commits to by its root; the data lie beside the program."""

    dtype: DType
    shape: Shape
    root: bytes


@dataclass(frozen=True)
class Program:
    """A program: what its file holds, checked or not (`validate.check_program`).

    Attributes:
        states: the tensors of one state, declared once, however many states a merge takes.
        inputs: how many states a merge takes beside the base, W; 0 of every other program.
    """

    role: Role
    states: tuple[StateTensor, ...]
    constants: tuple[ConstantTensor, ...]
    operations: tuple[Operation, ...]
    inputs: int = 0

    @property
    def taken(self) -> tuple[StateTensor, ...]:
        """The tensors that a run takes, as LOAD numbers them: those of the state, or of all W + 1 states of a merge."""
        return self.states * (1 + self.inputs)
