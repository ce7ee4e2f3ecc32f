"""A task's programs from its description: the one place where a requester's model becomes what workers run."""

from __future__ import annotations

import functools

from trainer.program.description import ProgramDescription
from trainer.program.task import TaskProgram
from trainer.program.tracing.training import trace_description


@functools.lru_cache(maxsize=16)
def trace_task(description: ProgramDescription, *, windows: int) -> TaskProgram:
    """The programs of a task.

    Args:
        windows: held-out windows that the data set has; the description may ask for fewer.

    Raises:
        TracingError: something that cannot be in an exact program, and what to use instead.
    """
    training, evaluation = trace_description(description, windows=windows)
    return TaskProgram(
        seed=description.seed,
        training=training,
        evaluation=evaluation,
        generation=None,
        description=description.to_mapping(),
    )
