"""Every rule of the loader, and hostile files: refused with a clear error, in bounded time and memory."""

import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_programs import every_operation

from ledger.errors import SpecificationError
from trainer.engine.exact.functions import function_kernel
from trainer.engine.exact.kernels import Kernel
from trainer.program.exact import (
    DType,
    Operand,
    Operation,
    Program,
    Role,
    check_constants,
    check_program,
    encode_program,
    load_program,
)
from trainer.program.exact.operations import (
    Attributes,
    Batch,
    Cat,
    Constant,
    ConstantTensor,
    Load,
    Matmul,
    Max,
    Part,
    Pointwise,
    ScatterAdd,
    StateTensor,
    Sum,
    Take,
    View,
)

BUILT = every_operation()
DATA = encode_program(BUILT.program)
F, W, Q = DType.FLOAT32, DType.INT32, DType.INT8
EXP = function_kernel("exp")


def base() -> Program:
    """Sources of every dtype: 0 f[2, 3], 1 i[2, 3], 2 q[2, 3], 3 f[]."""
    states = (StateTensor("x", F, (2, 3)), StateTensor("n", DType.INT64, (2, 3)))
    plain = Operand(0, 0, (3, 1))
    operations = (
        Operation(Load(0), F, (2, 3)),
        Operation(Load(1), W, (2, 3)),
        Operation(Pointwise(EXP), Q, (2, 3), (plain,)),
        Operation(Max(3, False), F, (), (Operand(0, 3, ()),)),
    )
    return Program(Role.TRAIN, states, (), operations)


def refused(program: Program) -> str:
    with pytest.raises(SpecificationError) as caught:
        check_program(program)
    assert caught.value.field
    return str(caught.value)


def with_operation(attributes: Attributes, dtype: DType, shape: tuple[int, ...], *operands: Operand) -> Program:
    program = base()
    check_program(program)
    return replace(program, operations=(*program.operations, Operation(attributes, dtype, shape, operands)))


def at(source: int, *strides: int, offset: int = 0) -> Operand:
    return Operand(source, offset, strides)


