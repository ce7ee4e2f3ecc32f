import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_programs import Runs, small

from ledger.errors import ResourceError, SettingsError
from trainer.commit.states import state_root
from trainer.engine import segment
from trainer.engine.evaluate import evaluate_state
from trainer.engine.segment import StepReport, run_segment
from trainer.engine.state import State, heldout_loss_bits, heldout_loss_of, initial_state, step_of
from trainer.program.description import ProgramDescription
from trainer.program.layout import HELDOUT_LOSS, StateLayout


def root_of(state: State) -> str:
    return state_root(state.values()).hex()


def test_run_segment_every_model_learns(program: ProgramDescription, runs: Runs) -> None:
    first = initial_state(program, dataset=runs)
    result = run_segment(program, runs, first, steps=40)
    assert heldout_loss_of(first) == pytest.approx(math.log(256), abs=0.4)
    assert result.heldout_loss < heldout_loss_of(first) - 1.5
    assert result.train_losses[-1][1] < result.train_losses[0][1]
    assert step_of(result.state) == 40
    assert tuple(result.state) == StateLayout.of(program).names
    assert all(bool(t.isfinite().all()) for t in result.state.values() if t.is_floating_point())
    assert result.heldout_loss == evaluate_state(program, runs, result.state)


def test_run_segment_in_pieces_gives_the_same_root(program: ProgramDescription, runs: Runs) -> None:
    first = initial_state(program)
    whole = root_of(run_segment(program, runs, first, steps=9).state)
    state = first
    for steps in (1, 3, 0, 5):
        state = run_segment(program, runs, state, steps=steps).state
    assert root_of(state) == whole
    assert root_of(run_segment(program, runs, first, steps=8).state) != whole


def test_run_segment_resumed_from_any_snapshot_gives_the_same_root(program: ProgramDescription, runs: Runs) -> None:
    first = initial_state(program, dataset=runs)
    snapshots: list[State] = []
    whole = run_segment(program, runs, first, steps=7, snapshot=snapshots.append, snapshot_seconds=0)
    assert [step_of(s) for s in snapshots] == [1, 2, 3, 4, 5, 6]
    for taken in snapshots:
        assert heldout_loss_bits(taken) == heldout_loss_bits(first)
        rest = run_segment(program, runs, taken, steps=7 - step_of(taken))
        assert root_of(rest.state) == root_of(whole.state)


def test_run_segment_stopped_and_continued_gives_the_same_root(runs: Runs) -> None:
    program = small()
    first = initial_state(program, dataset=runs)
    seen: list[int] = []

    def stop() -> bool:
        seen.append(1)
        return len(seen) == 2

    part = run_segment(program, runs, first, steps=10, report_every=2, should_stop=stop)
    assert (part.completed, part.steps, step_of(part.state)) == (False, 4, 4)
    assert heldout_loss_of(part.state) == heldout_loss_of(first)
    rest = run_segment(program, runs, part.state, steps=6)
    assert rest.completed
    assert root_of(rest.state) == root_of(run_segment(program, runs, first, steps=10).state)


_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from small_programs import TEXT, Runs, small
from trainer.commit.states import state_root
from trainer.engine.segment import run_segment
from trainer.engine.state import initial_state
tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
runs = Runs(train=tokens[:9000], heldout=tokens[9000:])
for kind in ("transformer", "recurrent"):
    program = small(kind, threads=2)
    print(state_root(run_segment(program, runs, initial_state(program), steps=6).state.values()).hex())
