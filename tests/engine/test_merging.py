"""Rounds of several slots in Python alone: merges on both engines, and a small model that learns in four slots."""

import dataclasses
import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_programs import Runs, engine, first_state, small, traced
from torch import Tensor

from ledger.errors import MachineFault
from trainer.commit.states import state_root
from trainer.engine.engines import Engine, ReferenceEngine, Run
from trainer.engine.exact.interpreter import Batches
from trainer.engine.segment import merged_state, run_merge, run_segment
from trainer.engine.state import State, check_state, heldout_loss_bits, heldout_loss_of, initial_state, step_of
from trainer.materials import check_readable
from trainer.program.description import DilocoConfig, MeanConfig, MergeConfig, ProgramDescription
from trainer.program.exact import BuiltProgram
from trainer.program.layout import ANCHOR, ANCHOR_STEP, HELDOUT_LOSS, MOMENT1, MOMENT2, PARAMETER, STEP, VELOCITY

SLOTS = 4
MERGES = (MeanConfig(slots=SLOTS), DilocoConfig(slots=SLOTS))


def described(merge: MergeConfig, **changes: Any) -> ProgramDescription:
    fields = {"model": {"layers": 1, "width": 16}, "context": 8, "batch_size": 4, **changes}
    return dataclasses.replace(small(**fields), merge=merge)


def root_of(state: State) -> str:
    return state_root(state.values()).hex()


def random_states(merge: MergeConfig, runs: Runs) -> tuple[State, list[State]]:
    """A base and slots of random bits of every kind: NaNs, infinities, subnormals; counters that go up and down."""
    layout = traced(tiny(merge), runs).layout
    generator = torch.Generator().manual_seed(merge.slots)

    def drawn(number: int) -> State:
        state: State = OrderedDict()
        for one in layout.tensors:
            words = torch.randint(-(2**31), 2**31, one.shape, generator=generator)
            near = torch.randn(one.shape, generator=generator)
            wild = torch.rand(one.shape, generator=generator) < 0.02
            state[one.name] = torch.where(wild, words.to(torch.int32).view(torch.float32), near)
            if one.dtype == torch.int64:
                state[one.name] = torch.full(one.shape, number)
        return state

    return drawn(100), [drawn(98 + 7 * slot % 11) for slot in range(merge.slots)]


def tiny(merge: MergeConfig) -> ProgramDescription:
    return described(merge, model={"layers": 1, "width": 4}, context=2, batch_size=1, evaluation_windows=1)


@pytest.mark.parametrize("kind", [MeanConfig, DilocoConfig])
@pytest.mark.parametrize("slots", [2, 3, 17, 40])
def test_run_merge_gives_the_same_bits_on_both_engines(kind: type[MergeConfig], slots: int, runs: Runs) -> None:
    merge = kind(slots=slots)
    program = traced(tiny(merge), runs)
    check_readable(program)
    base, states = random_states(merge, runs)
    missing = [None if slot % 3 == 1 else state for slot, state in enumerate(states)]
    for inputs in (states, missing, [None] * slots):
        wanted = run_merge(program, runs, base, inputs)
        found = run_merge(program, runs, base, inputs, engine=engine(2))
        assert root_of(found.state) == root_of(wanted.state)
        assert (found.completed, found.steps, found.tokens, found.train_losses) == (True, 1, 0, ())
        counters = [100, *(step_of(state) for state in inputs if state is not None)]
        assert step_of(found.state) == max(counters)
        as_base = [base if state is None else state for state in inputs]
        assert root_of(run_merge(program, runs, base, as_base, engine=engine(2)).state) == root_of(wanted.state)


@pytest.mark.parametrize("merge", MERGES)
def test_run_merge_does_not_depend_on_who_came_first(merge: MergeConfig, runs: Runs) -> None:
    """Slots have their places whenever they arrive; and where the states are another slot's, the sums are the same."""
    program = traced(tiny(merge), runs)
    base, states = random_states(merge, runs)
    merged = root_of(run_merge(program, runs, base, states, engine=engine()).state)
    assert root_of(run_merge(program, runs, base, states[::-1], engine=engine()).state) == merged


