"""The true values of disputed segments: everything that they take is fetched, checked, and kept for the next move."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger.canonical import root_hex
from ledger.disputes.positions import Matter, Phase, Position
from ledger.errors import BlobCorrupt, BlobMissing, DataError
from ledger.types import Slot, Task
from trainer.checkpoints import load_state
from trainer.commit.states import inputs_root
from trainer.differences import load_slot_state
from trainer.dispute.explain import Explanation, explain, program_of
from trainer.dispute.journal import FolderKeeper, forget_journals
from trainer.dispute.truth import SegmentTruth
from trainer.engine.engines import Engine, ReferenceEngine
from trainer.engine.state import State
from trainer.materials import Materials, open_materials
from trainer.verify.task import TaskVerifier, claims_of
from trainer.worker.ports import ChainReader

_SPACED = 8  # states of a segment that are kept on disk
_SEGMENTS = 2  # whose values are kept in memory; journals of a few more stay on disk
_JOURNALS = 6


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What a submission is about: the same segment, the same values, whoever submitted or challenged it.

    Attributes:
        base: root of the state before; of a merge, of its inputs.
        merge: whether its one step is of the task's merge program.
    """

    task: int
    round: int
    slot: int
    steps: int
    base: bytes
    task_program: bytes
    dataset: bytes
    merge: bool = False

    @staticmethod
    def of_matter(matter: Matter) -> Segment:
        """The segment of a game."""
        return Segment(
            task=matter.task,
            round=matter.round,
            slot=matter.slot,
            steps=matter.steps,
            base=matter.base,
            task_program=matter.task_program,
            dataset=matter.dataset,
            merge=matter.merge,
        )

    @staticmethod
    def of_slot(task: Task, slot: Slot, base: bytes) -> Segment:
        """The segment of a submission: the merge, in the slot after those that train."""
        return Segment(
            task=slot.task,
            round=slot.round,
            slot=slot.slot,
            steps=slot.steps,
            base=base,
            task_program=task.parameters.program_root,
            dataset=task.parameters.dataset_root,
            merge=task.parameters.is_merge(slot.slot),
        )

    @property
    def folder_name(self) -> str:
        """Names the values alone, so that it is the same on every chain."""
        text = b"".join((self.base, self.task_program, self.dataset, self.steps.to_bytes(4, "big")))
        return hashlib.sha256(text + self.slot.to_bytes(4, "big")).hexdigest()[:32]


