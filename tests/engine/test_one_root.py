"""A segment has one state root: on 1 and 2 threads, all admitted backends, reference and compiled, in pieces or not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_programs import Runs, first_state, small, traced, users_engine

from trainer.commit.states import state_root
from trainer.engine.engines import Engine, ReferenceEngine
from trainer.engine.exact.backends import admitted_backends
from trainer.engine.segment import run_segment
from trainer.engine.state import State, step_of, steps_between
from trainer.program.description import ProgramDescription
from trainer.program.task import TaskProgram

STEPS, SLOT = 3, 2
KINDS = ("transformer", "gru")
BACKENDS = [name for name, fault in admitted_backends(torch.device("cpu")).items() if not fault]


def description(kind: str) -> ProgramDescription:
    """A model whose products have odd sizes, so that backends pad and slice."""
    model = {"layers": 1, "width": 12, **({} if kind == "transformer" else {"cell": kind})}
    return small(
        "transformer" if kind == "transformer" else "recurrent",
        model=model,
        context=7,
        batch_size=3,
        evaluation_windows=5,
        evaluation_batch=3,
        schedule={"learning_rate": 1e-2},
    )


class Work:
    """A task's programs, its data and a first state that has been trained, so that no moment is zero."""

    def __init__(self, kind: str, runs: Runs) -> None:
        self.program: TaskProgram = traced(description(kind), runs)
        self.runs = runs
        self.first = run_segment(
            self.program, runs, first_state(description(kind), runs), steps=2, engine=users_engine()
        ).state

    def root(self, state: State, steps: int, on: Engine) -> str:
        result = run_segment(self.program, self.runs, state, steps=steps, slot=SLOT, engine=on)
        return state_root(result.state.values()).hex()


@pytest.fixture(scope="module", params=KINDS)
def work(request: pytest.FixtureRequest, runs: Runs) -> Work:
    return Work(request.param, runs)


@pytest.fixture
def _threads_as_they_were() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def engines() -> dict[str, Engine]:
    """Every way to run a program that this machine has."""
    several: dict[str, Engine] = {f"compiled, {threads} threads": users_engine(threads) for threads in (1, 2)}
    for backend in BACKENDS:
        for threads in (1, 2):
            several[f"reference, {backend}, {threads} threads"] = ReferenceEngine(backend=backend, threads=threads)
    return several


def test_backends_of_every_processor_are_admitted() -> None:
    """int8 may be missing; the other two are plain floating point."""
    assert {"float64", "float32"} <= set(BACKENDS)


@pytest.mark.usefixtures("_threads_as_they_were")
def test_run_segment_has_one_root_on_all_engines_threads_and_backends(work: Work) -> None:
    roots = {name: work.root(work.first, STEPS, one) for name, one in engines().items()}
    assert len(roots) == 2 + 2 * len(BACKENDS)
    assert len(set(roots.values())) == 1, roots


def test_run_segment_has_one_root_interrupted_and_gone_on_with_elsewhere(work: Work) -> None:
    """Each snapshot of each engine is finished by the other one."""
    several: dict[str, Engine] = {"compiled": users_engine(), "reference": ReferenceEngine()}
    whole = work.root(work.first, STEPS, users_engine(2))
    for name, other in (("compiled", "reference"), ("reference", "compiled")):
        snapshots: list[State] = []
        run_segment(
            work.program,
            work.runs,
            work.first,
            steps=STEPS,
            slot=SLOT,
            engine=several[name],
            snapshot=snapshots.append,
            snapshot_seconds=0,
        )
        assert len(snapshots) == STEPS - 1
        for taken in snapshots:
            left = STEPS - steps_between(step_of(work.first), step_of(taken))
            assert work.root(taken, left, several[other]) == whole, (name, left)


def test_run_segment_stopped_on_one_engine_has_one_root_on_another(work: Work) -> None:
    part = run_segment(
        work.program,
        work.runs,
        work.first,
        steps=STEPS,
        slot=SLOT,
        engine=users_engine(2),
        report_every=1,
        should_stop=lambda: True,
    )
    assert (part.completed, part.steps) == (False, 1)
    assert work.root(part.state, STEPS - 1, ReferenceEngine(backend="float32")) == work.root(
        work.first, STEPS, users_engine()
    )


_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import torch
from small_programs import TEXT, Runs, users_engine
from test_one_root import KINDS, STEPS, Work
from trainer.engine.engines import ReferenceEngine
tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
runs = Runs(train=tokens[:9000], heldout=tokens[9000:])
works = [Work(kind, runs) for kind in KINDS]
torch.set_float32_matmul_precision("medium")
torch.set_default_dtype(torch.float64)
for work in works:
    for on in (users_engine(), ReferenceEngine()):
        print(work.program.root.hex(), work.root(work.first, STEPS, on))
"""


def test_run_segment_in_a_fresh_process_has_the_same_programs_and_root(runs: Runs) -> None:
    expected = []
    for kind in KINDS:
        here = Work(kind, runs)
        expected += 2 * [here.program.root.hex(), here.root(here.first, STEPS, users_engine(2))]
    # Other threads, hashes and settings of PyTorch: none of it is in the result.
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == expected
