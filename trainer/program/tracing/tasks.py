"""A task's programs from its description: the one place where a requester's model becomes what workers run."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from trainer.models import LanguageModel, build_model
from trainer.program.description import ProgramDescription
from trainer.program.task import TaskProgram
from trainer.program.tracing.generation import trace_generation
from trainer.program.tracing.lowering import Precision
from trainer.program.tracing.training import trace_description


@functools.lru_cache(maxsize=16)
def trace_task(description: ProgramDescription, *, windows: int, precision: Precision | None = None) -> TaskProgram:
    """The programs of a task.

    Args:
        windows: held-out windows that the data set has; the description may ask for fewer.
        precision: bits of matrix products; 13 everywhere if not given.

    Raises:
        TracingError: something that cannot be in an exact program, and what to use instead.
    """
    training, evaluation = trace_description(description, windows=windows, precision=precision)
    model = build_model(description.model, vocabulary=description.vocabulary, context=description.context)
    generation = trace_generation(
        model,
        _logits,
        description.optimizer,
        context=description.context,
        vocabulary=description.vocabulary,
        precision=precision,
    )
    return TaskProgram(
        seed=description.seed,
        training=training,
        evaluation=evaluation,
        generation=generation,
        description=description.to_mapping(),
    )


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    assert isinstance(model, LanguageModel)  # what build_model gives
    logits: Tensor = model.logits(inputs)
    return logits
