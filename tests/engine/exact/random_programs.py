"""Random valid programs over every operation: odd shapes, odd strides, special values, indexes out of range.

Written as bare records, so that they reach what the builder would never write.
"""

import math
import random
from dataclasses import dataclass

import torch
from exact_oracle import INFINITY, NAN, SIGN, SPECIAL_WORDS, word_tensor

from trainer.commit.tensors import tensor_root
from trainer.engine.exact.kernels import Instruction, Kernel, Op, operands_of
from trainer.program.exact.operations import (
    Attributes,
    Batch,
    Cat,
    Code,
    Constant,
    ConstantTensor,
    DType,
    Load,
    Matmul,
    Max,
    Operand,
    Operation,
    Part,
    Pointwise,
    Program,
    Role,
    ScatterAdd,
    Shape,
    StateTensor,
    Sum,
    Take,
    View,
)
from trainer.program.exact.scaling import exponent_kernel, quantise_kernel, scale_kernel

INFINITIES = [INFINITY, SIGN | INFINITY, 0, 0x3F800000]
NANS = [NAN, NAN | SIGN, NAN | 1, 0x7F800001, 0xFFFFFFFF]
_MOST_ELEMENTS = 72
_TOKENS = 50


@dataclass
class RandomProgram:
    """A program, its state and constants, and the tokens (which also are its batches: part, shift, sizes to int32)."""

    program: Program
    state: list[torch.Tensor]
    constants: list[torch.Tensor]

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> torch.Tensor:
        """Any tokens will do here: a formula of all that decides them."""
        numbers = torch.arange(samples * length, dtype=torch.int32).reshape(samples, length)
        return (numbers * 7 + shift * 3 + int(part)) % _TOKENS


def random_program(seed: int, operations: int = 14) -> RandomProgram:
    """The program of a seed; equal seeds, equal programs."""
    return ProgramWriter(random.Random(seed)).program(operations)


def random_merge(seed: int, inputs: int, operations: int = 14) -> RandomProgram:
    """The merge of a seed, of so many states beside the base; its state holds the tensors of all of them."""
    return ProgramWriter(random.Random(seed), inputs).program(operations)


