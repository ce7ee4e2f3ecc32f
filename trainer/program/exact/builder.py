"""Writes programs: one method an operation, which computes shapes and strides and shares equal operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.commit.tensors import tensor_root
from trainer.engine.exact.kernels import Kernel
from trainer.program.exact.operations import (
    CONSTANT_DTYPES,
    MAXIMUM_OPERANDS,
    STATE_DTYPES,
    Attributes,
    Batch,
    Cat,
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
from trainer.program.exact.scaling import exponent_kernel, quantise_kernel, remainder_kernel, scale_kernel
from trainer.program.exact.views import Value, whole

_CONSTANT_TYPES = {torch.float32: DType.FLOAT32, torch.int32: DType.INT32}


@dataclass(frozen=True)
class Quantised:
    """Rows quantised along the last axis: int8 or int16 values [..., K] and float32 scales [...]."""

    values: Value
    scales: Value


@dataclass(frozen=True)
class BuiltProgram:
    """A program and the data of its constants, in their order."""

    program: Program
    constants: tuple[Tensor, ...]


class ProgramBuilder:
    """Writes a program. Handles are `Value`s: views of outputs, whose own methods permute, slice and expand for free.

    Equal operations are made once. Methods raise ValueError for shapes and dtypes that do not fit; limits of the format
    are the loader's to check (`validate.check_program`).

    Example::

        build = ProgramBuilder(Role.TRAIN)
        build.state("parameter.w", DType.FLOAT32, (4, 3))
        w = build.load("parameter.w")
        build.store("parameter.w", build.pointwise(kernel, w, dtype=DType.FLOAT32))
        built = build.finish()
    """

    def __init__(self, role: Role, *, inputs: int = 0) -> None:
        self._role, self._inputs = role, inputs
        self._states: dict[str, StateTensor] = {}
        self._constants: dict[ConstantTensor, Tensor] = {}
        self._operations: list[Operation] = []
        self._known: dict[Operation, int] = {}
        self._closed = False  # whether the number of tensors is in a LOAD already

    def state(self, name: str, dtype: DType, shape: Sequence[int]) -> None:
        """Declares the next tensor of the state, which stays unchanged until something is stored to it."""
        if self._closed:
            raise ValueError(f"{name} is declared after another state was loaded, whose numbers it would change")
        if name in self._states:
            raise ValueError(f"the state has a tensor {name} already")
        if dtype not in STATE_DTYPES:
            raise ValueError(f"a state holds float32 and int64, not {dtype.name}")
        self._states[name] = StateTensor(name, dtype, tuple(shape))

    def load(self, name: str, *, state: int = 0) -> Value:
        """LOAD of a state tensor: float32, or int32 of an int64 one.

        A merge loads once all tensors are declared: `state` is 0 for the base, 1 + s for slot s.
        """
        if not 0 <= state <= self._inputs:
            raise ValueError(f"state {state} of a program that takes {1 + self._inputs}")
        tensor = self._states[name]
        dtype = DType.FLOAT32 if tensor.dtype is DType.FLOAT32 else DType.INT32
        self._closed = self._closed or state > 0
        index = state * len(self._states) + list(self._states).index(name)
        return self._add(Load(index), dtype, tensor.shape)

    def store(self, name: str, value: Value) -> None:
        """Makes a value of the same shape the tensor's next one; int32 goes to int64."""
        tensor = self._states[name]
        dtype = DType.FLOAT32 if tensor.dtype is DType.FLOAT32 else DType.INT32
        if (value.dtype, value.shape) != (dtype, tensor.shape):
            raise ValueError(f"{value.dtype.name} {list(value.shape)} stored to {name}, {list(tensor.shape)}")
        self._states[name] = replace(tensor, source=self.materialise(value).source)

    def constant(self, data: Tensor) -> Value:
        """CONST: float32 or int32 data (every NaN will read as the one NaN)."""
        dtype = _CONSTANT_TYPES.get(data.dtype)
        if dtype not in CONSTANT_DTYPES:
            raise ValueError(f"a constant is float32 or int32, not {data.dtype}")
        data = data.detach().cpu().contiguous()
        key = ConstantTensor(dtype, tuple(data.shape), tensor_root(data))
        self._constants.setdefault(key, data)
        return self._add(Constant(list(self._constants).index(key)), dtype, key.shape)

    def batch(self, samples: int, length: int, *, shift: int = 0, part: Part = Part.TRAIN) -> Value:
        """BATCH: int32 tokens [samples, length]."""
        return self._add(Batch(part, shift), DType.INT32, (samples, length))

    def view(self, value: Value) -> Value:
        """VIEW: always a new contiguous tensor of the value's elements."""
        return self._add(View(), value.dtype, value.shape, value.operand(value.shape))

    def materialise(self, value: Value) -> Value:
        """The value itself if it is all of an output, else a VIEW of it."""
        made = self._operations[value.source]
        return value if value == whole(value.source, made.dtype, made.shape) else self.view(value)

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The elements in order under another shape; one extent may be -1. A VIEW only where strides cannot say it."""
        sizes = list(shape)
        if -1 in sizes:
            rest = -math.prod(sizes)
            sizes[sizes.index(-1)] = value.elements // rest
        return value.reshaped(sizes) or self._reshape_copy(value, tuple(sizes))

    def _reshape_copy(self, value: Value, shape: Shape) -> Value:
        copied = self.view(value).reshaped(shape)
        if copied is None:
            raise AssertionError("a contiguous tensor has every shape of its size")
        return copied

    def pointwise(self, kernel: Kernel, *values: Value, dtype: DType, shape: Sequence[int] | None = None) -> Value:
        """POINTWISE over values, broadcast to each other (and to `shape` if given). int8 and int16 saturate."""
        if len(values) != kernel.inputs:
            raise ValueError(f"the kernel takes {kernel.inputs} inputs, not {len(values)}")
        target = tuple(shape) if shape is not None else broadcast_shapes(*(value.shape for value in values))
        return self._add(Pointwise(kernel), dtype, target, *(value.operand(target) for value in values))

    def rows(self, value: Value) -> Value:
        """The value as folds need it, each run along its last axis inside one row of its source; else a VIEW."""
        source = self._operations[value.source].shape
        return value if value.shape and value.runs(source[-1] if source else 1) else self._copied_rows(value)

    def _copied_rows(self, value: Value) -> Value:
        if not value.shape:
            raise ValueError("a tensor without axes has no rows to fold")
        return self.view(value)

    def max_last(self, value: Value, *, magnitudes: bool = False) -> Value:
        """MAX over the last axis, which goes: [..., K] float32 to [...]."""
        x = self.rows(value)
        return self._add(Max(x.shape[-1], magnitudes), DType.FLOAT32, x.shape[:-1], _start(x).operand(x.shape[:-1]))

    def exponent_last(self, value: Value) -> Value:
        """E of each row: [..., K] float32 to int32 [...]."""
        return self.pointwise(exponent_kernel(), self.max_last(value, magnitudes=True), dtype=DType.INT32)

    def exponent_all(self, value: Value) -> Value:
        """E of a whole tensor, int32 []."""
        greatest = self.max_last(value, magnitudes=True)
        if greatest.shape:
            greatest = self.max_last(self.reshape(greatest, (greatest.elements,)), magnitudes=True)
        return self.pointwise(exponent_kernel(), greatest, dtype=DType.INT32)

    def sum_last(self, value: Value, exponent: Value | None = None) -> Value:
        """SUM over the last axis, which goes: [..., K] float32 to [...]. E is each row's own unless given."""
        x = self.rows(value)
        shape = x.shape[:-1]
        exponent = self.exponent_last(x) if exponent is None else exponent
        return self._add(Sum(x.shape[-1]), DType.FLOAT32, shape, _start(x).operand(shape), exponent.operand(shape))

    def quantise(self, value: Value, bits: int) -> Quantised:
        """Quantise along the last axis: MAX of magnitudes and two POINTWISE; int8 to 8 bits, else int16."""
        x = self.rows(value)
        greatest = self.max_last(x, magnitudes=True)
        dtype = DType.INT8 if bits <= 8 else DType.INT16
        return Quantised(
            self.pointwise(quantise_kernel(bits), x, greatest.unsqueeze(-1), dtype=dtype),
            self.pointwise(scale_kernel(bits), greatest, dtype=DType.FLOAT32),
        )

    def remainder(self, value: Value, quantised: Quantised) -> Value:
        """What quantising a value left out, exactly: at most half a scale, or one where q was clamped."""
        x = self.rows(value)
        operands = (x, quantised.values, quantised.scales.unsqueeze(-1))
        return self.pointwise(remainder_kernel(), *operands, dtype=DType.FLOAT32)

    def matmul(self, a: Value, b: Value, bits: tuple[int, int]) -> Value:
        """a [..., M, K] times the rows of b [..., N, K], quantised to these bits: float32 [..., M, N]."""
        return self.product(self.quantise(a, bits[0]), self.quantise(b, bits[1]))

    def product(self, a: Quantised, b: Quantised) -> Value:
        """MATMUL of rows quantised already, leading axes broadcast: values [..., M, K], [..., N, K] to [..., M, N]."""
        if min(len(a.values.shape), len(b.values.shape)) < 2 or a.values.shape[-1] != b.values.shape[-1]:
            raise ValueError(f"rows of {list(a.values.shape)} and {list(b.values.shape)} cannot be multiplied")
        left, right = _start(self.rows(a.values)), _start(self.rows(b.values))
        shape = (*broadcast_shapes(left.shape[:-1], right.shape[:-1]), left.shape[-1], right.shape[-1])
        operands = (left.unsqueeze(-1), right.unsqueeze(-2), a.scales.unsqueeze(-1), b.scales.unsqueeze(-2))
        length = a.values.shape[-1]
        return self._add(Matmul(length), DType.FLOAT32, shape, *(one.operand(shape) for one in operands))

    def take(self, table: Value, index: Value) -> Value:
        """TAKE of rows: table [V, ...] and int32 index [...] to [index axes, ...]; 0 where the index is outside."""
        rest, places = table.shape[1:], index.shape
        shape = (*places, *rest)
        rows = replace(table, shape=(*(1,) * len(places), *rest), strides=(*(0,) * len(places), *table.strides[1:]))
        spread = replace(index, shape=(*places, *(1,) * len(rest)), strides=(*index.strides, *(0,) * len(rest)))
        attributes = Take(table.shape[0], table.strides[0])
        return self._add(attributes, table.dtype, shape, rows.operand(shape), spread.operand(shape))

    def gather_last(self, table: Value, index: Value) -> Value:
        """TAKE along the last axis: table [..., V] and int32 index [...] to [...]; 0 where the index is outside."""
        shape = index.shape
        first = table.select(-1, 0).operand(shape)
        return self._add(Take(table.shape[-1], table.strides[-1]), table.dtype, shape, first, index.operand(shape))

    def scatter_add(self, value: Value, index: Value, rows: int, exponent: Value | None = None) -> Value:
        """SCATTER_ADD: float32 [..., K], int32 index [K] or [..., K], to [rows, ...]; E is the tensor's if none."""
        x, places = self.rows(value), self.rows(index)
        if x.shape[-1] != places.shape[-1]:
            raise ValueError(f"{list(x.shape)} cannot be added at the places {list(places.shape)}")
        exponent = self.exponent_all(x) if exponent is None else exponent
        shape = (rows, *x.shape[:-1])
        operands = (_start(x).operand(shape), _start(places).operand(shape), exponent.operand(shape))
        return self._add(ScatterAdd(x.shape[-1]), DType.FLOAT32, shape, *operands)

    def cat(self, values: Sequence[Value], axis: int, *, extent: int | None = None, padding: int = 0) -> Value:
        """CAT along an axis; up to `extent` the word `padding` follows."""
        values = list(values)
        while len(values) > MAXIMUM_OPERANDS:
            values = [self.cat(values[:MAXIMUM_OPERANDS], axis), *values[MAXIMUM_OPERANDS:]]
        axis %= len(values[0].shape)
        extents = tuple(value.shape[axis] for value in values)
        shape = list(values[0].shape)
        shape[axis] = sum(extents) if extent is None else extent
        operands = []
        for value in values:
            if value.dtype is not values[0].dtype or len(value.shape) != len(shape):
                raise ValueError("tensors of different dtype or rank cannot be joined")
            part = [*shape[:axis], value.shape[axis], *shape[axis + 1 :]]
            operands.append(value.operand(tuple(part)))
        return self._add(Cat(axis, extents, padding), values[0].dtype, tuple(shape), *operands)

    def pad(self, value: Value, axis: int, before: int, after: int, fill: Value) -> Value:
        """CAT with `before` and `after` places of a scalar value around it."""
        shape, axis = list(value.shape), axis % len(value.shape)
        parts = [value]
        for count, front in ((before, True), (after, False)):
            if count:
                edge = fill.expand((*shape[:axis], count, *shape[axis + 1 :]))
                parts = [edge, *parts] if front else [*parts, edge]
        return self.cat(parts, axis)

    def operation_of(self, value: Value) -> Operation:
        """The operation whose output a value views."""
        return self._operations[value.source]

    def operands_of(self, value: Value) -> tuple[Value, ...]:
        """That operation's operands as views, each of its output's shape; of folds, the first elements of the runs."""
        made = self.operation_of(value)
        return tuple(
            Value(one.source, self._operations[one.source].dtype, made.shape, one.offset, one.strides)
            for one in made.operands
        )

    def finish(self, *, prune: bool = True) -> BuiltProgram:
        """The program; with `prune`, without the operations and constants that no state tensor depends on."""
        states = tuple(self._states.values())
        if not prune:
            program = Program(self._role, states, tuple(self._constants), tuple(self._operations), self._inputs)
            return BuiltProgram(program, tuple(self._constants.values()))
        place = _needed(self._operations, [state.source for state in states])
        operations = [self._operations[number] for number in place]
        held = sorted({one.attributes.index for one in operations if isinstance(one.attributes, Constant)})
        constants = {old: new for new, old in enumerate(held)}
        keys, data = list(self._constants), list(self._constants.values())
        program = Program(
            self._role,
            tuple(s if s.source is None else replace(s, source=place[s.source]) for s in states),
            tuple(keys[number] for number in held),
            tuple(_moved(one, place, constants) for one in operations),
            self._inputs,
        )
        return BuiltProgram(program, tuple(data[number] for number in held))

    def _add(self, attributes: Attributes, dtype: DType, shape: Shape, *operands: Operand) -> Value:
        operation = Operation(attributes, dtype, shape, operands)
        if operation not in self._known:
            self._known[operation] = len(self._operations)
            self._operations.append(operation)
        return whole(self._known[operation], dtype, shape)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """The common shape, axes matched from the last. Raises ValueError where there is none."""
    rank = max((len(shape) for shape in shapes), default=0)
    result = []
    for extents in zip(*((*(1,) * (rank - len(shape)), *shape) for shape in shapes), strict=True):
        sizes = {extent for extent in extents if extent != 1}
        if len(sizes) > 1:
            raise ValueError(f"the shapes {', '.join(str(list(shape)) for shape in shapes)} do not broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def _start(value: Value) -> Value:
    """The first element of each run along the last axis."""
    return value.select(-1, 0)


def _needed(operations: Sequence[Operation], roots: Sequence[int | None]) -> dict[int, int]:
    """Old number to new number of all operations that the roots depend on, in order."""
    live = {root for root in roots if root is not None}
    for number in range(len(operations) - 1, -1, -1):
        if number in live:
            live.update(operand.source for operand in operations[number].operands)
    return {old: new for new, old in enumerate(sorted(live))}


def _moved(operation: Operation, place: dict[int, int], constants: dict[int, int]) -> Operation:
    operands = tuple(replace(operand, source=place[operand.source]) for operand in operation.operands)
    attributes = operation.attributes
    if isinstance(attributes, Constant):
        attributes = Constant(constants[attributes.index])
    return replace(operation, attributes=attributes, operands=operands)
