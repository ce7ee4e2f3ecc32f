"""Ranks that are threads of one process, and training programs of several shards to run on them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from trainer.engine.engines import ReferenceRun
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.ranks import MakeRun, RankedRun
from trainer.models import TransformerConfig, build_model
from trainer.models.initial import initialise
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, DType, Part, Program
from trainer.program.tracing import trace_training

VOCABULARY, CONTEXT, BATCH = 17, 8, 4
_SCHEDULE = ScheduleConfig(learning_rate=1e-2, minimum_learning_rate=1e-3, warmup_steps=2, total_steps=20)
_MOST_SECONDS = 60

Result = TypeVar("Result")
Batches = Callable[[int], "Windows"]


class Windows:
    """Random tokens below `most`, other ones at each step."""

    def __init__(self, step: int, *, most: int = VOCABULARY) -> None:
        generator = torch.Generator().manual_seed(step)
        self.windows = torch.randint(0, most, (64, 64), generator=generator)

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> torch.Tensor:
        return self.windows[:samples, shift : shift + length].to(torch.int32).contiguous()


class ThreadGroup:
    """A group of threads: each puts its tensor on the table, and takes what it needs of all."""

    def __init__(self, rank: int, size: int, table: list[torch.Tensor], barrier: threading.Barrier) -> None:
        self.rank, self.size, self._table, self._barrier = rank, size, table, barrier

    def greatest(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._all(x)).amax(0)

    def swap(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([one[self.rank] for one in self._all(x)])

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._all(x))

    def _all(self, x: torch.Tensor) -> list[torch.Tensor]:
        self._table[self.rank] = x.clone()
        self._barrier.wait(_MOST_SECONDS)
        found = list(self._table)
        self._barrier.wait(_MOST_SECONDS)
        return found


def on_threads(ranks: int, work: Callable[[ThreadGroup], Result]) -> list[Result]:
    """What `work` gives on each rank."""
    table, barrier = [torch.empty(0)] * ranks, threading.Barrier(ranks)

    def guarded(rank: int) -> Result:
        try:
            return work(ThreadGroup(rank, ranks, table, barrier))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(ranks) as pool:
        return [one.result() for one in [pool.submit(guarded, rank) for rank in range(ranks)]]


def states_by_ranks(
    built: BuiltProgram,
    state: Sequence[torch.Tensor],
    ranks: int,
    *,
    steps: int = 1,
    make: MakeRun = ReferenceRun,
    batches: Batches = Windows,
) -> list[list[torch.Tensor]]:
    """The state after some steps on each of the ranks."""

    def work(group: ThreadGroup) -> list[torch.Tensor]:
        run = RankedRun(built.program, built.constants, group, make)
        run.load(state)
        for step in range(steps):
            run.step(batches(step))
        return run.state()

    return on_threads(ranks, work)


def reference_states(
    built: BuiltProgram, state: Sequence[torch.Tensor], *, steps: int = 1, batches: Batches = Windows
) -> list[torch.Tensor]:
    """The state after some steps of `run_program`."""
    held = list(state)
    for step in range(steps):
        held = run_program(built.program, held, built.constants, batches(step))
    return held


def zeros_of(program: Program) -> list[torch.Tensor]:
    dtypes = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}
    return [torch.zeros(one.shape, dtype=dtypes[one.dtype]) for one in program.states]


def loss_of(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = model(inputs, targets)
    return loss


def training(shards: int, *, layers: int = 1, batch: int = BATCH) -> tuple[BuiltProgram, list[torch.Tensor]]:
    """A step of our transformer with AdamW and clipping in so many shards, and the state before the first one."""
    config = TransformerConfig(layers=layers, heads=2, width=16)
    model = build_model(config, vocabulary=VOCABULARY, context=CONTEXT)
    initialise(model, seed=1, layers=config.layers)
    optimizer = OptimizerConfig(gradient_clip=0.5)
    built = trace_training(model, loss_of, optimizer, _SCHEDULE, batch_size=batch, context=CONTEXT, shards=shards)
    given = {f"parameter.{name}": one.detach().clone() for name, one in model.named_parameters()}
    state = zeros_of(built.program)
    return built, [given.get(one.name, held) for one, held in zip(built.program.states, state, strict=True)]
