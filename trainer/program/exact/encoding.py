"""The bytes of a program, both ways, and its root (docs/programs.md, "Encoding").

A decoder accepts exactly what the encoder writes. It reads each byte once and keeps no more than it has read, so a
claim of a thousand million operations costs nothing. Limits and dtypes are `validate`'s affair.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TypeVar

from ledger.errors import SpecificationError
from trainer.commit.hashing import Kind as Tree
from trainer.commit.hashing import leaf, merkle_root, seal
from trainer.engine.exact.kernels import MAXIMUM_LENGTH, Kernel
from trainer.program.exact.operations import (
    MAXIMUM_RECORD_BYTES,
    MAXIMUM_RECORDS,
    UNCHANGED,
    Attributes,
    Batch,
    Cat,
    Code,
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
    StateTensor,
    Sum,
    Take,
    View,
)

VERSION = 1
MAXIMUM_FILE_BYTES = 2**24
_MAGIC = b"TLXP"
_HEADER = struct.Struct(">4sHBBIII")
_LENGTH = struct.Struct(">I")
_SEAL_TYPE = 1  # descriptions of formats.md §4 have 0
_ROOT_BYTES = 32
_KERNEL_BYTES = 8 * MAXIMUM_LENGTH
# Plain numbers: before Python 3.12 an enumeration cannot be asked for a number that it does not have.
_DTYPES, _ROLES, _CODES, _PARTS = (frozenset(int(one) for one in kind) for kind in (DType, Role, Code, Part))
_Record = TypeVar("_Record")


def encode_records(program: Program) -> list[bytes]:
    """The program's records: header, states, constants, operations.

    Raises:
        SpecificationError: a value does not fit its field.
    """
    sizes = (len(program.states), len(program.constants), len(program.operations))
    head = (_MAGIC, VERSION, program.role, program.inputs)
    records = [_write(lambda counts: _HEADER.pack(*head, *counts), sizes, "the header")]
    records += [_write(_state_bytes, one, f"state {n}") for n, one in enumerate(program.states)]
    records += [_write(_constant_bytes, one, f"constant {n}") for n, one in enumerate(program.constants)]
    records += [_write(_operation_bytes, one, f"operation {n}") for n, one in enumerate(program.operations)]
    return records


def decode_records(records: Sequence[bytes]) -> Program:
    """Reads `encode_records`' output.

    Raises:
        SpecificationError: not a program's records; says which one and what is wrong.
    """
    header = Reader(records[0] if records else b"", "the header")
    role, inputs, counts = _read_header(header)
    if sum(counts) + 1 != len(records):
        header.refuse(f"announces {sum(counts)} records after it, and {len(records) - 1} follow")
    states, constants, operations = counts
    body = iter(records[1:])
    kernels: dict[tuple[bytes, int], Kernel] = {}
    return Program(
        role,
        tuple(_read(_read_state, next(body), f"state {n}") for n in range(states)),
        tuple(_read(_read_constant, next(body), f"constant {n}") for n in range(constants)),
        tuple(_read(lambda r: _read_operation(r, kernels), next(body), f"operation {n}") for n in range(operations)),
        inputs,
    )


def decode_operation(record: bytes) -> Operation:
    """Reads an operation's record on its own. Raises SpecificationError where it is none."""
    return _read(lambda reader: _read_operation(reader, {}), record, "the operation")


def decode_state(record: bytes) -> StateTensor:
    """Reads the record of a tensor of the state on its own. Raises SpecificationError where it is none."""
    return _read(_read_state, record, "the state")


def decode_constant(record: bytes) -> ConstantTensor:
    """Reads a constant's record on its own. Raises SpecificationError where it is none."""
    return _read(_read_constant, record, "the constant")


def program_root(program: Program) -> bytes:
    """The program's root, 32 bytes: its records are the leaves."""
    records = encode_records(program)
    leaves = [leaf(Tree.PROGRAM, record) for record in records]
    return seal(Tree.PROGRAM, _SEAL_TYPE, len(records), merkle_root(Tree.PROGRAM, leaves))


def file_root(data: bytes) -> bytes:
    """The root of a program's file, from its records alone: what `program_root` gives of the program in it.

    Raises:
        SpecificationError: not records after their lengths, or too many bytes.
    """
    if len(data) > MAXIMUM_FILE_BYTES:
        raise SpecificationError(f"The program has {len(data)} bytes; at most {MAXIMUM_FILE_BYTES} are read.")
    leaves = [leaf(Tree.PROGRAM, record) for record in _split(data)]
    if not leaves:
        raise SpecificationError("The program is empty.", field="records")
    return seal(Tree.PROGRAM, _SEAL_TYPE, len(leaves), merkle_root(Tree.PROGRAM, leaves))


