"""Tokens a second of run_segment against a plain PyTorch loop with the same model, batch and optimizer.

python benchmarks/training_speed.py --text FILE
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from reporting import write
from training_setting import setting

from trainer.data.dataset import Dataset
from trainer.engine.segment import StepReport, run_segment
from trainer.engine.state import State, initial_state, training_objects
from trainer.program.description import ProgramDescription


@dataclass(frozen=True)
class Seconds:
    """Time by the clock, and processor time of this process, which other programs disturb less."""

    wall: float
    processor: float


class Clock:
    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def elapsed(self) -> Seconds:
        return Seconds(time.perf_counter() - self.wall, time.process_time() - self.processor)


def plain_loop(program: ProgramDescription, dataset: Dataset, state: State, steps: int) -> Seconds:
    """Seconds of a loop as anybody would write it: random batches, AdamW (fused), clipping, warm-up and cosine."""
    # As an ordinary script leaves it: no deterministic kernels asked for.
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(program.threads)
    model, _ = training_objects(program, state)
    model.train()
    data = np.asarray(dataset.train)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    batch, context = program.batch_size, program.context
    began = Clock()
    for step in range(steps):
        starts = torch.randint(len(data) - context, (batch,)).tolist()
        inputs = torch.stack([torch.from_numpy(data[i : i + context].astype(np.int64)) for i in starts])
        targets = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + context].astype(np.int64)) for i in starts])
        rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 4.5e-4 * (1 + math.cos(math.pi * (step - 100) / 1900))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model(inputs, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            loss.item()
    return began.elapsed()


def segment(program: ProgramDescription, dataset: Dataset, state: State, steps: int) -> tuple[Seconds, Seconds]:
    """Seconds of a segment: of its steps alone, and with set-up, evaluation and the copy of the state."""
    began = Clock()
    seen: list[tuple[StepReport, float]] = []
    run_segment(program, dataset, state, steps=steps, on_step=lambda report: seen.append((report, time.process_time())))
    whole = began.elapsed()
    return Seconds(seen[-1][0].seconds, seen[-1][1] - began.processor), whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    program, dataset = setting(arguments.text, threads=arguments.threads)
    state = initial_state(program)
    tokens = arguments.steps * program.batch_size * program.context
    plain_loop(program, dataset, state, 20)
    segment(program, dataset, state, 20)
    plain: list[Seconds] = []
    ours: list[Seconds] = []
    whole: list[Seconds] = []
    for repeat in range(arguments.repeats):
        # Turns change, so that neither always runs just after the other.
        for turn in (0, 1) if repeat % 2 == 0 else (1, 0):
            if turn == 0:
                plain.append(plain_loop(program, dataset, state, arguments.steps))
            else:
                steps_only, everything = segment(program, dataset, state, arguments.steps)
                ours.append(steps_only)
                whole.append(everything)
    ratios = [a.processor / b.processor for a, b in zip(plain, ours, strict=True)]
    write(
        "training_speed",
        title="Training speed against a plain PyTorch loop",
        command=f"python benchmarks/training_speed.py --text tinyshakespeare.txt --steps {arguments.steps} "
        f"--repeats {arguments.repeats}",
        figures={
            "ratio_median": statistics.median(ratios),
            "ratio_target": 0.95,
            "ratios": ratios,
            "ratio_median_by_the_clock": statistics.median(a.wall / b.wall for a, b in zip(plain, ours, strict=True)),
            "whole_segment_ratio_median": statistics.median(
                a.processor / b.processor for a, b in zip(plain, whole, strict=True)
            ),
            "run_segment_tokens_per_processor_second": tokens / statistics.median(t.processor for t in ours),
            "plain_tokens_per_processor_second": tokens / statistics.median(t.processor for t in plain),
            "run_segment_tokens_per_second": tokens / statistics.median(t.wall for t in ours),
            "plain_tokens_per_second": tokens / statistics.median(t.wall for t in plain),
            "steps": arguments.steps,
            "repeats": arguments.repeats,
            "threads": arguments.threads,
        },
        note="nanoGPT's small CPU setting (4 layers, 4 heads, 128 wide, context 64, batch 12), float32, both sides "
        "the same model and fused AdamW, runs interleaved. Ratios are of processor time, because the machine was "
        "shared with other programs; the set-up of model and optimizer counts for run_segment and not for the plain "
        "loop. The whole segment also has the held-out evaluation and the copy of the state, which the plain loop does "
        "not do.",
    )


if __name__ == "__main__":
    main()
