import math
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from small_programs import Runs, engine, first_state, small, traced

from ledger.errors import ResourceError
from trainer.commit.states import state_root
from trainer.engine.engines import ReferenceEngine, Run, StepLost
from trainer.engine.exact.interpreter import Batches
from trainer.engine.segment import StepReport, measured, run_segment
from trainer.engine.state import (
    State,
    heldout_loss_bits,
    heldout_loss_of,
    initial_state,
    model_of,
    step_of,
    steps_between,
)
from trainer.program.description import ProgramDescription
from trainer.program.exact import BuiltProgram
from trainer.program.layout import HELDOUT_LOSS, STEP


def root_of(state: State) -> str:
    return state_root(state.values()).hex()


def test_run_segment_every_model_learns(description: ProgramDescription, runs: Runs) -> None:
    program = traced(description, runs)
    first = first_state(description, runs, measure=True)
    result = run_segment(program, runs, first, steps=40, engine=engine())
    assert heldout_loss_of(first) == pytest.approx(math.log(256), abs=0.4)
    assert result.heldout_loss < heldout_loss_of(first) - 1.5
    assert result.train_losses[-1][1] < result.train_losses[0][1]
    assert step_of(result.state) == 40
    assert tuple(result.state) == program.layout.names
    assert all(bool(t.isfinite().all()) for t in result.state.values() if t.is_floating_point())
    assert result.heldout_loss == heldout_loss_of(measured(program, runs, result.state, engine=engine()))


def test_run_segment_in_pieces_gives_the_same_root(description: ProgramDescription, runs: Runs) -> None:
    program, first = traced(description, runs), first_state(description, runs)
    whole = root_of(run_segment(program, runs, first, steps=9, engine=engine()).state)
    state = first
    for steps in (1, 3, 0, 5):
        state = run_segment(program, runs, state, steps=steps, engine=engine()).state
    assert root_of(state) == whole
    assert root_of(run_segment(program, runs, first, steps=8, engine=engine()).state) != whole


def test_run_segment_resumed_from_any_snapshot_gives_the_same_root(description: ProgramDescription, runs: Runs) -> None:
    program = traced(description, runs)
    first = first_state(description, runs, measure=True)
    snapshots: list[State] = []
    whole = run_segment(
        program, runs, first, steps=7, engine=engine(), snapshot=snapshots.append, snapshot_seconds=0, report_every=1
    )
    assert [step_of(taken) for taken in snapshots] == [1, 2, 3, 4, 5, 6]
    # A snapshot is the state between two steps: it has the loss of the batch before.
    assert [(step_of(taken), heldout_loss_of(taken)) for taken in snapshots] == list(whole.train_losses[:-1])
    for taken in snapshots:
        rest = run_segment(program, runs, taken, steps=7 - step_of(taken), engine=engine())
        assert root_of(rest.state) == root_of(whole.state)


class LosingEngine:
    """An engine whose run of that number, over all programs, is lost; it still holds the state before, or does not."""

    name = setting = "losing"
    is_reference = True

    def __init__(self, lost: int, *, holds: bool = True) -> None:
        self.left, self.holds = lost, holds

    def open(self, built: BuiltProgram) -> Run:
        run = engine().open(built)
        step = run.step

        def step_or_lose(batches: Batches | None = None) -> None:
            if self.left == 0:
                error = StepLost("A rank is gone.")
                error.state = run.state() if self.holds else None
                raise error
            self.left -= 1
            step(batches)

        run.step = step_or_lose  # type: ignore[method-assign]  # a run of the tests' own
        return run


@pytest.mark.parametrize("lost", [0, 2, 4])
def test_run_segment_lost_step_is_all_that_is_lost(runs: Runs, lost: int) -> None:
    """The first step, one in the middle, and the evaluation after four."""
    program, first = traced(small(), runs), first_state(small(), runs)
    whole = root_of(run_segment(program, runs, first, steps=4, engine=engine()).state)
    kept: list[State] = []
    with pytest.raises(StepLost):
        run_segment(program, runs, first, steps=4, engine=LosingEngine(lost), snapshot=kept.append)
    assert [step_of(state) for state in kept] == [lost]
    assert root_of(run_segment(program, runs, kept[0], steps=4 - lost, engine=engine()).state) == whole


def test_run_segment_lost_state_leaves_the_snapshots_before(runs: Runs) -> None:
    program, first = traced(small(), runs), first_state(small(), runs)
    kept: list[State] = []
    with pytest.raises(StepLost):
        run_segment(program, runs, first, steps=4, engine=LosingEngine(2, holds=False), snapshot=kept.append)
    assert kept == []