def encode_program(program: Program) -> bytes:
    """The file: each record after its length."""
    return b"".join(_LENGTH.pack(len(record)) + record for record in encode_records(program))


def decode_program(data: bytes) -> Program:
    """Reads `encode_program`'s bytes; `validate.load_program` also checks what they say.

    Raises:
        SpecificationError: not a program file; says where and what is wrong.
    """
    if len(data) > MAXIMUM_FILE_BYTES:
        raise SpecificationError(f"The program has {len(data)} bytes; at most {MAXIMUM_FILE_BYTES} are read.")
    return decode_records(list(_split(data)))


def _split(data: bytes) -> Iterator[bytes]:
    at, count = 0, 0
    while at < len(data):
        if count == MAXIMUM_RECORDS:
            raise SpecificationError(f"The program has more than {MAXIMUM_RECORDS} records.", field="records")
        size = _LENGTH.unpack_from(data, at)[0] if at + _LENGTH.size <= len(data) else MAXIMUM_RECORD_BYTES + 1
        at += _LENGTH.size
        if not 1 <= size <= MAXIMUM_RECORD_BYTES or at + size > len(data):
            raise SpecificationError(
                f"Record {count} of the program is cut short, empty or longer than {MAXIMUM_RECORD_BYTES} bytes.",
                field="records",
            )
        yield data[at : at + size]
        at, count = at + size, count + 1


