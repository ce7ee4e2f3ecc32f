"""What a dispute is about, in the words of its program: which operation, near which of the model's parameters. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ledger.disputes.positions import CHUNK, Phase, Position
from trainer.program.exact import BuiltProgram, Operation, Program, listing
from trainer.program.exact.operations import Load
from trainer.program.task import TaskProgram

_NAMED = 3  # tensors of the state that are named as near
_PARAMETER = "parameter."


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What a game has come down to.

    Attributes:
        program: "training", "merge" or "evaluation".
        line: of the program's listing, such as `%10: f32[2, 2] = MATMUL(…)` or `state counter.step: …`.
        kind: of the operation, such as MATMUL; of a tensor of the state, its name.
        near: names of the state's tensors that the operation reads with the fewest operations between; what follows
            `parameter.` is the model's own name.
        first, last: elements in question, counted in the whole tensor; None before there is a chunk.
        index: of the element in the tensor's shape, where it is one.
    """

    program: str
    line: str
    kind: str
    near: tuple[str, ...]
    first: int | None
    last: int | None
    index: tuple[int, ...] | None

    def __str__(self) -> str:
        words = f"{self.line}, in the {self.program} program"
        if self.near:
            words += f", near {', '.join(self.near)}"
        if self.index is not None:
            return f"{words}; element {list(self.index)}"
        if self.first is not None:
            return f"{words}; elements {self.first} to {self.last}"
        return words

    def as_json(self) -> dict[str, object]:
        return {
            "program": self.program,
            "line": self.line,
            "near": list(self.near),
            "first_element": self.first,
            "last_element": self.last,
            "index": None if self.index is None else list(self.index),
        }


def explain(program: Program, position: Position) -> Explanation | None:
    """The tensor that a game has entered; None before it has entered one. `program` is that of the run entered."""
    if position.phase not in (Phase.TENSOR, Phase.CHUNK, Phase.FOLD):
        return None
    subject = position.subject
    one = program.states[subject.number] if subject.of_state else program.operations[subject.number]
    prefix = f"state {program.states[subject.number].name}: " if subject.of_state else f"%{subject.number}: "
    first = last = index = None
    elements = subject.size // one.dtype.size
    if position.phase is Phase.FOLD:
        first = last = position.fold.element
    elif position.phase is Phase.CHUNK:
        first = position.tree.index * CHUNK // one.dtype.size
        last = min(first + CHUNK // one.dtype.size, elements) - 1
    if first is not None and first == last:
        index = tuple(int(at) for at in np.unravel_index(first, one.shape)) if one.shape else ()
    return Explanation(
        program=_program_name(position),
        line=next(line for line in listing(program) if line.startswith(prefix)),
        kind=one.code.name if isinstance(one, Operation) else one.name,
        near=() if subject.of_state else tuple(near_tensors(program, subject.number)),
        first=first,
        last=last,
        index=index,
    )


def program_of(task: TaskProgram, position: Position) -> BuiltProgram:
    """The program of the run that a game has entered."""
    built = {"training": task.training, "evaluation": task.evaluation, "merge": task.merge}[_program_name(position)]
    assert built is not None  # the contract has proved it against the task's program root
    return built


def _program_name(position: Position) -> str:
    """Which of a task's programs the run entered is of."""
    if position.run.number >= position.matter.steps:
        return "evaluation"
    return "merge" if position.run.inputs else "training"


def near_tensors(program: Program, operation: int) -> list[str]:
    """Names of the state's tensors that an operation reads with the fewest operations between: the first few of them.

    The model's parameters, where it reads any; otherwise whatever it reads.
    """
    others: list[str] = []
    for names in _by_distance(program, operation):
        parameters = [name for name in names if name.startswith(_PARAMETER)]
        if parameters:
            return parameters[:_NAMED]
        others = others or names
    return others[:_NAMED]


def _by_distance(program: Program, operation: int) -> Iterator[list[str]]:
    """Names of the tensors that are loaded so many operations before."""
    seen, row = {operation}, [operation]
    while row:
        loads = [program.operations[number].attributes for number in row]
        # A merge reads a tensor of several states: one name.
        yield list(dict.fromkeys(program.taken[one.index].name for one in loads if isinstance(one, Load)))
        after = []
        for number in row:
            for operand in program.operations[number].operands:
                if operand.source not in seen:
                    seen.add(operand.source)
                    after.append(operand.source)
        row = after
