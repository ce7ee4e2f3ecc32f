"""Checks a program before anything of it runs: every rule of docs/programs.md, in time and memory linear in the file.

Nothing here computes with tensors' sizes but multiplications of a few integers, so a program of huge shapes costs no
more to refuse than a small one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor

from ledger.errors import SpecificationError
from trainer.commit.tensors import DTYPE_NUMBERS, tensor_root
from trainer.engine.exact.kernels import signed
from trainer.program.exact.encoding import decode_program
from trainer.program.exact.operations import (
    CONSTANT_DTYPES,
    KINDS,
    LEAST_INPUTS,
    MAXIMUM_ELEMENTS,
    MAXIMUM_INPUTS,
    MAXIMUM_RANK,
    MAXIMUM_RECORDS,
    QUANTISED,
    STATE_DTYPES,
    Batch,
    Cat,
    Constant,
    ConstantTensor,
    DType,
    Load,
    Operand,
    Operation,
    Pointwise,
    Program,
    Role,
    Shape,
    StateTensor,
    Take,
)
from trainer.program.exact.reach import extents_of, last_element
from trainer.program.exact.views import runs_fit

_NAME = re.compile(r"[!-~]{1,255}")
_NAN, _INFINITY, _MAGNITUDE = 0x7FC00000, 0x7F800000, 0x7FFFFFFF
_LARGEST_FIELD = 0xFFFFFFFF


def load_program(data: bytes) -> Program:
    """Decodes and checks a program file.

    Raises:
        SpecificationError: not a valid program; says which record and which value.
    """
    program = decode_program(data)
    check_program(program)
    return program


def check_program(program: Program) -> None:
    """Checks everything that a program says; its constants' data are `check_constants`' affair.

    Raises:
        SpecificationError: a rule is broken; says which record and which value.
    """
    records = 1 + len(program.states) + len(program.constants) + len(program.operations)
    if records > MAXIMUM_RECORDS:
        _refuse("the header", f"{records} records are more than {MAXIMUM_RECORDS}")
    if not program.states:
        _refuse("the header", "a program without a state does nothing")
    _check_inputs(program)
    names: set[str] = set()
    for number, state in enumerate(program.states):
        _check_state(state, f"state {number}", names, program)
    for number, constant in enumerate(program.constants):
        name = f"constant {number}"
        _check_shape(constant.shape, name)
        _check_dtype(constant.dtype, CONSTANT_DTYPES, name)
        if len(constant.root) != 32 or not any(constant.root):
            _refuse(name, "its root is not 32 bytes other than zero")
    for number, operation in enumerate(program.operations):
        _check_operation(program, number, operation)


def check_constants(program: Program, constants: Sequence[Tensor]) -> None:
    """Checks that these are the data that the program's roots commit to.

    Raises:
        SpecificationError: one is missing, of another dtype or shape, or has another root.
    """
    if len(constants) != len(program.constants):
        _refuse("the constants", f"the program has {len(program.constants)} of them, and {len(constants)} are given")
    for number, (constant, data) in enumerate(zip(program.constants, constants, strict=True)):
        name = f"constant {number}"
        if DTYPE_NUMBERS.get(data.dtype) != constant.dtype or tuple(data.shape) != constant.shape:
            wanted = f"{constant.dtype.name.lower()} {list(constant.shape)}"
            _refuse(name, f"{data.dtype} {list(data.shape)} given for {wanted}")
        if tensor_root(data) != constant.root:
            _refuse(name, f"its data have the root {tensor_root(data).hex()}, not {constant.root.hex()}")


def _refuse(record: str, problem: str) -> NoReturn:
    raise SpecificationError(f"In the program, {record}: {problem}.", field=record)


def _check_inputs(program: Program) -> None:
    """A merge takes several states, and every other program one."""
    if program.role is not Role.MERGE:
        if program.inputs:
            _refuse("the header", f"a {program.role.name.lower()} program takes one state, not {program.inputs} more")
    elif not LEAST_INPUTS <= program.inputs <= MAXIMUM_INPUTS:
        _refuse("the header", f"a merge takes {LEAST_INPUTS} to {MAXIMUM_INPUTS} states, not {program.inputs}")


def _check_shape(shape: Shape, name: str) -> None:
    if len(shape) > MAXIMUM_RANK:
        _refuse(name, f"{len(shape)} dimensions are more than {MAXIMUM_RANK}")
    if any(extent < 1 for extent in shape) or math.prod(shape) > MAXIMUM_ELEMENTS:
        _refuse(name, f"the shape {list(shape)} has no elements, or more than {MAXIMUM_ELEMENTS}")


def _check_dtype(dtype: DType, allowed: Sequence[DType], name: str) -> None:
    if dtype not in allowed:
        _refuse(
            name, f"{dtype.name.lower()} is not allowed here ({', '.join(one.name.lower() for one in allowed)} are)"
        )


def _check_state(state: StateTensor, name: str, names: set[str], program: Program) -> None:
    if not _NAME.fullmatch(state.name):
        _refuse(name, f"the name {state.name!r} is not 1 to 255 printable ASCII characters without spaces")
    if state.name in names:
        _refuse(name, f"the name {state.name} is taken")
    names.add(state.name)
    _check_shape(state.shape, name)
    _check_dtype(state.dtype, STATE_DTYPES, name)
    if state.source is None:
        return
    if not 0 <= state.source < len(program.operations):
        _refuse(name, f"its source, operation {state.source}, does not exist")
    source = program.operations[state.source]
    if (source.dtype, source.shape) != (_read_as(state.dtype), state.shape):
        made = f"{source.dtype.name.lower()} {list(source.shape)}"
        _refuse(name, f"operation {state.source} makes {made}, not {state.dtype.name.lower()} {list(state.shape)}")


def _read_as(dtype: DType) -> DType:
    """The dtype in which operations see a state tensor."""
    return DType.INT32 if dtype is DType.INT64 else dtype


def _check_operation(program: Program, number: int, one: Operation) -> None:
    name, kind = f"operation {number} ({one.code.name})", KINDS[one.code]
    least, most = kind.operands
    if not least <= len(one.operands) <= most:
        _refuse(name, f"{len(one.operands)} operands, where it has {least} to {most}")
    _check_shape(one.shape, name)
    _check_dtype(one.dtype, kind.gives, name)
    _check_attributes(program, one, name)
    for place, operand in enumerate(one.operands):
        if not 0 <= operand.source < number:
            _refuse(name, f"operand {place} reads operation {operand.source}, which is not an earlier one")
        dtype = program.operations[operand.source].dtype
        _check_dtype(dtype, kind.takes[min(place, len(kind.takes) - 1)], f"{name}, operand {place}")
        if place < kind.keeps and dtype is not one.dtype:
            _refuse(name, f"operand {place} is {dtype.name.lower()}, and the output {one.dtype.name.lower()}")
        _check_operand(program, one, place, operand, name)


def _check_operand(program: Program, one: Operation, place: int, operand: Operand, name: str) -> None:
    """An operand's strides and how far it reaches: the whole of a view, the starts and the ends of runs."""
    name = f"{name}, operand {place}"
    shape = extents_of(one, place)
    if len(operand.strides) != len(shape):
        _refuse(name, f"{len(operand.strides)} strides for {len(shape)} dimensions")
    if not all(0 <= field <= _LARGEST_FIELD for field in (operand.offset, *operand.strides)):
        _refuse(name, "its offset or a stride is no 32-bit number")
    if any(stride for stride, extent in zip(operand.strides, shape, strict=True) if extent == 1):
        _refuse(name, f"strides {list(operand.strides)} over {list(shape)}: a dimension of 1 has the stride 0")
    source = program.operations[operand.source].shape
    if place in KINDS[one.code].folds:
        length = one.fold
        row = source[-1] if source else 1
        if length < 1 or not runs_fit(operand.offset, operand.strides, shape, length, row):
            _refuse(name, f"runs of {length} elements do not stay in rows of {row}")
    last = last_element(one, place)
    if last >= math.prod(source):
        _refuse(name, f"it reaches element {last} of {math.prod(source)}")
    for flat, axis in KINDS[one.code].flat:
        if flat == place and (not -len(shape) <= axis < len(shape) or operand.strides[axis]):
            _refuse(name, f"strides {list(operand.strides)}: it has to have dimension {axis} with the stride 0")


