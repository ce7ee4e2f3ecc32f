"""Bytes that ranks send for one step, counted and on the loopback interface, against a float32 all-reduce.

python benchmarks/rank_traffic.py

Linux only. Other traffic on the loopback interface is counted too, so the least of several steps is taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from reporting import write
from torch import Tensor, nn

from trainer.commit.states import state_root
from trainer.engine.exact.interpreter import TORCH_DTYPES, run_program
from trainer.models import TransformerConfig, build_model
from trainer.models.initial import initialise
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, Part
from trainer.program.tracing import trace_training
from trainer.rounds import RankedProgram, RankProcesses
from trainer.rounds.processes import RankContext

_VOCABULARY, _CONTEXT, _BATCH = 256, 32, 8
_STEPS = 4
_MODEL = TransformerConfig(layers=2, heads=2, width=128)
_SCHEDULE = ScheduleConfig(learning_rate=1e-2, minimum_learning_rate=1e-3, warmup_steps=2, total_steps=20)


class Windows:
    """Random tokens."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.windows = torch.randint(0, _VOCABULARY, (_BATCH, _CONTEXT + 1), generator=generator).to(torch.int32)

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        return self.windows[:samples, shift : shift + length].contiguous()


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = model(inputs, targets)
    return loss


def plain(context: RankContext, elements: int) -> None:
    """What data-parallel training sends otherwise."""
    torch.distributed.all_reduce(torch.ones(elements))


def loopback() -> int:
    """Bytes sent over the loopback interface since the machine started."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:"))


def traced(shards: int) -> tuple[BuiltProgram, list[Tensor]]:
    model = build_model(_MODEL, vocabulary=_VOCABULARY, context=_CONTEXT)
    initialise(model, seed=1, layers=_MODEL.layers)
    built = trace_training(
        model, loss_of, OptimizerConfig(), _SCHEDULE, batch_size=_BATCH, context=_CONTEXT, shards=shards
    )
    given = {f"parameter.{name}": one.detach().clone() for name, one in model.named_parameters()}
    zeros = [torch.zeros(one.shape, dtype=TORCH_DTYPES[one.dtype]) for one in built.program.states]
    return built, [given.get(one.name, zero) for one, zero in zip(built.program.states, zeros, strict=True)]


def measured(shards: int, ranks: int) -> dict[str, Any]:
    """Ratios to plain float32 of a step; after some of them the state is the reference's."""
    built, state = traced(shards)
    exact, plainly = [], []
    with RankProcesses(ranks) as processes:
        run = RankedProgram(processes, built.program, built.constants)
        run.load(state)
        for seed in range(_STEPS):
            start = loopback()
            run.step(Windows(seed))
            exact.append(loopback() - start)
        for _ in range(_STEPS):
            start = loopback()
            processes.call(plain, run.traffic[0].float32 * ranks // (8 * (ranks - 1)))
            plainly.append(loopback() - start)
        root = state_root(run.state())
    for seed in range(_STEPS):
        state = run_program(built.program, state, built.constants, Windows(seed))
    if root != state_root(state):
        raise RuntimeError(f"{ranks} ranks gave the state {root.hex()}, and one {state_root(state).hex()}")
    key = f"{shards}_shards_on_{ranks}_ranks"
    return {
        f"{key},_counted": round(run.traffic[0].ratio, 3),
        f"{key},_measured": round(min(exact) / min(plainly), 3),
    }


def main() -> None:
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for shards, ranks in ((2, 2), (4, 2), (8, 2), (4, 4), (8, 4)):
        figures |= measured(shards, ranks)
    parameters = sum(one.numel() for one in build_model(_MODEL, vocabulary=_VOCABULARY, context=_CONTEXT).parameters())
    write(
        "rank_traffic",
        title="What ranks send for a step, times what a float32 all-reduce sends",
        command="python benchmarks/rank_traffic.py",
        figures=figures,
        note=f"One step of a transformer of {parameters:,} parameters with AdamW and clipping; gloo on the loopback "
        f"interface, whose counter is what is measured, the least of {_STEPS} steps. All states were those of the "
        "reference on one process.",
    )


if __name__ == "__main__":
    main()
