"""Engines give the same bits, keep their state to themselves, and refuse other states."""

from pathlib import Path

import pytest
import torch
from engine_bench import ODD_NANS, bits, compiled_engine, counting, counting_state
from random_programs import random_program
from small_programs import Runs, first_state, small, traced, users_engine
from torch import Tensor

from trainer.engine.engines import ReferenceEngine, ReferenceRun
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.exact.fast import CompiledProgram
from trainer.native.compiler import find_compiler
from trainer.program.exact import BuiltProgram


def test_runs_give_the_same_bits_step_by_step(runs: Runs) -> None:
    program = traced(small(), runs)
    state = list(first_state(small(), runs).values())
    several = [
        ReferenceEngine().open(program.training),
        users_engine().open(program.training),
        users_engine(2).open(program.training),
    ]
    assert [type(one) for one in several] == [ReferenceRun, CompiledProgram, CompiledProgram]
    for one in several:
        one.load(state)
    for number in range(2):
        for one in several:
            one.step(DatasetBatches(data=runs, seed=1, step=number))
        reference, *others = (bits(one.state()) for one in several)
        assert others == [reference, reference]
        for place in (0, 1, len(state) - 1):
            assert all(bits([one.tensor(place)]) == [reference[place]] for one in several)
    for one in several:  # a run may be given another state
        one.load(state)
        assert bits(one.state()) == bits(state)


@pytest.mark.parametrize("seed", range(3))
def test_runs_give_the_same_bits_on_random_programs(seed: int, tmp_path: Path) -> None:
    one = random_program(seed)
    built = BuiltProgram(one.program, tuple(one.constants))
    quick = find_compiler(options=("-O1",))
    states = []
    for chosen in (ReferenceEngine(), compiled_engine(tmp_path, compiler=quick)):
        run = chosen.open(built)
        run.load(one.state)
        run.step(one)
        run.step(one)
        states.append(bits(run.state()))
    assert states[0] == states[1]


def test_runs_keep_the_bits_of_what_no_operation_writes(tmp_path: Path) -> None:
    """LOAD reads every NaN as the one NaN; the tensor itself stays as it came."""
    found = []
    for chosen in (ReferenceEngine(), compiled_engine(tmp_path)):
        run = chosen.open(counting())
        run.load(counting_state())
        assert bits(run.state()) == bits(counting_state())
        for _ in range(2):
            run.step()
        counter, kept, read = run.state()
        assert int(counter) == 2
        assert kept.view(torch.int32).tolist() == run.tensor(1).view(torch.int32).tolist() == ODD_NANS
        assert read.tolist() == [0x7FC00000] * 4 + ODD_NANS[4:]
        run.load([torch.tensor(5), torch.ones(6), torch.zeros(6, dtype=torch.int64)])
        assert run.tensor(1).tolist() == run.state()[1].tolist() == [1.0] * 6  # nothing of the state before
        found.append(bits(run.state()))
    assert found[0] == found[1]


def test_runs_give_copies_and_take_copies(tmp_path: Path) -> None:
    for chosen in (ReferenceEngine(), compiled_engine(tmp_path)):
        run, given = chosen.open(counting()), counting_state()
        run.load(given)
        for tensor in (*given, *run.state(), run.tensor(0), run.tensor(1)):
            tensor.fill_(9)
        assert bits(run.state()) == bits(counting_state())


@pytest.mark.parametrize(
    "state",
    [
        counting_state()[:2],
        [*counting_state(), torch.zeros(1)],
        [torch.tensor([0]), *counting_state()[1:]],
        [torch.tensor(0, dtype=torch.int32), *counting_state()[1:]],
    ],
)
def test_runs_refuse_other_states(state: list[Tensor], tmp_path: Path) -> None:
    for chosen in (ReferenceEngine(), compiled_engine(tmp_path)):
        with pytest.raises(ValueError, match=r"state tensors are .* and the program has"):
            chosen.open(counting()).load(state)


def test_reference_engine_backends_are_known_by_name() -> None:
    with pytest.raises(KeyError, match="int4"):
        ReferenceEngine(backend="int4")
