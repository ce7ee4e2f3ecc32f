"""The game of docs/dispute.md as a pure state machine: a position and a move give the next position, or a verdict.

Equal to `contracts/DisputeGame.sol`, check by check, and refuses with the names of the contract's errors. So games can
be played without a chain, by the thousand, and the contract can be compared with it move by move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from ledger.disputes.positions import (
    FOLD_POINTS,
    NO_ROOT,
    RUN_POINTS,
    Folding,
    Matter,
    Outcome,
    Phase,
    Position,
    Run,
    Subject,
    View,
    join_nodes,
    points_of,
    view_width,
)
from trainer.commit.hashing import CHUNK, Kind, depth, leaf
from trainer.commit.proofs import climb, view_root
from trainer.dispute import proving
from trainer.dispute.proving import Referee, Refused

__all__ = ["Played", "Referee", "Refused", "opened", "play", "settle_late"]

_KINDS = {Phase.TRACE: Kind.TRACE, Phase.STATE: Kind.STATE, Phase.TENSOR: Kind.TENSOR}
NO_RUN = Run(
    number=0,
    state_before=NO_ROOT,
    program=NO_ROOT,
    inputs=0,
    states=0,
    constants=0,
    operations=0,
    seed=0,
    reached=0,
    frontier=(),
)
NO_VIEW = View(leaves=0, index=0, height=0, width=0, node=NO_ROOT)
NO_SUBJECT = Subject(of_state=False, number=0, dtype=0, size=0, record=NO_ROOT)
NO_FOLD = Folding(element=0, bits=0, opening=False)


@dataclass(frozen=True, kw_only=True)
class Played:
    """What a move gives: the next position with what was posted beside its points, or a verdict on the old one."""

    position: Position
    posted: bytes = b""
    outcome: Outcome = Outcome.RUNNING
    late: bool = False


def opened(matter: Matter, points: Sequence[bytes], *, now: int) -> Played:
    """A game right after its opening: the challenger's roots at the points of all runs are on the table.

    Raises:
        Refused: the points are too few or too many, or end in the root submitted.
    """
    runs = matter.steps + 1
    _check_count(points, len(points_of(0, runs, RUN_POINTS)))
    _differs(points[-1], matter.submitted)
    position = Position(
        matter=matter,
        phase=Phase.RUNS,
        moves=1,
        defender_to_move=True,
        mover_seconds=matter.clock,
        waiter_seconds=matter.clock,
        since=now,
        low=0,
        high=runs,
        agreed=matter.base,
        points=tuple(points),
        run=NO_RUN,
        tree=NO_VIEW,
        subject=NO_SUBJECT,
        fold=NO_FOLD,
    )
    return Played(position=position)


def settle_late(position: Position, *, now: int, minimum_move: int) -> Played:
    """The verdict of the clock. Raises Refused while the side to move may still move."""
    deadline = position.deadline(minimum_move)
    if now <= deadline:
        raise Refused("NotLate", deadline, now)
    outcome = Outcome.CHALLENGER_WON if position.defender_to_move else Outcome.DEFENDER_WON
    return Played(position=position, outcome=outcome, late=True)


def play(position: Position, move: Move, *, now: int, minimum_move: int, referee: Referee) -> Played:
    """Applies the move of the side whose turn it is.

    Args:
        now: Unix time of the move. minimum_move: seconds that a side has for each move, however little is left.

    Raises:
        Refused: the contract would revert.
    """
    deadline = position.deadline(minimum_move)
    if now > deadline:
        raise Refused("TooLate", deadline, now)
    table = _Table(position, now)
    match move:
        case Narrow():
            return table.narrow(move)
        case EnterRun():
            return table.enter_run(move)
        case Descend():
            return table.descend(move)
        case EnterTensor():
            return table.enter_tensor(move)
        case EnterState():
            return table.enter_state(move)
        case OpenChunk():
            return table.open_chunk(move)
        case OpenFold():
            return table.open_fold(move)
        case NarrowFold():
            return table.narrow_fold(move)
        case ProveElement() | ProveBlock() | ProveRounding() | ProvePaddingBytes():
            return table.verdict(proving.refutes(position, move, referee))
        case ProveStateLeaf() | ProvePadding():
            return table.verdict(proving.refutes_leaf(table.entered(move.pick), move))
    raise TypeError(f"{type(move).__name__} is not a move of the side whose turn it is")


@dataclass(frozen=True)
class _Table:
    """The position that a move meets, and the time."""

    position: Position
    now: int

    def narrow(self, move: Narrow) -> Played:
        self._need(Phase.RUNS)
        low, high, agreed, disputed = self._interval(move.place)
        if high - low == 1:
            raise Refused("WrongCount", len(move.points), 0)
        _check_count(move.points, len(points_of(low, high, RUN_POINTS)))
        _differs(move.points[-1], disputed)
        return self._on(low=low, high=high, agreed=agreed, points=move.points)

    def enter_run(self, move: EnterRun) -> Played:
        self._need(Phase.RUNS)
        low, high, agreed, disputed = self._interval(move.place)
        if high - low != 1:
            raise Refused("WrongCount", high - low, 1)
        _differs(move.state_after, disputed)
        run = proving.entered_run(self.position.matter, low, agreed, move.proof)
        height = len(run.frontier)
        view = self._view(Kind.TRACE, move.nodes, leaves=run.operations + 1, index=0, height=height)
        _check_count(move.state_siblings, height)
        last = leaf(Kind.TRACE, move.state_after)
        proving.check_proof(climb(Kind.TRACE, last, run.operations, move.state_siblings), view.node)
        return self._on(move.nodes, phase=Phase.TRACE, low=low, high=high, agreed=agreed, points=(), run=run, tree=view)

    def descend(self, move: Descend) -> Played:
        kind = self._need(*_KINDS)
        at = self.entered(move.pick, leaves_only=False)
        if at.tree.height == 0:
            raise Refused("WrongHeight", 0)
        view = self._view(kind, move.nodes, leaves=at.tree.leaves, index=at.tree.index, height=at.tree.height)
        _differs(view.node, move.pick.node)
        return self._on(move.nodes, run=at.run, tree=view)

    def enter_tensor(self, move: EnterTensor) -> Played:
        kind = self._need(Phase.TRACE, Phase.STATE)
        at = self.entered(move.pick)
        subject = proving.entered_tensor(at, move.record)
        leaves = -(-subject.size // CHUNK)
        view = self._view(Kind.TENSOR, move.nodes, leaves=leaves, index=0, height=depth(leaves))
        own = leaf(kind, proving.tensor_root(subject, view.node))
        _differs(own, move.pick.node)
        return self._on(move.nodes, phase=Phase.TENSOR, run=at.run, tree=view, subject=subject)

    def enter_state(self, move: EnterState) -> Played:
        self._need(Phase.TRACE)
        at = self.entered(move.pick)
        if at.tree.index != at.run.operations:
            raise Refused("WrongLeaf", at.tree.index)
        states = at.run.states
        view = self._view(Kind.STATE, move.nodes, leaves=states, index=0, height=depth(states))
        _differs(leaf(Kind.TRACE, proving.state_root(states, view.node)), move.pick.node)
        return self._on(move.nodes, phase=Phase.STATE, run=at.run, tree=view)

    def open_chunk(self, move: OpenChunk) -> Played:
        self._need(Phase.TENSOR)
        at = self.entered(move.pick)
        if at.tree.index >= at.tree.leaves:
            raise Refused("WrongLeaf", at.tree.index)
        _check_count(move.chunk, CHUNK)
        own = leaf(Kind.TENSOR, move.chunk)
        _differs(own, move.pick.node)
        return self._on(move.chunk, phase=Phase.CHUNK, tree=replace(at.tree, node=own))

    def open_fold(self, move: OpenFold) -> Played:
        self._need(Phase.CHUNK)
        blocks = proving.blocks_of(self.position, move.record)
        posted = proving.posted_bits(self.position, move.chunk, move.element)
        _differs(move.bits.to_bytes(32, "big"), posted.to_bytes(32, "big"))
        _check_count(move.points, len(points_of(0, blocks, FOLD_POINTS)))
        fold = Folding(element=move.element, bits=move.bits, opening=True)
        return self._on(phase=Phase.FOLD, low=0, high=blocks, agreed=NO_ROOT, points=move.points, fold=fold)

    def narrow_fold(self, move: NarrowFold) -> Played:
        self._need(Phase.FOLD)
        low, high, agreed, disputed = self._interval(move.place)
        if high - low == 1:
            raise Refused("WrongCount", len(move.points), 0)
        _check_count(move.points, len(points_of(low, high, FOLD_POINTS)))
        _differs(move.points[-1], disputed)
        fold = replace(self.position.fold, opening=False)
        return self._on(low=low, high=high, agreed=agreed, points=move.points, fold=fold)

    def verdict(self, mover_wins: bool) -> Played:
        """The end: the side to move was right, or the other one."""
        defender_wins = mover_wins == self.position.defender_to_move
        return Played(position=self.position, outcome=Outcome.DEFENDER_WON if defender_wins else Outcome.CHALLENGER_WON)

    def entered(self, pick: Pick, *, leaves_only: bool = True) -> Position:
        """The position with `tree` at the node picked (of no width), and in a trace the frontier on the way to it."""
        kind = self._need(*_KINDS)
        tree, run = self.position.tree, self.position.run
        height = tree.height - tree.width
        if leaves_only and height > 0:
            raise Refused("WrongHeight", height)
        if pick.place >= 1 << tree.width:
            raise Refused("WrongPlace", pick.place, 1 << tree.width)
        _check_count(pick.siblings, tree.width)
        proving.check_proof(climb(kind, pick.node, pick.place, pick.siblings), tree.node)
        index = tree.index << tree.width | pick.place
        if kind is Kind.TRACE:
            frontier = list(run.frontier)
            for level, sibling in enumerate(pick.siblings):
                if pick.place >> level & 1:
                    frontier[height + level] = sibling
            run = replace(run, reached=index if height == 0 else 0, frontier=tuple(frontier))
        node = View(leaves=tree.leaves, index=index, height=height, width=0, node=pick.node)
        return replace(self.position, run=run, tree=node)

    def _interval(self, place: int) -> tuple[int, int, bytes, bytes]:
        """The interval that ends in a point picked: low, high, the value agreed at low, the one disputed at high."""
        position = self.position
        if place >= len(position.points):
            raise Refused("WrongPlace", place, len(position.points))
        high, disputed = position.places[place], position.points[place]
        if place == 0:
            return position.low, high, position.agreed, disputed
        return position.places[place - 1], high, position.points[place - 1], disputed

    def _view(self, kind: Kind, nodes: Sequence[bytes], *, leaves: int, index: int, height: int) -> View:
        width = view_width(height)
        _check_count(nodes, 1 << width)
        return View(leaves=leaves, index=index, height=height, width=width, node=view_root(kind, nodes))

    def _need(self, *phases: Phase) -> Kind:
        """The kind of the phase's tree. Refuses every phase but these."""
        if self.position.phase not in phases:
            raise Refused("WrongPhase", int(self.position.phase), int(phases[0]))
        return _KINDS.get(self.position.phase, Kind.TENSOR)

    def _on(self, posted: Sequence[bytes] | bytes = b"", **changes: Any) -> Played:
        """The other side's turn."""
        old = self.position
        left = max(0, old.mover_seconds - (self.now - old.since))
        position = replace(
            old,
            moves=old.moves + 1,
            defender_to_move=not old.defender_to_move,
            mover_seconds=old.waiter_seconds,
            waiter_seconds=left,
            since=self.now,
            **changes,
        )
        return Played(position=position, posted=posted if isinstance(posted, bytes) else join_nodes(posted))


def _check_count(given: Sequence[object], needed: int) -> None:
    if len(given) != needed:
        raise Refused("WrongCount", len(given), needed)


def _differs(own: bytes, disputed: bytes) -> None:
    # INVARIANT: nobody disputes what it says itself, so an honest party always finds a difference to the truth.
    if own == disputed:
        raise Refused("NothingDisputed", own)
