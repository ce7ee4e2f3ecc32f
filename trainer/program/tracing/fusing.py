"""The canonical fusing pass: element-wise neighbours become one kernel, and not a bit of any result changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer.engine.exact.kernels import MAXIMUM_INPUTS, MAXIMUM_LENGTH, Instruction, Kernel, Op, operands_of
from trainer.program.exact.operations import DType, Operand, Operation, Pointwise, Program, View

_NAN = 0x7FC00000
_PASSED_ON = Kernel(1, (Instruction(Op.INPUT, 0),))
# What gives the one NaN or no NaN at all; comparisons and F2I give words that are no NaN either.
_CANONICAL = {Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FSQRT, Op.I2F, Op.FLT, Op.FLE, Op.FEQ, Op.ILT, Op.IEQ}


def fuse(program: Program) -> Program:
    """The program with each POINTWISE or VIEW taken into the one POINTWISE or VIEW that reads it.

    One operation takes another in if nobody else reads that, if no element of it would be computed more than once, if
    strides can say which element is meant, and if the kernel stays within its limits. Operations are looked at in
    order, their operands in order, so a program has one fused form; fusing it again changes nothing.
    """
    operations = list(program.operations)
    readers = _readers(program)
    for number in range(len(operations)):
        absorbed: int | None = number
        while absorbed is not None:
            absorbed = _take_in(operations, readers, number)
    kept = [number for number in range(len(operations)) if readers[number] is not _GONE]
    place = {old: new for new, old in enumerate(kept)}
    return replace(
        program,
        states=tuple(s if s.source is None else replace(s, source=place[s.source]) for s in program.states),
        operations=tuple(_renumbered(operations[number], place) for number in kept),
    )


_GONE: frozenset[int] = frozenset({-2})  # readers of an operation that was taken in
_STATE = -1  # a state tensor reads


def _readers(program: Program) -> list[frozenset[int]]:
    found: list[set[int]] = [set() for _ in program.operations]
    for number, one in enumerate(program.operations):
        for operand in one.operands:
            found[operand.source].add(number)
    for state in program.states:
        if state.source is not None:
            found[state.source].add(_STATE)
    return [frozenset(readers) for readers in found]


def _take_in(operations: list[Operation], readers: list[frozenset[int]], number: int) -> int | None:
    """Fuses the first operand's operation that can be into operation `number`; which it was, or None."""
    reader = operations[number]
    if not isinstance(reader.attributes, Pointwise | View):
        return None
    for operand in reader.operands:
        if readers[operand.source] != {number}:
            continue
        joined = _joined(reader, operand, operations[operand.source])
        if joined is not None:
            for moved in operations[operand.source].operands:
                readers[moved.source] = readers[moved.source] - {operand.source} | {number}
            readers[operand.source] = _GONE
            operations[number] = joined
            return operand.source
    return None


def _joined(reader: Operation, operand: Operand, made: Operation) -> Operation | None:
    if not isinstance(made.attributes, Pointwise | View) or made.dtype not in (DType.FLOAT32, DType.INT32):
        return None
    views = {one for one in reader.operands if one.source == operand.source}
    if len(views) > 1 or reader.elements > made.elements:
        return None
    inner = _composed(made, operand, reader.shape)
    if inner is None:
        return None
    outer = [one for one in reader.operands if one != operand]
    operands = list(dict.fromkeys([*outer, *inner]))
    writer = _Writer()
    # The result is canonical where the operation wrote floats, as its output was.
    result = writer.replay(_kernel_of(made), [writer.input(operands.index(one)) for one in inner])
    if made.dtype is DType.FLOAT32 and not _is_canonical(made):
        result = writer.canonical(result)
    inputs = [result if one == operand else writer.input(operands.index(one)) for one in reader.operands]
    writer.replay_last(_kernel_of(reader), inputs)
    if len(operands) > MAXIMUM_INPUTS or len(writer.instructions) > MAXIMUM_LENGTH:
        return None
    kernel = Kernel(len(operands), tuple(writer.instructions))
    return Operation(Pointwise(kernel), reader.dtype, reader.shape, tuple(operands))


def _kernel_of(one: Operation) -> Kernel:
    return one.attributes.kernel if isinstance(one.attributes, Pointwise) else _PASSED_ON


