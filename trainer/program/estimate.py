"""What a task's programs will need, before any of it is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.program.exact import Cost, Part, Program, cost_of
from trainer.program.task import TaskProgram, batches_of

# What an engine and its libraries allocate for themselves: measured 85 to 110 MB on x86-64.
_WORKSPACE = 2**27
# While a batch is read, each of its tokens takes places and copies besides its own word.
_TOKEN_BYTES = 24
# What is no operation on numbers still takes time: writing an element takes that of some operations, and finding a
# sample's place, a hash, that of many (0.5 microseconds, where compiled programs do 10 to 80 operations a nanosecond).
_ELEMENT_WORK, _SAMPLE_WORK = 8, 2**15


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Sizes of a task's programs.

    Attributes:
        parameters: elements. state_bytes: of a checkpoint. memory_bytes: a guess, rather high than low, of what
            training adds at its peak to a process that has loaded PyTorch. memory_to_merge: the same of a merge, 0
            where rounds have one slot. flops_per_step: of one training step,
            flops_to_measure: of one evaluation (`Cost.flops`: products count two, every other instruction one).
        work_per_step, work_to_measure: the same with what copying elements and reading batches takes, as so many
            operations: a program may do nothing else, and take years.
    """

    parameters: int
    state_bytes: int
    memory_bytes: int
    memory_to_merge: int
    flops_per_step: int
    flops_to_measure: int
    work_per_step: int
    work_to_measure: int


def estimate(program: TaskProgram) -> Estimate:
    """Sizes of a task's programs, from their records alone."""
    training, evaluation = cost_of(program.training.program), cost_of(program.evaluation.program)
    state = program.layout.total_bytes
    return Estimate(
        parameters=program.layout.parameter_count,
        state_bytes=state,
        # The engine's peak counts the state once; the next state, the state handed in and one copy come on top. While
        # a run is repeated on the reference everything is there twice, with a state to start from and one to compare.
        memory_bytes=_WORKSPACE
        + 5 * state
        + 2
        * max(
            cost.peak_bytes + _batch_bytes(one)
            for cost, one in ((training, program.training.program), (evaluation, program.evaluation.program))
        ),
        # Beside the engine's copies, the states themselves.
        memory_to_merge=0 if program.merge is None else _WORKSPACE + 2 * cost_of(program.merge.program).peak_bytes,
        flops_per_step=training.flops,
        flops_to_measure=evaluation.flops,
        work_per_step=_work(training, program.training.program),
        work_to_measure=_work(evaluation, program.evaluation.program),
    )


def _batch_bytes(program: Program) -> int:
    """What reading the largest batch takes besides the batch."""
    return max((samples * length * _TOKEN_BYTES for _, samples, length, _ in batches_of(program)), default=0)


def _work(cost: Cost, program: Program) -> int:
    hashed = sum(samples for part, samples, _, _ in batches_of(program) if part is Part.TRAIN)
    return cost.flops + _ELEMENT_WORK * cost.elements + _SAMPLE_WORK * hashed
