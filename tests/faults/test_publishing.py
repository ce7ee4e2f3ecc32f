"""What a slot publishes where the store has lost the base of its round since it was trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_programs import engine
from toys import STEPS, Toy

from trainer.checkpoints import load_state, save_state, state_path
from trainer.commit.states import state_root
from trainer.differences import difference_path, load_slot_state
from trainer.engine.segment import run_segment
from trainer.store import BlobStore
from trainer.worker.round import RoundRunner


@pytest.mark.parametrize("fate", ["kept", "lost", "damaged"])
def test_state_goes_on_from_a_snapshot_into_the_store(tmp_path: Path, fate: str) -> None:
    toy, store = Toy("diloco"), BlobStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    layout = toy.program.layout
    (tmp_path / "cache").mkdir()
    toy.publish(tmp_path / "store", rounds=1)
    base = load_state(store, toy.first, layout)
    trained = run_segment(toy.program, toy.dataset, base, steps=STEPS, slot=1, engine=engine()).state
    kept = tmp_path / "store" / state_path(toy.first)
    if fate == "lost":
        kept.unlink()
    elif fate == "damaged":
        kept.write_bytes(kept.read_bytes()[:-1])
    materials = SimpleNamespace(
        store=store, layout=layout, task=SimpleNamespace(parameters=SimpleNamespace(merges=True))
    )
    key = SimpleNamespace(base_root=toy.first)
    prepared: Any = SimpleNamespace(materials=materials, key=key, is_merge=False, snapshot=object(), start=trained)
    runner = object.__new__(RoundRunner)
    runner._bases = tmp_path / "bases"
    assert runner._save(prepared, trained) == state_root(trained.values())
    root = state_root(trained.values())
    assert (tmp_path / "store" / difference_path(root)).exists() == (fate == "kept")
    save_state(store, base, layout)
    found = load_slot_state(store, root, base, layout, base_root=toy.first)
    assert state_root(found.values()) == root