class SegmentSource:
    """Gives `SegmentTruth`s, the last few of which stay at hand.

    Args:
        store_of: URL of the store where everything about a task is looked for. cache: of downloads, may be shared.
        journals: folder for states of segments, which nobody else writes to.
        engine: runs the steps. Where it turns out to be wrong, `distrust` puts the reference in its place.
        between: see `SegmentTruth`: a way to stop in the middle.
    """

    def __init__(
        self,
        chain: ChainReader,
        *,
        store_of: Callable[[int], str],
        cache: Path,
        journals: Path,
        engine: Engine,
        between: Callable[[], None] | None = None,
    ) -> None:
        self._chain = chain
        self._store_of, self._cache, self._journals = store_of, cache, journals
        self._engine, self._between = engine, between
        self._materials: OrderedDict[int, Materials] = OrderedDict()
        self._truths: OrderedDict[Segment, SegmentTruth] = OrderedDict()

    @property
    def engine(self) -> Engine:
        """What runs the steps now."""
        return self._engine

    def truth(self, segment: Segment) -> SegmentTruth:
        """The values of a segment; computed when they are asked for.

        Raises:
            DataError: the programs, the data set, the base or an input of a merge are missing or damaged.
            SpecificationError: the task cannot be run.
            ChainError: the chain does not answer, or contradicts itself.
        """
        if segment not in self._truths:
            self._truths[segment] = self._made(segment)
        self._truths.move_to_end(segment)
        while len(self._truths) > _SEGMENTS:
            self._truths.popitem(last=False)
        return self._truths[segment]

    def fresh(self, segment: Segment) -> SegmentTruth:
        """The same values computed from the beginning, from nothing that was kept."""
        return self._made(segment, journal=False)

    def explain(self, position: Position) -> Explanation | None:
        """What a game has come down to, in the words of its program. Raises as `truth`."""
        if position.phase is Phase.RUNS:
            return None
        program = self._materials_of(Segment.of_matter(position.matter)).program
        return explain(program_of(program, position).program, position)

    def distrust(self) -> bool:
        """Goes on with the reference engine, and forgets what another one has computed. False if there is none left."""
        if self._engine.is_reference:
            return False
        self._engine = ReferenceEngine()
        self._truths.clear()
        forget_journals(self._journals, keep=0)
        return True

    def _made(self, segment: Segment, *, journal: bool = True) -> SegmentTruth:
        materials = self._materials_of(segment)
        keeper = None
        if journal:
            forget_journals(self._journals, keep=_JOURNALS)
            folder, spacing = self._journals / segment.folder_name, max(1, -(-(segment.steps + 1) // _SPACED))
            keeper = FolderKeeper(folder, materials.layout, spacing=spacing)
        base, inputs = (
            self._inputs(segment, materials) if segment.merge else (self._base(segment, materials, segment.base), None)
        )
        return SegmentTruth(
            materials.program,
            materials.dataset,
            base,
            steps=segment.steps,
            inputs=inputs,
            slot=segment.slot,
            engine=self._engine,
            keeper=keeper,
            between=self._between,
        )

    def _materials_of(self, segment: Segment) -> Materials:
        known = self._materials.get(segment.task)
        if known is None or not _fits(known, segment):
            known = open_materials(self._chain, segment.task, self._store_of(segment.task), self._cache)
            if not _fits(known, segment):
                raise DataError(
                    f"Task {segment.task} has not the programs and data that its dispute is about.",
                    remedy="The chain was reorganised, or the node lies: name another one with --rpc-url.",
                )
        self._materials[segment.task] = known
        self._materials.move_to_end(segment.task)
        while len(self._materials) > _SEGMENTS:
            self._materials.popitem(last=False)
        return known

    def _inputs(self, segment: Segment, materials: Materials) -> tuple[State, list[State | None]]:
        """The base and the slots' states of a merge; None for a slot that is the base again."""
        roots = list(self._chain.merge_inputs(segment.task, segment.round, segment.base))
        if len(roots) != 1 + materials.program.slots or inputs_root(roots[0], roots[1:]) != segment.base:
            raise DataError(
                f"No states are known that the merge of round {segment.round} of task {segment.task} takes as "
                f"{root_hex(segment.base)}.",
                remedy="The chain was reorganised, or the node lies: name another one with --rpc-url.",
            )
        own, *others = roots
        base = self._base(segment, materials, own)
        return base, [
            None if root == own else self._input(segment, materials, base, own, slot, root)
            for slot, root in enumerate(others)
        ]

    def _input(self, segment: Segment, materials: Materials, base: State, own: bytes, slot: int, root: bytes) -> State:
        """What a slot was submitted as: from the store, or trained again, so that nobody can withhold it."""
        store, layout, folder = materials.store, materials.layout, self._journals / segment.folder_name
        try:
            return load_slot_state(store, root, base, layout, base_root=own, folder=folder)
        except (BlobMissing, BlobCorrupt):
            return self._verifier(segment, materials).slot_state(base, segment.round, slot, root)

    def _verifier(self, segment: Segment, materials: Materials) -> TaskVerifier:
        task = self._chain.task(segment.task)
        return TaskVerifier(materials, claims_of(self._chain, task), engine=self._engine)

    def _base(self, segment: Segment, materials: Materials, root: bytes) -> State:
        """The state that the segment's round starts from: from the store, or replayed from an earlier one."""
        try:
            return load_state(materials.store, root, materials.layout, self._journals / segment.folder_name)
        except (BlobMissing, BlobCorrupt):
            task = self._chain.task(segment.task)
            if segment.round == 0 or task.current_round < segment.round:
                raise
            verifier = self._verifier(segment, materials)
            if verifier.base_root(segment.round) != root:
                raise DataError(
                    f"Round {segment.round} of task {segment.task} does not start from {root_hex(root)}.",
                    remedy="The chain was reorganised, or the node lies: name another one with --rpc-url.",
                ) from None
            return verifier.state_before(segment.round)


def _fits(materials: Materials, segment: Segment) -> bool:
    parameters = materials.task.parameters
    return (parameters.program_root, parameters.dataset_root) == (segment.task_program, segment.dataset)
