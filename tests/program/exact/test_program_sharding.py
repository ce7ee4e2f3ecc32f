"""Which rows operations depend on, where shards meet, and what is cut there."""

import dataclasses

import pytest
import torch

from trainer.engine.exact.functions import Builder
from trainer.engine.exact.kernels import Kernel, Op
from trainer.program.exact import BuiltProgram, DType, Operand, Program, ProgramBuilder, Role, Value, check_program
from trainer.program.exact.cutting import cut_program, owner_of
from trainer.program.exact.operations import Batch, Code, Load, Operation, Pointwise, Sum
from trainer.program.exact.sharding import sharding_of

_LENGTH = 4


def _as_float() -> Kernel:
    build = Builder(1)
    return build.kernel(build.emit(Op.I2F, build.input(0)))


def _floats(build: ProgramBuilder, rows: Value) -> Value:
    return build.pointwise(_as_float(), rows, dtype=DType.FLOAT32)


def _summed(shards: int, *, rows: int = 1) -> BuiltProgram:
    """The exact SUM over shards of their first row's tokens."""
    build = ProgramBuilder(Role.TRAIN)
    build.state("sum", DType.FLOAT32, (_LENGTH,))
    tokens = build.batch(shards * rows, _LENGTH)
    parts = [_floats(build, tokens.slice(0, s * rows, (s + 1) * rows)) for s in range(shards)]
    first = [one.select(0, 0).unsqueeze(-1) for one in parts]
    build.store("sum", build.sum_last(build.cat(first, -1)))
    return build.finish()


def _code(program: Program, code: Code) -> list[int]:
    return [number for number, one in enumerate(program.operations) if one.code is code]


def _replaced(program: Program, number: int, one: Operation) -> Program:
    operations = [*program.operations[:number], one, *program.operations[number + 1 :]]
    changed = dataclasses.replace(program, operations=tuple(operations))
    check_program(changed)
    return changed


@pytest.mark.parametrize(("shards", "rows"), [(2, 1), (3, 2), (16, 1), (17, 2), (40, 1)])
def test_sharding_of_sum_over_shards_is_one_join(shards: int, rows: int) -> None:
    program = _summed(shards, rows=rows).program
    sharding = sharding_of(program)
    assert sharding.rows == tuple((s * rows, s * rows + rows - 1) for s in range(shards))
    assert sharding.gathered == ()
    (join,) = sharding.joins
    assert (join.number, join.shape, join.elements) == (program.states[0].source, (_LENGTH,), _LENGTH)
    assert sorted(one.shard or 0 for one in join.addends) == list(range(shards))
    assert {one.extent for one in join.addends} == {1}


def test_sharding_of_views_follows_offset_and_strides() -> None:
    """Rows 0 and 2 are read at once, so 1, which another reads, is theirs; 4 is of itself, and 3 and 5 nobody's."""
    build = ProgramBuilder(Role.TRAIN)
    for name, shape in (("a", (2, 2)), ("b", (1,)), ("c", (_LENGTH,))):
        build.state(name, DType.FLOAT32, shape)
    tokens = build.batch(6, _LENGTH)
    build.store("a", _floats(build, tokens.slice(0, 0, 3, 2).slice(1, 1, 4, 2)))
    build.store("b", _floats(build, tokens.select(0, 1).slice(0, 2, 3)))
    build.store("c", _floats(build, tokens.select(0, 4)))
    program = build.finish().program
    sharding = sharding_of(program)
    assert sharding.rows == ((0, 2), (4, 4))
    assert [sharding.shard_of(one.source or 0) for one in program.states] == [0, 0, 1]
    assert sharding.gathered == tuple(sorted(one.source or 0 for one in program.states))


def test_sharding_of_inputs_and_targets_share_their_rows() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("own", DType.FLOAT32, (1, _LENGTH))
    build.state("sum", DType.FLOAT32, (_LENGTH,))
    inputs, targets = (build.batch(2, _LENGTH, shift=shift) for shift in (0, 1))
    kernel = Builder(2)
    product = kernel.kernel(kernel.emit(Op.I2F, kernel.emit(Op.IMUL, kernel.input(0), kernel.input(1))))
    rows = [(inputs.slice(0, s, s + 1), targets.slice(0, s, s + 1)) for s in range(2)]
    products = [build.pointwise(product, *one, dtype=DType.FLOAT32) for one in rows]
    build.store("own", products[1])
    build.store("sum", build.sum_last(build.cat([one.squeeze(0).unsqueeze(-1) for one in products], -1)))
    sharding = sharding_of(build.finish().program)
    assert sharding.rows == ((0, 0), (1, 1))
    assert len(sharding.joins) == len(sharding.gathered) == 1


def test_sharding_of_reader_of_the_whole_batch_leaves_one_shard() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("row", DType.FLOAT32, (1, _LENGTH))
    build.state("all", DType.FLOAT32, (3, _LENGTH))
    tokens = build.batch(3, _LENGTH)
    build.store("row", _floats(build, tokens.slice(0, 1, 2)))
    build.store("all", _floats(build, tokens))
    program = build.finish().program
    assert sharding_of(program).rows == ((0, 2),)
    cut = cut_program(program, 3)
    assert (cut.before, cut.after.program) == ((None,) * 3, program)


