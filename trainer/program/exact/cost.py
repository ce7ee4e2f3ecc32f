"""What a program costs before it runs: multiply-adds, instructions, elements and memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from trainer.program.exact.operations import (
    Code,
    ConstantTensor,
    Matmul,
    Operation,
    Pointwise,
    Program,
    StateTensor,
)


@dataclass(frozen=True)
class Cost:
    """Exact counts for one run of a program.

    Attributes:
        multiply_adds: integer products added, of all MATMULs; twice as many FLOPs.
        instructions: instructions of POINTWISE kernels over all elements, without inputs and constants.
        folded: elements that SUM, MAX and SCATTER_ADD read.
        elements: of all outputs. bytes_written: of all outputs.
        peak_bytes: of the state (of a merge all states), constants and outputs alive at once, where outputs go after
            their last reader; what an engine uses to compute one output comes on top.
        operations: number of operations of each kind, by name.
    """

    multiply_adds: int
    instructions: int
    folded: int
    elements: int
    bytes_written: int
    peak_bytes: int
    operations: dict[str, int]

    @property
    def flops(self) -> int:
        """Two for each multiply-add, one for each instruction and each element folded."""
        return 2 * self.multiply_adds + self.instructions + self.folded


def cost_of(program: Program) -> Cost:
    """The cost of a checked program; linear in its length."""
    operations = program.operations
    return Cost(
        multiply_adds=sum(one.elements * one.fold for one in operations if isinstance(one.attributes, Matmul)),
        instructions=sum(one.elements * _instructions(one) for one in operations),
        folded=sum(folded_by(one) for one in operations),
        elements=sum(one.elements for one in operations),
        bytes_written=sum(bytes_of(one) for one in operations),
        peak_bytes=_held(program) + _peak(program),
        operations=dict(sorted(Counter(one.code.name for one in operations).items())),
    )


def folded_by(one: Operation) -> int:
    """Elements that a SUM, MAX or SCATTER_ADD reads; SCATTER_ADD reads a run once for all its rows."""
    if one.code is Code.SCATTER_ADD:
        return one.elements // one.shape[0] * one.fold
    return one.elements * one.fold if one.code in (Code.SUM, Code.MAX) else 0


def bytes_of(one: Operation) -> int:
    """Bytes of an operation's output."""
    return one.elements * one.dtype.size


def last_readers(program: Program) -> list[int]:
    """For each operation the last one that reads it, or the number of operations where the next state does."""
    last = list(range(len(program.operations)))
    for number, one in enumerate(program.operations):
        for operand in one.operands:
            last[operand.source] = number
    for state in program.states:
        if state.source is not None:
            last[state.source] = len(program.operations)
    return last


def last_readers_for(program: Program, wanted: Collection[int]) -> list[int]:
    """As `last_readers` where only these operations' outputs are wanted, and those that they depend on computed.

    Wanted ones count as read at the end; -1 stands for operations that nothing wanted depends on.
    """
    last = [-1] * len(program.operations)
    for number in wanted:
        last[number] = len(program.operations)
    for number in range(len(last) - 1, -1, -1):
        if last[number] >= 0:
            for operand in program.operations[number].operands:
                last[operand.source] = max(last[operand.source], number)
    return last


def _instructions(one: Operation) -> int:
    if not isinstance(one.attributes, Pointwise):
        return 0
    # INPUT and CONST, below 0x10, do no work.
    return sum(instruction.op >= 0x10 for instruction in one.attributes.kernel.instructions)


def _held(program: Program) -> int:
    """Bytes of what is there all the time: the state, or all states of a merge, and the constants."""
    tensors: list[StateTensor | ConstantTensor] = [*program.taken, *program.constants]
    return sum(math.prod(tensor.shape) * tensor.dtype.size for tensor in tensors)


def _peak(program: Program) -> int:
    freed: list[list[int]] = [[] for _ in range(len(program.operations) + 1)]
    for number, last in enumerate(last_readers(program)):
        freed[last].append(bytes_of(program.operations[number]))
    alive = peak = 0
    for number, one in enumerate(program.operations):
        alive += bytes_of(one)
        peak = max(peak, alive)
        alive -= sum(freed[number])
    return peak
