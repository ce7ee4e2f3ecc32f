"""Gigabytes a second of state roots in C and in Python, against hashlib over the same bytes, and a round's share.

python benchmarks/hashing.py --text FILE --folder FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from reporting import write
from torch import Tensor
from training_setting import SMALL, TEN_MILLION, dataset_of_text, describe

from trainer.commit.hashing import TreeHasher, use_tree_hasher
from trainer.commit.states import state_root
from trainer.commit.tensors import tensor_bytes
from trainer.engine.segment import run_segment
from trainer.engine.state import initial_state
from trainer.native.engine import choose_engine
from trainer.native.hashing import open_tree_hasher
from trainer.program.tracing.tasks import trace_task


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def measured(tensors: list[Tensor], folder: Path, *, repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, taken in turns so that a busy machine is busy for all of them."""

    def plain() -> None:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor_bytes(tensor))

    native = {}
    for threads in (1, 2):
        hasher = open_tree_hasher(folder, threads=threads)
        if hasher is None:
            raise SystemExit("States are not hashed in C here: there is no gcc, or Python is as fast.")
        native[f"root_threads_{threads}"] = hasher
    ways: dict[str, TreeHasher | None] = {**native, "root_python": None}
    times: dict[str, list[float]] = {name: [] for name in (*ways, "hashlib")}
    roots = set()
    for _ in range(repeats):
        for name, way in ways.items():
            use_tree_hasher(way)
            times[name].append(seconds(lambda: roots.add(state_root(tensors))))
        times["hashlib"].append(seconds(plain))
    if len(roots) != 1:
        raise SystemExit("The ways gave different roots.")
    return times


def speeds(state: str, tensors: list[Tensor], times: dict[str, list[float]]) -> dict[str, float]:
    """Medians over the turns of bytes a second, and of how many times as fast as hashlib each way is."""
    size = sum(tensor.nbytes for tensor in tensors)
    figures = {f"{state}_megabytes": size / 1e6, f"{state}_tensors": len(tensors)}
    for name, taken in times.items():
        figures[f"{state}_{name}_gigabytes_per_second"] = size / 1e9 / statistics.median(taken)
    for name in list(times)[:-1]:
        ratios = [b / a for a, b in zip(times[name], times["hashlib"], strict=True)]
        figures[f"{state}_{name}_to_hashlib"] = statistics.median(ratios)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    dataset = dataset_of_text(arguments.text)
    description = describe(SMALL, dataset)
    program = trace_task(description, windows=description.evaluation_windows)
    engine = choose_engine("cpu", arguments.folder, threads=1, notice=print)
    first = initial_state(description, program.layout)
    result = run_segment(program, dataset, first, steps=arguments.steps, engine=engine)
    tensors = list(result.state.values())
    times = measured(tensors, arguments.folder, repeats=arguments.repeats)
    share = statistics.median(times["root_threads_2"])
    large = describe(TEN_MILLION, dataset)
    layout = trace_task(large, windows=large.evaluation_windows).layout
    more = list(initial_state(large, layout).values())
    write(
        "hashing",
        title="Hashing states",
        command=f"python benchmarks/hashing.py --text tinyshakespeare.txt --folder FOLDER --steps {arguments.steps} "
        f"--repeats {arguments.repeats}",
        figures={
            **speeds("small_state", tensors, times),
            **speeds("large_state", more, measured(more, arguments.folder, repeats=arguments.repeats)),
            "share_of_a_small_round": share / (result.seconds + share),
            "seconds_a_small_round": result.seconds,
            "steps_a_round": arguments.steps,
        },
        note="Roots of the small setting's state after a round, and of the first state of ten million parameters; all "
        "ways in turns. The peer, hashlib, hashes the same bytes in one run, without a tree. A tree over 1 KiB chunks "
        "hashes 19 % more blocks; Python makes two calls a KiB besides, which are what it costs there. In C a core "
        "hashes many chunks beside each other, which one run of bytes does not allow. No tensor of the small state is "
        "worth a second thread.",
    )


if __name__ == "__main__":
    main()
