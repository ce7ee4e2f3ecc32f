"""What graph values become: views of operations' outputs, or one word everywhere; and kernels over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Op, float_word, run_kernel, signed
from trainer.program.exact import DType, ProgramBuilder, Value
from trainer.program.exact.builder import broadcast_shapes
from trainer.program.exact.operations import Shape

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8, torch.bool)
_LARGEST_INT = 2**31 - 1

Write = Callable[..., int]
"""(Builder, register of each operand…) to the register of the result."""


@dataclass(frozen=True)
class Literal:
    """A tensor of one 32-bit word, which costs no operation: kernels hold it."""

    word: int
    dtype: DType
    shape: Shape

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


Term = Value | Literal


def literal(number: float | int | bool, dtype: DType, shape: Sequence[int] = ()) -> Literal:
    """A number as a float32 or int32 literal; raises ValueError for an integer beyond 32 bits."""
    if dtype is DType.FLOAT32:
        return Literal(float_word(_clipped(float(number))), dtype, tuple(shape))
    if not -_LARGEST_INT - 1 <= int(number) <= _LARGEST_INT:
        raise ValueError(f"the integer {int(number)} has more than 32 bits")
    return Literal(int(number) & 0xFFFFFFFF, dtype, tuple(shape))


def _clipped(number: float) -> float:
    """Numbers beyond float32 as infinities, as torch has them; struct would raise."""
    return torch.tensor(number, dtype=torch.float64).to(torch.float32).item()


def program_dtype(dtype: torch.dtype) -> DType:
    """float32 as it is, integers and truth values as int32; raises ValueError for what programs do not have."""
    if dtype == torch.float32:
        return DType.FLOAT32
    if dtype in _INTEGERS:
        return DType.INT32
    raise ValueError(f"is in {str(dtype).removeprefix('torch.')}; exact programs compute in float32 and int32")


def constant_term(build: ProgramBuilder, data: Tensor) -> Term:
    """A tensor that is known: a literal where all its words are equal, else a CONST."""
    dtype = program_dtype(data.dtype)
    if dtype is DType.INT32:
        if data.dtype == torch.int64 and bool((data.abs() > _LARGEST_INT).any()):
            raise ValueError("holds integers of more than 32 bits")
        data = data.to(torch.int32)
    if data.numel() == 0:
        raise ValueError("has a tensor without elements")
    words = data.detach().cpu().contiguous().view(torch.int32).reshape(-1)
    first = int(words[0].item())
    if bool((words == first).all()):
        return Literal(first & 0xFFFFFFFF, dtype, tuple(data.shape))
    return build.constant(data)


def as_value(build: ProgramBuilder, term: Term) -> Value:
    """A term as a view of some operation; a literal becomes a CONST of one element, broadcast."""
    if isinstance(term, Value):
        return term
    word = torch.tensor([signed(term.word)], dtype=torch.int32)
    data = word.view(torch.float32) if term.dtype is DType.FLOAT32 else word
    return build.constant(data).squeeze(0).expand(term.shape)


def pointwise(
    build: ProgramBuilder, write: Write, *terms: Term, dtype: DType, shape: Sequence[int] | None = None
) -> Term:
    """POINTWISE of terms, broadcast; equal operands are read once, literals sit in the kernel.

    Where all terms are literals so is the result.
    """
    distinct = list(dict.fromkeys(term for term in terms if isinstance(term, Value)))
    kernel_builder = Builder(len(distinct))
    registers = [
        kernel_builder.input(distinct.index(term)) if isinstance(term, Value) else kernel_builder.word(term.word)
        for term in terms
    ]
    kernel = kernel_builder.kernel(write(kernel_builder, *registers))
    target = tuple(shape) if shape is not None else broadcast_shapes(*(term.shape for term in terms))
    if not distinct:
        return Literal(int(run_kernel(kernel, []).item()) & 0xFFFFFFFF, dtype, target)
    return build.pointwise(kernel, *distinct, dtype=dtype, shape=target)


def to_float(build: ProgramBuilder, term: Term) -> Term:
    """int32 as float32; float32 as it is."""
    if term.dtype is DType.FLOAT32:
        return term
    return pointwise(build, lambda b, x: b.emit(Op.I2F, x), term, dtype=DType.FLOAT32)
