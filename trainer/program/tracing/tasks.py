"""A task's programs from its description and model: what workers will run."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import Tensor, nn

from trainer.models import LanguageModel, build_model
from trainer.program.description import Precision, ProgramDescription
from trainer.program.task import TaskProgram
from trainer.program.tracing.capture import Logits, Loss
from trainer.program.tracing.generation import trace_generation
from trainer.program.tracing.merging import trace_merge
from trainer.program.tracing.training import own_loss, trace_description


@dataclass(frozen=True)
class Traceable:
    """A model with the two ways in which programs call it: to a loss, and to the next token's logits."""

    model: nn.Module
    loss: Loss
    logits: Logits


def trace_model(
    traceable: Traceable, description: ProgramDescription, *, windows: int, precision: Precision | None = None
) -> TaskProgram:
    """The programs of a task on a model.

    Args:
        windows: held-out windows that the data set has; the description may ask for fewer.
        precision: of matrix products, in place of the description's.

    Raises:
        TracingError: something that cannot be in an exact program, and what to use instead.
    """
    training, evaluation = trace_description(
        description, windows=windows, model=traceable.model, loss=traceable.loss, precision=precision
    )
    generation = trace_generation(
        traceable.model,
        traceable.logits,
        description.optimizer,
        context=description.context,
        vocabulary=description.vocabulary,
        merge=description.merge,
        precision=precision or description.precision,
    )
    merge = None
    if description.merge is not None:
        merge = trace_merge(traceable.model, description.optimizer, description.merge)
    return TaskProgram(
        seed=description.seed,
        training=training,
        evaluation=evaluation,
        generation=generation,
        merge=merge,
        description=description.to_mapping(),
    )


@functools.lru_cache(maxsize=16)
def trace_task(description: ProgramDescription, *, windows: int, precision: Precision | None = None) -> TaskProgram:
    """The programs of a task on one of the project's own models; see `trace_model`."""
    model = build_model(description.model, vocabulary=description.vocabulary, context=description.context)
    return trace_model(Traceable(model, own_loss, _logits), description, windows=windows, precision=precision)


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    assert isinstance(model, LanguageModel)  # what build_model gives
    logits: Tensor = model.logits(inputs)
    return logits
