"""Seconds and memory of tracing one step for a dispute, against the same step on the reference and compiled engines.

python benchmarks/dispute_trace.py --text FILE --folder FOLDER
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reporting import write
from torch import Tensor
from training_setting import TEN_MILLION, dataset_of_text, describe

from trainer.data.dataset import Dataset
from trainer.dispute.committed import DatasetProofs
from trainer.dispute.runs import RunTruth
from trainer.engine.engines import Engine, ReferenceEngine
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.exact.interpreter import run_program
from trainer.engine.state import initial_state
from trainer.native.engine import choose_engine
from trainer.native.hashing import hash_natively
from trainer.program.exact import BuiltProgram, cost_of
from trainer.program.exact.operations import Code
from trainer.program.tracing.tasks import trace_task

DEMO = Path(__file__).parent.parent / "trainer/demo/task.toml"
SEED = 7


class Step:
    """One training step, in the three ways that are compared."""

    def __init__(self, built: BuiltProgram, state: list[Tensor], dataset: Dataset) -> None:
        self.built, self.state, self.dataset = built, state, dataset

    def truth(self) -> RunTruth:
        """Nothing computed yet, and nothing to be kept, as for a step that does not fit in memory."""
        return RunTruth(self.built, self.state, DatasetProofs(self.dataset), seed=SEED, cache_bytes=0)

    def plainly(self) -> None:
        """The same run without hashing."""
        run_program(self.built.program, self.state, self.built.constants, self.truth().batches)

    def trace(self) -> None:
        _ = self.truth().trace_root

    def one_output(self, number: int) -> None:
        """One output again, with all that it depends on, and its tree."""
        _ = self.truth().outputs([number])[number].root

    def on(self, engine: Engine) -> Callable[[], None]:
        run = engine.open(self.built)
        run.load(self.state)
        return lambda: run.step(DatasetBatches(data=self.dataset, seed=SEED, step=0))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def memory(step: Step, way: str, folder: Path) -> float:
    """MiB that a process takes at most for one way, beyond what it had with program, state and data loaded."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grown, (step, way, folder))


def _grown(step: Step, way: str, folder: Path) -> float:
    torch.set_num_threads(1)
    hash_natively(folder, threads=1)
    step.state = [one.clone() for one in step.state]  # what other processes share is not resident before it is read
    work = step.trace if way == "trace" else step.plainly
    Path("/proc/self/clear_refs").write_text("5")  # the greatest memory counts from here on
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def one_setting(name: str, fields: dict[str, Any], dataset: Dataset, folder: Path, rounds: int) -> dict[str, object]:
    description = describe(fields, dataset)
    task = trace_task(description, windows=description.evaluation_windows)
    step = Step(task.training, list(initial_state(description, task.layout).values()), dataset)
    program, cost = step.built.program, cost_of(step.built.program)
    ways: dict[str, Callable[[], object]] = {
        "compiled step": step.on(choose_engine("cpu", folder, threads=1, notice=print)),
        "reference step": step.on(ReferenceEngine()),
        "trace": step.trace,
    }
    late = max(n for n, one in enumerate(program.operations) if one.code is Code.MATMUL)
    ways["one late output again"] = lambda: step.one_output(late)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, work in ways.items():
            times[way].append(seconds(work))
    figures: dict[str, object] = {
        f"{name}: parameters": task.layout.parameter_count,
        f"{name}: operations": len(program.operations),
        f"{name}: whole trace, MiB": cost.bytes_written / 2**20,
    }
    for way, values in times.items():
        figures[f"{name}: {way}, s (least)"] = min(values)
    for peer in ("reference step", "compiled step"):
        pairs = zip(times["trace"], times[peer], strict=True)
        figures[f"{name}: trace over {peer}"] = statistics.median(a / b for a, b in pairs)
    figures[f"{name}: trace, memory MiB"] = memory(step, "trace", folder)
    figures[f"{name}: reference step, memory MiB"] = memory(step, "step", folder)
    figures[f"{name}: least memory by the program, MiB"] = cost.peak_bytes / 2**20
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hash_natively(arguments.folder, threads=1)
    dataset = dataset_of_text(arguments.text)
    demo = tomllib.loads(DEMO.read_text())["program"]
    figures = one_setting("demo", demo, dataset, arguments.folder, arguments.rounds)
    figures |= one_setting("ten million", TEN_MILLION, dataset, arguments.folder, max(2, arguments.rounds // 2))
    write(
        "dispute_trace",
        title="Tracing one step for a dispute",
        command="python benchmarks/dispute_trace.py --text TEXT --folder FOLDER",
        figures=figures,
        note="One thread. A trace runs the step on the reference interpreter, hashes every output and keeps none. A "
        "late output is the last matrix product's, which depends on nearly everything. demo: the model of "
        "`trainledger demo`; ten million: 6 layers, 6 heads, 384 wide, context 256, batch 4. Ratios are medians over "
        "turns. Memory is what a process grew by at most, with program, state and data loaded; the least memory by the "
        "program counts the state too.",
    )


if __name__ == "__main__":
    main()
