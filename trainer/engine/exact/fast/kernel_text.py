"""A kernel as straight-line C or CUDA on local variables.

A register is a float or a word, whichever its instruction makes; the other is derived where it is read. A float's NaN
may be any NaN until its bits are seen, because no F-instruction tells one from another (docs/arithmetic.md, "Kernels").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.engine.exact.fast.dialects import Arithmetic
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.program.exact.operations import DType

_ONE_NAN, _INFINITY, _MAGNITUDE = 0x7FC00000, 0x7F800000, 0x7FFFFFFF
_ORDERS = {Op.FLT: "<", Op.FLE: "<=", Op.FEQ: "=="}
_WORDS = {Op.IADD: "+", Op.ISUB: "-", Op.IMUL: "*", Op.AND: "&", Op.OR: "|", Op.XOR: "^"}
ELEMENTS = {DType.FLOAT32: "uint32_t", DType.INT32: "uint32_t", DType.INT8: "int8_t", DType.INT16: "int16_t"}


@dataclass(frozen=True)
class _Register:
    """A register: its variable, whether that is a float, and what is known of it.

    Attributes:
        exact: a float whose NaN is the one NaN already.
        valued: a word that holds no NaN but the one, so that it can be a float without losing bits.
    """

    name: str
    real: bool
    exact: bool = False
    valued: bool = False

    @property
    def word(self) -> str:
        if not self.real:
            return self.name
        return f"bits_of({self.name})" if self.exact else f"seen({self.name})"

    @property
    def float(self) -> str:
        return self.name if self.real else f"float_of({self.name})"

    @property
    def signed(self) -> str:
        return f"(int32_t){self.word}"


def kernel_text(
    kernel: Kernel, inputs: Sequence[str], dtypes: Sequence[DType], arithmetic: Arithmetic
) -> tuple[list[str], _Register]:
    """Statements, and the result.

    The text sees `zero`, a word that is 0 and that a C compiler does not know (processor.h says why).

    Args:
        inputs: C expressions of the operands' elements as they lie in memory; dtypes: theirs.
    """
    registers: list[_Register] = []
    lines: list[str] = []
    for number, one in enumerate(kernel.instructions):
        text, register = _statement(number, one, registers, inputs, dtypes, arithmetic)
        lines.append(f"{'float' if register.real else 'uint32_t'} {register.name} = {text};")
        registers.append(register)
    return lines, registers[-1]


def stored(result: _Register, dtype: DType) -> str:
    """The C expression that an output of a dtype stores."""
    if dtype is DType.FLOAT32:
        return result.word if result.real or result.valued else f"seen_word({result.word})"
    if dtype is DType.INT32:
        return result.word
    return f"({ELEMENTS[dtype]})clamped({result.signed}, {dtype.largest})"


def _statement(
    number: int,
    one: Instruction,
    registers: list[_Register],
    inputs: Sequence[str],
    dtypes: Sequence[DType],
    arithmetic: Arithmetic,
) -> tuple[str, _Register]:
    name = f"x{number}"
    word, real = _Register(name, False), _Register(name, True)
    if one.op is Op.INPUT:
        if dtypes[one.a] is DType.FLOAT32:
            return f"float_of({inputs[one.a]})", _Register(name, True, exact=True)
        return f"(uint32_t)(int32_t){inputs[one.a]}", word
    if one.op is Op.CONST:
        valued = (one.word & _MAGNITUDE) <= _INFINITY or one.word == _ONE_NAN
        return f"0x{one.word:08x}u", _Register(name, False, valued=valued)
    a, b, c = registers[one.a], registers[one.b], registers[one.c]
    if one.op is Op.SELECT:
        return _select(name, a, b, c)
    if one.op in arithmetic.pairs:
        return arithmetic.pairs[one.op].format(a=a.float, b=b.float), real
    if one.op in _ORDERS:
        return f"{a.float} {_ORDERS[one.op]} {b.float}", word
    if one.op in _WORDS:
        return f"{a.word} {_WORDS[one.op]} {b.word}", word
    texts = {
        Op.FSQRT: lambda: arithmetic.root.format(a=a.float),
        Op.F2I: lambda: f"to_integer({a.float})",
        Op.I2F: lambda: arithmetic.from_integer.format(a=a.word),
        Op.SHL: lambda: f"{a.word} << ({b.word} & 31)",
        Op.SHR: lambda: f"{a.word} >> ({b.word} & 31)",
        Op.SAR: lambda: f"(uint32_t)({a.signed} >> ({b.word} & 31))",
        Op.ILT: lambda: f"{a.signed} < {b.signed}",
        Op.IEQ: lambda: f"{a.word} == {b.word}",
    }
    return texts[one.op](), real if one.op in (Op.FSQRT, Op.I2F) else word


def _select(name: str, a: _Register, b: _Register, c: _Register) -> tuple[str, _Register]:
    """Bits are passed on untouched: as floats only where neither can hold another NaN than the one."""
    if (b.real or b.valued) and (c.real or c.valued):
        if b.real or c.real:
            exact = all(one.exact or one.valued for one in (b, c))
            return f"{a.word} ? {b.float} : {c.float}", _Register(name, True, exact=exact)
        return f"{a.word} ? {b.word} : {c.word}", _Register(name, False, valued=True)
    return f"{a.word} ? {b.word} : {c.word}", _Register(name, False)
