"""Runs whose truth is asked for: random programs with every operation, long folds, and one step of small models."""

import functools
import random

import numpy as np
import torch
from random_programs import random_program
from small_programs import TEXT, engine, first_state, small, traced

from trainer.commit.tensors import tensor_root
from trainer.data.dataset import Dataset, dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.dispute.committed import DatasetProofs
from trainer.dispute.runs import Interpreter, RunTruth
from trainer.dispute.truth import SegmentTruth
from trainer.engine.engines import ReferenceEngine
from trainer.program.exact import BuiltProgram, Operand, Operation, Program, Role
from trainer.program.exact.operations import (
    Attributes,
    Constant,
    ConstantTensor,
    DType,
    Load,
    Matmul,
    Max,
    Pointwise,
    ScatterAdd,
    Shape,
    StateTensor,
    Sum,
)
from trainer.program.exact.scaling import quantise_kernel, scale_kernel

LENGTH = 2600  # of long folds: two whole blocks and a part of a third
ROWS = 5


@functools.cache
def data() -> Dataset:
    """Tokens whose parts end inside a chunk."""
    tokens = np.frombuffer(TEXT, np.uint8).astype(np.uint16)
    return dataset_of(ByteTokenizer(), tokens[:9000].copy(), tokens[9000:].copy())


@functools.cache
def proofs() -> DatasetProofs:
    return DatasetProofs(data())


def truth_of_random(seed: int, *, cache_bytes: int = 2**28, interpreter: Interpreter | None = None) -> RunTruth:
    """A run of the random program of a seed."""
    one = random_program(seed)
    built = BuiltProgram(one.program, tuple(one.constants))
    return RunTruth(built, one.state, proofs(), seed=5, slot=2, cache_bytes=cache_bytes, interpreter=interpreter)


@functools.cache
def truth_of_folds(seed: int = 0) -> RunTruth:
    """A run of a program of folds over more than 1,024 elements, with a few infinities and NaNs in one row."""
    rng = random.Random(seed)
    row = torch.tensor([rng.gauss(0, 3) for _ in range(2 * LENGTH)]).reshape(2, LENGTH)
    row[1, 1500], row[1, 2400] = torch.inf, rng.choice([torch.nan, -torch.inf, torch.inf])
    index = torch.tensor([rng.randrange(-1, ROWS + 1) for _ in range(LENGTH)], dtype=torch.int32)
    exponents = torch.tensor([4, 200], dtype=torch.int32)
    state = [torch.zeros(1), torch.tensor([41]), row]
    tensors = (StateTensor("a", DType.FLOAT32, (1,)), StateTensor("b", DType.INT64, (1,)))
    states = (*tensors, StateTensor("c", DType.FLOAT32, (2, LENGTH)))
    constants = (index, exponents)
    declared = tuple(ConstantTensor(DType.INT32, tuple(one.shape), tensor_root(one)) for one in constants)
    program = Program(Role.TRAIN, states, declared, _long_folds())
    return RunTruth(BuiltProgram(program, constants), state, proofs(), seed=1)


def _long_folds() -> tuple[Operation, ...]:
    every: list[Operation] = []

    def add(attributes: Attributes, dtype: DType, shape: Shape, *operands: Operand) -> int:
        every.append(Operation(attributes, dtype, shape, operands))
        return len(every) - 1

    f, i = DType.FLOAT32, DType.INT32
    x = add(Load(2), f, (2, LENGTH))
    index, exponents = add(Constant(0), i, (LENGTH,)), add(Constant(1), i, (2,))
    greatest = add(Max(LENGTH, True), f, (2,), Operand(x, 0, (LENGTH,)))
    add(Max(LENGTH, False), f, (2,), Operand(x, 0, (LENGTH,)))
    add(Sum(LENGTH), f, (2,), Operand(x, 0, (LENGTH,)), Operand(exponents, 0, (1,)))
    # A run that begins inside a chunk, and is one element longer than two blocks.
    add(Sum(2049), f, (2,), Operand(x, 300, (LENGTH,)), Operand(exponents, 0, (0,)))
    add(
        ScatterAdd(LENGTH),
        f,
        (ROWS, 2),
        Operand(x, 0, (0, LENGTH)),
        Operand(index, 0, (0, 0)),
        Operand(exponents, 0, (0, 1)),
    )
    quantised = []
    for bits, dtype in ((8, DType.INT8), (13, DType.INT16)):
        operands = (Operand(x, 0, (LENGTH, 1)), Operand(greatest, 0, (1, 0)))
        quantised.append(add(Pointwise(quantise_kernel(bits)), dtype, (2, LENGTH), *operands))
    scale = add(Pointwise(scale_kernel(13)), f, (2,), Operand(greatest, 0, (1,)))
    for left in quantised:
        add(
            Matmul(LENGTH),
            f,
            (2, 2),
            Operand(left, 0, (LENGTH, 0)),
            Operand(quantised[1], 0, (0, LENGTH)),
            Operand(scale, 0, (1, 0)),
            Operand(scale, 0, (0, 1)),
        )
    return tuple(every)


@functools.cache
def segment(kind: str = "transformer", steps: int = 3) -> SegmentTruth:
    """A segment of a small model: a transformer on the compiled engine, or a short GRU on the reference."""
    short = {"model": {"cell": "gru", "layers": 1}, "context": 4, "batch_size": 3, "evaluation_windows": 3}
    description = small(kind, **(short if kind == "recurrent" else {}))
    program = traced(description, data())
    on = ReferenceEngine() if kind == "recurrent" else engine()
    return SegmentTruth(program, data(), first_state(description, data()), steps=steps, slot=1, engine=on)
