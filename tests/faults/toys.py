"""The smallest tasks that the product makes, published once, and what an undisturbed run of them gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from small_programs import engine, first_state, small, traced
from worker_bench import tiny_dataset

from ledger.spec import TaskSpecification
from trainer.checkpoints import save_state
from trainer.commit.states import state_root
from trainer.data.dataset import Dataset, publish_dataset
from trainer.engine.segment import run_merge, run_segment
from trainer.engine.state import State
from trainer.materials import publish_program, specification_path
from trainer.program.description import DilocoConfig, MeanConfig, MergeConfig
from trainer.program.task import TaskProgram
from trainer.store import BlobStore

STEPS = 3
MERGES: dict[str, MergeConfig | None] = {
    "single": None,
    "mean": MeanConfig(slots=3),
    "diloco": DilocoConfig(slots=2),
}


class Toy:
    """A task's programs and first state; `state(root)` for every root that an undisturbed run has led to."""

    def __init__(self, kind: str) -> None:
        sizes = {"context": 2, "batch_size": 1, "evaluation_windows": 1, "evaluation_batch": 1}
        described = small(model={"layers": 1, "width": 4, "heads": 1}, **sizes)
        described = dataclasses.replace(described, merge=MERGES[kind])
        self.kind = kind
        self.dataset: Dataset = tiny_dataset()
        self.program: TaskProgram = traced(described, self.dataset)
        first = first_state(described, self.dataset, measure=True, on=engine())
        self.first = state_root(first.values())
        self._states: dict[bytes, State] = {self.first: first}
        self._trained: dict[tuple[bytes, int], bytes] = {}
        self._merged: dict[tuple[bytes, ...], bytes] = {}

    def specification(self, rounds: int) -> TaskSpecification:
        return TaskSpecification(
            title=f"toy {self.kind}",
            description="",
            program=self.program.root,
            dataset=self.dataset.root,
            initial_state=self.first,
            rounds=rounds,
            slots_per_round=self.program.slots,
            steps_per_round=STEPS,
        )

    def publish(self, folder: Path, rounds: int) -> None:
        """Puts all that workers need into a store."""
        store = BlobStore(str(folder), cache=folder.parent / "requester")
        publish_dataset(self.dataset, store)
        publish_program(self.program, store)
        save_state(store, self._states[self.first], self.program.layout)
        specification = self.specification(rounds)
        store.put_bytes(specification_path(specification.hash()), specification.to_bytes())

    def trained(self, base: bytes, slot: int) -> bytes:
        """Root of what a slot makes of a base that is known."""
        key = (base, slot)
        if key not in self._trained:
            done = run_segment(
                self.program, self.dataset, self._states[base], steps=STEPS, slot=slot, engine=engine()
            ).state
            self._trained[key] = self._known(done)
        return self._trained[key]

    def merged(self, base: bytes, counted: Iterable[int]) -> bytes:
        """Root of what the merge makes of a round in which these slots counted."""
        slots = frozenset(counted)
        roots = [self.trained(base, slot) if slot in slots else b"" for slot in range(self.program.slots)]
        key = (base, *roots)
        if key not in self._merged:
            inputs = [self._states[root] if root else None for root in roots]
            done = run_merge(self.program, self.dataset, self._states[base], inputs, engine=engine()).state
            self._merged[key] = self._known(done)
        return self._merged[key]

    def _known(self, state: State) -> bytes:
        root = state_root(state.values())
        self._states[root] = state
        return root
