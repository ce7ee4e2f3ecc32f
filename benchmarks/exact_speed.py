"""Milliseconds of an exact training step, compiled, against plain PyTorch in float32: same model, batch and optimizer.

python benchmarks/exact_speed.py --folder FOLDER
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from reporting import write
from torch import Tensor, nn
from training_setting import TASK_FILE

from trainer.models import build_model
from trainer.models.initial import initialise
from trainer.native import compiled_program, find_compiler
from trainer.program.description import ProgramDescription
from trainer.program.exact import BuiltProgram, DType, Part
from trainer.program.tracing import trace_description

VOCABULARY, ROUNDS, WARMING = 256, 40, 5


class Windows:
    """One batch of random bytes: what is in it does not change the time."""

    def __init__(self, samples: int, context: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.windows = torch.randint(0, VOCABULARY, (samples, context + 1), generator=generator)

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        return self.windows[:samples, shift : shift + length].to(torch.int32).contiguous()


def plain_step(model: nn.Module, windows: Windows) -> Callable[[], None]:
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    inputs, targets = windows.windows[:, :-1].contiguous(), windows.windows[:, 1:].contiguous()

    def step() -> None:
        model(inputs, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def first_state(built: BuiltProgram, model: nn.Module) -> list[Tensor]:
    given = {f"parameter.{name}": one.detach().clone() for name, one in model.named_parameters()}
    dtypes = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}
    return [given.get(s.name, torch.zeros(s.shape, dtype=dtypes[s.dtype])) for s in built.program.states]


def measure(steps: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Milliseconds of each, taken in turns, so that what else the machine does disturbs all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(ROUNDS + WARMING):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if turn >= WARMING:
                times[name].append((time.perf_counter() - began) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    folder = parser.parse_args().folder
    fields = {**TASK_FILE, "threads": 2, "seed": 1}
    description = ProgramDescription.from_task_file(fields, vocabulary=VOCABULARY, total_steps=2000)
    model = build_model(description.model, vocabulary=VOCABULARY, context=description.context)
    initialise(model, seed=1, layers=TASK_FILE["model"]["layers"])  # type: ignore[index]
    built, _ = trace_description(description, windows=description.evaluation_batch)
    windows = Windows(description.batch_size, description.context)
    figures: dict[str, object] = {"operations": len(built.program.operations)}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        began = time.perf_counter()
        fast = compiled_program(built.program, built.constants, folder, compiler=find_compiler(), threads=threads)
        figures.setdefault("compiling_seconds", time.perf_counter() - began)
        fast.load(first_state(built, model))
        times = measure({"float32": plain_step(model, windows), "exact": lambda fast=fast: fast.step(windows)})
        for name, values in times.items():
            figures[f"{name}_ms_{threads}_threads_median"] = statistics.median(values)
            figures[f"{name}_ms_{threads}_threads_best"] = min(values)
        ratios = [exact / plain for exact, plain in zip(times["exact"], times["float32"], strict=True)]
        figures[f"exact_over_float32_{threads}_threads"] = statistics.median(ratios)
    write(
        "exact_speed",
        title="An exact training step against float32",
        command="python benchmarks/exact_speed.py --folder FOLDER",
        figures=figures,
        note="nanoGPT's small setting (4 layers, 4 heads, 128 wide, context 64, batch 12, 256 tokens), all matrix "
        "products of 13 bits. float32 is PyTorch eager with fused AdamW and clipping. The two take turns, step by "
        "step; the ratio is the median over pairs. Compiling is once for a program, and is kept. "
        "Other programs were running on the machine, which is why two threads, of either, are far from their best.",
    )


if __name__ == "__main__":
    main()
