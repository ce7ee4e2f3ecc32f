from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file
from small_programs import traced
from worker_bench import IDENTITY, tiny_dataset, tiny_program

from ledger.errors import ResourceError
from trainer.commit.states import state_root
from trainer.engine.state import State, initial_state
from trainer.worker.snapshots import JobKey, SnapshotStore

PROGRAM = tiny_program()
DATASET = tiny_dataset()
LAYOUT = traced(PROGRAM, DATASET).layout
KEY = JobKey(
    chain_id=IDENTITY.chain_id,
    ledger=IDENTITY.ledger,
    deployment_block=IDENTITY.deployment_block,
    task=3,
    round=2,
    slot=0,
    base_root=b"b" * 32,
    specification_hash=b"s" * 32,
)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path / "snapshots")


@pytest.fixture
def state() -> State:
    return initial_state(PROGRAM, LAYOUT)


def test_save_and_load_give_the_same_state(store: SnapshotStore, state: State) -> None:
    saved = store.save(KEY, attempt=4, base_step=7, stage="trained", state=state)
    loaded = store.load(KEY, LAYOUT)
    assert loaded is not None
    assert (loaded.attempt, loaded.base_step, loaded.stage, loaded.root) == (4, 7, "trained", saved.root)
    assert state_root(loaded.state.values()) == state_root(state.values()) == saved.root


def test_save_writes_a_file_that_the_library_reads(store: SnapshotStore, state: State) -> None:
    store.save(KEY, attempt=0, base_step=0, stage="training", state=state)
    read = load_file(store.path(KEY))
    assert {name: tensor.shape for name, tensor in read.items()} == {n: t.shape for n, t in state.items()}
    assert all(read[name].equal(tensor) or name == "metric.heldout_loss" for name, tensor in state.items())


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 1},
        {"ledger": "0x" + "99" * 20},
        {"deployment_block": "0x" + "cd" * 32},
        {"task": 4},
        {"round": 3},
        {"slot": 1},
        {"base_root": b"c" * 32},
        {"specification_hash": b"t" * 32},
    ],
)
def test_load_never_takes_another_jobs_snapshot(store: SnapshotStore, state: State, change: dict[str, object]) -> None:
    store.save(KEY, attempt=0, base_step=0, stage="training", state=state)
    other = dataclasses.replace(KEY, **change)  # type: ignore[arg-type]  # field by field, from the table above
    assert store.load(other, LAYOUT) is None
    # Not even where the file was moved to the other's place.
    store.path(other).parent.mkdir(parents=True, exist_ok=True)
    store.path(KEY).rename(store.path(other))
    assert store.load(other, LAYOUT) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_load_treats_a_damaged_file_as_absent(store: SnapshotStore, state: State, damage: str) -> None:
    store.save(KEY, attempt=0, base_step=0, stage="training", state=state)
    path = store.path(KEY)
    data = path.read_bytes()
    flipped = data[:-9] + bytes([data[-9] ^ 128]) + data[-8:]
    path.write_bytes({"flip": flipped, "cut": data[:-7], "empty": b"", "text": b"{}" * 50}[damage])
    assert store.load(KEY, LAYOUT) is None


def test_load_refuses_another_programs_tensors(store: SnapshotStore, state: State) -> None:
    store.save(KEY, attempt=0, base_step=0, stage="training", state=state)
    wider = tiny_program(model={"kind": "transformer", "layers": 1, "heads": 2, "width": 32})
    assert store.load(KEY, traced(wider, DATASET).layout) is None


def test_save_on_a_full_disk_keeps_the_snapshot_before(
    store: SnapshotStore, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.save(KEY, attempt=0, base_step=0, stage="training", state=state)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        store.save(KEY, attempt=1, base_step=0, stage="trained", state=state)
    monkeypatch.undo()
    kept = store.load(KEY, LAYOUT)
    assert kept is not None
    assert (kept.attempt, kept.root) == (0, before.root)
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [store.path(KEY).name]


def test_remove_before_forgets_earlier_rounds_of_the_task_only(store: SnapshotStore, state: State) -> None:
    keys = [dataclasses.replace(KEY, round=number) for number in (0, 1, 2, 10)]
    other = dataclasses.replace(KEY, task=9, round=0)
    for key in (*keys, other):
        store.save(key, attempt=0, base_step=0, stage="training", state=state)
    assert store.remove_before(KEY) == 2
    assert [store.has(key) for key in (*keys, other)] == [False, False, True, True, True]


def test_describe_holds_every_field() -> None:
    assert set(KEY.describe()) == {field.name for field in dataclasses.fields(KEY)}
    assert json.loads(json.dumps(KEY.describe())) == KEY.describe()