@pytest.mark.parametrize(
    ("attributes", "dtype", "shape", "operands", "problem"),
    [
        (View(), F, (2, 3), [], "0 operands, where it has 1 to 1"),
        (View(), F, (2, 3), [at(4, 3, 1)], "reads operation 4, which is not an earlier one"),
        (View(), F, (2, 3), [at(9, 3, 1)], "reads operation 9"),
        (View(), F, (1,) * 7, [at(0, *(0,) * 7)], "7 dimensions are more than 6"),
        (View(), F, (0,), [at(0, 0)], "has no elements"),
        (View(), F, (2**31, 4), [at(0, 0, 0)], "or more than 4294967295"),
        (View(), F, (2, 3), [at(0, 3)], "1 strides for 2 dimensions"),
        (View(), F, (2, 3), [at(0, 3, 2)], "reaches element 7 of 6"),
        (View(), F, (2, 3), [at(0, 3, 1, offset=1)], "reaches element 6 of 6"),
        (View(), F, (1,), [at(0, 3)], "a dimension of 1 has the stride 0"),
        (View(), F, (2, 3), [at(0, -1, 1)], "no 32-bit number"),
        (View(), F, (2, 3), [at(0, 2**32, 1)], "no 32-bit number"),
        (View(), W, (2, 3), [at(0, 3, 1)], "is float32, and the output int32"),
        (View(), DType.INT64, (2, 3), [at(0, 3, 1)], "int64 is not allowed here"),
        (Load(2), F, (2, 3), [], "there is no state 2"),
        (Load(1), F, (2, 3), [], "state 1 is int64"),
        (Load(0), F, (3, 2), [], "state 0 is float32"),
        (Constant(0), F, (2, 3), [], "there is no constant 0"),
        (Batch(Part.TRAIN, 0), W, (2,), [], "a batch \\[2\\] shifted by 0"),
        (Batch(Part.TRAIN, 0), F, (2, 3), [], "float32 is not allowed here"),
        (Pointwise(EXP), F, (2,), [at(0, 1), at(0, 1)], "a kernel of 1 inputs for 2 operands"),
        (Matmul(3), F, (2, 2), [at(2, 3, 0), at(0, 0, 3), at(0, 1, 0), at(0, 0, 1)], "float32 is not allowed here"),
        (Matmul(4), F, (2, 2), [at(2, 3, 0), at(2, 0, 3), at(0, 1, 0), at(0, 0, 1)], "runs of 4 elements"),
        (Matmul(0), F, (2, 2), [at(2, 3, 0), at(2, 0, 3), at(0, 1, 0), at(0, 0, 1)], "runs of 0 elements"),
        (Matmul(3), F, (2, 2), [at(2, 0, 3), at(2, 0, 3), at(0, 1, 0), at(0, 0, 1)], "dimension -1 with the stride 0"),
        (Matmul(3), F, (2, 2), [at(2, 3, 0), at(2, 0, 3), at(0, 1, 0), at(0, 1, 0)], "dimension -2 with the stride 0"),
        (Matmul(3), F, (2,), [at(2, 0), at(2, 3), at(0, 0), at(0, 1)], "dimension -2 with the stride 0"),
        (Sum(2), F, (2,), [at(0, 3, offset=2), at(1, 1)], "runs of 2 elements do not stay in rows of 3"),
        (Sum(3), F, (2,), [at(0, 3), at(0, 1)], "float32 is not allowed here"),
        (Sum(3), F, (3,), [at(0, 3), at(1, 1)], "reaches element 8 of 6"),
        (Max(2, True), F, (2,), [at(0, 2)], "runs of 2 elements"),
        (Max(2, True), F, (2,), [at(1, 3)], "int32 is not allowed here"),
        (Max(2, False), F, (), [at(3)], "runs of 2 elements do not stay in rows of 1"),
        (Take(3, 3), F, (3,), [at(0, 1), at(1, 1)], "reaches element 8 of 6"),
        (Take(0, 1), F, (3,), [at(0, 1), at(1, 1)], "0 rows, 1 elements apart"),
        (Take(1, 1), F, (3,), [at(0, 1), at(1, 1)], "1 rows, 1 elements apart"),
        (Take(2**32 - 1, 2**32 - 1), F, (3,), [at(0, 1), at(1, 1)], "it reaches element"),
        (Take(2, 3), W, (3,), [at(0, 1), at(1, 1)], "is float32, and the output int32"),
        (ScatterAdd(3), F, (2, 2), [at(0, 3, 0), at(1, 0, 3), at(1, 0, 0)], "dimension 0 with the stride 0"),
        (ScatterAdd(3), F, (), [at(0), at(1), at(1)], "dimension 0 with the stride 0"),
        (Cat(1, (2,), 0), F, (2,), [at(0, 1)], "dimension 1 of 1, 1 extents"),
        (Cat(0, (2, 1), 0), F, (3,), [at(0, 1)], "dimension 0 of 1, 2 extents"),
        (Cat(0, (3,), 0), F, (2,), [at(0, 1)], "extents \\[3\\] for a dimension of 2"),
        (Cat(0, (0,), 0), F, (2,), [at(0, 1)], "extents \\[0\\]"),
        (Cat(0, (7,), 0), F, (8,), [at(0, 1)], "reaches element 6 of 6"),
        (Cat(0, (1, 1), 0), F, (2,), [at(0, 0), at(1, 0)], "operand 1 is int32"),
        (Cat(0, (2,), 1), F, (2,), [at(0, 1)], "pads nothing"),
        (Cat(0, (2,), 0xFFC00000), F, (3,), [at(0, 1)], "padding 0xffc00000 does not fit"),
        (Cat(0, (2,), 128), Q, (3,), [at(2, 1)], "padding 0x00000080 does not fit int8"),
    ],
)
def test_check_program_broken_rule_refused(
    attributes: Attributes, dtype: DType, shape: tuple[int, ...], operands: list[Operand], problem: str
) -> None:
    program = with_operation(attributes, dtype, shape, *operands)
    with pytest.raises(SpecificationError, match=problem) as caught:
        check_program(program)
    assert caught.value.field.startswith("operation 4")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda p: replace(p, states=()), "without a state"),
        (lambda p: replace(p, states=(p.states[0], p.states[0])), "the name x is taken"),
        (lambda p: replace(p, states=(replace(p.states[0], name="a b"), p.states[1])), "not 1 to 255 printable"),
        (lambda p: replace(p, states=(replace(p.states[0], dtype=W), p.states[1])), "int32 is not allowed here"),
        (lambda p: replace(p, states=(replace(p.states[0], shape=(0,)), p.states[1])), "has no elements"),
        (lambda p: replace(p, states=(replace(p.states[0], source=4), p.states[1])), "operation 4, does not exist"),
        (lambda p: replace(p, states=(replace(p.states[0], source=1), p.states[1])), "operation 1 makes int32"),
        (lambda p: replace(p, states=(p.states[0], replace(p.states[1], source=0))), "operation 0 makes float32"),
        (lambda p: replace(p, states=(replace(p.states[0], source=3), p.states[1])), r"makes float32 \[\]"),
        (lambda p: replace(p, constants=(ConstantTensor(F, (1,), bytes(32)),)), "other than zero"),
        (lambda p: replace(p, constants=(ConstantTensor(Q, (1,), b"\1" * 32),)), "int8 is not allowed here"),
        (lambda p: replace(p, operations=p.operations * 16_384), "are more than 65536"),
    ],
)
def test_check_program_broken_table_refused(change: Callable[[Program], Program], problem: str) -> None:
    with pytest.raises(SpecificationError, match=problem):
        check_program(change(base()))