class ProgramWriter:
    """Writes a random program, one operation after the other; a merge where there are `inputs`."""

    def __init__(self, rng: random.Random, inputs: int = 0) -> None:
        self.rng, self.inputs = rng, inputs
        self.operations: list[Operation] = []
        self.states: list[StateTensor] = []
        self.state_data: list[torch.Tensor] = []
        self.constants: list[ConstantTensor] = []
        self.constant_data: list[torch.Tensor] = []

    def program(self, operations: int) -> RandomProgram:
        self._given()
        for _ in range(operations):
            self._next()
        for number, state in enumerate(self.states):
            self.states[number] = self._with_source(state)
        role = self.rng.choice([Role.TRAIN, Role.EVALUATE, Role.GENERATE])
        if self.inputs:
            role = Role.MERGE
        program = Program(role, tuple(self.states), tuple(self.constants), tuple(self.operations), self.inputs)
        return RandomProgram(program, self.state_data, self.constant_data)

    def _given(self) -> None:
        """A state, constants, and what makes sources of every dtype certain."""
        for number in range(self.rng.randint(2, 4)):
            wide, shape = number == 1, self._shape()
            self.states.append(StateTensor(f"tensor.{number}", DType.INT64 if wide else DType.FLOAT32, shape))
            self.state_data.append(self._held(wide, shape))
            self._add(Load(number), DType.INT32 if wide else DType.FLOAT32, shape)
        for number, one in enumerate(self.states * self.inputs, len(self.states)):
            wide = one.dtype is DType.INT64
            self.state_data.append(self._held(wide, one.shape))
            if self.rng.random() < 6 / (len(self.states) * self.inputs):
                self._add(Load(number), DType.INT32 if wide else DType.FLOAT32, one.shape)
        for integers in (True, False):
            shape = self._shape()
            small = torch.tensor([self.rng.randint(-2, 6) for _ in range(math.prod(shape))], dtype=torch.int32)
            data = small if integers else word_tensor(self._words(math.prod(shape))).view(torch.float32)
            data, dtype = data.reshape(shape), DType.INT32 if integers else DType.FLOAT32
            self.constants.append(ConstantTensor(dtype, shape, tensor_root(data)))
            self.constant_data.append(data)
            self._add(Constant(len(self.constants) - 1), dtype, shape)
        for dtype, bits in ((DType.INT8, 8), (DType.INT16, 13)):
            shape = self._shape()
            operands = [self._operand(self._source(DType.FLOAT32), shape) for _ in range(2)]
            self._add(Pointwise(quantise_kernel(bits)), dtype, shape, *operands)

    def _held(self, wide: bool, shape: tuple[int, ...]) -> torch.Tensor:
        """A random tensor of a state."""
        size = math.prod(shape)
        if wide:
            return torch.tensor([self.rng.randint(-(2**40), 2**40) for _ in range(size)]).reshape(shape)
        return word_tensor(self._words(size)).view(torch.float32).reshape(shape)

    def _next(self) -> None:
        code = self.rng.choice([code for code in Code if not (self.inputs and code is Code.BATCH)])
        write = {
            Code.BATCH: self._batch,
            Code.VIEW: self._view,
            Code.MATMUL: self._matmul,
            Code.SUM: self._sum,
            Code.MAX: self._max,
            Code.TAKE: self._take,
            Code.SCATTER_ADD: self._scatter_add,
            Code.CAT: self._cat,
        }.get(code, self._pointwise)
        write()

    def _batch(self) -> None:
        shape = (self.rng.randint(1, 5), self.rng.randint(1, 6))
        self._add(Batch(self.rng.choice(list(Part)), self.rng.randint(0, 3)), DType.INT32, shape)

    def _view(self) -> None:
        source, shape = self._source(), self._shape(rank=6)
        self._add(View(), self.operations[source].dtype, shape, self._operand(source, shape))

    def _pointwise(self) -> None:
        shape = self._shape()
        kernel = self.rng.choice([None, exponent_kernel(), scale_kernel(8), quantise_kernel(5)])
        kernel = kernel or random_kernel(self.rng, self.rng.randint(0, 4))
        dtype = self.rng.choice([DType.FLOAT32, DType.FLOAT32, DType.INT32, DType.INT8, DType.INT16])
        operands = [self._operand(self._source(), shape) for _ in range(kernel.inputs)]
        self._add(Pointwise(kernel), dtype, shape, *operands)

    def _matmul(self) -> None:
        quantised = [self._source(DType.INT8, DType.INT16) for _ in range(2)]
        length = self.rng.randint(1, min(self._row(source) for source in quantised))
        shape = (*self._shape(rank=2, most=6), self.rng.randint(1, 4), self.rng.randint(1, 4))
        sources = [*quantised, self._source(DType.FLOAT32), self._source(DType.FLOAT32)]
        flat = (len(shape) - 1, len(shape) - 2) * 2
        operands = [
            self._operand(source, shape, length if place < 2 else 0, flat=flat[place])
            for place, source in enumerate(sources)
        ]
        self._add(Matmul(length), DType.FLOAT32, shape, *operands)

    def _sum(self) -> None:
        source, shape = self._source(DType.FLOAT32), self._shape()
        length = self.rng.randint(1, self._row(source))
        exponent = self._operand(self._source(DType.INT32), shape)
        self._add(Sum(length), DType.FLOAT32, shape, self._operand(source, shape, length), exponent)

    def _max(self) -> None:
        source, shape = self._source(DType.FLOAT32), self._shape()
        length = self.rng.randint(1, self._row(source))
        attributes = Max(length, self.rng.random() < 0.5)
        self._add(attributes, DType.FLOAT32, shape, self._operand(source, shape, length))

    def _take(self) -> None:
        source, shape = self._source(), self._shape()
        size = self.operations[source].elements
        rows = self.rng.randint(1, min(size, 6))
        row_stride = 0 if rows == 1 else self.rng.randint(0, (size - 1) // (rows - 1))
        table = self._operand(source, shape, room=size - (rows - 1) * row_stride)
        index = self._operand(self._index(), shape)
        self._add(Take(rows, row_stride), self.operations[source].dtype, shape, table, index)

    def _scatter_add(self) -> None:
        sources = [self._source(DType.FLOAT32), self._index(), self._source(DType.INT32)]
        length = self.rng.randint(1, min(self._row(source) for source in sources[:2]))
        shape = (self.rng.randint(1, 6), *self._shape(rank=3, most=10))
        operands = [
            self._operand(source, shape, length if place < 2 else 0, flat=0) for place, source in enumerate(sources)
        ]
        self._add(ScatterAdd(length), DType.FLOAT32, shape, *operands)

    def _cat(self) -> None:
        first = self._source()
        dtype = self.operations[first].dtype
        sources = [first, *(self._source(dtype) for _ in range(self.rng.randint(0, 3)))]
        shape = list(self._shape(rank=4, most=12)) or [1]
        axis = self.rng.randrange(len(shape))
        extents = tuple(self.rng.randint(1, 3) for _ in sources)
        padded = self.rng.choice([0, 0, 2])
        operands = [
            self._operand(source, (*shape[:axis], extent, *shape[axis + 1 :]))
            for source, extent in zip(sources, extents, strict=True)
        ]
        shape[axis] = sum(extents) + padded
        words = [0, 1, 0xFFFFFFFF if dtype is not DType.FLOAT32 else 0x7FC00000]
        self._add(Cat(axis, extents, self.rng.choice(words) if padded else 0), dtype, tuple(shape), *operands)

    def _add(self, attributes: Attributes, dtype: DType, shape: Shape, *operands: Operand) -> None:
        self.operations.append(Operation(attributes, dtype, shape, operands))

    def _with_source(self, state: StateTensor) -> StateTensor:
        """The state tensor, made by a VIEW of something, or unchanged."""
        if self.rng.random() < 0.3:
            return state
        dtype = DType.INT32 if state.dtype is DType.INT64 else state.dtype
        source = self._source(dtype)
        self._add(View(), dtype, state.shape, self._operand(source, state.shape))
        return StateTensor(state.name, state.dtype, state.shape, len(self.operations) - 1)

    def _source(self, *dtypes: DType) -> int:
        fitting = [n for n, one in enumerate(self.operations) if not dtypes or one.dtype in dtypes]
        return self.rng.choice(fitting[-6:] if self.rng.random() < 0.5 else fitting)

    def _index(self) -> int:
        """A source of int32; often the constant, whose numbers are small."""
        small = next(n for n, one in enumerate(self.operations) if one.attributes == Constant(0))
        return small if self.rng.random() < 0.5 else self._source(DType.INT32)

    def _row(self, source: int) -> int:
        shape = self.operations[source].shape
        return shape[-1] if shape else 1

    def _shape(self, rank: int = 4, most: int = _MOST_ELEMENTS) -> Shape:
        shape: list[int] = []
        for _ in range(self.rng.randint(0, rank)):
            shape.append(self.rng.randint(1, max(1, min(7, most // math.prod(shape)))))
        return tuple(shape)

    def _words(self, count: int) -> list[int]:
        """Bits of one tensor: ordinary numbers and some special values, or mostly infinities, or NaNs of every kind."""
        rare = self.rng.choice([SPECIAL_WORDS, SPECIAL_WORDS, INFINITIES, NANS])
        share = self.rng.choice([0.0, 0.1, 0.5])
        near = [self.rng.randrange(0x3B000000, 0x43000000) | self.rng.choice([0, SIGN]) for _ in range(count)]
        return [self.rng.choice([*rare, self.rng.getrandbits(32)]) if self.rng.random() < share else x for x in near]

    def _operand(self, source: int, shape: Shape, run: int = 0, *, flat: int = -1, room: int | None = None) -> Operand:
        """A random view that stays inside its source; with `run`, of starts of runs that stay inside its rows.

        `flat` is an axis with the stride 0, `room` how many elements of the source there are to use.
        """
        row = self._row(source) if run else 1
        rows = (room or self.operations[source].elements) // row
        inside = row - run if run else 0
        far, near = [0] * len(shape), [0] * len(shape)
        axes = [axis for axis, extent in enumerate(shape) if extent > 1 and axis != flat]
        self.rng.shuffle(axes)
        left = rows - 1
        for axis in axes:
            steps = shape[axis] - 1
            far[axis] = self.rng.choice([0, 1, left // steps, self.rng.randint(0, left // steps)])
            far[axis] = min(far[axis], left // steps)
            left -= far[axis] * steps
            near[axis] = self.rng.randint(0, inside // steps) if self.rng.random() < 0.3 else 0
            inside -= near[axis] * steps
        offset = self.rng.randint(0, left) * row + self.rng.randint(0, inside)
        return Operand(source, offset, tuple(a * row + b for a, b in zip(far, near, strict=True)))


def random_kernel(rng: random.Random, inputs: int) -> Kernel:
    """Any primitives in any order; integers are read as floats and floats as integers."""
    code = [Instruction(Op.INPUT, number) for number in range(inputs)]
    for _ in range(rng.randint(0 if inputs else 1, 8)):
        op = rng.choice(list(Op))
        if op is Op.INPUT and inputs:
            code.append(Instruction(op, rng.randrange(inputs)))
        elif op in (Op.INPUT, Op.CONST) or not code:
            code.append(Instruction(Op.CONST, word=rng.choice([*SPECIAL_WORDS, 3, 0x3F800000, rng.getrandbits(32)])))
        else:
            code.append(Instruction(op, *(rng.randrange(len(code)) for _ in range(operands_of(op)))))
    return Kernel(inputs, tuple(code))
