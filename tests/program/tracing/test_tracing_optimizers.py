"""Optimizer templates against torch.optim, and the tables they read."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer.engine.exact.interpreter import run_program
from trainer.engine.schedule import learning_rate
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role
from trainer.program.tracing.optimizers import Optimizer, SgdConfig, by_step, clipping, moments_of, update
from trainer.program.tracing.terms import as_value

SCHEDULE = ScheduleConfig(learning_rate=3e-2, minimum_learning_rate=3e-3, warmup_steps=3, total_steps=12)
SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": ()}
Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def program_of(optimizer: Optimizer) -> BuiltProgram:
    """One step with the gradients as state tensors."""
    build = ProgramBuilder(Role.TRAIN)
    build.state("counter.step", DType.INT64, (1,))
    for prefix in ("parameter.", *moments_of(optimizer), "gradient."):
        for name, shape in SHAPES.items():
            build.state(prefix + name, DType.FLOAT32, shape)
    step = build.load("counter.step")
    parameters = {name: build.load("parameter." + name) for name in SHAPES}
    update(build, optimizer, SCHEDULE, step, parameters, {name: build.load("gradient." + name) for name in SHAPES})
    return build.finish()


def adamw(config: OptimizerConfig) -> Make:
    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [
            {"params": [one], "weight_decay": config.weight_decay if one.dim() >= 2 else 0.0} for one in parameters
        ]
        return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.epsilon)

    return make


def sgd(config: SgdConfig) -> Make:
    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [
            {"params": [one], "weight_decay": config.weight_decay if one.dim() >= 2 else 0.0} for one in parameters
        ]
        return torch.optim.SGD(groups, lr=1.0, momentum=config.momentum)

    return make


CASES: dict[str, tuple[Optimizer, Make]] = {}
for label, one in {
    "AdamW": OptimizerConfig(),
    "AdamW, slow moments, no clipping": OptimizerConfig(beta1=0.95, beta2=0.9999, gradient_clip=0.0),
    "AdamW, no moments": OptimizerConfig(beta1=0.0, beta2=0.0, weight_decay=0.0),
}.items():
    CASES[label] = (one, adamw(one))
for label, two in {
    "SGD": SgdConfig(weight_decay=0.1),
    "SGD, clipped": SgdConfig(momentum=0.0, gradient_clip=0.5),
}.items():
    CASES[label] = (two, sgd(two))


@pytest.mark.parametrize("name", CASES)
def test_update_follows_torch(name: str) -> None:
    config, make = CASES[name]
    built = program_of(config)
    generator = torch.Generator().manual_seed(1)
    parameters = {key: nn.Parameter(torch.randn(shape, generator=generator)) for key, shape in SHAPES.items()}
    optimizer = make(list(parameters.values()))
    state: dict[str, Tensor] = {tensor.name: torch.zeros(tensor.shape) for tensor in built.program.states}
    state["counter.step"] = torch.tensor([0])
    state |= {"parameter." + key: one.detach().clone() for key, one in parameters.items()}
    for done in range(15):
        for key, one in parameters.items():
            one.grad = torch.randn(one.shape, generator=generator)
            state["gradient." + key] = one.grad.clone()
        state["counter.step"] = torch.tensor([done])
        state = dict(zip(state, run_program(built.program, list(state.values()), built.constants), strict=True))
        if config.gradient_clip > 0:
            nn.utils.clip_grad_norm_(parameters.values(), config.gradient_clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(SCHEDULE, done)
        optimizer.step()
        for key, one in parameters.items():
            torch.testing.assert_close(state["parameter." + key], one.detach(), rtol=2e-5, atol=2e-6)


def values_of(last: int, value: Callable[[int], float], steps: list[int]) -> list[float]:
    build = ProgramBuilder(Role.TRAIN)
    build.state("steps", DType.INT64, (len(steps),))
    build.state("values", DType.FLOAT32, (len(steps),))
    build.store("values", as_value(build, by_step(build, build.load("steps"), value, last)))
    built = build.finish()
    state = [torch.tensor(steps), torch.zeros(len(steps))]
    found: list[float] = run_program(built.program, state, built.constants)[1].tolist()
    return found


def test_by_step_reads_a_table_and_stays_at_its_end() -> None:
    steps = [0, 1, 2, 3, 11, 12, 13, 2**31 - 1]
    expected = [torch.tensor(learning_rate(SCHEDULE, step)).item() for step in steps]
    assert values_of(12, lambda step: learning_rate(SCHEDULE, step), steps) == expected


def test_by_step_goes_straight_between_the_knots_of_long_tables() -> None:
    long = ScheduleConfig(learning_rate=1e-3, minimum_learning_rate=1e-5, warmup_steps=1000, total_steps=3_000_000)
    steps = [0, 1, 500, 999, 1000, 1001, 77_777, 1_234_567, 2_999_999, 3_000_000, 2**30]
    found = values_of(long.total_steps, lambda step: learning_rate(long, step), steps)
    assert found == pytest.approx([learning_rate(long, step) for step in steps], rel=5e-3, abs=1e-9)
    assert found[6:] == pytest.approx([learning_rate(long, step) for step in steps[6:]], rel=1e-6)


def clipped(gradients: list[Tensor], limit: float) -> float:
    build = ProgramBuilder(Role.TRAIN)
    for number, one in enumerate(gradients):
        build.state(str(number), DType.FLOAT32, tuple(one.shape))
    build.state("factor", DType.FLOAT32, ())
    factor = clipping(build, [build.load(str(number)) for number in range(len(gradients))], limit)
    build.store("factor", as_value(build, factor))
    built = build.finish()
    return run_program(built.program, [*gradients, torch.zeros(())], built.constants)[-1].item()


def test_clipping_scales_to_the_limit_only_from_above() -> None:
    gradients = [torch.full((20, 3), 2.0), torch.ones(4), torch.tensor(3.0)]
    norm = math.sqrt(20 * 3 * 4 + 4 + 9)
    assert clipped(gradients, 1.5) == pytest.approx(1.5 / norm, rel=1e-6)
    assert clipped(gradients, 100.0) == 1.0
    assert clipped(gradients, 0.0) == 1.0
    assert clipped([torch.zeros(3)], 1.0) == 1.0


def test_clipping_passes_nan_on() -> None:
    assert math.isnan(clipped([torch.tensor([1.0, math.nan]), torch.ones(2)], 1.0))
