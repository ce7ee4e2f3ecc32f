"""From a description to a task's programs and first state, for whoever posts it: own models and public ones."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.data.config import SMOLLM2, DataConfig
from trainer.data.tokenizer import Tokenizer
from trainer.engine.state import State, initial_state, state_of
from trainer.models import PublicConfig
from trainer.program.description import ProgramDescription
from trainer.program.task import TaskProgram
from trainer.program.tracing.tasks import Traceable, trace_model, trace_task


def tokenizer_of(config: DataConfig) -> Tokenizer | None:
    """The tokenizer of a public model where a data section names one; None where the data set makes its own.

    Raises:
        ToolMissing: its package is not installed.
    """
    if config.tokenizer != SMOLLM2:
        return None
    from trainer.foreign import GgufFile, find_smollm2, smollm2_tokenizer  # only who asks for it has the package

    return smollm2_tokenizer(GgufFile(find_smollm2()))


@dataclass(frozen=True)
class Authored:
    """Programs, and the state before the first step, whose held-out loss is not measured yet (NaN)."""

    program: TaskProgram
    initial: State


def author(description: ProgramDescription, *, windows: int) -> Authored:
    """Builds the model of a description and traces it.

    Args:
        windows: held-out windows that the data set has; the description may ask for fewer.

    Raises:
        SpecificationError: a field of a public model is wrong, or something in it cannot be in an exact program.
        ToolMissing: the package that a public model is in is not installed.
    """
    model = description.model
    if not isinstance(model, PublicConfig):
        program = trace_task(description, windows=windows)
        return Authored(program, initial_state(description, program.layout))
    from trainer.foreign import build_foreign  # transformers takes seconds to import

    public = build_foreign(
        {"kind": model.kind, **dict(model.sizes)},
        vocabulary=description.vocabulary,
        context=description.context,
        seed=description.seed,
    )
    program = trace_model(Traceable(public.model, public.loss, public.logits), description, windows=windows)
    return Authored(program, state_of(public.model, program.layout))
