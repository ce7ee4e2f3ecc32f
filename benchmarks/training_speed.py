"""Tokens a second of exact training against plain PyTorch in float32, eager and compiled: same model, same run.

python benchmarks/training_speed.py --text FILE --folder FOLDER
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reporting import write
from training_setting import SETTINGS, PlainLoop, dataset_of_text, describe

from trainer.data.dataset import Dataset
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.state import initial_state
from trainer.native.engine import choose_engine
from trainer.program.exact import cost_of, encode_program
from trainer.program.task import TaskProgram
from trainer.program.tracing import Precision
from trainer.program.tracing.tasks import trace_task

PRECISIONS = {"13 bits": Precision(), "8-8-13 bits": Precision(8, 8, 13)}
WARMING = 3


def measure(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, taken in turns, so that what else the machine does disturbs all alike.

    A turn is two steps, of which the second counts, so that each follows a step of its own, as in training: PyTorch's
    OpenMP threads wait awake for some milliseconds after their last work and would take a core from whoever is next.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + WARMING):
        for name, step in steps.items():
            step()
            began = time.perf_counter()
            step()
            if turn >= WARMING:
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def exact_step(program: TaskProgram, dataset: Dataset, state: Any, folder: Path, threads: int) -> Callable[[], None]:
    """A step as `run_segment` does it, with the batch looked up in the data set."""
    run = choose_engine("cpu", folder, threads=threads, notice=print).open(program.training)
    run.load(list(state.values()))

    def step() -> None:
        run.step(DatasetBatches(data=dataset, seed=program.seed, step=int(run.tensor(1).item())))

    return step


def one_setting(name: str, dataset: Dataset, folder: Path, threads: int, rounds: int) -> dict[str, object]:
    """Figures of one setting on a number of threads."""
    torch.set_num_threads(threads)
    description = describe(SETTINGS[name], dataset)
    programs, tracing = {}, 0.0
    for title, precision in PRECISIONS.items():
        began = time.perf_counter()
        programs[title] = trace_task(description, windows=description.evaluation_windows, precision=precision)
        tracing = time.perf_counter() - began
    state = initial_state(description, programs["13 bits"].layout)
    began = time.perf_counter()
    steps: dict[str, Callable[[], object]] = {
        f"exact, {title}": exact_step(program, dataset, state, folder, threads) for title, program in programs.items()
    }
    compiling = time.perf_counter() - began
    steps["float32 eager"] = PlainLoop(description, dataset, state).step
    steps["float32 compiled"] = PlainLoop(description, dataset, state, compiled=True).step
    times = measure(steps, rounds)
    tokens = description.batch_size * description.context
    place = f"{name}, {threads} thread" + "s" * (threads > 1)
    figures: dict[str, object] = {}
    for title, values in times.items():
        figures[f"{place}: {title}, ms a step (median)"] = statistics.median(values)
        figures[f"{place}: {title}, tokens a second"] = tokens / statistics.median(values) * 1e3
    for title in PRECISIONS:
        for peer in ("eager", "compiled"):
            pairs = zip(times[f"float32 {peer}"], times[f"exact, {title}"], strict=True)
            figures[f"{place}: speed of {title} over float32 {peer}"] = statistics.median(a / b for a, b in pairs)
    if threads == 1:
        training = programs["13 bits"].training.program
        figures[f"{name}: parameters"] = programs["13 bits"].layout.parameter_count
        figures[f"{name}: tracing its three programs, s"] = tracing
        figures[f"{name}: compiling two training programs, or finding them, s"] = compiling
        figures[f"{name}: training program, operations"] = len(training.operations)
        figures[f"{name}: training program, bytes"] = len(encode_program(training))
        figures[f"{name}: exact peak memory by its plan, MiB"] = cost_of(training).peak_bytes / 2**20
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    dataset = dataset_of_text(arguments.text)
    figures: dict[str, object] = {}
    for name, rounds in (("small", arguments.rounds), ("ten million", max(5, arguments.rounds // 4))):
        for threads in (1, 2):
            figures |= one_setting(name, dataset, arguments.folder, threads, rounds)
    figures["greatest memory of this process, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write(
        "training_speed",
        title="Exact training against plain PyTorch in float32",
        command="python benchmarks/training_speed.py --text tinyshakespeare.txt --folder FOLDER",
        figures=figures,
        note="small: nanoGPT's CPU setting (4 layers, 4 heads, 128 wide, context 64, batch 12). ten million: 6 layers, "
        "6 heads, 384 wide, context 256, batch 4. Whole training steps with batch, clipping and AdamW (fused in "
        "PyTorch). All take turns of two steps, of which the second counts; speeds over a peer are medians over such "
        "pairs, above 1 where exact training is faster. Compiling is once for a program, and is kept.",
    )


if __name__ == "__main__":
    main()