def _is_canonical(made: Operation) -> bool:
    """Whether a kernel's result is never a NaN but the one. An INPUT may be any word: it is not followed further."""
    if isinstance(made.attributes, View):
        return True  # its source's elements are canonical already
    known: list[bool] = []
    for one in _kernel_of(made).instructions:
        if one.op is Op.SELECT:
            known.append(known[one.b] and known[one.c])
        elif one.op is Op.CONST:
            known.append((one.word & 0x7FFFFFFF) <= 0x7F800000 or one.word == _NAN)
        else:
            known.append(one.op in _CANONICAL)
    return known[-1]


class _Writer:
    """Instructions of several kernels in one, equal ones shared."""

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self._known: dict[Instruction, int] = {}

    def add(self, instruction: Instruction) -> int:
        if instruction not in self._known:
            self._known[instruction] = len(self.instructions)
            self.instructions.append(instruction)
        return self._known[instruction]

    def input(self, number: int) -> int:
        return self.add(Instruction(Op.INPUT, number))

    def replay(self, kernel: Kernel, inputs: Sequence[int]) -> int:
        """A kernel's instructions with its inputs in other registers; the register of its result."""
        registers: list[int] = []
        for one in kernel.instructions:
            if one.op is Op.INPUT:
                registers.append(inputs[one.a])
            else:
                read = [registers[register] for register in (one.a, one.b, one.c)[: operands_of(one.op)]]
                a, b, c = (*read, 0, 0, 0)[:3]
                registers.append(self.add(Instruction(one.op, a, b, c, one.word)))
        return registers[-1]

    def replay_last(self, kernel: Kernel, inputs: Sequence[int]) -> None:
        """`replay`, with the result as the last instruction, where a kernel has it."""
        result = self.replay(kernel, inputs)
        if result != len(self.instructions) - 1:
            self.instructions.append(self.instructions[result])

    def canonical(self, register: int) -> int:
        """The register's float, NaN as the one NaN."""
        is_number = self.add(Instruction(Op.FEQ, register, register))
        return self.add(Instruction(Op.SELECT, is_number, register, self.add(Instruction(Op.CONST, word=_NAN))))


@dataclass(frozen=True)
class _Axis:
    """Axes of an output that every one of its operands walks evenly, merged: extent, contiguous stride, strides."""

    extent: int
    step: int
    strides: tuple[int, ...]


def _composed(made: Operation, view: Operand, shape: tuple[int, ...]) -> tuple[Operand, ...] | None:
    """The operands of `made` as seen through a view of its output, or None where strides cannot say that."""
    axes = _merged_axes(made)
    starts = []
    rest = view.offset
    for axis in axes:
        starts.append(rest // axis.step)
        rest %= axis.step
    reach = list(starts)
    walked: list[tuple[int, int] | None] = []  # for each axis of the reader: which merged axis, how many places a step
    for extent, stride in zip(shape, view.strides, strict=True):
        if extent == 1 or stride == 0:
            walked.append(None)
            continue
        found = next((k for k, axis in enumerate(axes) if axis.step <= stride < axis.step * axis.extent), None)
        if found is None or stride % axes[found].step:
            return None
        places = stride // axes[found].step
        reach[found] += (extent - 1) * places
        walked.append((found, places))
    if any(end >= axis.extent for end, axis in zip(reach, axes, strict=True)):
        return None
    operands = []
    for number, old in enumerate(made.operands):
        offset = old.offset + sum(start * axis.strides[number] for start, axis in zip(starts, axes, strict=True))
        strides = tuple(0 if step is None else step[1] * axes[step[0]].strides[number] for step in walked)
        operands.append(Operand(old.source, offset, strides))
    return tuple(operands)


def _merged_axes(made: Operation) -> list[_Axis]:
    axes: list[_Axis] = []
    for axis, extent in enumerate(made.shape):
        if extent == 1:
            continue
        step = math.prod(made.shape[axis + 1 :])
        strides = tuple(operand.strides[axis] for operand in made.operands)
        if axes and all(old == new * extent for old, new in zip(axes[-1].strides, strides, strict=True)):
            axes[-1] = _Axis(axes[-1].extent * extent, step, strides)
        else:
            axes.append(_Axis(extent, step, strides))
    return axes


def _renumbered(one: Operation, place: dict[int, int]) -> Operation:
    return replace(one, operands=tuple(replace(o, source=place[o.source]) for o in one.operands))
