"""What a task's programs will need, before any of it is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.program.exact import cost_of
from trainer.program.task import TaskProgram

# What an engine and its libraries allocate for themselves: measured 85 to 110 MB on x86-64.
_WORKSPACE = 2**27


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Sizes of a task's programs.

    Attributes:
        parameters: elements. state_bytes: of a checkpoint. memory_bytes: a guess, rather high than low, of what
            training adds at its peak to a process that has loaded PyTorch. flops_per_step: of one training step,
            flops_to_measure: of one evaluation (`Cost.flops`: products count two, every other instruction one).
    """

    parameters: int
    state_bytes: int
    memory_bytes: int
    flops_per_step: int
    flops_to_measure: int


def estimate(program: TaskProgram) -> Estimate:
    """Sizes of a task's programs, from their records alone."""
    training, evaluation = cost_of(program.training.program), cost_of(program.evaluation.program)
    state = program.layout.total_bytes
    return Estimate(
        parameters=program.layout.parameter_count,
        state_bytes=state,
        # The engine's peak counts the state once; the next state, the state handed in and one copy come on top.
        memory_bytes=_WORKSPACE + 3 * state + max(training.peak_bytes, evaluation.peak_bytes),
        flops_per_step=training.flops,
        flops_to_measure=evaluation.flops,
    )