class FaultyEngine:
    """Shows one bit of the held-out loss wrong after one of the runs that it opens, counted from 0."""

    name = "compiled"
    is_reference = False
    setting = "faulty"

    def __init__(self, inner: Engine, run: int) -> None:
        self.inner, self.run, self.opened = inner, run, 0

    def open(self, built: BuiltProgram) -> Run:
        self.opened += 1
        inner = self.inner.open(built)
        return FaultyRun(inner) if self.opened - 1 == self.run else inner


class FaultyRun:
    def __init__(self, inner: Run) -> None:
        self.inner, self.done = inner, 0
        self.load, self.tensor = inner.load, inner.tensor

    def step(self, batches: Batches | None = None) -> None:
        self.inner.step(batches)
        self.done += 1

    def state(self) -> list[Tensor]:
        state = self.inner.state()
        state[0].view(torch.uint8)[0] ^= self.done
        return state


@pytest.mark.parametrize("number", [0, 1])
def test_run_merge_recheck_finds_the_run_that_was_wrong(number: int, runs: Runs) -> None:
    program = traced(tiny(MERGES[1]), runs)
    base, states = random_states(MERGES[1], runs)
    with pytest.raises(MachineFault, match=f"Run {number} of the segment gave another metric.heldout_loss"):
        run_merge(program, runs, base, states, engine=FaultyEngine(engine(), number), recheck=number)
    plain = run_merge(program, runs, base, states, engine=engine())
    looked = run_merge(program, runs, base, states, engine=engine(), recheck=number)
    assert root_of(looked.state) == root_of(plain.state)


def test_run_merge_does_not_change_the_states_it_is_given(runs: Runs) -> None:
    program = traced(tiny(MERGES[1]), runs)
    base, states = random_states(MERGES[1], runs)
    before = [root_of(state) for state in (base, *states)]
    for one in (engine(), ReferenceEngine()):
        made = run_merge(program, runs, base, [None, *states[1:]], engine=one).state
        for tensor in made.values():
            tensor.zero_()  # nor does it share memory with what comes out
        assert [root_of(state) for state in (base, *states)] == before


def test_run_merge_of_other_states_refused(runs: Runs) -> None:
    program = traced(tiny(MERGES[1]), runs)
    base, states = random_states(MERGES[1], runs)
    for inputs in ([], states[:-1], [*states, None]):
        with pytest.raises(ValueError, match=f"{len(inputs)} states to merge, in a task whose rounds have 4 slots"):
            run_merge(program, runs, base, inputs)
    other: State = OrderedDict(list(states[0].items())[:-1])
    with pytest.raises(ValueError, match="do not follow the layout"):
        run_merge(program, runs, base, [other, *states[1:]])
    plain = traced(small(model={"layers": 1, "width": 4}, context=2, batch_size=1), runs)
    with pytest.raises(ValueError, match="2 states to merge, in a task whose rounds have 1 slots"):
        run_merge(plain, runs, base, states[:2])


@pytest.mark.parametrize("merge", MERGES)
def test_initial_state_of_rounds_of_several_slots(merge: MergeConfig, runs: Runs) -> None:
    program = traced(described(merge), runs)
    state = initial_state(described(merge), program.layout)
    assert tuple(state) == program.layout.names
    parameters = [name.removeprefix(PARAMETER) for name in state if name.startswith(PARAMETER)]
    names = [HELDOUT_LOSS, STEP, *(PARAMETER + name for name in parameters)]
    names += [prefix + name for prefix in (MOMENT1, MOMENT2) for name in parameters]
    if isinstance(merge, DilocoConfig):
        names += [ANCHOR_STEP, *(prefix + name for prefix in (ANCHOR, VELOCITY) for name in parameters)]
        assert all(torch.equal(state[ANCHOR + name], state[PARAMETER + name]) for name in parameters)
        assert not any(bool(state[VELOCITY + name].any()) for name in parameters)
        assert state[ANCHOR_STEP].tolist() == [0]
    assert tuple(names) == program.layout.names


