"""Merges on every engine: the bits of an ordinary program over the tensors of all their states."""

import dataclasses
from pathlib import Path

import pytest
import torch
from compiled_programs import compiler, same
from emulated_gpu import emulated_program
from random_programs import RandomProgram, random_merge

from trainer.engine.engines import ReferenceRun
from trainer.engine.exact.interpreter import run_program
from trainer.native import compiled_program
from trainer.program.exact import DType, Program, ProgramBuilder, Role, check_program
from trainer.program.exact.operations import Load

INPUTS = (2, 3, 17, 40)


def flat(program: Program) -> Program:
    """The same operations over one state, which holds the tensors of all of a merge's."""
    others = [
        dataclasses.replace(one, name=f"{number}.{one.name}", source=None)
        for number in range(program.inputs)
        for one in program.states
    ]
    made = dataclasses.replace(program, role=Role.GENERATE, inputs=0, states=(*program.states, *others))
    check_program(made)
    return made


def expected(one: RandomProgram) -> list[torch.Tensor]:
    count = len(one.program.states)
    return run_program(flat(one.program), one.state, one.constants)[:count]


def reads_others(one: RandomProgram) -> bool:
    count = len(one.program.states)
    loads = [op.attributes.index for op in one.program.operations if isinstance(op.attributes, Load)]
    return max(loads) >= count


def with_missing(one: RandomProgram, missing: set[int]) -> list[torch.Tensor]:
    """The state with the base's own tensors in some slots."""
    count = len(one.program.states)
    return [
        one.state[number % count] if number // count - 1 in missing else tensor
        for number, tensor in enumerate(one.state)
    ]


@pytest.mark.parametrize("inputs", INPUTS)
def test_run_program_of_a_merge_is_that_of_all_its_tensors(inputs: int) -> None:
    read = 0
    for seed in range(20):
        one = random_merge(seed, inputs)
        check_program(one.program)
        assert same(run_program(one.program, one.state, one.constants), expected(one))
        read += reads_others(one)
    assert read > 15


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("seed", range(3))
def test_compiled_merge_is_the_reference_s(inputs: int, seed: int, tmp_path: Path) -> None:
    one = random_merge(100 + seed, inputs)
    fast = compiled_program(one.program, one.constants, tmp_path, compiler=compiler("-O0"), threads=1 + seed % 2)
    assert same(fast.run(one.state), expected(one))
    for missing in ({0}, set(range(1, inputs)), set(range(inputs))):
        given = with_missing(one, missing)
        wanted = run_program(flat(one.program), given, one.constants)[: len(one.program.states)]
        assert same(fast.run(given), wanted)
        assert same(fast.run([tensor.clone() for tensor in given]), wanted)
        slow = ReferenceRun(one.program, one.constants)
        slow.load(given)
        slow.step()
        assert same(slow.state(), wanted)


@pytest.mark.parametrize("seed", range(4))
def test_emulated_gpu_merge_is_the_reference_s(seed: int, tmp_path: Path) -> None:
    one = random_merge(200 + seed, INPUTS[seed])
    fast = emulated_program(one.program, one.constants, tmp_path)
    assert same(fast.run(one.state), expected(one))
    given = with_missing(one, {1})
    assert same(fast.run(given), run_program(one.program, given, one.constants))


def last_slots(slots: int = 3) -> Program:
    """Each tensor becomes the last slot's, as it is read; `kept` stays the base's."""
    build = ProgramBuilder(Role.MERGE, inputs=slots)
    build.state("kept", DType.FLOAT32, (3,))
    build.state("x", DType.FLOAT32, (2, 3))
    build.state("n", DType.INT64, (1,))
    for name in ("x", "n"):
        build.store(name, build.load(name, state=slots))
    return build.finish().program


def states(slots: int = 3) -> list[torch.Tensor]:
    nan = torch.tensor([0x7FC00001, 1, -5], dtype=torch.int32).view(torch.float32)
    made = []
    for number in range(1 + slots):
        made += [nan.clone(), torch.full((2, 3), float(number)), torch.tensor([2**40 + number])]
    return made


@pytest.mark.parametrize("engine", ["reference", "compiled"])
def test_merge_run_keeps_the_base_s_unchanged_tensors_and_takes_states_anew(engine: str, tmp_path: Path) -> None:
    program, given = last_slots(), states()
    run = (
        ReferenceRun(program, ())
        if engine == "reference"
        else compiled_program(program, (), tmp_path, compiler=compiler("-O0"))
    )
    with pytest.raises(ValueError, match="takes its states before each run"):
        run.step()
    before = [tensor.clone() for tensor in given]
    run.load(given)
    run.step()
    after = run.state()
    assert same(after, [given[0], torch.full((2, 3), 3.0), torch.tensor([3])])
    assert same(given, before)
    with pytest.raises(ValueError, match="takes its states before each run"):
        run.step()
    for wrong in (given[:3], given[:-1], [*given[:-1], torch.ones(1)], [*given, *given[:3]]):
        with pytest.raises(ValueError, match="the state tensors are"):
            run.load(wrong)


def test_compiled_merge_reads_tensors_that_lie_anywhere(tmp_path: Path) -> None:
    program, given = last_slots(), states()
    run = compiled_program(program, (), tmp_path, compiler=compiler("-O0"))
    memory = torch.zeros(7)
    memory[1:] = 3.0
    for odd in (memory[1:].view(2, 3), torch.full((3, 2), 3.0).T, torch.full((2, 3), float("nan"))):
        given[10] = odd
        assert same(run.run(given), run_program(program, given, ()))


def test_compiled_merge_takes_no_memory_for_what_is_the_base_s(tmp_path: Path) -> None:
    program = last_slots(255)
    run = compiled_program(program, (), tmp_path, compiler=compiler("-O0"))
    base = states(0)
    run.load(base * 256)
    held = run.addresses()[:6]
    assert set(run.addresses()[6:]) == {held[1] + place.offset for place in run._plan.states}
    run.load([*base, *states(254)])
    assert len(set(run.addresses()[6:])) == 3 * 255
