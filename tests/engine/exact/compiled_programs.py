"""Compiled programs against the reference: one compiler for all tests, and many random programs in one."""

import dataclasses
import functools
from collections.abc import Sequence

import torch
from random_programs import RandomProgram, random_program

from trainer.engine.exact.fast import CompiledProgram
from trainer.engine.exact.interpreter import run_program
from trainer.native import Compiler, find_compiler
from trainer.program.exact import Part, Program, Role, check_program
from trainer.program.exact.operations import Batch, Constant, ConstantTensor, Load, Operation, StateTensor


@functools.cache
def compiler(*options: str) -> Compiler:
    return find_compiler(options=options)


@dataclasses.dataclass
class Joined:
    """Several random programs beside each other in one, because a compiler takes its time for each file."""

    program: Program
    state: list[torch.Tensor]
    constants: list[torch.Tensor]
    first: RandomProgram

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> torch.Tensor:
        return self.first.tokens(part, shift, samples, length)


def joined(seeds: Sequence[int]) -> Joined:
    """The programs of the seeds as one, checked."""
    return join([random_program(seed) for seed in seeds])


def join(given: Sequence[RandomProgram]) -> Joined:
    """Programs as one, checked."""
    states: list[StateTensor] = []
    constants: list[ConstantTensor] = []
    operations: list[Operation] = []
    for number, one in enumerate(given):
        base = len(operations)
        operations += [_moved(old, base, len(states), len(constants)) for old in one.program.operations]
        states += [
            dataclasses.replace(
                old, name=f"{number}.{old.name}", source=None if old.source is None else old.source + base
            )
            for old in one.program.states
        ]
        constants += one.program.constants
    program = Program(Role.TRAIN, tuple(states), tuple(constants), tuple(operations))
    check_program(program)
    state = [tensor for one in given for tensor in one.state]
    return Joined(program, state, [tensor for one in given for tensor in one.constants], given[0])


def _moved(one: Operation, operations: int, states: int, constants: int) -> Operation:
    attributes = one.attributes
    if isinstance(attributes, Load):
        attributes = Load(attributes.index + states)
    elif isinstance(attributes, Constant):
        attributes = Constant(attributes.index + constants)
    assert not isinstance(attributes, Batch) or attributes == one.attributes
    operands = tuple(dataclasses.replace(old, source=old.source + operations) for old in one.operands)
    return dataclasses.replace(one, attributes=attributes, operands=operands)


def words(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int32) if x.dtype == torch.float32 else x


def same(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    """Whether tensors have the same bits."""
    return all(torch.equal(words(x), words(y)) for x, y in zip(a, b, strict=True))


def assert_equals_reference(one: Joined, fast: CompiledProgram, *, outputs: bool) -> None:
    """The next state, and with `outputs` every operation's output, have the reference's bits."""
    expected: list[torch.Tensor] = []
    state = run_program(
        one.program, one.state, one.constants, one, observe=lambda _, output: expected.append(output.clone())
    )
    assert same(state, fast.run(one.state, one))
    for number, output in enumerate(expected if outputs else ()):
        assert torch.equal(words(output), words(fast.output(number))), one.program.operations[number]
