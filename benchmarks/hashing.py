"""Megabytes a second of state roots against hashlib over the same bytes, and their share of a round.

python benchmarks/hashing.py --text FILE
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from reporting import write
from training_setting import SMALL, dataset_of_text, describe

from trainer.commit.states import state_root
from trainer.commit.tensors import tensor_bytes
from trainer.engine.segment import run_segment
from trainer.engine.state import initial_state
from trainer.native.engine import choose_engine
from trainer.program.tracing.tasks import trace_task


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


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
    size = sum(tensor.nbytes for tensor in tensors)

    def plain() -> None:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor_bytes(tensor))

    ours, peer = [], []
    for _ in range(arguments.repeats):
        ours.append(seconds(lambda: state_root(tensors)))
        peer.append(seconds(plain))
    write(
        "hashing",
        title="Hashing states",
        command=f"python benchmarks/hashing.py --text tinyshakespeare.txt --folder FOLDER --steps {arguments.steps} "
        f"--repeats {arguments.repeats}",
        figures={
            "state_root_megabytes_per_second": size / 1e6 / statistics.median(ours),
            "hashlib_sha256_megabytes_per_second": size / 1e6 / statistics.median(peer),
            "ratio_median": statistics.median(b / a for a, b in zip(ours, peer, strict=True)),
            "share_of_a_round": statistics.median(ours) / (result.seconds + statistics.median(ours)),
            "state_megabytes": size / 1e6,
            "seconds_a_root": statistics.median(ours),
            "seconds_a_round": result.seconds,
            "steps_a_round": arguments.steps,
        },
        note="The peer hashes the same bytes in one run, without a tree. A tree over 1 KiB chunks hashes 6 % more "
        "bytes in two calls a KiB, and those calls, not SHA-256, are what it costs in Python.",
    )


if __name__ == "__main__":
    main()