def merge(program: Program, inputs: int) -> Program:
    return replace(program, role=Role.MERGE, inputs=inputs)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (merge(base(), 0), "a merge takes 2 to 255 states, not 0"),
        (merge(base(), 1), "a merge takes 2 to 255 states, not 1"),
        (merge(base(), 256), "a merge takes 2 to 255 states, not 256"),
        (replace(base(), inputs=2), "a train program takes one state, not 2 more"),
        (replace(base(), role=Role.GENERATE, inputs=1), "a generate program takes one state, not 1 more"),
        (merge(with_operation(Load(6), F, (2, 3)), 2), "there is no state 6"),
        (merge(with_operation(Load(5), F, (2, 3)), 2), "state 1 is int64"),
        (merge(with_operation(Load(-1), F, (2, 3)), 2), "there is no state -1"),
        (merge(with_operation(Batch(Part.TRAIN, 0), W, (2, 3)), 2), "a merge reads no tokens"),
    ],
)
def test_check_program_broken_merge_refused(program: Program, problem: str) -> None:
    assert problem in refused(program)


def test_check_program_merge_loads_every_state() -> None:
    for inputs in (2, 255):
        check_program(merge(with_operation(Load(2 * inputs), F, (2, 3)), inputs))
        check_program(merge(with_operation(Load(2 * inputs + 1), W, (2, 3)), inputs))


def test_check_constants_other_data_refused() -> None:
    check_constants(BUILT.program, BUILT.constants)
    with pytest.raises(SpecificationError, match="the program has 1 of them, and 0 are given"):
        check_constants(BUILT.program, [])
    with pytest.raises(SpecificationError, match="have the root"):
        check_constants(BUILT.program, [BUILT.constants[0] + 1])
    with pytest.raises(SpecificationError, match=r"given for float32 \[2, 3, 1\]"):
        check_constants(BUILT.program, [BUILT.constants[0].to(torch.int32)])


def header(states: int = 1, constants: int = 0, operations: int = 0, *, version: int = 1, role: int = 1) -> bytes:
    return record(struct.pack(">4sHBBIII", b"TLXP", version, role, 0, states, constants, operations))