def test_sharding_of_dead_reader_does_not_count() -> None:
    program = _summed(2).program
    tokens = _code(program, Code.BATCH)[0]
    one = program.operations[_code(program, Code.POINTWISE)[0]]
    dead = dataclasses.replace(one, shape=(2, _LENGTH), operands=(Operand(tokens, 0, (_LENGTH, 1)),))
    longer = dataclasses.replace(program, operations=(*program.operations, dead))
    check_program(longer)
    assert sharding_of(longer).rows == ((0, 0), (1, 1))


def test_sharding_of_sum_with_another_exponent_is_no_join() -> None:
    """Its values are gathered: their own greatest magnitude says nothing of the exponent that it takes."""
    program = _summed(2).program
    (number,) = _code(program, Code.SUM)
    exponent = next(n for n in _code(program, Code.POINTWISE) if program.operations[n].shape == (_LENGTH,))
    kernel = Builder(1)
    kernel.input(0)
    attributes = Pointwise(kernel.kernel(kernel.word(5)))
    other = dataclasses.replace(program.operations[exponent], attributes=attributes)
    changed = _replaced(program, exponent, other)
    sharding = sharding_of(changed)
    assert sharding.joins == ()
    assert len(sharding.gathered) == 2
    assert number in sharding.needed


def test_sharding_of_sum_over_part_of_a_row_is_no_join() -> None:
    program = _summed(3).program
    (number,) = _code(program, Code.SUM)
    shorter = dataclasses.replace(program.operations[number], attributes=Sum(2))
    sharding = sharding_of(_replaced(program, number, shorter))
    assert sharding.joins == ()
    assert len(sharding.gathered) == 3


def test_sharding_of_sum_with_padding_is_no_join() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("sum", DType.FLOAT32, (_LENGTH,))
    tokens = build.batch(2, _LENGTH)
    parts = [_floats(build, tokens.select(0, s)).unsqueeze(-1) for s in range(2)]
    build.store("sum", build.sum_last(build.cat(parts, -1, extent=3, padding=0x3F800000)))
    sharding = sharding_of(build.finish().program)
    assert (len(sharding.rows), sharding.joins, len(sharding.gathered)) == (2, (), 2)


def test_sharding_of_table_reaches_to_its_last_row() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("taken", DType.FLOAT32, (_LENGTH,))
    build.state("other", DType.FLOAT32, (_LENGTH,))
    tokens = build.batch(4, _LENGTH)
    index = build.constant(torch.zeros((), dtype=torch.int32))
    build.store("taken", _floats(build, build.take(tokens.slice(0, 1, 3), index)))
    build.store("other", _floats(build, tokens.select(0, 2)))
    assert sharding_of(build.finish().program).rows == ((1, 2),)


def test_cut_program_ranks_get_their_shards_and_all_get_the_rest() -> None:
    program = _summed(5).program
    cut = cut_program(program, 2)
    assert [one is not None for one in cut.before] == [True, True]
    assert [len(one.extra) for one in cut.before if one is not None] == [3, 2]
    for one in cut.before:
        assert one is not None
        check_program(one.program)
        assert not _code(one.program, Code.SUM)
    check_program(cut.after.program)
    assert [one.code for one in cut.after.program.operations] == [Code.LOAD]
    assert cut.after.extra == (program.states[0].source,)
    assert [owner_of(shard, 2) for shard in (None, 0, 1, 2, 3)] == [0, 0, 1, 0, 1]


def test_cut_program_more_ranks_than_shards_leaves_some_without() -> None:
    cut = cut_program(_summed(2).program, 4)
    assert [one is None for one in cut.before] == [False, False, True, True]


def test_cut_program_names_of_the_state_are_not_taken_twice() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("exchange.2", DType.FLOAT32, (_LENGTH,))
    tokens = build.batch(2, _LENGTH)
    parts = [_floats(build, tokens.select(0, s)).unsqueeze(-1) for s in range(2)]
    build.store("exchange.2", build.sum_last(build.cat(parts, -1)))
    cut = cut_program(build.finish().program, 2)
    names = [one.name for one in cut.after.program.states]
    assert names[0] == "exchange.2"
    assert names[1].startswith("_exchange.")
    check_program(cut.after.program)


def test_cut_program_before_loads_only_what_it_reads() -> None:
    build = ProgramBuilder(Role.TRAIN)
    build.state("moment", DType.FLOAT32, (_LENGTH,))
    build.state("parameter", DType.FLOAT32, (_LENGTH,))
    tokens = build.batch(2, _LENGTH)
    kernel = Builder(2)
    scaled = kernel.kernel(kernel.mul(kernel.emit(Op.I2F, kernel.input(0)), kernel.input(1)))
    weight = build.load("parameter")
    parts = [build.pointwise(scaled, tokens.select(0, s), weight, dtype=DType.FLOAT32) for s in range(2)]
    total = build.sum_last(build.cat([one.unsqueeze(-1) for one in parts], -1))
    kernel = Builder(2)
    added = kernel.kernel(kernel.add(kernel.input(0), kernel.input(1)))
    build.store("moment", build.pointwise(added, build.load("moment"), total, dtype=DType.FLOAT32))
    program = build.finish().program
    cut = cut_program(program, 2)
    for one in cut.before:
        assert one is not None
        assert one.loads == (1,)
        assert one.program.states[0] == program.states[1]
        assert [op.attributes for op in one.program.operations if isinstance(op.attributes, Load)] == [Load(0)]
    assert cut.after.loads == (0, 1)
    assert not [op for op in cut.after.program.operations if isinstance(op.attributes, Batch)]


def test_cut_program_no_ranks_refused() -> None:
    with pytest.raises(ValueError, match=r"^there is no run on 0 ranks$"):
        cut_program(_summed(2).program, 0)
