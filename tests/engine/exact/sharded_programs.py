"""Random valid programs whose batch splits: each shard's own operations, sums over shards, and anything of both."""

import random

import torch
from random_programs import ProgramWriter, RandomProgram

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Kernel, Op
from trainer.program.exact import DType, Operand, Part, Program, Role
from trainer.program.exact.operations import Batch, Cat, Max, Pointwise, Shape, StateTensor, Sum, View
from trainer.program.exact.scaling import exponent_kernel
from trainer.program.exact.views import contiguous_strides

_ROWS, _LENGTH = 2, 5  # rows of a shard, tokens of a row
_MOST_OPERANDS = 16


def sharded_program(seed: int, shards: int) -> RandomProgram:
    """The program of a seed; equal seeds, equal programs."""
    return _ShardedWriter(random.Random(seed)).sharded(shards)


class _ShardedWriter(ProgramWriter):
    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._allowed: list[int] | None = None

    def sharded(self, shards: int) -> RandomProgram:
        self._given()
        given = list(range(len(self.operations)))
        self._add(Batch(Part.TRAIN, 1), DType.INT32, (shards * _ROWS, _LENGTH))
        own = [self._shard(shard, given, len(given)) for shard in range(shards)]
        for _ in range(3):
            self._join([self.rng.choice(one) for one in own])
        self._allowed = [number for number in range(len(self.operations)) if number != len(given)]
        for _ in range(8):
            start = len(self.operations)
            self._next()
            self._allowed += range(start, len(self.operations))
        self.states = [self._with_source(state) for state in self.states]
        program = Program(Role.TRAIN, tuple(self.states), tuple(self.constants), tuple(self.operations))
        return RandomProgram(program, self.state_data, self.constant_data)

    def _shard(self, shard: int, given: list[int], batch: int) -> list[int]:
        """Operations of a shard's own; the numbers of those that give floats, at least one."""
        first = len(self.operations)
        at = shard * _ROWS * _LENGTH + self.rng.randint(0, _LENGTH - 1)
        self._add(View(), DType.INT32, (_LENGTH + 1,), Operand(batch, at, (1,)))
        self._add(Pointwise(_spread()), DType.FLOAT32, (_LENGTH + 1,), Operand(first, 0, (1,)))
        for _ in range(4):
            self._allowed = [*given, *([*range(first, len(self.operations))] * 3)]
            self._next()
        return [
            number for number in range(first, len(self.operations)) if self.operations[number].dtype is DType.FLOAT32
        ]

    def _join(self, sources: list[int]) -> None:
        """A SUM over views of these outputs, its own state tensor."""
        shape = self._shape()
        parts = [(self._operand(source, (*shape, 1)), 1) for source in sources]
        while len(parts) > _MOST_OPERANDS:
            parts = [self._beside(parts[:_MOST_OPERANDS], shape), *parts[_MOST_OPERANDS:]]
        row, _ = self._beside(parts, shape)
        length = self.operations[row.source].shape[-1]
        runs = Operand(row.source, 0, row.strides[:-1])
        whole = contiguous_strides(shape)
        self._add(Max(length, True), DType.FLOAT32, shape, runs)
        self._add(Pointwise(exponent_kernel()), DType.INT32, shape, Operand(row.source + 1, 0, whole))
        self._add(Sum(length), DType.FLOAT32, shape, runs, Operand(row.source + 2, 0, whole))
        self.states.append(StateTensor(f"joined.{row.source}", DType.FLOAT32, shape, row.source + 3))
        self.state_data.append(torch.zeros(shape))

    def _beside(self, parts: list[tuple[Operand, int]], shape: Shape) -> tuple[Operand, int]:
        """A CAT of views with their extents, as such a part itself."""
        extents = tuple(extent for _, extent in parts)
        whole = (*shape, sum(extents))
        self._add(Cat(len(shape), extents, 0), DType.FLOAT32, whole, *(operand for operand, _ in parts))
        return Operand(len(self.operations) - 1, 0, contiguous_strides(whole)), sum(extents)

    def _source(self, *dtypes: DType) -> int:
        numbers = range(len(self.operations)) if self._allowed is None else self._allowed
        return self.rng.choice([n for n in numbers if not dtypes or self.operations[n].dtype in dtypes])

    def _batch(self) -> None:
        self._view()  # another batch would be read anywhere, and leave no shards

    def _with_source(self, state: StateTensor) -> StateTensor:
        return state if state.source is not None else super()._with_source(state)


def _spread() -> Kernel:
    """Small numbers as floats of all sizes, with a NaN and both infinities for some."""
    build = Builder(1)
    number = build.input(0)
    word = build.emit(Op.IMUL, number, build.word(0x9E3779B1))
    for special, value in ((5, 0x7F800000), (11, 0xFF800000), (23, 0x7FC00000)):
        word = build.select(build.emit(Op.IEQ, number, build.word(special)), build.word(value), word)
    return build.kernel(word)
