"""Whole training steps compiled: the reference's bits over several steps, on one thread and on two."""

from pathlib import Path

import pytest
import torch
from compiled_programs import compiler, same

from trainer.engine.exact.interpreter import run_program
from trainer.models import RecurrentConfig, TransformerConfig, build_model
from trainer.models.config import ModelConfig
from trainer.models.initial import initialise
from trainer.native import compiled_program
from trainer.program.description import OptimizerConfig, ScheduleConfig
from trainer.program.exact import BuiltProgram, DType, Part
from trainer.program.tracing import Precision, trace_training

_VOCABULARY, _CONTEXT, _BATCH = 17, 8, 4
_SCHEDULE = ScheduleConfig(learning_rate=1e-2, minimum_learning_rate=1e-3, warmup_steps=2, total_steps=20)
_MODELS: dict[str, ModelConfig] = {
    "transformer": TransformerConfig(layers=2, heads=2, width=16),
    "rnn": RecurrentConfig(cell="rnn", layers=1, heads=2, width=16),
    "gru": RecurrentConfig(cell="gru", layers=1, heads=2, width=16),
    "lstm": RecurrentConfig(cell="lstm", layers=1, heads=2, width=16),
}


class Windows:
    """Random tokens, other ones at each step."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.windows = torch.randint(0, _VOCABULARY, (_BATCH, _CONTEXT + 1), generator=generator)

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> torch.Tensor:
        return self.windows[:samples, shift : shift + length].to(torch.int32).contiguous()


def loss_of(model: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = model(inputs, targets)
    return loss


def training(config: ModelConfig, precision: Precision | None = None) -> tuple[BuiltProgram, list[torch.Tensor]]:
    """A step's program, and the state before the first one."""
    model = build_model(config, vocabulary=_VOCABULARY, context=_CONTEXT)
    initialise(model, seed=1, layers=config.layers)
    built = trace_training(
        model, loss_of, OptimizerConfig(), _SCHEDULE, batch_size=_BATCH, context=_CONTEXT, precision=precision
    )
    given = {f"parameter.{name}": one.detach().clone() for name, one in model.named_parameters()}
    dtypes = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}
    state = [given.get(s.name, torch.zeros(s.shape, dtype=dtypes[s.dtype])) for s in built.program.states]
    return built, state


# The LSTM's and the transformer's operations contain the others'.
@pytest.mark.parametrize(
    "name",
    ["transformer", "lstm", pytest.param("rnn", marks=pytest.mark.full), pytest.param("gru", marks=pytest.mark.full)],
)
def test_compiled_program_training_steps_are_the_reference_s(name: str, tmp_path: Path) -> None:
    built, state = training(_MODELS[name])
    fast = [
        compiled_program(built.program, built.constants, tmp_path, compiler=compiler(), threads=threads)
        for threads in (1, 2)
    ]
    for one in fast:
        one.load(state)
    for step in range(4):
        state = run_program(built.program, state, built.constants, Windows(step))
        for one in fast:
            one.step(Windows(step))
            assert same(state, one.state()), step
