"""A program as text: one line an operation, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainer.engine.exact.kernels import Kernel, Op, operands_of
from trainer.program.exact.operations import (
    Batch,
    Cat,
    Constant,
    DType,
    Load,
    Matmul,
    Max,
    Operand,
    Operation,
    Pointwise,
    Program,
    ScatterAdd,
    Shape,
    Sum,
    Take,
    View,
)
from trainer.program.exact.views import contiguous_strides

_SHORT = {DType.FLOAT32: "f32", DType.INT64: "i64", DType.INT32: "i32", DType.INT8: "i8", DType.INT16: "i16"}


def listing(program: Program) -> Iterator[str]:
    """The lines: states, constants, operations. Kernels are numbered from k0 and follow at the end, each once."""
    kernels: dict[Kernel, int] = {}
    yield f"program {program.role.name.lower()}{f' of {program.inputs} states' if program.inputs else ''}"
    for state in program.states:
        source = "unchanged" if state.source is None else f"%{state.source}"
        yield f"state {state.name}: {_type(state.dtype, state.shape)} <- {source}"
    for number, constant in enumerate(program.constants):
        yield f"constant {number}: {_type(constant.dtype, constant.shape)} 0x{constant.root.hex()}"
    for number, one in enumerate(program.operations):
        if isinstance(one.attributes, Pointwise):
            kernels.setdefault(one.attributes.kernel, len(kernels))
        yield f"%{number}: {_type(one.dtype, one.shape)} = {_line(program, one, kernels)}"
    for kernel, number in kernels.items():
        yield f"kernel k{number}({kernel.inputs})"
        yield from kernel_listing(kernel)


def kernel_listing(kernel: Kernel) -> Iterator[str]:
    """A kernel's instructions, one a line."""
    for number, one in enumerate(kernel.instructions):
        if one.op is Op.INPUT:
            text = f"INPUT {one.a}"
        elif one.op is Op.CONST:
            text = f"CONST 0x{one.word:08x}"
        else:
            text = " ".join([one.op.name, *(f"r{r}" for r in (one.a, one.b, one.c)[: operands_of(one.op)])])
        yield f"  r{number} = {text}"


def _type(dtype: DType, shape: Sequence[int]) -> str:
    return f"{_SHORT[dtype]}[{', '.join(map(str, shape))}]"


def _line(program: Program, one: Operation, kernels: dict[Kernel, int]) -> str:
    operands = [_operand(program, one, operand) for operand in one.operands]
    return f"{one.code.name}({', '.join([*operands, *_attributes(program, one, kernels)])})"


def _operand(program: Program, one: Operation, operand: Operand) -> str:
    """%source, and where it is not simply all of it, its offset and strides."""
    source: Shape = program.operations[operand.source].shape
    if operand.offset == 0 and source == one.shape and operand.strides == contiguous_strides(source):
        return f"%{operand.source}"
    return f"%{operand.source}[{operand.offset} + {'·'.join(map(str, operand.strides)) or '0'}]"


def _attributes(program: Program, one: Operation, kernels: dict[Kernel, int]) -> list[str]:
    match one.attributes:
        case Load(index):
            state, tensor = divmod(index, len(program.states))
            name = program.states[tensor].name
            return [name if not program.inputs else f"{name} of {f'slot {state - 1}' if state else 'the base'}"]
        case Constant(index):
            return [f"constant {index}"]
        case Batch(part, shift):
            return [part.name.lower(), f"shift={shift}"]
        case View():
            return []
        case Pointwise(kernel):
            return [f"k{kernels[kernel]}"]
        case Matmul(length) | Sum(length) | ScatterAdd(length):
            return [f"K={length}"]
        case Max(length, magnitudes):
            return [f"K={length}", *(["magnitudes"] if magnitudes else [])]
        case Take(rows, row_stride):
            return [f"rows={rows}", f"stride={row_stride}"]
        case Cat(axis, extents, padding):
            return [f"axis={axis}", f"extents={'+'.join(map(str, extents))}", f"padding=0x{padding:08x}"]