def test_run_segment_stopped_and_continued_gives_the_same_root(runs: Runs) -> None:
    program = traced(small(), runs)
    first = first_state(small(), runs, measure=True)
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) == 2

    part = run_segment(program, runs, first, steps=10, engine=engine(), report_every=2, should_stop=stop)
    assert (part.completed, part.steps, step_of(part.state)) == (False, 4, 4)
    assert heldout_loss_of(part.state) == part.train_losses[-1][1]
    rest = run_segment(program, runs, part.state, steps=6, engine=engine())
    assert rest.completed
    assert root_of(rest.state) == root_of(run_segment(program, runs, first, steps=10, engine=engine()).state)


def test_run_segment_does_not_change_the_state_it_is_given(runs: Runs) -> None:
    program, first = traced(small(), runs), first_state(small(), runs)
    before = root_of(first)
    for one in (engine(), ReferenceEngine()):
        for steps in (0, 1):
            ended = run_segment(program, runs, first, steps=steps, engine=one).state
            for tensor in ended.values():
                tensor.zero_()  # nor does it share memory with what comes out
            assert root_of(first) == before


@pytest.mark.parametrize("kind", ["reference", "compiled"])
def test_run_segment_unaligned_and_transposed_state_gives_the_same_root(runs: Runs, kind: str) -> None:
    program, first = traced(small(), runs), first_state(small(), runs)
    moved: State = OrderedDict()
    for name, tensor in first.items():
        memory = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
        memory[1:] = tensor.T.flatten() if tensor.dim() == 2 else tensor
        moved[name] = memory[1:].view(tensor.T.shape).T if tensor.dim() == 2 else memory[1:]
        assert torch.equal(moved[name], tensor) or name == HELDOUT_LOSS
    chosen = engine() if kind == "compiled" else ReferenceEngine()
    assert root_of(run_segment(program, runs, moved, steps=2, engine=chosen).state) == root_of(
        run_segment(program, runs, first, steps=2, engine=engine()).state
    )


def test_run_segment_slot_and_seed_change_the_batches(runs: Runs) -> None:
    program, first = traced(small(), runs), first_state(small(), runs)
    roots = {
        root_of(run_segment(program, runs, first, steps=2, engine=engine()).state),
        root_of(run_segment(program, runs, first, steps=2, engine=engine(), slot=1).state),
        root_of(run_segment(replace(program, seed=2), runs, first, steps=2, engine=engine()).state),
    }
    assert len(roots) == 3


def test_run_segment_reports_every_k_steps_and_the_last(runs: Runs) -> None:
    reports: list[StepReport] = []
    program, first = traced(small(), runs), first_state(small(), runs)
    first[STEP] = torch.tensor([20])
    result = run_segment(program, runs, first, steps=7, engine=engine(), report_every=3, on_step=reports.append)
    assert [(r.step, r.done, r.total) for r in reports] == [(23, 3, 7), (26, 6, 7), (27, 7, 7)]
    assert [(r.step, r.loss) for r in reports] == list(result.train_losses)
    assert reports[-1].tokens == result.tokens == 7 * 6 * 16
    assert 0 < reports[0].seconds <= reports[-1].seconds <= result.seconds


def test_run_segment_diverging_goes_on_and_is_reported(runs: Runs) -> None:
    schedule = {"learning_rate": 100.0, "minimum_learning_rate": 100.0, "warmup_steps": 0}
    description = small(schedule=schedule, optimizer={"weight_decay": 100.0, "gradient_clip": 0.0})
    program, first = traced(description, runs), first_state(description, runs)
    result = run_segment(program, runs, first, steps=40, engine=engine(), report_every=1)
    again = run_segment(program, runs, first, steps=40, engine=engine(2), report_every=1)
    assert result.not_finite_at is not None
    assert result.not_finite_at == next(at for at, loss in result.train_losses if not math.isfinite(loss))
    assert (step_of(result.state), result.completed) == (40, True)
    assert math.isnan(result.heldout_loss)
    assert heldout_loss_bits(result.state) == 0x7FC00000
    assert root_of(again.state) == root_of(result.state)


def test_run_segment_zero_steps_only_measures(runs: Runs) -> None:
    program, unknown = traced(small(), runs), first_state(small(), runs)
    assert math.isnan(heldout_loss_of(unknown))
    result = run_segment(program, runs, unknown, steps=0, engine=engine())
    assert (result.steps, result.completed, result.train_losses, result.tokens) == (0, True, (), 0)
    assert result.heldout_loss == pytest.approx(math.log(256), abs=0.4)
    for name, tensor in unknown.items():
        assert name == HELDOUT_LOSS or torch.equal(result.state[name], tensor)
    assert root_of(result.state) == root_of(measured(program, runs, unknown))


