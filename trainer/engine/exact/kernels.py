"""Straight-line kernels: the element-wise part of exact arithmetic (docs/arithmetic.md, "Kernels").

A kernel maps one 32-bit word of each input to one 32-bit word. It is a list of instructions, each writing the register
of its own number, so a kernel cannot loop, branch or touch memory, and its cost is its length.
"""

from __future__ import annotations

import enum
import operator
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainer.engine.exact.reference import canonical_nan, square_root

MAXIMUM_LENGTH = 512
MAXIMUM_INPUTS = 16
_WORD = struct.Struct(">BBHHH")  # operation, unused, three operands


class Op(enum.IntEnum):
    """Primitives. F… read and write binary32, I… and the rest 32-bit words; comparisons write 0 or 1."""

    INPUT = 0x00
    CONST = 0x01
    FADD = 0x10
    FSUB = 0x11
    FMUL = 0x12
    FDIV = 0x13
    FSQRT = 0x14
    FLT = 0x18
    FLE = 0x19
    FEQ = 0x1A
    F2I = 0x1C
    I2F = 0x1D
    IADD = 0x20
    ISUB = 0x21
    IMUL = 0x22
    AND = 0x23
    OR = 0x24
    XOR = 0x25
    SHL = 0x26
    SHR = 0x27
    SAR = 0x28
    ILT = 0x29
    IEQ = 0x2A
    SELECT = 0x30


_OPERANDS = {
    Op.INPUT: 0,
    Op.CONST: 0,
    Op.FSQRT: 1,
    Op.F2I: 1,
    Op.I2F: 1,
    Op.SELECT: 3,
}


_FLOAT_PAIRS: dict[Op, Callable[[Tensor, Tensor], Tensor]] = {
    Op.FADD: operator.add,
    Op.FSUB: operator.sub,
    Op.FMUL: operator.mul,
    Op.FDIV: operator.truediv,
}
_INTEGER_PAIRS: dict[Op, Callable[[Tensor, Tensor], Tensor]] = {
    Op.IADD: operator.add,
    Op.ISUB: operator.sub,
    Op.IMUL: operator.mul,
    Op.AND: operator.and_,
    Op.OR: operator.or_,
    Op.XOR: operator.xor,
}


def operands_of(op: Op) -> int:
    """How many registers an operation reads."""
    return _OPERANDS.get(op, 2)


@dataclass(frozen=True)
class Instruction:
    """One instruction. `a`, `b`, `c` are registers; of INPUT, `a` is the input's number; of CONST, `word` the value."""

    op: Op
    a: int = 0
    b: int = 0
    c: int = 0
    word: int = 0


