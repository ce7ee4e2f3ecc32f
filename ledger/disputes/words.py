"""A dispute in words: what is on the table, whose move it is, and how it ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ledger.disputes.positions import GameView, Outcome, Phase, Position

__all__ = ["Place", "describe_outcome", "describe_place", "place_of"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the quarrel is, as far as the game has come; None where that is not known yet. All count from 0.

    Attributes:
        run: of the segment's runs; the last one is the evaluation.
        operation: whose output is in question.
        tensor: of the state after the run, which is in question.
        chunk: of that output or tensor.
        element: of that output.
    """

    run: int | None = None
    operation: int | None = None
    tensor: int | None = None
    chunk: int | None = None
    element: int | None = None


def place_of(position: Position) -> Place:
    """What the game has come down to."""
    if position.phase is Phase.RUNS:
        return Place(run=position.high - 1 if position.high - position.low == 1 else None)
    run = position.run.number
    if position.phase in (Phase.TRACE, Phase.STATE):
        return Place(run=run)
    subject = position.subject
    return Place(
        run=run,
        operation=None if subject.of_state else subject.number,
        tensor=subject.number if subject.of_state else None,
        chunk=position.tree.index if position.phase is Phase.CHUNK else None,
        element=position.fold.element if position.phase is Phase.FOLD else None,
    )


def describe_place(position: Position) -> str:
    """Such as "run 37 of 101, operation 412 of 830, chunk 5 of 64"."""
    runs = position.matter.steps + 1
    if position.phase is Phase.RUNS:
        return _which("run", position.low, position.high, runs)
    run = position.run
    words = [f"run {run.number} of {runs}"]
    if position.phase is Phase.TRACE:
        return f"{words[0]}, {_of_trace(position)}"
    if position.phase is Phase.STATE:
        return f"{words[0]}, the state after it, {_first_of(position, 'tensor')}"
    subject = position.subject
    if subject.of_state:
        words.append(f"tensor {subject.number} of {run.states} of the state after it")
    else:
        words.append(f"operation {subject.number} of {run.operations}")
    words.append(_within(position))
    return ", ".join(words)


def _within(position: Position) -> str:
    """The rest of a place that is inside one tensor."""
    if position.phase is Phase.TENSOR:
        return _first_of(position, "chunk")
    if position.phase is Phase.CHUNK:
        return f"chunk {position.tree.index} of {position.tree.leaves}"
    blocks = (
        f"block {position.low}" if position.high - position.low == 1 else f"blocks {_span(position.low, position.high)}"
    )
    return f"element {position.fold.element}, {blocks} of its fold"


def _of_trace(position: Position) -> str:
    """The state after the run is the trace's last leaf."""
    first, last = _leaves(position)
    operations = position.run.operations
    if last <= operations:
        return _first_of(position, "operation")
    if first >= operations:
        return "the state after it"
    return f"which of the operations {_span(first, operations)} (of {operations}) or the state after it differs first"


def _first_of(position: Position, name: str) -> str:
    first, last = _leaves(position)
    count = position.run.operations if position.phase is Phase.TRACE else position.tree.leaves
    return _which(name, first, last, count)


def _which(name: str, low: int, high: int, count: int) -> str:
    if high - low <= 1:
        return f"{name} {low} of {count}"
    return f"which of the {name}s {_span(low, high)} (of {count}) differs first"


def _leaves(position: Position) -> tuple[int, int]:
    """Numbers of the leaves below the node on the table, the first and the one after the last; no padding."""
    tree = position.tree
    first = tree.index << tree.height
    return first, max(first, min(tree.leaves, (tree.index + 1) << tree.height))


def _span(low: int, high: int) -> str:
    """The whole numbers from `low` to before `high`."""
    return str(low) if high - low <= 1 else f"{low} to {high - 1}"


def describe_outcome(view: GameView) -> str:
    """How a game ended, or that it has not."""
    if view.outcome is Outcome.RUNNING:
        return "running"
    if view.outcome is Outcome.VOID:
        return "void: the submission fell in another game"
    side, other = ("defender", "challenger")
    if view.outcome is Outcome.CHALLENGER_WON:
        side, other = other, side
    return f"the {side} won: the {other} did not move in time" if view.late else f"the {side} won by proof"