def record(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


STATE = record(struct.pack(">BBIIB", 1, 1, 4, 0xFFFFFFFF, 1) + b"x")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "the header: is cut short at byte 0"),
        (b"\0\0", "cut short"),
        (record(b""), "cut short, empty or longer"),
        (struct.pack(">I", 2**32 - 1), "cut short, empty or longer"),
        (record(bytes(8193)), "longer than 8192 bytes"),
        (record(bytes(20)), "no program of version 1"),
        (header(version=2), "no program of version 1"),
        (header(role=9), "no role 9"),
        (header(operations=10**9) + STATE, "announces 1000000001 records after it, and 1 follow"),
        (header(2**32 - 1, 2**32 - 1, 2**32 - 1), "announces 12884901885 records"),
        (header() + STATE + STATE, "announces 1 records after it, and 2 follow"),
        (header() + record(b"\7"), "there is no dtype 7"),
        (header() + record(b"\1\xff" + bytes(20)), "cut short"),
        (header() + STATE[:-1] + b"\xff", "not ASCII"),
        (header() + record(STATE[4:] + b"!"), "1 bytes left over"),
        (header(operations=1) + STATE + record(b"\x63\1\0\0"), "there is no operation 99"),
        (header(operations=1) + STATE + record(b"\4\1\0\xff"), "cut short"),
        (header(operations=1) + STATE + record(b"\5\1\0\0" + bytes(513 * 8)), "more than 512 instructions"),
        (header(operations=1) + STATE + record(b"\5\1\0\0\x99" + bytes(7)), "no operation 0x99"),
        (header(operations=1) + STATE + record(b"\5\1\0\0"), "1 to 512 instructions"),
        (header(operations=1) + STATE + record(b"\3\3\0\0\1\0"), "no tokens are in part 1"),
        (header(operations=1) + STATE + record(b"\x08\1\0\0\0\0\0\1\2"), "neither values"),
        (record(b"x") * 65_537, "more than 65536 records"),
    ],
)
def test_load_program_hostile_file_refused(data: bytes, problem: str) -> None:
    with pytest.raises(SpecificationError, match=problem):
        load_program(data)


def test_load_program_every_truncation_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(SpecificationError):
            load_program(DATA[:length])


def accepts_only_its_own(data: bytes) -> bool:
    try:
        program = load_program(data)
    except SpecificationError:
        return False
    assert encode_program(program) == data
    return True


def test_load_program_every_changed_byte_refused_or_another_program() -> None:
    rng = random.Random(9)
    accepted = 0
    for place in range(len(DATA)):
        changed = bytearray(DATA)
        changed[place] ^= 1 << rng.randrange(8)
        accepted += accepts_only_its_own(bytes(changed))
    assert 0 < accepted < len(DATA)  # a changed constant in a kernel is another program


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_load_program_mutated_file_refused_or_another_program(data: st.DataObject) -> None:
    changed = bytearray(DATA)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from(["set", "word", "drop", "insert", "move"]))
        if kind == "set":
            changed[place] = data.draw(st.integers(0, 255))
        elif kind == "word":
            changed[place : place + 4] = data.draw(st.sampled_from([0, 1, 2**31, 2**32 - 1])).to_bytes(4, "big")
        elif kind == "drop":
            del changed[place : place + data.draw(st.integers(1, 40))]
        elif kind == "insert":
            changed[place:place] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            other = data.draw(st.integers(0, len(changed) - 1))
            changed[place : place + 8] = changed[other : other + 8]
    accepts_only_its_own(bytes(changed))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6))
def test_load_program_random_records_refused(records: list[bytes]) -> None:
    data = header(1, 0, len(records)) + STATE + b"".join(map(record, records))
    accepts_only_its_own(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_load_program_random_bytes_refused(data: bytes) -> None:
    assert not accepts_only_its_own(data)


def test_load_program_huge_shapes_cost_nothing() -> None:
    big = Operation(View(), F, (65535, 65535), (Operand(0, 0, (0, 0)),))
    program = base()
    program = replace(program, operations=(*program.operations, *[big] * 2000))
    data = encode_program(program)
    tracemalloc.start()
    start = time.process_time()
    try:
        load_program(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5
    assert peak < 60 * len(data)


def test_load_program_time_and_memory_are_linear() -> None:
    """Twice the records, and distinct kernels in all of them: at most a little over twice the time and memory."""
    costs = []
    for count in (500, 2000):
        program = base()
        operations = [
            Operation(Pointwise(distinct_kernel(number)), F, (2, 3), (Operand(0, 0, (3, 1)),))
            for number in range(count)
        ]
        data = encode_program(replace(program, operations=(*program.operations, *operations)))
        tracemalloc.start()
        try:
            load_program(data)
            costs.append(tracemalloc.get_traced_memory()[1] / len(data))
        finally:
            tracemalloc.stop()
    assert costs[1] < 1.5 * costs[0]
    assert costs[1] < 60


def distinct_kernel(number: int) -> Kernel:
    """exp's kernel with another first constant."""
    changed = list(EXP.instructions)
    first = next(place for place, one in enumerate(changed) if one.word)
    changed[first] = replace(changed[first], word=number + 1)
    return replace(EXP, instructions=tuple(changed))