"""


def test_run_segment_in_a_fresh_process_gives_the_same_root(runs: Runs) -> None:
    here = [
        root_of(run_segment(p, runs, initial_state(p), steps=6).state)
        for p in (small("transformer", threads=2), small("recurrent", threads=2))
    ]
    # Other defaults for threads must not matter: the program decides.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert child.stdout.split() == here


def test_run_segment_does_not_change_the_state_it_is_given(runs: Runs) -> None:
    program = small()
    first = initial_state(program)
    before = root_of(first)
    run_segment(program, runs, first, steps=2)
    assert root_of(first) == before


def test_run_segment_unaligned_state_gives_the_same_root(runs: Runs) -> None:
    program = small()
    first = initial_state(program)
    moved: State = type(first)()
    for name, tensor in first.items():
        memory = torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)
        memory[1:] = tensor.flatten()
        moved[name] = memory[1:].view(tensor.shape)
    assert root_of(run_segment(program, runs, moved, steps=3).state) == root_of(
        run_segment(program, runs, first, steps=3).state
    )


def test_run_segment_slot_and_seed_change_the_batches(runs: Runs) -> None:
    program = small()
    first = initial_state(program)
    roots = {
        root_of(run_segment(program, runs, first, steps=2).state),
        root_of(run_segment(program, runs, first, steps=2, slot=1).state),
        root_of(run_segment(replace(program, seed=2), runs, first, steps=2).state),
    }
    assert len(roots) == 3


def test_run_segment_reports_every_k_steps_and_the_last(runs: Runs) -> None:
    reports: list[StepReport] = []
    result = run_segment(small(), runs, initial_state(small()), steps=7, report_every=3, on_step=reports.append)
    assert [(r.step, r.done, r.total) for r in reports] == [(3, 3, 7), (6, 6, 7), (7, 7, 7)]
    assert [(r.step, r.loss) for r in reports] == list(result.train_losses)
    assert reports[-1].tokens == result.tokens == 7 * 6 * 16
    assert 0 < reports[0].seconds <= reports[-1].seconds <= result.seconds


def test_run_segment_diverging_goes_on_and_is_reported(runs: Runs) -> None:
    schedule = {"learning_rate": 100.0, "minimum_learning_rate": 100.0, "warmup_steps": 0}
    optimizer = {"weight_decay": 100.0, "gradient_clip": 0.0}
    program = small(schedule=schedule, optimizer=optimizer)
    result = run_segment(program, runs, initial_state(program), steps=40, report_every=1)
    again = run_segment(program, runs, initial_state(program), steps=40, report_every=1)
    assert result.not_finite_at is not None
    assert (step_of(result.state), result.completed) == (40, True)
    assert math.isnan(result.heldout_loss)
    assert heldout_loss_bits(result.state) == 0x7FC00000
    assert root_of(again.state) == root_of(result.state)


def test_run_segment_zero_steps_only_measures(runs: Runs) -> None:
    program = small()
    unknown = initial_state(program)
    assert math.isnan(heldout_loss_of(unknown))
    measured = run_segment(program, runs, unknown, steps=0)
    assert root_of(measured.state) == root_of(initial_state(program, dataset=runs))


def test_run_segment_state_of_another_program_refused(runs: Runs) -> None:
    with pytest.raises(ValueError, match=r"embedding\.weight is torch\.float32 \(256, 64\), the program has"):
        run_segment(small(), runs, initial_state(small(model={"width": 64})), steps=1)
    with pytest.raises(ValueError, match=r"missing .*recurrence"):
        run_segment(small("recurrent"), runs, initial_state(small()), steps=1)
    with pytest.raises(ValueError, match="steps is -1"):
        run_segment(small(), runs, initial_state(small()), steps=-1)


def test_run_segment_out_of_memory_says_what_to_change(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    # A real allocation that no machine has, made where the optimizer's memory is.
    def greedy(*_: object, **__: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(segment, "training_objects", greedy)
    with pytest.raises(ResourceError, match=r"batch 6 of 16 tokens, width 32, 2 layers") as caught:
        run_segment(small(), runs, initial_state(small()), steps=1)
    assert "batch_size" in caught.value.remedy


def test_run_segment_other_runtime_errors_pass_through(runs: Runs) -> None:
    def fail(_: StepReport) -> None:
        raise RuntimeError("the callback is broken")

    with pytest.raises(RuntimeError, match="the callback is broken"):
        run_segment(small(), runs, initial_state(small()), steps=1, on_step=fail)


@pytest.mark.parametrize(("variable", "value"), [("OMP_DYNAMIC", "TRUE"), ("OMP_THREAD_LIMIT", "1")])
def test_run_segment_openmp_with_fewer_threads_refused(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"{variable}={value}"):
        run_segment(small(threads=2), runs, initial_state(small()), steps=1)


def test_run_segment_measures_as_the_formats_say(runs: Runs) -> None:
    """The held-out loss, once more from its definition."""
    program = small()
    state = run_segment(program, runs, initial_state(program), steps=3).state
    model = segment.training_objects(program, state)[0].eval()
    total = 0.0
    for start in range(0, 20, 8):
        rows = [
            torch.tensor(runs.heldout[j * 16 : j * 16 + 17].astype("int64")) for j in range(start, min(start + 8, 20))
        ]
        block = torch.stack(rows)
        with torch.no_grad():
            logits = model.logits(block[:, :-1]).double()
        total += -logits.log_softmax(-1).gather(-1, block[:, 1:, None]).sum().item()
    assert heldout_loss_of(state) == pytest.approx(total / (20 * 16), rel=1e-6)
    assert state[HELDOUT_LOSS].shape == (1,)


def test_initial_state_follows_seed_and_names_alone() -> None:
    program = small()
    first = initial_state(program)
    assert root_of(first) == root_of(initial_state(program))
    assert root_of(first) != root_of(initial_state(replace(program, seed=2)))
    deeper = initial_state(small(model={"layers": 3}))
    name = "parameter.embedding.weight"
    assert torch.equal(first[name], deeper[name])
    assert first[name].std().item() == pytest.approx(0.02, rel=0.1)
