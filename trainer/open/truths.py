"""The true values of disputed scores: segments of no steps, whose one run is the evaluation (docs/dispute.md)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ledger.disputes.positions import Phase, Position
from ledger.errors import DataError
from ledger.open.records import OpenSlot, OpenTask
from trainer.commit.states import state_root
from trainer.dispute.explain import Explanation, explain, program_of
from trainer.dispute.segments import Segment
from trainer.dispute.truth import SegmentTruth
from trainer.engine.engines import ReferenceEngine
from trainer.open.source import OpenReads, OpenSource

_KEPT = 2  # scores whose values are kept in memory


class OpenTruths:
    """Gives the `SegmentTruth` of a score; the last few stay at hand.

    Args:
        between: see `SegmentTruth`: a way to stop in the middle.
    """

    def __init__(self, chain: OpenReads, source: OpenSource, *, between: Callable[[], None] | None = None) -> None:
        self._chain, self._source, self._between = chain, source, between
        self._truths: OrderedDict[Segment, SegmentTruth] = OrderedDict()

    def truth(self, segment: Segment) -> SegmentTruth:
        """The values of a score; computed when they are asked for.

        Raises:
            DataError: the state or the held-out data are missing or damaged, or not what the game is about.
            SpecificationError: the task cannot be run.
        """
        if segment not in self._truths:
            self._truths[segment] = self.fresh(segment)
        self._truths.move_to_end(segment)
        while len(self._truths) > _KEPT:
            self._truths.popitem(last=False)
        return self._truths[segment]

    def fresh(self, segment: Segment) -> SegmentTruth:
        """The same values, computed again."""
        task = self._chain.task(segment.task)
        materials, data = self._source.materials(task), self._source.data(task, segment.round)
        state = self._source.scored(task, segment.round, segment.slot)
        found = (materials.program.root, data.root, state_root(state.values()), segment.steps)
        if found != (segment.task_program, segment.dataset, segment.base, 0):
            raise DataError(
                f"Open task {segment.task} has not the program, data and state that its dispute is about.",
                remedy="The chain was reorganised, or the node lies: name another one with --rpc-url.",
            )
        return SegmentTruth(
            materials.program,
            data,
            state,
            steps=0,
            slot=segment.slot,
            engine=self._source.engine,
            between=self._between,
        )

    def explain(self, position: Position) -> Explanation | None:
        """What a game has come down to, in the words of its program. Raises as `truth`."""
        if position.phase is Phase.RUNS:
            return None
        program = self._source.materials(self._chain.task(position.matter.task)).program
        return explain(program_of(program, position).program, position)

    def distrust(self) -> bool:
        """Goes on with the reference engine, and forgets what another one has computed. False if there is none left."""
        if self._source.engine.is_reference:
            return False
        self._source.engine = ReferenceEngine()
        self._truths.clear()
        return True


def segment_of(task: OpenTask, slot: OpenSlot, held_out_root: bytes) -> Segment:
    """The segment of a score."""
    return Segment(
        task=slot.task,
        round=slot.round,
        slot=slot.slot,
        steps=0,
        base=slot.trained_root,
        task_program=task.parameters.program_root,
        dataset=held_out_root,
    )
