"""Tasks for disputes: small programs with every operation in them, and folds too long for one call."""

from __future__ import annotations

import functools
import random
from collections import OrderedDict

import numpy as np
import torch
from exact_oracle import SPECIAL_WORDS, word_tensor
from random_programs import ProgramWriter, RandomProgram

from trainer.data.dataset import Dataset, dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Instruction, Kernel, Op, operands_of
from trainer.engine.state import State
from trainer.program.exact import BuiltProgram, DType, Part, ProgramBuilder, Role
from trainer.program.task import TaskProgram

SEED = 77
ONE_MORE = Kernel(1, (Instruction(Op.INPUT), Instruction(Op.CONST, word=1), Instruction(Op.IADD, 0, 1)))
TEXT = ("pack my box with five dozen liquor jugs; how vexingly quick daft zebras jump. " * 40).encode()


@functools.cache
def dataset() -> Dataset:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    return dataset_of(ByteTokenizer(), tokens[:2500], tokens[2500:])


def declare(role: Role, length: int, *, inputs: int = 0) -> ProgramBuilder:
    """A program over the state of these tasks, with nothing in it yet."""
    build = ProgramBuilder(role, inputs=inputs)
    build.state("metric.heldout_loss", DType.FLOAT32, (1,))
    build.state("counter.step", DType.INT64, (1,))
    build.state("parameter.x", DType.FLOAT32, (2, length))
    build.state("parameter.table", DType.FLOAT32, (256, 5))
    build.state("moment.unused", DType.FLOAT32, (700,))
    return build


def mixed() -> Kernel:
    """x · 0.875 + y · 2^-12: the next value of an element depends on all folds, and stays small."""
    build = Builder(2)
    return build.kernel(
        build.add(build.mul(build.input(0), build.number(0.875)), build.mul(build.input(1), build.number(2.0**-12)))
    )


@functools.cache
def task(length: int) -> TaskProgram:
    """Programs with every operation, whose folds have `length` elements."""
    build = declare(Role.TRAIN, length)
    x, table = build.load("parameter.x"), build.load("parameter.table")
    tokens = build.batch(3, 4, shift=1)
    rows = build.take(table, tokens)
    index = build.constant(torch.arange(length, dtype=torch.int32) % 7 - 1)
    product = build.product(build.quantise(x, 13), build.quantise(x, 8))
    sums, best = build.sum_last(x), build.max_last(x)
    scattered = build.scatter_add(x, index, 4)
    every = build.cat([build.reshape(one, (one.elements,)) for one in (product, sums, best, scattered)], 0, extent=20)
    total = build.sum_last(build.view(every))
    gradient = build.scatter_add(build.reshape(rows, (12, 5)).transpose(), build.reshape(tokens, (12,)), 256)
    build.store("parameter.x", build.pointwise(mixed(), x, total.expand((2, length)), dtype=DType.FLOAT32))
    build.store("parameter.table", build.pointwise(mixed(), table, gradient, dtype=DType.FLOAT32))
    build.store("metric.heldout_loss", build.reshape(total, (1,)))
    build.store("counter.step", build.pointwise(ONE_MORE, build.load("counter.step"), dtype=DType.INT32))
    evaluate = declare(Role.EVALUATE, length)
    windows = evaluate.take(evaluate.load("parameter.table"), evaluate.batch(2, 6, part=Part.HELDOUT))
    loss = evaluate.sum_last(evaluate.reshape(windows, (1, windows.elements)))
    evaluate.store("metric.heldout_loss", loss)
    return TaskProgram(
        seed=SEED, training=build.finish(), evaluation=evaluate.finish(), generation=None, description={}
    )


def base_state(length: int) -> State:
    """A state of ordinary numbers."""
    rng = np.random.default_rng(length)
    return OrderedDict(
        {
            "metric.heldout_loss": torch.zeros(1),
            "counter.step": torch.tensor([2**31 - 2]),
            "parameter.x": torch.from_numpy(rng.standard_normal((2, length)).astype(np.float32)),
            "parameter.table": torch.from_numpy(rng.standard_normal((256, 5)).astype(np.float32)),
            "moment.unused": torch.from_numpy(rng.standard_normal(700).astype(np.float32)),
        }
    )


def primitives() -> tuple[BuiltProgram, list[torch.Tensor]]:
    """A program with a POINTWISE for each primitive, on special and ordinary words, and a state for it."""
    words = [*SPECIAL_WORDS, 0x3F800000, 0xC0490FDB, 31, 0x80000001, 0x4F000000, 0x7FC00001, 12345, 0x3EAAAAAB]
    pairs = [(a, b) for a in words for b in words]
    columns = [[a for a, _ in pairs], [b for _, b in pairs], [a ^ b for a, b in pairs]]
    build = ProgramBuilder(Role.TRAIN)
    build.state("metric.heldout_loss", DType.FLOAT32, (1,))
    build.state("counter.step", DType.INT64, (1,))
    for number in range(3):
        build.state(f"words.{number}", DType.FLOAT32, (len(pairs),))
    # Constants: a LOAD would make all NaNs one.
    inputs = [build.constant(word_tensor(column)) for column in columns]
    results = []
    for op in Op:
        count = operands_of(op)
        code = [Instruction(Op.INPUT, number) for number in range(max(count, 1))]
        if op is not Op.INPUT:
            code.append(Instruction(op, *range(count), word=7 if op is Op.CONST else 0))
        kernel = Kernel(max(count, 1), tuple(code))
        results.append(build.pointwise(kernel, *inputs[: kernel.inputs], dtype=DType.INT32))
    mixed = results[0]
    xor = Kernel(2, (Instruction(Op.INPUT, 0), Instruction(Op.INPUT, 1), Instruction(Op.XOR, 0, 1)))
    for result in results[1:]:
        mixed = build.pointwise(xor, mixed, result, dtype=DType.INT32)
    same = Kernel(1, (Instruction(Op.INPUT, 0),))
    build.store("words.0", build.pointwise(same, mixed, dtype=DType.FLOAT32))
    build.store("counter.step", build.pointwise(ONE_MORE, build.load("counter.step"), dtype=DType.INT32))
    state = [torch.zeros(1), torch.tensor([5]), *(torch.zeros(len(pairs)) for _ in range(3))]
    return build.finish(), state


class _Writer(ProgramWriter):
    """Random programs whose second tensor is a single counter, as every task's."""

    _shapes = 0

    def _shape(self, rank: int = 4, most: int = 72) -> tuple[int, ...]:
        self._shapes += 1
        return (1,) if self._shapes <= 2 else super()._shape(rank, most)


def random_run(seed: int, operations: int = 14) -> tuple[BuiltProgram, list[torch.Tensor]]:
    """A random program and a state for it."""
    written: RandomProgram = _Writer(random.Random(seed)).program(operations)
    return BuiltProgram(written.program, tuple(written.constants)), written.state