def trained_in_rounds(merge: MergeConfig, runs: Runs, engines: Sequence[Engine]) -> list[State]:
    """Three rounds of four slots, one of which is missing in the second; engines take turns. Gives the bases."""
    program, turns = traced(described(merge), runs), itertools.cycle(engines)
    bases = [first_state(described(merge), runs, measure=True, on=next(turns))]
    for number in range(3):
        states: list[State | None] = [
            run_segment(program, runs, bases[-1], steps=10, slot=slot, engine=next(turns)).state
            for slot in range(SLOTS)
        ]
        assert len({root_of(state) for state in states if state is not None}) == SLOTS  # each has samples of its own
        if number == 1:
            states[2] = None
        bases.append(run_merge(program, runs, bases[-1], states, engine=next(turns)).state)
    return bases


@pytest.mark.parametrize("merge", MERGES)
def test_rounds_of_four_slots_learn_and_give_one_result(merge: MergeConfig, runs: Runs) -> None:
    bases = trained_in_rounds(merge, runs, [engine()])
    losses = [heldout_loss_of(state) for state in bases]
    assert losses[0] == pytest.approx(math.log(256), abs=0.4)
    assert losses[1] < losses[0] - 1
    assert losses[3] < losses[1] - 0.2
    assert [step_of(state) for state in bases] == [0, 10, 20, 30]
    mixed = trained_in_rounds(merge, runs, [ReferenceEngine(), engine(2), engine()])
    assert [root_of(state) for state in mixed] == [root_of(state) for state in bases]
    if isinstance(merge, DilocoConfig):
        last = bases[-1]
        assert last[ANCHOR_STEP].tolist() == [30]
        for name in [name.removeprefix(ANCHOR) for name in last if name.startswith(ANCHOR)]:
            assert torch.equal(last[PARAMETER + name], last[ANCHOR + name])
            assert not last[MOMENT1 + name].any()


@pytest.mark.parametrize("merge", MERGES)
def test_merged_state_is_run_merges_by_its_loss_alone(merge: MergeConfig, runs: Runs) -> None:
    program, layout = traced(described(merge), runs), traced(described(merge), runs).layout
    base = first_state(described(merge), runs, measure=True)
    states = [run_segment(program, runs, base, steps=2, slot=slot, engine=engine()).state for slot in range(SLOTS)]
    inputs = [*states[:-1], None]
    wanted = run_merge(program, runs, base, inputs, engine=engine()).state
    bits, root = heldout_loss_bits(wanted), state_root(wanted.values())
    found = merged_state(program, runs, base, inputs, heldout_loss=bits, root=root, engine=FaultyEngine(engine(), 1))
    assert found is not None  # the evaluation, which would be the second run, is wrong there, and is not needed
    assert root_of(found) == root.hex()
    check_state(found, layout)
    assert merged_state(program, runs, base, [None, *states[1:]], heldout_loss=bits, root=root) is None


@pytest.mark.parametrize("merge", MERGES)
def test_merged_state_is_evaluated_where_that_changes_more_than_the_loss(merge: MergeConfig, runs: Runs) -> None:
    """Packing makes +0 of an anchor of -0, and NaNs of infinite ones."""
    program = traced(tiny(merge), runs)
    base, states = random_states(merge, runs)
    wanted = run_merge(program, runs, base, states, engine=engine()).state
    bits, root = heldout_loss_bits(wanted), state_root(wanted.values())
    found = merged_state(program, runs, base, states, heldout_loss=bits, root=root, engine=engine())
    assert found is not None
    assert root_of(found) == root.hex()
    opened = FaultyEngine(engine(), 9)
    merged_state(program, runs, base, states, heldout_loss=bits, root=root, engine=opened)
    assert opened.opened == (2 if isinstance(merge, DilocoConfig) else 1)