class Reader:
    """Reads one record from its start; every refusal names the record."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._at = 0
        self.name = name

    def refuse(self, problem: str) -> NoReturn:
        """Raises SpecificationError about this record."""
        raise SpecificationError(f"In the program, {self.name}: {problem}.", field=self.name)

    def take(self, count: int) -> bytes:
        """The next bytes; refuses where they are missing."""
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            self.refuse(f"is cut short at byte {len(self._data)}")
        self._at += count
        return part

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def u8(self) -> int:
        return self.take(1)[0]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def words(self, count: int) -> tuple[int, ...]:
        """So many u32."""
        return struct.unpack(f">{count}I", self.take(4 * count))

    def dtype(self) -> DType:
        number = self.u8()
        if number not in _DTYPES:
            self.refuse(f"there is no dtype {number}")
        return DType(number)

    def end(self) -> None:
        """Refuses bytes that nobody has read."""
        if self._at != len(self._data):
            self.refuse(f"has {len(self._data) - self._at} bytes left over")


def _write(write: Callable[[_Record], bytes], record: _Record, name: str) -> bytes:
    try:
        return write(record)
    except (struct.error, ValueError) as error:
        raise SpecificationError(f"In the program, {name} cannot be written: {error}.", field=name) from error


def _read(read: Callable[[Reader], _Record], record: bytes, name: str) -> _Record:
    reader = Reader(record, name)
    value = read(reader)
    reader.end()
    return value


def _read_header(reader: Reader) -> tuple[Role, int, tuple[int, int, int]]:
    """Role, inputs, and the numbers of states, constants and operations."""
    magic, version, role, inputs, states, constants, operations = _HEADER.unpack(reader.take(_HEADER.size))
    reader.end()
    if magic != _MAGIC or version != VERSION:
        reader.refuse(f"this is no program of version {VERSION}")
    if role not in _ROLES:
        reader.refuse(f"there is no role {role}")
    return Role(role), inputs, (states, constants, operations)


def _words(values: Sequence[int]) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def _state_bytes(state: StateTensor) -> bytes:
    name = state.name.encode("ascii")
    source = UNCHANGED if state.source is None else state.source
    head = struct.pack(">BB", state.dtype, len(state.shape))
    return head + _words(state.shape) + struct.pack(">IB", source, len(name)) + name


def _read_state(reader: Reader) -> StateTensor:
    dtype, rank = reader.dtype(), reader.u8()
    shape, source = reader.words(rank), reader.u32()
    name = reader.take(reader.u8())
    if not name.isascii():
        reader.refuse("its name is not ASCII")
    return StateTensor(name.decode("ascii", "replace"), dtype, shape, None if source == UNCHANGED else source)


def _constant_bytes(constant: ConstantTensor) -> bytes:
    if len(constant.root) != _ROOT_BYTES:
        raise ValueError(f"a root has {_ROOT_BYTES} bytes")
    return struct.pack(">BB", constant.dtype, len(constant.shape)) + _words(constant.shape) + constant.root


def _read_constant(reader: Reader) -> ConstantTensor:
    dtype, rank = reader.dtype(), reader.u8()
    return ConstantTensor(dtype, reader.words(rank), reader.take(_ROOT_BYTES))


def _operation_bytes(one: Operation) -> bytes:
    parts = [struct.pack(">BBBB", one.code, one.dtype, len(one.shape), len(one.operands)), _words(one.shape)]
    for operand in one.operands:
        if len(operand.strides) != len(one.shape):
            raise ValueError(f"{len(operand.strides)} strides for {len(one.shape)} axes")
        parts.append(_words((operand.source, operand.offset, *operand.strides)))
    return b"".join(parts) + _attribute_bytes(one.attributes, len(one.operands))


def _read_operation(reader: Reader, kernels: dict[tuple[bytes, int], Kernel]) -> Operation:
    code = reader.u8()
    if code not in _CODES:
        reader.refuse(f"there is no operation {code}")
    dtype, rank, count = reader.dtype(), reader.u8(), reader.u8()
    shape = reader.words(rank)
    operands = tuple(_read_operand(reader, rank) for _ in range(count))
    if code == Code.POINTWISE:
        return Operation(_read_kernel(reader, count, kernels), dtype, shape, operands)
    return Operation(_ATTRIBUTES[code](reader, count), dtype, shape, operands)


def _read_operand(reader: Reader, rank: int) -> Operand:
    source, offset, *strides = reader.words(2 + rank)
    return Operand(source, offset, tuple(strides))


def _attribute_bytes(attributes: Attributes, operands: int) -> bytes:
    match attributes:
        case Load(index) | Constant(index):
            return _words((index,))
        case Batch(part, shift):
            return struct.pack(">BB", part, shift)
        case View():
            return b""
        case Pointwise(kernel):
            if kernel.inputs != operands:
                raise ValueError(f"a kernel of {kernel.inputs} inputs for {operands} operands")
            return kernel.encode()
        case Matmul(length) | Sum(length) | ScatterAdd(length):
            return _words((length,))
        case Max(length, magnitudes):
            return struct.pack(">IB", length, magnitudes)
        case Take(rows, row_stride):
            return _words((rows, row_stride))
        case Cat(axis, extents, padding):
            if len(extents) != operands:
                raise ValueError(f"{len(extents)} extents for {operands} operands")
            return struct.pack(">B", axis) + _words((*extents, padding))


def _read_kernel(reader: Reader, inputs: int, known: dict[tuple[bytes, int], Kernel]) -> Pointwise:
    data = reader.rest()
    if len(data) > _KERNEL_BYTES:
        reader.refuse(f"its kernel has more than {MAXIMUM_LENGTH} instructions")
    if (data, inputs) not in known:  # layers repeat, and so do their kernels
        try:
            known[data, inputs] = Kernel.decode(data, inputs)
        except ValueError as error:
            reader.refuse(str(error))
    return Pointwise(known[data, inputs])


def _read_batch(reader: Reader) -> Batch:
    part, shift = reader.u8(), reader.u8()
    if part not in _PARTS:
        reader.refuse(f"no tokens are in part {part} of a data set")
    return Batch(Part(part), shift)


def _read_max(reader: Reader) -> Max:
    length, magnitudes = reader.u32(), reader.u8()
    if magnitudes > 1:
        reader.refuse(f"{magnitudes} is neither values (0) nor magnitudes (1)")
    return Max(length, bool(magnitudes))


_ATTRIBUTES: dict[int, Callable[[Reader, int], Attributes]] = {
    Code.LOAD: lambda reader, count: Load(reader.u32()),
    Code.CONST: lambda reader, count: Constant(reader.u32()),
    Code.BATCH: lambda reader, count: _read_batch(reader),
    Code.VIEW: lambda reader, count: View(),
    Code.MATMUL: lambda reader, count: Matmul(reader.u32()),
    Code.SUM: lambda reader, count: Sum(reader.u32()),
    Code.MAX: lambda reader, count: _read_max(reader),
    Code.TAKE: lambda reader, count: Take(reader.u32(), reader.u32()),
    Code.SCATTER_ADD: lambda reader, count: ScatterAdd(reader.u32()),
    Code.CAT: lambda reader, count: Cat(reader.u8(), reader.words(count), reader.u32()),
}
