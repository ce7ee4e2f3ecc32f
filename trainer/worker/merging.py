"""Merging for oneself: a round's base out of an earlier one and the slots' difference files (docs/rounds.md).

Under DiLoCo the files of a few slots are far fewer bytes than the merged state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger.errors import BlobCorrupt, BlobMissing
from trainer.checkpoints import keep_state, load_state, state_path
from trainer.differences import difference_path, load_difference
from trainer.engine.engines import Engine
from trainer.engine.segment import merged_state
from trainer.engine.state import State
from trainer.materials import Materials
from trainer.program.estimate import estimate
from trainer.worker.ports import ChainReader


@dataclass(frozen=True, kw_only=True)
class FinalMerge:
    """A final merge as the chain has it.

    Attributes:
        inputs: state roots that it took, the round's base first. root: of the state that it ended in.
        heldout_loss: that state's, as binary32 bits.
    """

    inputs: tuple[bytes, ...]
    root: bytes
    heldout_loss: int

    @property
    def base(self) -> bytes:
        return self.inputs[0]

    @property
    def slots(self) -> set[bytes]:
        """Roots of the states that were submitted: a missing slot is the base."""
        return set(self.inputs[1:]) - {self.base}


def final_merge(chain: ChainReader, materials: Materials, number: int) -> FinalMerge | None:
    """What the merge of a final round took and gave; None where the chain does not tell."""
    task = materials.task
    place = chain.slot(task.number, number, task.parameters.last_slot)
    collected = chain.inputs_root(task.number, number, place.generation)
    inputs = chain.merge_inputs(task.number, number, collected)
    if len(inputs) != 1 + materials.program.slots:
        return None
    entry = chain.checkpoint(task.number, number)
    return FinalMerge(inputs=tuple(inputs), root=entry.state_root, heldout_loss=entry.heldout_loss)


class OwnMerges:
    """Merges that one worker runs in place of fetching what they gave.

    Args:
        folder: where whole states are kept, and the difference files that this machine has sent.
        free_memory: bytes that a merge may take, None where nobody knows.
    """

    def __init__(
        self, chain: ChainReader, *, engine: Engine, folder: Path, free_memory: Callable[[], int | None]
    ) -> None:
        self._chain, self._engine, self._folder = chain, engine, folder
        self._free_memory = free_memory

    def base(
        self, materials: Materials, number: int, root: bytes, *, progress: Callable[[int, int], None]
    ) -> State | None:
        """The state that a round starts from, which is kept then, or None where it is to be fetched whole.

        Raises:
            ResourceError: a disk is full, or memory ran out. DataError: the store does not answer.
        """
        merges = self._plan(materials, number, root)
        if not merges:
            return None
        try:
            state: State | None = load_state(materials.store, merges[0].base, materials.layout, self._folder)
            for merge in merges:
                assert state is not None  # left below otherwise
                state = self._merged(materials, merge, state, progress)
                if state is None:
                    return None
        except (BlobMissing, BlobCorrupt):
            return None
        assert state is not None
        keep_state(state, root, self._folder)
        return state

    def _plan(self, materials: Materials, number: int, root: bytes) -> list[FinalMerge]:
        """The merges that lead from a state that is here to the one that is wanted; none where it is fewer bytes whole.

        A file that the store does not have counts as too many bytes.
        """
        if not materials.task.parameters.merges or not self._has_memory(materials):
            return []
        merges: list[FinalMerge] = []
        left = materials.layout.total_bytes
        while not self._holds(root):
            merge = final_merge(self._chain, materials, number - 1) if number > 0 and self._holds_any() else None
            if merge is None or merge.root != root:
                return []
            try:
                left -= sum(materials.store.size(path) for path in self._missing(merge))
            except BlobMissing:
                return []
            if left <= 0:
                return []
            merges.insert(0, merge)
            number, root = number - 1, merge.base
        return merges

    def _missing(self, merge: FinalMerge) -> list[str]:
        paths = [difference_path(root) for root in sorted(merge.slots)]
        return [path for path in paths if not (self._folder / path).exists()]

    def _holds(self, root: bytes) -> bool:
        return (self._folder / state_path(root)).exists()

    def _holds_any(self) -> bool:
        return any(self._folder.glob("states/*.safetensors"))

    def _has_memory(self, materials: Materials) -> bool:
        free = self._free_memory()
        return free is None or estimate(materials.program).memory_to_merge <= free

    def _merged(
        self, materials: Materials, merge: FinalMerge, base: State, progress: Callable[[int, int], None]
    ) -> State | None:
        slots = {
            root: load_difference(
                materials.store,
                root,
                base,
                materials.layout,
                base_root=merge.base,
                kept=self._folder,
                progress=progress,
            )
            for root in sorted(merge.slots)
        }
        return merged_state(
            materials.program,
            materials.dataset,
            base,
            [slots.get(root) for root in merge.inputs[1:]],
            heldout_loss=merge.heldout_loss,
            root=merge.root,
            engine=self._engine,
        )
