"""Which operations one kernel does row by row, and what then is nowhere in memory."""

import functools

import pytest
from compiled_programs import joined
from row_programs import row_program
from test_fast_training import training

from trainer.engine.exact.cuda import groups, write_cuda
from trainer.engine.exact.cuda.groups import Group, hidden, members_of, schedule
from trainer.engine.exact.fast.plan import Base, make_plan
from trainer.engine.exact.functions import function_kernel
from trainer.models import TransformerConfig
from trainer.program.exact import DType, Program, ProgramBuilder, Role

ROWS, LENGTH = 64, 40


def quantised(rows: int = ROWS, length: int = LENGTH, *, leading: tuple[int, ...] | None = None) -> Program:
    """A product of what is made of two tensors and quantised."""
    build = ProgramBuilder(Role.GENERATE)
    for name in ("x", "y"):
        build.state(name, DType.FLOAT32, (*(leading or (rows,)), length))
    build.state("product", DType.FLOAT32, (rows, rows))
    made = []
    for name in ("x", "y"):
        value = build.pointwise(function_kernel("exp"), build.load(name), dtype=DType.FLOAT32)
        made.append(build.quantise(build.reshape(value, (rows, length)), 13))
    build.store("product", build.product(*made))
    return build.finish().program


@pytest.mark.parametrize("leading", [(ROWS,), (8, 8), (1, 64, 1), (2, 1, 32)])
def test_schedule_rows_that_are_mapped_and_quantised_go_together(leading: tuple[int, ...]) -> None:
    program = quantised(leading=leading)
    found = [step for step in schedule(program) if isinstance(step, Group)]
    assert [(one.rows, one.length) for one in found] == 2 * [(ROWS, LENGTH)]
    for one in found:
        names = [program.operations[number].code.name for number in one.members]
        assert names == ["POINTWISE", "MAX", "POINTWISE", "POINTWISE"]
        # The exponential and the maximum are nobody else's.
        assert [number in hidden(program, schedule(program)) for number in one.members] == [True, True, False, False]


@pytest.mark.parametrize(("rows", "length"), [(63, 40), (64, 31)])
def test_schedule_few_or_short_rows_go_alone(rows: int, length: int) -> None:
    program = quantised(rows, length)
    assert schedule(program) == list(range(len(program.operations)))


@functools.cache
def programs() -> list[Program]:
    made = [joined(range(10)).program, *(row_program(seed).program for seed in range(40))]
    return [*made, training(TransformerConfig(layers=2, heads=2, width=48))[0].program]


def test_schedule_has_each_operation_once_and_after_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LEAST_LENGTH", 2)
    monkeypatch.setattr(groups, "LEAST_ROWS", 1)
    sizes = []
    for program in programs():
        steps = schedule(program)
        done: set[int] = set()
        for step in steps:
            members = members_of(step)
            for number in members:
                assert all(one.source in done or one.source < number for one in program.operations[number].operands)
                assert all(one.source in done or one.source in members for one in program.operations[number].operands)
            assert not done & set(members)
            done |= set(members)
            sizes.append(len(members))
        assert done == set(range(len(program.operations)))
    assert max(sizes) > 8


def test_hidden_outputs_are_read_by_their_own_group_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "LEAST_LENGTH", 2)
    monkeypatch.setattr(groups, "LEAST_ROWS", 1)
    count = 0
    for program in programs():
        steps = schedule(program)
        inside = hidden(program, steps)
        count += len(inside)
        assert not inside & {state.source for state in program.states}
        for step in steps:
            for number in members_of(step):
                read = {operand.source for operand in program.operations[number].operands}
                assert read & inside <= set(members_of(step))
    assert count > 100


def test_write_cuda_keeps_no_place_for_what_is_nowhere_in_memory() -> None:
    """And no output shares bytes with another that is still read."""
    program = quantised()
    source = write_cuda(program)
    apart = make_plan(program)
    assert source.plan.sizes[Base.ARENA] < apart.sizes[Base.ARENA]
    inside = hidden(program, schedule(program))
    assert [source.plan.outputs[number].size for number in sorted(inside)] == [0] * len(inside)


def test_write_cuda_launches_a_third_less_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    built, _ = training(TransformerConfig(layers=1, heads=2, width=64))
    monkeypatch.setattr(groups, "LEAST_ROWS", 1)
    together = len(write_cuda(built.program).launches)
    monkeypatch.setattr(groups, "LEAST_ROWS", 10**9)
    assert together < len(write_cuda(built.program).launches) * 2 / 3


def test_schedule_more_addresses_than_a_launch_has_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_ADDRESSES", 4)
    program = quantised()
    steps = schedule(program)
    assert max(len(members_of(step)) for step in steps) <= 3
    assert max(len(one.addresses) for one in write_cuda(program).launches) <= 6
