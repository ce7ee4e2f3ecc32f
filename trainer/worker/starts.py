"""What a slot starts from: states fetched, or trained again where the store has lost them or a worker withholds them.

Training is deterministic, so nobody has to hold a state for others to go on from it (docs/rounds.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing
from trainer.checkpoints import load_state, save_state
from trainer.differences import load_slot_state, save_difference
from trainer.engine.engines import Engine
from trainer.engine.segment import StepReport
from trainer.engine.state import State
from trainer.materials import Materials
from trainer.verify.task import TaskVerifier, claims_of
from trainer.worker.merging import OwnMerges
from trainer.worker.ports import ChainReader
from trainer.worker.progress import Reporter
from trainer.worker.stop import Stop


class StartingStates:
    """States by their roots, for one worker. What had to be trained again is put back into the store."""

    def __init__(
        self,
        chain: ChainReader,
        *,
        engine: Engine,
        folder: Path,
        free_memory: Callable[[], int | None],
        reporter: Reporter,
        stop: Stop,
        resume: str,
    ) -> None:
        self._chain, self._engine, self._folder = chain, engine, folder
        self._merges = OwnMerges(chain, engine=engine, folder=folder, free_memory=free_memory)
        self._reporter, self._stop, self._resume = reporter, stop, resume

    def base(self, materials: Materials, number: int, root: bytes, *, progress: Callable[[int, int], None]) -> State:
        """The state that a round starts from: kept, merged here where that is fewer bytes, or fetched.

        Raises:
            DataError: neither the store has it, nor what it could be trained from.
            Interrupted, Terminated: asked to stop.
        """
        store, layout = materials.store, materials.layout
        merged = self._merges.base(materials, number, root, progress=progress)
        if merged is not None:
            self._reporter.say(
                "merged-here",
                f"Merged round {number - 1} of task {materials.task.number} from the slots' difference files.",
                task=materials.task.number,
                round=number - 1,
                state_root=root,
            )
            return merged
        try:
            return load_state(store, root, layout, self._folder, progress=progress)
        except (BlobMissing, BlobCorrupt):
            if number == 0:
                raise  # the requester's own, which nothing leads to
            self._say(materials, number, root)
            verifier = self._verifier(materials)
            if verifier.base_root(number) != root:
                raise
            state = verifier.state_before(number)
            save_state(store, state, layout)
            return state

    def slots(self, materials: Materials, number: int, base: State, roots: list[bytes]) -> tuple[State | None, ...]:
        """The states that a merge takes. Raises as `base`.

        Args:
            roots: the base's, then each slot's; None stands for a slot that is the base again.
        """
        own, *others = roots
        return tuple(
            None if root == own else self._slot(materials, number, base, own, slot, root)
            for slot, root in enumerate(others)
        )

    def _slot(self, materials: Materials, number: int, base: State, own: bytes, slot: int, root: bytes) -> State:
        store, layout = materials.store, materials.layout
        try:
            return load_slot_state(store, root, base, layout, base_root=own, folder=self._folder)
        except (BlobMissing, BlobCorrupt):
            self._say(materials, number, root)
            state = self._verifier(materials).slot_state(base, number, slot, root)
            save_difference(store, state, base, layout, base_root=own)
            return state

    def _verifier(self, materials: Materials) -> TaskVerifier:
        def watch(number: int, report: StepReport) -> None:
            if self._stop.requested:
                raise self._stop.error(remedy=self._resume)

        task = self._chain.task(materials.task.number)
        return TaskVerifier(materials, claims_of(self._chain, task), engine=self._engine, on_step=watch)

    def _say(self, materials: Materials, number: int, root: bytes) -> None:
        self._reporter.say(
            "retraining",
            f"The store has no good copy of state {root_hex(root)}, which round {number} of task "
            f"{materials.task.number} needs; training it again.",
            task=materials.task.number,
            round=number,
            state_root=root,
        )
