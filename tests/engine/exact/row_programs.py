"""Random programs of the kind that networks are made of: maps and folds of rows, and folds of what they give."""

import random

import torch
from exact_oracle import SPECIAL_WORDS, word_tensor
from random_programs import RandomProgram, random_kernel

from trainer.program.exact import DType, ProgramBuilder, Role, Value

_DTYPES = [DType.FLOAT32, DType.FLOAT32, DType.FLOAT32, DType.INT32, DType.INT16, DType.INT8]


def row_program(seed: int, operations: int = 14) -> RandomProgram:
    """The program of a seed; equal seeds, equal programs."""
    return _RowWriter(random.Random(seed)).program(operations)


class _RowWriter:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.build = ProgramBuilder(Role.GENERATE)
        leading = rng.choice([(5,), (2, 3), (1, 4), (3, 1, 2)])
        self.length = rng.choice([2, 3, 7, 33, 40, 70])
        self.shape = (*leading, self.length)
        self.state: list[torch.Tensor] = []
        self.whole: list[Value] = [
            self._given("x", self.shape),
            self._given("turned", self.shape[::-1]).permute(tuple(reversed(range(len(self.shape))))),
            self._given("one.row", (self.length,)).expand(self.shape),
        ]
        self.single: list[Value] = [self._given("each", leading)]

    def program(self, operations: int) -> RandomProgram:
        for _ in range(operations):
            self.rng.choice([self._map, self._map, self._map_single, self._sum, self._max, self._quantise])()
        for number, value in enumerate(self.rng.sample([*self.whole, *self.single], 3)):
            if value.dtype in (DType.FLOAT32, DType.INT32):
                self._stored(f"result.{number}", value)
        built = self.build.finish(prune=self.rng.random() < 0.5)
        return RandomProgram(built.program, self.state, list(built.constants))

    def _given(self, name: str, shape: tuple[int, ...]) -> Value:
        count = torch.Size(shape).numel()
        words = [self.rng.randint(0x3E000000, 0x40800000) | self.rng.getrandbits(1) << 31 for _ in range(count)]
        if self.rng.random() < 0.3:
            words[self.rng.randrange(count)] = self.rng.choice(SPECIAL_WORDS)
        self.build.state(name, DType.FLOAT32, shape)
        self.state.append(word_tensor(words).view(torch.float32).reshape(shape))
        return self.build.load(name)

    def _stored(self, name: str, value: Value) -> None:
        floats = value.dtype is DType.FLOAT32
        self.build.state(name, DType.FLOAT32 if floats else DType.INT64, value.shape)
        self.state.append(torch.zeros(value.shape, dtype=torch.float32 if floats else torch.int64))
        self.build.store(name, value)

    def _maybe_flat(self, value: Value, last: tuple[int, ...]) -> Value:
        """Now and then under another shape, as tracers write rows: all leading axes as one."""
        return self.build.reshape(value, (-1, *last)) if self.rng.random() < 0.3 else value

    def _map(self) -> None:
        count = self.rng.randint(1, 3)
        operands = [self.rng.choice(self.whole)]
        for _ in range(count - 1):
            one = self.rng.choice([*self.whole, *self.single])
            operands.append(one if one.shape == self.shape else one.unsqueeze(-1).expand(self.shape))
        kernel = random_kernel(self.rng, count)
        self.whole.append(self.build.pointwise(kernel, *operands, dtype=self.rng.choice(_DTYPES), shape=self.shape))

    def _map_single(self) -> None:
        count = self.rng.randint(1, 2)
        operands = [self.rng.choice(self.single) for _ in range(count)]
        kernel = random_kernel(self.rng, count)
        dtype = self.rng.choice(_DTYPES)
        self.single.append(self.build.pointwise(kernel, *operands, dtype=dtype, shape=self.shape[:-1]))

    def _floats(self) -> Value:
        return self.rng.choice([one for one in self.whole if one.dtype is DType.FLOAT32])

    def _sum(self) -> None:
        value = self._floats()
        words = [one for one in self.single if one.dtype is DType.INT32]
        exponent = self.rng.choice(words) if words and self.rng.random() < 0.5 else None
        self.single.append(self.build.sum_last(value, exponent))

    def _max(self) -> None:
        value = self._maybe_flat(self._floats(), (self.length,))
        greatest = self.build.max_last(value, magnitudes=self.rng.random() < 0.5)
        self.single.append(self.build.reshape(greatest, self.shape[:-1]))

    def _quantise(self) -> None:
        made = self.build.quantise(self._floats(), self.rng.choice([5, 8, 13]))
        self.whole.append(made.values)
        self.single.append(made.scales)