@dataclass(frozen=True)
class Kernel:
    """A checked kernel; the last instruction is its result.

    Raises:
        ValueError: too long, empty, or an operand that is not an earlier register or an input.
    """

    inputs: int
    instructions: tuple[Instruction, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.instructions) <= MAXIMUM_LENGTH:
            raise ValueError(f"a kernel has 1 to {MAXIMUM_LENGTH} instructions, not {len(self.instructions)}")
        if not 0 <= self.inputs <= MAXIMUM_INPUTS:
            raise ValueError(f"a kernel has at most {MAXIMUM_INPUTS} inputs, not {self.inputs}")
        for number, one in enumerate(self.instructions):
            if one.op is Op.INPUT and not 0 <= one.a < self.inputs:
                raise ValueError(f"instruction {number} reads input {one.a} of {self.inputs}")
            if one.op is Op.CONST and not 0 <= one.word < 1 << 32:
                raise ValueError(f"instruction {number} holds {one.word}, which is not a 32-bit word")
            for register in (one.a, one.b, one.c)[: operands_of(one.op)]:
                if not 0 <= register < number:
                    raise ValueError(f"instruction {number} reads register {register}, which is not an earlier one")

    def encode(self) -> bytes:
        """Eight bytes an instruction: operation, zero, three big-endian u16; a CONST has its word in the last four."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        # Kept, because layers repeat their kernels, and every root and file of a program is made of them.
        words = []
        for one in self.instructions:
            b, c = (one.word >> 16, one.word & 0xFFFF) if one.op is Op.CONST else (one.b, one.c)
            words.append(_WORD.pack(one.op, 0, one.a, b, c))
        return b"".join(words)

    @classmethod
    def decode(cls, data: bytes, inputs: int) -> Kernel:
        """Reads `encode`'s bytes; refuses every other form, so that a kernel has one encoding.

        Raises:
            ValueError: not a kernel, with what is wrong.
        """
        if len(data) % _WORD.size or len(data) > MAXIMUM_LENGTH * _WORD.size:
            raise ValueError(f"a kernel of {len(data)} bytes: not a multiple of {_WORD.size}, or too long")
        instructions = []
        for code, _, a, b, c in _WORD.iter_unpack(data):
            try:
                op = Op(code)
            except ValueError:
                raise ValueError(f"there is no operation 0x{code:02x}") from None
            word = (b << 16 | c) if op is Op.CONST else 0
            b, c = (0, 0) if op is Op.CONST else (b, c)
            instructions.append(Instruction(op, a, b, c, word))
        kernel = cls(inputs, tuple(instructions))
        if kernel.encode() != data or any(_has_stray_operands(one) for one in instructions):
            raise ValueError("a kernel with bits set that mean nothing")
        return kernel


def _has_stray_operands(one: Instruction) -> bool:
    used = 1 if one.op is Op.INPUT else operands_of(one.op)
    return any((one.a, one.b, one.c)[used:])


def run_kernel(kernel: Kernel, inputs: Sequence[Tensor]) -> Tensor:
    """The reference: int32 words, broadcastable, any device, one instruction at a time. Returns int32 words.

    Raises:
        ValueError: the number or dtype of the inputs is wrong.
    """
    if len(inputs) != kernel.inputs or any(x.dtype != torch.int32 for x in inputs):
        raise ValueError(f"the kernel takes {kernel.inputs} inputs of int32 words")
    device = inputs[0].device if inputs else torch.device("cpu")
    registers: list[Tensor] = []
    for one in kernel.instructions:
        registers.append(_step(one, registers, inputs, device))
    # A result may depend on fewer axes than the inputs have together.
    every = torch.broadcast_tensors(registers[-1], *inputs)  # type: ignore[no-untyped-call]  # torch gives it no types
    result: Tensor = every[0].contiguous()
    return result


def _step(one: Instruction, registers: list[Tensor], inputs: Sequence[Tensor], device: torch.device) -> Tensor:
    if one.op is Op.INPUT:
        return inputs[one.a]
    if one.op is Op.CONST:
        return torch.tensor(signed(one.word), dtype=torch.int32, device=device)
    read = [registers[index] for index in (one.a, one.b, one.c)[: operands_of(one.op)]]
    if one.op is Op.SELECT:
        return torch.where(read[0] != 0, read[1], read[2])
    if one.op is Op.I2F:
        return read[0].to(torch.float32).view(torch.int32)
    return _float_step(one.op, read) if one.op < Op.IADD else _integer_step(one.op, *read)


def _float_step(op: Op, words: list[Tensor]) -> Tensor:
    x = [word.contiguous().view(torch.float32) for word in words]
    if op is Op.FLT:
        return (x[0] < x[1]).to(torch.int32)
    if op is Op.FLE:
        return (x[0] <= x[1]).to(torch.int32)
    if op is Op.FEQ:
        return (x[0] == x[1]).to(torch.int32)
    if op is Op.F2I:
        # Clamped before it is converted: processors disagree about what does not fit.
        whole = torch.round(torch.where(x[0].isnan(), 0.0, x[0])).clamp(-(2.0**31), 2.0**31 - 128)
        return whole.to(torch.int32)
    if op is Op.FSQRT:
        return square_root(x[0]).view(torch.int32)
    return canonical_nan(_FLOAT_PAIRS[op](x[0], x[1])).view(torch.int32)


def _integer_step(op: Op, a: Tensor, b: Tensor) -> Tensor:
    if op in (Op.IADD, Op.ISUB, Op.IMUL):
        return _wrap(_INTEGER_PAIRS[op](a.to(torch.int64), b.to(torch.int64)))
    if op in (Op.SHL, Op.SHR, Op.SAR):
        places = (b & 31).to(torch.int64)
        wide = a.to(torch.int64)
        if op is Op.SHL:
            return _wrap(wide << places)
        return _wrap((wide & 0xFFFFFFFF if op is Op.SHR else wide) >> places)
    if op is Op.ILT:
        return (a < b).to(torch.int32)
    if op is Op.IEQ:
        return (a == b).to(torch.int32)
    return _INTEGER_PAIRS[op](a, b)


def _wrap(wide: Tensor) -> Tensor:
    """The low 32 bits of int64 as int32."""
    return (((wide & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000).to(torch.int32)


def signed(word: int) -> int:
    """A 32-bit word as a signed integer."""
    return word - (1 << 32) if word >> 31 else word


def float_word(value: float) -> int:
    """The bits of the binary32 nearest to a Python float."""
    word: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return word
