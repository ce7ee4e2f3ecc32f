"""What to do next in a dispute: a pure function of the game and of one's own true values (docs/dispute.md).

It plays either side. It picks the leftmost posted value that is not the true one, and posts its own true values below
it; so, by the rules, it wins against anything that differs from the truth. Where nothing differs, the other side is
right, and it says so in place of a move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ledger.disputes.moves import (
    Descend,
    EnterRun,
    EnterState,
    EnterTensor,
    Move,
    Narrow,
    NarrowFold,
    OpenChunk,
    OpenFold,
    Pick,
    ProveBlock,
    ProveElement,
    ProvePadding,
    ProvePaddingBytes,
    ProveRounding,
    ProveStateLeaf,
)
from ledger.disputes.positions import BLOCK, FOLD_POINTS, RUN_POINTS, GameView, Phase, points_of, view_width
from trainer.commit.hashing import CHUNK, Kind, depth
from trainer.commit.proofs import view_siblings
from trainer.dispute.values import Concede, RunValues, Subject, Truth

_Nodes = Callable[[int, int, int], Sequence[bytes]]
_KINDS = {Phase.TRACE: Kind.TRACE, Phase.STATE: Kind.STATE, Phase.TENSOR: Kind.TENSOR}


def opening_points(truth: Truth, *, steps: int, submitted: bytes) -> tuple[bytes, ...] | Concede:
    """The challenger's roots at the points of a segment of `steps` steps; Concede where the submission is right."""
    runs = steps + 1
    if truth.state_root(runs) == submitted:
        return Concede("the submission is what this machine computes")
    return tuple(truth.state_root(point) for point in points_of(0, runs, RUN_POINTS))


def next_move(view: GameView, truth: Truth) -> Move | Concede:
    """The move of the side whose turn it is, if that side holds the true values.

    Args:
        view: a running game, with what its last move put on the table.
    """
    match view.position.phase:
        case Phase.RUNS:
            return _in_runs(view, truth)
        case Phase.TRACE | Phase.STATE | Phase.TENSOR:
            return _in_tree(view, truth.run(view.position.run.number))
        case Phase.CHUNK:
            return _in_chunk(view, truth.run(view.position.run.number))
        case Phase.FOLD:
            return _in_fold(view, truth.run(view.position.run.number))


def _in_runs(view: GameView, truth: Truth) -> Move | Concede:
    position = view.position
    if truth.state_root(position.low) != position.agreed:
        return Concede(
            f"both sides agreed on a state before run {position.low} that is not the one this machine computes"
        )
    place = _first_difference(position.points, (truth.state_root(at) for at in position.places))
    if place is None:
        return Concede("every state that the other side posted is what this machine computes")
    low, high = _interval(view, place)
    if high - low > 1:
        return Narrow(place, tuple(truth.state_root(point) for point in points_of(low, high, RUN_POINTS)))
    run = truth.run(low)
    height = depth(run.operations + 1)
    return EnterRun(
        place,
        truth.state_root(high),
        truth.program_proof(low),
        tuple(run.trace_nodes(height, 0, view_width(height))),
        tuple(_path(run.trace_nodes, run.operations, height)),
    )


def _in_tree(view: GameView, run: RunValues) -> Move | Concede:
    tree = view.position.tree
    nodes = _nodes_of(view, run)
    own = nodes(tree.height, tree.index, tree.width)
    place = _first_difference(view.nodes, own)
    if place is None:
        return Concede(f"the other side's view of the {_what(view)} is what this machine computes")
    kind = _KINDS[view.position.phase]
    pick = Pick(place, view.nodes[place], tuple(view_siblings(kind, view.nodes, place)))
    height, index = tree.height - tree.width, tree.index << tree.width | place
    if height > 0:
        return Descend(pick, tuple(nodes(height, index, view_width(height))))
    if index >= tree.leaves:
        return ProvePadding(pick)
    if view.position.phase is Phase.TENSOR:
        return OpenChunk(pick, run.chunk(subject_of(view), index))
    return _at_leaf(view, run, pick, index)