def test_run_segment_state_of_another_program_refused(runs: Runs) -> None:
    program = traced(small(), runs)
    with pytest.raises(ValueError, match=r"embedding\.weight is torch\.float32 \(256, 64\), the program has"):
        run_segment(program, runs, first_state(small(model={"width": 64}), runs), steps=1)
    with pytest.raises(ValueError, match=r"missing .*recurrence"):
        run_segment(traced(small("recurrent"), runs), runs, first_state(small(), runs), steps=1)
    with pytest.raises(ValueError, match="steps is -1"):
        run_segment(program, runs, first_state(small(), runs), steps=-1)
    with pytest.raises(ValueError, match="report_every 0"):
        run_segment(program, runs, first_state(small(), runs), steps=1, report_every=0)


class GreedyEngine(ReferenceEngine):
    """Asks the system for memory that no machine has, where an engine takes its own."""

    def open(self, built: BuiltProgram) -> Run:
        torch.empty(2**60, dtype=torch.uint8)
        return super().open(built)


def test_run_segment_out_of_memory_says_what_to_change(runs: Runs) -> None:
    for steps in (0, 1):
        with pytest.raises(ResourceError, match=r"33,440 parameters, batches of 96 tokens") as caught:
            run_segment(traced(small(), runs), runs, first_state(small(), runs), steps=steps, engine=GreedyEngine())
        assert "batch_size" in caught.value.remedy


@pytest.mark.parametrize("error", [RuntimeError("the callback is broken"), OSError("no 64 threads could be started")])
def test_run_segment_other_errors_pass_through(runs: Runs, error: Exception) -> None:
    def fail(_: StepReport) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        run_segment(traced(small(), runs), runs, first_state(small(), runs), steps=1, engine=engine(), on_step=fail)


def test_run_segment_measures_as_the_formats_say(runs: Runs) -> None:
    """The held-out loss, once more from its definition, in float64.

    13 bits of the largest element of a row leave an error of about 2**-13 to each product; the loss is a mean over 320
    tokens, so less of it is left, and it comes to a few parts in a hundred thousand (docs/tracing.md).
    """
    description = small()
    program = traced(description, runs)
    state = run_segment(program, runs, first_state(description, runs), steps=3, engine=engine()).state
    model = model_of(description, state).double().eval()
    total = 0.0
    for j in range(20):
        window = torch.tensor(runs.heldout[j * 16 : j * 16 + 17].astype("int64"))[None]
        with torch.no_grad():
            logits = model.logits(window[:, :-1])
        total += -logits.log_softmax(-1).gather(-1, window[:, 1:, None]).sum().item()
    assert heldout_loss_of(state) == pytest.approx(total / (20 * 16), rel=5e-5)
    assert state[HELDOUT_LOSS].shape == (1,)


@pytest.mark.parametrize(
    ("before", "steps", "after"),
    [(0, 0, 0), (3, 4, 7), (2**31 - 1, 2, -(2**31) + 1), (-1, 3, 2), (2**40 + 5, 2, 7), (-(2**63), 1, 1)],
)
def test_run_segment_counter_goes_round_as_words_do(runs: Runs, before: int, steps: int, after: int) -> None:
    description = small(model={"layers": 1, "width": 8}, context=4, batch_size=1, evaluation_windows=1)
    program, first = traced(description, runs), first_state(description, runs)
    first[STEP] = torch.tensor([before])
    ends = [run_segment(program, runs, first, steps=steps, engine=one) for one in (engine(), ReferenceEngine())]
    assert [step_of(end.state) for end in ends] == [after, after]
    assert root_of(ends[0].state) == root_of(ends[1].state)
    assert steps_between(before, after) == steps


def test_initial_state_follows_seed_and_names_alone(runs: Runs) -> None:
    description = small()
    layout = traced(description, runs).layout
    first = initial_state(description, layout)
    assert root_of(first) == root_of(initial_state(description, layout))
    assert root_of(first) != root_of(initial_state(replace(description, seed=2), layout))
    deeper = first_state(small(model={"layers": 3}), runs)
    name = "parameter.embedding.weight"
    assert torch.equal(first[name], deeper[name])
    assert first[name].std().item() == pytest.approx(0.02, rel=0.1)
    assert heldout_loss_bits(first) == 0x7FC00000
    assert step_of(first) == 0
