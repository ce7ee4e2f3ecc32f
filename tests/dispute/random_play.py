"""A player without any sense: legal moves at random places, with values that are garbage or nearly true."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

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
from trainer.commit.traces import trace_leaf
from trainer.commit.trees import Tree
from trainer.dispute.solver import subject_of
from trainer.dispute.subjects import Subject
from trainer.dispute.values import RunValues, Truth

_KINDS = {Phase.TRACE: Kind.TRACE, Phase.STATE: Kind.STATE, Phase.TENSOR: Kind.TENSOR}


@dataclass
class RandomPlayer:
    """Knows the truth, which proves what both sides agree on, and cares nothing for it."""

    truth: Truth
    rng: random.Random

    def points(self, runs: int) -> tuple[bytes, ...]:
        """Of an opening."""
        return self._spoilt([self.truth.state_root(point) for point in points_of(0, runs, RUN_POINTS)])

    def move(self, view: GameView) -> Move:
        match view.position.phase:
            case Phase.RUNS:
                return self._in_runs(view)
            case Phase.TRACE | Phase.STATE | Phase.TENSOR:
                return self._in_tree(view)
            case Phase.CHUNK:
                return self._in_chunk(view)
            case Phase.FOLD:
                return self._in_fold(view)

    def _in_runs(self, view: GameView) -> Move:
        place, low, high = self._interval(view)
        if high - low > 1:
            roots = [self.truth.state_root(point) for point in points_of(low, high, RUN_POINTS)]
            return Narrow(place, self._spoilt(roots))
        run, after = self.truth.run(low), self.rng.randbytes(32)
        height = depth(run.operations + 1)
        # A trace that ends in the state named; before that it is anything.
        leaves = self._spoilt([run.trace_nodes(0, number, 0)[0] for number in range(run.operations)])
        tree = Tree(Kind.TRACE, [*leaves, trace_leaf(after)])
        return EnterRun(
            place,
            after,
            self.truth.program_proof(low),
            tuple(tree.view(height, 0, view_width(height))),
            tuple(tree.path(run.operations)),
        )

    def _in_tree(self, view: GameView) -> Move:
        position, tree, run = view.position, view.position.tree, self._run(view)
        place = self.rng.randrange(1 << tree.width)
        siblings = view_siblings(_KINDS[position.phase], view.nodes, place)
        pick = Pick(place, view.nodes[place], tuple(siblings))
        height, index = tree.height - tree.width, tree.index << tree.width | place
        if height > 0:
            return Descend(pick, self._view(height))
        if index >= tree.leaves:
            return ProvePadding(pick)
        if position.phase is Phase.TENSOR:
            return OpenChunk(pick, self._chunk(run.chunk(subject_of(view), index)))
        if position.phase is Phase.TRACE and index == run.operations:
            return EnterState(pick, self._view(depth(run.states)))
        subject = Subject(position.phase is Phase.STATE, index)
        if subject.of_state and not run.is_counter(index):
            root, path = run.state_leaf(index)
            return ProveStateLeaf(pick, run.record(subject), root, tuple(path))
        return EnterTensor(pick, run.record(subject), self._view(depth(run.tensor_layout(subject).chunks)))

    def _in_chunk(self, view: GameView) -> Move:
        run, subject, index = self._run(view), subject_of(view), view.position.tree.index
        layout = run.tensor_layout(subject)
        used = min(CHUNK, layout.size - index * CHUNK)
        if used < CHUNK and self.rng.random() < 0.2:
            return ProvePaddingBytes(view.posted)
        element = (index * CHUNK + self.rng.randrange(used)) // layout.width
        length = 0 if subject.of_state else run.fold_length(subject.number)
        if length <= BLOCK:
            return ProveElement(view.posted, element, run.prove_element(subject, element))
        words = run.accumulators(subject.number, element, points_of(0, -(-length // BLOCK), FOLD_POINTS))
        bits = run.element_bits(subject, element) ^ self.rng.choice([0, 1, 1 << 20])
        return OpenFold(view.posted, run.record(subject).data, element, bits, self._accumulators(words))

    def _in_fold(self, view: GameView) -> Move:
        position, run = view.position, self._run(view)
        number, element = position.subject.number, position.fold.element
        if position.fold.opening and self.rng.random() < 0.3:
            return ProveRounding(run.prove_rounding(number, element))
        place, low, high = self._interval(view)
        if high - low == 1:
            return ProveBlock(place, run.prove_block(number, element, low))
        words = run.accumulators(number, element, points_of(low, high, FOLD_POINTS))
        return NarrowFold(place, self._accumulators(words))

    def _run(self, view: GameView) -> RunValues:
        return self.truth.run(view.position.run.number)

    def _interval(self, view: GameView) -> tuple[int, int, int]:
        place = self.rng.randrange(len(view.position.points))
        places = view.position.places
        return place, places[place - 1] if place else view.position.low, places[place]

    def _view(self, height: int) -> tuple[bytes, ...]:
        return tuple(self.rng.randbytes(32) for _ in range(1 << view_width(height)))

    def _chunk(self, true: bytes) -> bytes:
        """The true bytes but for one."""
        at = self.rng.randrange(CHUNK)
        return true[:at] + bytes([true[at] ^ 1 << self.rng.randrange(8)]) + true[at + 1 :]

    def _accumulators(self, true: Sequence[int]) -> tuple[bytes, ...]:
        return self._spoilt([word.to_bytes(32, "big") for word in true])

    def _spoilt(self, true: Sequence[bytes]) -> tuple[bytes, ...]:
        """Values that are true up to some place, or but for some places; the last one is never."""
        first = self.rng.randrange(len(true))
        after = self.rng.choice([0.0, 0.5, 1.0])
        return tuple(
            self.rng.randbytes(32)
            if at in (first, len(true) - 1) or (at > first and self.rng.random() < after)
            else value
            for at, value in enumerate(true)
        )