def _at_leaf(view: GameView, run: RunValues, pick: Pick, index: int) -> Move:
    """The move at a leaf of a trace or of a state that is not a pad."""
    of_state = view.position.phase is Phase.STATE
    if not of_state and index == run.operations:
        height = depth(run.states)
        return EnterState(pick, tuple(run.state_nodes(height, 0, view_width(height))))
    if of_state and not run.is_counter(index):
        root, path = run.state_leaf(index)
        return ProveStateLeaf(pick, run.record(Subject(of_state, index)), root, tuple(path))
    subject = Subject(of_state, index)
    height = depth(run.tensor_layout(subject).chunks)
    return EnterTensor(pick, run.record(subject), tuple(run.tensor_nodes(subject, height, 0, view_width(height))))


def _in_chunk(view: GameView, run: RunValues) -> Move | Concede:
    subject, posted, index = subject_of(view), view.posted, view.position.tree.index
    own = run.chunk(subject, index)
    at = next((at for at, (theirs, mine) in enumerate(zip(posted, own, strict=True)) if theirs != mine), None)
    if at is None:
        return Concede(f"chunk {index} of the {_what(view)} is what this machine computes")
    layout = run.tensor_layout(subject)
    if index * CHUNK + at >= layout.size:
        return ProvePaddingBytes(posted)
    element = (index * CHUNK + at) // layout.width
    length = 0 if subject.of_state else run.fold_length(subject.number)
    if length <= BLOCK:
        return ProveElement(posted, element, run.prove_element(subject, element))
    points = points_of(0, -(-length // BLOCK), FOLD_POINTS)
    return OpenFold(
        posted,
        run.record(subject).data,
        element,
        run.element_bits(subject, element),
        _words(run.accumulators(subject.number, element, points)),
    )


def _in_fold(view: GameView, run: RunValues) -> Move | Concede:
    position = view.position
    number, element = position.subject.number, position.fold.element
    own = _words(run.accumulators(number, element, position.places))
    place = _first_difference(position.points, own)
    if place is not None:
        low, high = _interval(view, place)
        if high - low == 1:
            return ProveBlock(place, run.prove_block(number, element, low))
        points = points_of(low, high, FOLD_POINTS)
        return NarrowFold(place, _words(run.accumulators(number, element, points)))
    if position.fold.opening and position.fold.bits != run.element_bits(subject_of(view), element):
        return ProveRounding(run.prove_rounding(number, element))
    return Concede(f"the accumulators of element {element} of the {_what(view)} are what this machine computes")


def subject_of(view: GameView) -> Subject:
    """The tensor that the game has entered."""
    return Subject(view.position.subject.of_state, view.position.subject.number)


def _nodes_of(view: GameView, run: RunValues) -> _Nodes:
    """Own nodes (height, index, width) of the tree that lies on the table."""
    if view.position.phase is Phase.TRACE:
        return run.trace_nodes
    if view.position.phase is Phase.STATE:
        return run.state_nodes
    subject = subject_of(view)
    return lambda height, index, width: run.tensor_nodes(subject, height, index, width)


def _interval(view: GameView, place: int) -> tuple[int, int]:
    """The interval that ends in the point picked."""
    places = view.position.places
    return places[place - 1] if place else view.position.low, places[place]


def _first_difference(posted: Sequence[bytes], own: Iterable[bytes]) -> int | None:
    """The first place where the posted values differ from one's own, which are asked for one after the other."""
    return next((at for at, (theirs, mine) in enumerate(zip(posted, own, strict=False)) if theirs != mine), None)


def _path(nodes: _Nodes, index: int, height: int) -> list[bytes]:
    """Siblings of a leaf from the bottom up."""
    return [nodes(level, index >> level ^ 1, 0)[0] for level in range(height)]


def _words(accumulators: Sequence[int]) -> tuple[bytes, ...]:
    return tuple(value.to_bytes(32, "big") for value in accumulators)


def _what(view: GameView) -> str:
    """The tree on the table, in words."""
    subject = view.position.subject
    match view.position.phase:
        case Phase.TRACE:
            return f"trace of run {view.position.run.number}"
        case Phase.STATE:
            return f"state after run {view.position.run.number}"
        case _:
            return f"{'state tensor' if subject.of_state else 'output of operation'} {subject.number}"
