"""Memory that training takes, exact against plain PyTorch in float32: each in a process of its own.

python benchmarks/training_memory.py --text FILE --folder FOLDER
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import torch
from reporting import write
from training_setting import SETTINGS, PlainLoop, dataset_of_text, describe

from trainer.data.dataset import Dataset
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.state import initial_state
from trainer.native.engine import choose_engine
from trainer.program.exact import cost_of
from trainer.program.task import TaskProgram
from trainer.program.tracing.tasks import trace_task

STEPS = 5
THREADS = 2
KINDS = ("exact", "float32 eager", "float32 compiled")


def resident(field: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" the most since `forget_peak`."""
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def taken(setting: str, kind: str, text: Path, folder: Path) -> dict[str, float]:
    """MiB that training adds to a process which has the data, the traced program and the first state already."""
    torch.set_num_threads(THREADS)
    dataset = dataset_of_text(text)
    description = describe(SETTINGS[setting], dataset)
    program = trace_task(description, windows=description.evaluation_windows)
    state = initial_state(description, program.layout)
    state_bytes = sum(one.nbytes for one in state.values())
    if kind == "exact":  # compiled before, because a worker finds its program's library there in all but the first run
        choose_engine("cpu", folder, threads=THREADS, notice=print).open(program.training)
    forget_peak()
    before = resident("VmRSS")
    if kind == "exact":
        exact_steps(program, list(state.values()), dataset, folder)
    else:
        loop = PlainLoop(description, dataset, state, compiled=kind == "float32 compiled")
        for _ in range(STEPS):
            loop.step()
    return {
        "taken": resident("VmHWM") - before,
        "state": state_bytes / 2**20,
        "planned": cost_of(program.training.program).peak_bytes / 2**20,
    }


def exact_steps(program: TaskProgram, state: list[torch.Tensor], dataset: Dataset, folder: Path) -> None:
    run = choose_engine("cpu", folder, threads=THREADS, notice=print).open(program.training)
    run.load(state)
    for step in range(STEPS):
        run.step(DatasetBatches(data=dataset, seed=program.seed, step=step))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    for setting in SETTINGS:
        told = {}
        for kind in KINDS:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                told[kind] = pool.apply(taken, (setting, kind, arguments.text, arguments.folder))
            figures[f"{setting}: {kind}, MiB"] = told[kind]["taken"]
        figures[f"{setting}: state with its optimizer's moments, MiB"] = told["exact"]["state"]
        figures[f"{setting}: exact by its program's plan, MiB"] = told["exact"]["planned"]
        for kind in KINDS[1:]:
            figures[f"{setting}: exact over {kind}"] = told["exact"]["taken"] / told[kind]["taken"]
    write(
        "training_memory",
        title="Memory of exact training against plain PyTorch in float32",
        command="python benchmarks/training_memory.py --text tinyshakespeare.txt --folder FOLDER",
        figures=figures,
        note=f"The settings of training_speed. Resident memory of a process at its peak in {STEPS} steps on {THREADS} "
        "threads, less what it had before it began to train: PyTorch, the text, the traced program and the first "
        "state. torch.compile's figure has its compiler in it.",
    )


if __name__ == "__main__":
    main()
