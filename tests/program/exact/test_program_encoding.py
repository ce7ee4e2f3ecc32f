"""Bytes, roots, listing and cost of programs."""

import hashlib
import struct

import pytest
import torch
from sample_programs import every_operation

from ledger.errors import SpecificationError
from trainer.commit.hashing import Kind, leaf, merkle_root, seal
from trainer.program.exact import (
    DType,
    Operation,
    Program,
    ProgramBuilder,
    Role,
    cost_of,
    decode_program,
    encode_program,
    listing,
    load_program,
    program_root,
)
from trainer.program.exact.encoding import MAXIMUM_FILE_BYTES, encode_records
from trainer.program.exact.operations import Code, Constant, ConstantTensor, Load, StateTensor

PROGRAM = every_operation().program


def test_sample_has_every_operation() -> None:
    assert {one.code for one in PROGRAM.operations} == set(Code)


def test_program_encodes_and_decodes() -> None:
    data = encode_program(PROGRAM)
    assert load_program(data) == PROGRAM
    assert encode_program(decode_program(data)) == data


def test_records_have_the_documented_layout() -> None:
    build = ProgramBuilder(Role.EVALUATE)
    build.state("loss", DType.FLOAT32, (2, 3))
    build.store("loss", build.max_last(build.constant(torch.ones(4))).expand((2, 3)))
    built = build.finish()
    records = encode_records(built.program)
    assert records[0] == b"TLXP" + bytes.fromhex("0001 02 00 00000001 00000001 00000003")
    assert records[1] == bytes.fromhex("01 02 00000002 00000003 00000002 04") + b"loss"
    assert records[2] == bytes.fromhex("01 01 00000004") + built.program.constants[0].root
    assert records[3] == bytes.fromhex("02 01 01 00 00000004 00000000")
    assert records[4] == bytes.fromhex("08 01 00 01 00000000 00000000 00000004 00")
    assert records[5] == bytes.fromhex("04 01 02 01 00000002 00000003 00000001 00000000 00000000 00000000")
    assert encode_program(built.program)[:8] == struct.pack(">I", 20) + b"TLXP"


def merge_of(slots: int) -> Program:
    """A merge that writes the last slot's counter."""
    build = ProgramBuilder(Role.MERGE, inputs=slots)
    build.state("x", DType.FLOAT32, (2,))
    build.state("counter.step", DType.INT64, (1,))
    build.store("counter.step", build.load("counter.step", state=slots))
    return build.finish().program


@pytest.mark.parametrize("slots", [2, 17, 255])
def test_records_of_a_merge_name_its_inputs(slots: int) -> None:
    program = merge_of(slots)
    records = encode_records(program)
    assert records[0] == b"TLXP" + bytes.fromhex(f"0001 04 {slots:02x} 00000002 00000000 00000001")
    assert records[3][-4:] == struct.pack(">I", 2 * slots + 1)  # tensor 1 of state W
    assert load_program(encode_program(program)) == program
    assert len({program_root(program), program_root(merge_of(slots ^ 1))}) == 2


def test_listing_of_a_merge_names_slots() -> None:
    lines = list(listing(merge_of(3)))
    assert lines[0] == "program merge of 3 states"
    assert lines[-1] == "%0: i32[1] = LOAD(counter.step of slot 2)"


def test_cost_of_a_merge_counts_every_state() -> None:
    assert cost_of(merge_of(3)).peak_bytes == 4 * (8 + 8) + 4


def test_program_root_is_the_sealed_tree_of_records() -> None:
    records = encode_records(PROGRAM)
    leaves = [hashlib.sha256(b"\0\4" + record).digest() for record in records]
    assert leaves[0] == leaf(Kind.PROGRAM, records[0])
    assert program_root(PROGRAM) == seal(Kind.PROGRAM, 1, len(records), merkle_root(Kind.PROGRAM, leaves))


def test_program_root_is_stable() -> None:
    assert program_root(PROGRAM).hex() == "23a0113c903369db6518592f90f0da93a6d6adc34a9bf916fecc710cab8355ec"


@pytest.mark.parametrize(
    ("program", "record"),
    [
        (Program(Role.TRAIN, (StateTensor("ä", DType.FLOAT32, (1,)),), (), ()), "state 0"),
        (Program(Role.TRAIN, (StateTensor("a" * 256, DType.FLOAT32, (1,)),), (), ()), "state 0"),
        (Program(Role.TRAIN, (), (ConstantTensor(DType.FLOAT32, (1,), b""),), ()), "constant 0"),
        (Program(Role.TRAIN, (), (), (Operation(Load(-1), DType.FLOAT32, ()),)), "operation 0"),
        (Program(Role.MERGE, (), (), (), 256), "the header"),
        (Program(Role.TRAIN, (), (), (Operation(Constant(2**32), DType.FLOAT32, ()),)), "operation 0"),
    ],
)
def test_encode_program_what_does_not_fit_refused(program: Program, record: str) -> None:
    with pytest.raises(SpecificationError, match=f"{record} cannot be written") as caught:
        encode_program(program)
    assert caught.value.field == record


def test_decode_program_too_long_refused() -> None:
    with pytest.raises(SpecificationError, match="at most 16777216 are read"):
        decode_program(bytes(MAXIMUM_FILE_BYTES + 1))


def test_listing_has_a_line_for_every_operation() -> None:
    lines = list(listing(PROGRAM))
    assert lines[0] == "program train"
    assert "state counter.step: i64[1] <- %" in "\n".join(lines)
    assert sum(line.startswith("%") for line in lines) == len(PROGRAM.operations)
    for code in Code:
        assert any(f" = {code.name}(" in line for line in lines)


def test_cost_of_counts_by_hand() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("x", DType.FLOAT32, (4, 8))
    x = build.load("x")
    build.store("x", build.matmul(x, build.constant(torch.ones(8, 8)), (8, 8)))
    cost = cost_of(build.finish().program)
    assert cost.multiply_adds == 4 * 8 * 8
    assert cost.folded == 4 * 8 + 8 * 8
    assert cost.operations == {"CONST": 1, "LOAD": 1, "MATMUL": 1, "MAX": 2, "POINTWISE": 4}
    state, constant = 128, 256
    assert cost.bytes_written == state + constant + 16 + 32 + 16 + 32 + 64 + 32 + 128
    # The state and the constant, their copies as outputs, and what is alive beside them.
    assert state + constant + 128 + 256 <= cost.peak_bytes <= state + constant + cost.bytes_written
    assert cost.flops == 2 * cost.multiply_adds + cost.instructions + cost.folded
