"""What an audit costs against the training that it checks: replaying a round, and the finding of a drawn auditor.

python benchmarks/audit_cost.py --text FILE --folder FOLDER
"""

from __future__ import annotations

import argparse
import statistics
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reporting import write
from training_setting import TEN_MILLION, dataset_of_text, describe

from trainer.commit.states import state_root
from trainer.data.dataset import Dataset
from trainer.dispute.truth import SegmentTruth
from trainer.engine.segment import run_segment
from trainer.engine.state import initial_state
from trainer.native.engine import choose_engine
from trainer.native.hashing import hash_natively
from trainer.program.tracing.tasks import trace_task

DEMO = Path(__file__).parent.parent / "trainer/demo/task.toml"
THREADS = 2


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def one_setting(
    name: str, fields: dict[str, Any], dataset: Dataset, folder: Path, *, steps: int, rounds: int
) -> dict[str, object]:
    """Figures of a round of `steps` steps: the worker's training and both audits, in turns."""
    description = describe(fields, dataset)
    program = trace_task(description, windows=description.evaluation_windows)
    base = initial_state(description, program.layout)
    engine = choose_engine("cpu", folder, threads=THREADS, notice=print)
    times: dict[str, list[float]] = {"training": [], "replay": [], "finding": []}
    for turn in range(rounds):
        recheck = (turn * 37 + 11) % steps  # as a worker, which repeats one run on the reference before it submits
        spent, result = timed(
            lambda recheck=recheck: run_segment(program, dataset, base, steps=steps, engine=engine, recheck=recheck)
        )
        submitted = state_root(result.state.values())
        times["training"].append(spent)
        truth = SegmentTruth(program, dataset, base, steps=steps, engine=engine)
        spent, replayed = timed(lambda truth=truth: truth.state_root(steps + 1))
        assert replayed == submitted
        times["replay"].append(spent)
        drawn = (turn * 53 + 29) % steps
        spent, _ = timed(lambda truth=truth, drawn=drawn: truth.run(drawn).trace_root)
        times["finding"].append(times["replay"][-1] + spent)
    figures: dict[str, object] = {f"{name}: steps of a round": steps}
    for way, values in times.items():
        figures[f"{name}: {way}, s (median)"] = statistics.median(values)
    for way in ("replay", "finding"):
        pairs = zip(times[way], times["training"], strict=True)
        figures[f"{name}: {way} over training"] = statistics.median(a / b for a, b in pairs)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    hash_natively(arguments.folder, threads=THREADS)
    dataset = dataset_of_text(arguments.text)
    demo = tomllib.loads(DEMO.read_text())
    steps = int(demo["task"]["steps_per_round"])
    figures = one_setting("demo", demo["program"], dataset, arguments.folder, steps=steps, rounds=arguments.rounds)
    fewer = max(2, arguments.rounds // 2)
    figures |= one_setting("ten million", TEN_MILLION, dataset, arguments.folder, steps=50, rounds=fewer)
    write(
        "audit_cost",
        title="Audits against the training that they check",
        command="python benchmarks/audit_cost.py --text TEXT --folder FOLDER",
        figures=figures,
        note=f"{THREADS} threads, everything compiled, fetched and in memory. Training is a worker's: all steps, the "
        "evaluation, and one run repeated on the reference interpreter. A replay does it again and compares the roots. "
        "The finding of a drawn auditor (docs/auditors.md) is a replay and the trace of one run besides, which starts "
        "from the nearest state that is kept; the longer the round, the less that weighs.",
    )


if __name__ == "__main__":
    main()
