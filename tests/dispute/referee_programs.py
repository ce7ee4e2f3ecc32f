"""Programs that ask the referee what random small ones do not: folds of several blocks, tensors of several chunks,
tokens at every edge of the data."""

import random

import torch
from exact_oracle import word_tensor
from random_programs import random_program
from referee_world import World, small_data
from small_programs import TEXT, Runs, small, traced
from torch import Tensor

from trainer.commit.tensors import tensor_root
from trainer.engine.state import initial_state
from trainer.program.exact import check_program
from trainer.program.exact.operations import (
    Attributes,
    Batch,
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
)
from trainer.program.exact.scaling import quantise_kernel, scale_kernel

ROWS, ROW = 3, 2600
# Length and first element of runs: a block, parts of one, and several with and without a rest.
RUNS = ((1024, 0), (1000, 13), (1, ROW - 1), (2048, 1), (ROW, 0), (2049, 500))
INFINITY, NAN = 0x7F800000, 0x7FC00000


class _Writer:
    """Operations one after the other; each method gives the number of the one that it adds."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(
        self, attributes: Attributes, dtype: DType, shape: Shape, *operands: tuple[int, int, tuple[int, ...]]
    ) -> int:
        self.operations.append(Operation(attributes, dtype, shape, tuple(Operand(*one) for one in operands)))
        return len(self.operations) - 1


def random_world(seed: int) -> World:
    """A small program over every operation, on a short text."""
    one = random_program(seed)
    return World(one.program, one.state, one.constants, small_data(), seed=seed * 1_000_003, slot=seed % 3)


def traced_world(kind: str) -> World:
    """The training program of a small model, for one step."""
    description, data = small(kind, model={"layers": 1}, context=8, batch_size=2), _text()
    program = traced(description, data)
    state = initial_state(description, program.layout)
    one = program.training
    return World(one.program, list(state.values()), one.constants, data, seed=7)


def _text() -> Runs:
    tokens = torch.tensor(list(TEXT), dtype=torch.uint16).numpy()
    return Runs(train=tokens[:-2000], heldout=tokens[-2000:])


def long_world(special: bool) -> World:
    """Folds of every kind, length and place over rows of 2,600 elements; with special values, or with none."""
    rng = random.Random(11)
    state, constants = _long_data(rng, special)
    write = _Writer()
    x = write.add(Load(0), DType.FLOAT32, (ROWS, ROW))
    index = write.add(Constant(0), DType.INT32, (ROW,))
    exponent = write.add(Constant(1), DType.INT32, ())
    greatest = write.add(Max(ROW, True), DType.FLOAT32, (ROWS,), (x, 0, (ROW,)))
    quantised: dict[DType, int] = {}
    scales: dict[DType, int] = {}
    for dtype, bits in ((DType.INT8, 8), (DType.INT16, 13)):
        operands = (x, 0, (ROW, 1)), (greatest, 0, (1, 0))
        quantised[dtype] = write.add(Pointwise(quantise_kernel(bits)), dtype, (ROWS, ROW), *operands)
        scales[dtype] = write.add(Pointwise(scale_kernel(bits)), DType.FLOAT32, (ROWS,), (greatest, 0, (1,)))
    for length, first in RUNS:
        for a, b in ((DType.INT8, DType.INT16), (DType.INT16, DType.INT16), (DType.INT8, DType.INT8)):
            write.add(
                Matmul(length),
                DType.FLOAT32,
                (ROWS, ROWS),
                (quantised[a], first, (ROW, 0)),
                (quantised[b], (ROW - length) // 2, (0, ROW)),
                (scales[a], 0, (1, 0)),
                (scales[b], 0, (0, 1)),
            )
        run = (x, first, (ROW,))
        write.add(Sum(length), DType.FLOAT32, (ROWS,), run, (exponent, 0, (0,)))
        for magnitudes in (False, True):
            write.add(Max(length, magnitudes), DType.FLOAT32, (ROWS,), run)
        places, clamped = (index, ROW - length, (0, 0)), (exponent, 0, (0, 0))
        write.add(ScatterAdd(length), DType.FLOAT32, (4, ROWS), (x, first, (0, ROW)), places, clamped)
    states = (
        StateTensor("x", DType.FLOAT32, (ROWS, ROW)),
        StateTensor("counter.step", DType.INT64, (1,)),
    )
    declared = tuple(ConstantTensor(DType.INT32, tuple(data.shape), tensor_root(data)) for data in constants)
    program = Program(Role.TRAIN, states, declared, tuple(write.operations))
    check_program(program)
    return World(program, state, constants, small_data())


def _long_data(rng: random.Random, special: bool) -> tuple[list[Tensor], list[Tensor]]:
    words = [rng.randrange(0x3B000000, 0x43000000) | rng.choice([0, 0x80000000]) for _ in range(ROWS * ROW)]
    if special:  # in the last block of one row, and in the first of another
        words[2500], words[ROW + 3], words[ROW + 2300] = NAN, INFINITY, 0x80000000 | INFINITY
        words[2 * ROW + 100] = 0x80000000 | INFINITY
    places = torch.tensor([rng.randint(-1, 5) for _ in range(ROW)], dtype=torch.int32)
    exponent = torch.tensor(-200 if special else 8, dtype=torch.int32)
    x = word_tensor(words).view(torch.float32).reshape(ROWS, ROW)
    return [x, torch.tensor([4])], [places, exponent]


def batch_world(train: int, heldout: int, step: int, slot: int) -> World:
    """Batches that reach all of a part of the data, its end, and past it."""
    write = _Writer()
    for part in Part:
        for shift in (0, 1, 255):
            write.add(Batch(part, shift), DType.INT32, (4, 9))
    states = (StateTensor("x", DType.FLOAT32, (1,)), StateTensor("counter.step", DType.INT64, (1,)))
    program = Program(Role.TRAIN, states, (), tuple(write.operations))
    check_program(program)
    state = [torch.tensor([0.5]), torch.tensor([step])]
    return World(program, state, [], small_data(train, heldout), seed=2**53 - 1, slot=slot)
