"""Merges for disputes: a task whose merge program has every operation that it may, and random ones."""

from __future__ import annotations

import functools
import random
from collections import OrderedDict
from dataclasses import replace

import torch
from dispute_programs import SEED, base_state, declare, mixed, task
from random_programs import ProgramWriter, RandomProgram

from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.engine.state import State
from trainer.program.exact import BuiltProgram, DType, Part, Program, Role, check_program
from trainer.program.exact.operations import Load
from trainer.program.task import TaskProgram

SLOTS = 3
SUM_OF_TWO = Kernel(2, (Instruction(Op.INPUT, 0), Instruction(Op.INPUT, 1), Instruction(Op.IADD, 0, 1)))


@functools.cache
def merged_task(length: int) -> TaskProgram:
    """The task of `dispute_programs` with a merge of three slots: it folds `length` elements, and the four states.

    Its evaluation changes a tensor that the merge leaves unchanged.
    """
    build = declare(Role.MERGE, length, inputs=SLOTS)
    x = [build.load("parameter.x", state=state) for state in range(SLOTS + 1)]
    index = build.constant(torch.arange(length, dtype=torch.int32) % 7 - 1)
    rows = build.constant(torch.arange(12, dtype=torch.int32) * 31 - 5)
    mean = build.sum_last(build.cat([one.unsqueeze(-1) for one in x], -1))
    product = build.product(build.quantise(x[1], 13), build.quantise(x[2], 8))
    sums, best, scattered = build.sum_last(x[3]), build.max_last(x[2]), build.scatter_add(x[1], index, 4)
    every = build.cat([build.reshape(one, (one.elements,)) for one in (product, sums, best, scattered)], 0, extent=20)
    total = build.sum_last(build.view(every))
    taken = build.take(build.load("parameter.table", state=2), rows)
    gradient = build.scatter_add(taken.transpose(), rows, 256)
    table = build.load("parameter.table")
    build.store("parameter.x", build.pointwise(mixed(), mean, total.expand((2, length)), dtype=DType.FLOAT32))
    build.store("parameter.table", build.pointwise(mixed(), table, gradient, dtype=DType.FLOAT32))
    build.store("metric.heldout_loss", build.reshape(total, (1,)))
    counters = [build.load("counter.step", state=state) for state in (1, 3)]
    build.store("counter.step", build.pointwise(SUM_OF_TWO, *counters, dtype=DType.INT32))
    return TaskProgram(
        seed=SEED,
        training=task(length).training,
        evaluation=_evaluation(length),
        generation=None,
        merge=build.finish(),
        description={},
    )


def _evaluation(length: int) -> BuiltProgram:
    evaluate = declare(Role.EVALUATE, length)
    windows = evaluate.take(evaluate.load("parameter.table"), evaluate.batch(2, 6, part=Part.HELDOUT))
    loss = evaluate.sum_last(evaluate.reshape(windows, (1, windows.elements)))
    evaluate.store("metric.heldout_loss", loss)
    moment = evaluate.load("moment.unused")
    evaluate.store("moment.unused", evaluate.pointwise(mixed(), moment, moment, dtype=DType.FLOAT32))
    return evaluate.finish()


def slot_state(length: int, slot: int) -> State:
    """A state that a slot has submitted: every tensor another one than the base's."""
    rng = torch.Generator().manual_seed(slot)
    made = OrderedDict()
    for name, tensor in base_state(length).items():
        if tensor.dtype is torch.int64:
            made[name] = tensor + 3 + slot
        else:
            made[name] = tensor + torch.randn(tensor.shape, generator=rng) / 8
    return made


def merge_inputs(length: int) -> list[State | None]:
    """What the merge takes beside the base: its second slot is missing."""
    return [slot_state(length, 0), None, slot_state(length, 2)]


class _MergeWriter(ProgramWriter):
    """Random programs that read no tokens, and whose second tensor is a single counter."""

    _shapes = 0

    def _batch(self) -> None:
        self._pointwise()

    def _shape(self, rank: int = 4, most: int = 72) -> tuple[int, ...]:
        self._shapes += 1
        return (1,) if self._shapes <= 2 else super()._shape(rank, most)


def random_merge(seed: int, operations: int = 14) -> tuple[RandomProgram, Program]:
    """A random program that reads tensors of several states, with these one after the other; and the same of one."""
    rng = random.Random(seed)
    one = _MergeWriter(rng).program(operations)
    inputs, count = rng.randint(2, 6), len(one.state)
    read = tuple(
        replace(made, attributes=Load(made.attributes.index + count * rng.randint(0, inputs)))
        if isinstance(made.attributes, Load)
        else made
        for made in one.program.operations
    )
    program = Program(Role.MERGE, one.program.states, one.program.constants, read, inputs)
    check_program(program)
    states = list(one.state)
    for _ in range(inputs):
        missing = rng.random() < 0.3
        states += one.state if missing else [tensor.flip(list(range(tensor.dim()))) * 3 for tensor in one.state]
    return RandomProgram(program, states, one.constants), one.program
