"""One run of a segment is repeated on the reference: a machine that is wrong is found out."""

import dataclasses

import pytest
import torch
from engine_bench import bits
from small_programs import Runs, first_state, small, traced, users_engine

from ledger.errors import MachineFault
from trainer.engine.engines import Engine, ReferenceEngine, Run
from trainer.engine.exact.interpreter import Batches
from trainer.engine.segment import run_segment
from trainer.engine.state import step_of
from trainer.program.exact import BuiltProgram, DType
from trainer.program.exact.operations import StateTensor
from trainer.program.layout import HELDOUT_LOSS
from trainer.program.task import TaskProgram


class FaultyEngine:
    """Flips one bit of one tensor after one run, counted from 0 over all programs in the order they are stepped."""

    name = "compiled"
    is_reference = False
    setting = "faulty"

    def __init__(self, inner: Engine, *, run: int | None, tensor: int = 2, byte: int = 0) -> None:
        self.inner, self.run, self.tensor, self.byte, self.done = inner, run, tensor, byte, 0

    def open(self, built: BuiltProgram) -> Run:
        return FaultyRun(self, self.inner.open(built))


class FaultyRun:
    def __init__(self, engine: FaultyEngine, inner: Run) -> None:
        self.engine, self.inner = engine, inner
        self.load, self.state, self.tensor = inner.load, inner.state, inner.tensor

    def step(self, batches: Batches | None = None) -> None:
        self.inner.step(batches)
        if self.engine.done == self.engine.run:
            state = self.inner.state()
            state[self.engine.tensor].reshape(-1).view(torch.uint8)[self.engine.byte] ^= 1
            self.inner.load(state)
        self.engine.done += 1


TINY = small(model={"layers": 1, "width": 8}, context=4, batch_size=1, evaluation_windows=1)


@pytest.mark.parametrize("number", range(4))
def test_run_segment_recheck_finds_the_run_that_was_wrong(runs: Runs, number: int) -> None:
    """Three steps and the evaluation, which changes the loss alone."""
    program, first = traced(TINY, runs), first_state(TINY, runs)
    tensor = 0 if number == 3 else 2
    wrong = FaultyEngine(users_engine(), run=number, tensor=tensor)
    with pytest.raises(MachineFault) as caught:
        run_segment(program, runs, first, steps=3, engine=wrong, recheck=number)
    assert caught.value.problem == (
        f"Run {number} of the segment gave another {program.layout.names[tensor]} on the compiled engine than on the "
        "reference."
    )
    assert "selftest" in caught.value.remedy
    assert wrong.done == number + 1  # nothing was run after that


@pytest.mark.parametrize("number", range(4))
def test_run_segment_recheck_of_a_right_run_changes_nothing(runs: Runs, number: int) -> None:
    program, first = traced(TINY, runs), first_state(TINY, runs)
    plain = run_segment(program, runs, first, steps=3, slot=4, engine=users_engine())
    looked = run_segment(program, runs, first, steps=3, slot=4, engine=users_engine(), recheck=number)
    assert bits(list(looked.state.values())) == bits(list(plain.state.values()))
    # A fault in a run that is not looked at goes through: that is what the chance is about.
    wrong = FaultyEngine(users_engine(), run=(number + 1) % 3)
    missed = run_segment(program, runs, first, steps=3, slot=4, engine=wrong, recheck=number)
    assert step_of(missed.state) == 3
    assert bits(list(missed.state.values())) != bits(list(plain.state.values()))


def test_run_segment_recheck_sees_every_tensor_and_the_sign_of_zero(runs: Runs) -> None:
    program, first = traced(TINY, runs), first_state(TINY, runs)
    count = len(program.layout)
    for tensor in (0, 1, 2, count // 2, count - 1):
        wrong = FaultyEngine(users_engine(), run=0, tensor=tensor)
        with pytest.raises(MachineFault, match=f"another {program.layout.names[tensor]} on"):
            run_segment(program, runs, first, steps=1, engine=wrong, recheck=0)
    with pytest.raises(MachineFault, match=f"another {HELDOUT_LOSS} on"):
        run_segment(program, runs, first, steps=0, engine=FaultyEngine(users_engine(), run=0, tensor=0), recheck=0)


def test_run_segment_reference_is_not_repeated(runs: Runs) -> None:
    class Watched(ReferenceEngine):
        opened = 0

        def open(self, built: BuiltProgram) -> Run:
            Watched.opened += 1
            return super().open(built)

    program, first = traced(TINY, runs), first_state(TINY, runs)
    run_segment(program, runs, first, steps=1, engine=Watched(), recheck=0)
    assert Watched.opened == 2  # the training program and the evaluation


def with_scalar(program: TaskProgram) -> TaskProgram:
    """The same task over states that end with a single number, which nothing changes."""

    def widened(built: BuiltProgram) -> BuiltProgram:
        states = (*built.program.states, StateTensor("parameter.scale", DType.FLOAT32, ()))
        return dataclasses.replace(built, program=dataclasses.replace(built.program, states=states))

    return dataclasses.replace(
        program, training=widened(program.training), evaluation=widened(program.evaluation), generation=None
    )


def test_run_segment_recheck_takes_tensors_without_dimensions(runs: Runs) -> None:
    """A parameter may be a single number."""
    program = with_scalar(traced(TINY, runs))
    state = first_state(TINY, runs)
    state["parameter.scale"] = torch.tensor(1.5)
    for number in (0, 1):
        result = run_segment(program, runs, state, steps=1, engine=users_engine(), recheck=number)
        assert result.state["parameter.scale"].shape == ()
    wrong = FaultyEngine(users_engine(), run=0, tensor=len(program.layout) - 1, byte=3)
    with pytest.raises(MachineFault, match=r"another parameter\.scale on"):
        run_segment(program, runs, state, steps=1, engine=wrong, recheck=0)