def _check_attributes(program: Program, one: Operation, name: str) -> None:
    match one.attributes:
        case Load(index):
            if not 0 <= index < len(program.states) * (1 + program.inputs):
                _refuse(name, f"there is no state {index}")
            _check_copy(one, program.states, index % len(program.states), "state", name)
        case Constant(index):
            _check_copy(one, program.constants, index, "constant", name)
        case Batch() if program.role is Role.MERGE:
            _refuse(name, "a merge reads no tokens")
        case Batch(_, shift):
            if len(one.shape) != 2 or not 0 <= shift <= 255:
                _refuse(name, f"a batch {list(one.shape)} shifted by {shift}: it has samples and tokens, and a u8")
        case Pointwise(kernel):
            if kernel.inputs != len(one.operands):
                _refuse(name, f"a kernel of {kernel.inputs} inputs for {len(one.operands)} operands")
        case Take(rows, row_stride):
            if rows < 1 or (rows == 1 and row_stride):
                _refuse(name, f"{rows} rows, {row_stride} elements apart")
        case Cat():
            _check_cat(one, one.attributes, name)


def _check_copy(
    one: Operation, tensors: Sequence[StateTensor | ConstantTensor], index: int, what: str, name: str
) -> None:
    if not 0 <= index < len(tensors):
        _refuse(name, f"there is no {what} {index}")
    tensor = tensors[index]
    if (one.dtype, one.shape) != (_read_as(tensor.dtype), tensor.shape):
        held = f"{tensor.dtype.name.lower()} {list(tensor.shape)}"
        _refuse(name, f"{what} {index} is {held}, and the output {one.dtype.name.lower()} {list(one.shape)}")


def _check_cat(one: Operation, cat: Cat, name: str) -> None:
    if not 0 <= cat.axis < len(one.shape) or len(cat.extents) != len(one.operands):
        _refuse(name, f"dimension {cat.axis} of {len(one.shape)}, {len(cat.extents)} extents")
    covered = sum(cat.extents)
    if min(cat.extents) < 1 or covered > one.shape[cat.axis]:
        _refuse(name, f"extents {list(cat.extents)} for a dimension of {one.shape[cat.axis]}")
    word = signed(cat.padding)
    if one.dtype in QUANTISED:
        fits = abs(word) <= one.dtype.largest
    else:
        fits = one.dtype is not DType.FLOAT32 or cat.padding == _NAN or cat.padding & _MAGNITUDE <= _INFINITY
    if not fits or (covered == one.shape[cat.axis] and cat.padding):
        _refuse(name, f"the padding 0x{cat.padding:08x} does not fit {one.dtype.name.lower()}, or pads nothing")
