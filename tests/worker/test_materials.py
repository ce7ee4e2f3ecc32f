"""A store is a stranger: everything in it is compared with the chain before it is used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from worker_bench import TinyTask, publish_tiny_task
from worker_fakes import REQUESTER

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, SpecificationError
from ledger.types import Task
from trainer.materials import (
    fetch_description,
    fetch_materials,
    manifest_path,
    open_materials,
    specification_path,
)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyTask:
    return publish_tiny_task(tmp_path / "store")


def on_chain(tiny: TinyTask, **changes: Any) -> Task:
    parameters = dataclasses.replace(tiny.parameters, **changes)
    return Task(number=1, parameters=parameters, requester=REQUESTER, current_round=0, closed=False)


def test_fetch_materials_gives_all_that_was_published(tiny: TinyTask, tmp_path: Path) -> None:
    materials = fetch_materials(fetch_description(on_chain(tiny), tiny.store), tiny.store, tmp_path / "cache")
    assert materials.program.manifest == tiny.program.manifest
    assert [one.program for one in materials.program.programs] == [one.program for one in tiny.program.programs]
    assert materials.layout == tiny.program.layout
    assert materials.dataset.root == tiny.dataset.root
    assert materials.specification == tiny.specification


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"dataset_root": b"x" * 32}, "dataset"),
        ({"program_root": b"x" * 32}, "program"),
        ({"initial_state_root": b"x" * 32}, "initial_state"),
        ({"rounds": 4}, "rounds"),
        ({"steps_per_round": 13}, "steps_per_round"),
        ({"state_tensors": 3}, "stateTensors"),
    ],
)
def test_fetch_description_refuses_a_chain_that_says_otherwise(
    tiny: TinyTask, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(SpecificationError) as caught:
        fetch_description(on_chain(tiny, **changes), tiny.store)
    assert caught.value.field == field


def test_fetch_description_refuses_another_specification_under_the_name(tiny: TinyTask) -> None:
    path = specification_path(tiny.parameters.specification_hash)
    other = dataclasses.replace(tiny.specification, title="another")
    tiny.store.put_bytes(path, other.to_bytes())
    with pytest.raises(BlobCorrupt, match="its hash is") as caught:
        fetch_description(on_chain(tiny), tiny.store)
    assert caught.value.path == path


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b'{"format": 1}'])
def test_fetch_description_refuses_nonsense_as_corrupt(tiny: TinyTask, data: bytes) -> None:
    tiny.store.put_bytes(specification_path(tiny.parameters.specification_hash), data)
    with pytest.raises(BlobCorrupt):
        fetch_description(on_chain(tiny), tiny.store)


def test_fetch_description_refuses_another_program_under_the_name(tiny: TinyTask) -> None:
    path = manifest_path(tiny.program.root)
    other = dataclasses.replace(tiny.program, seed=99)
    tiny.store.put_bytes(path, other.manifest.to_bytes())
    with pytest.raises(BlobCorrupt, match=f"its root is {root_hex(other.root)}") as caught:
        fetch_description(on_chain(tiny), tiny.store)
    assert caught.value.path == path


def test_fetch_description_of_a_program_that_cannot_be_run_names_the_task(tiny: TinyTask) -> None:
    unlike = dataclasses.replace(tiny.program.manifest, evaluation=tiny.program.manifest.training)
    tiny.store.put_bytes(manifest_path(unlike.root), unlike.to_bytes())
    specification = dataclasses.replace(tiny.specification, program=unlike.root)
    tiny.store.put_bytes(specification_path(specification.hash()), specification.to_bytes())
    task = on_chain(tiny, program_root=unlike.root, specification_hash=specification.hash())
    with pytest.raises(
        SpecificationError, match="The program of task 1 cannot be run: The evaluation program"
    ) as caught:
        fetch_description(task, tiny.store)
    assert caught.value.field == "evaluation"


def test_open_materials_names_the_tasks_own_store(tiny: TinyTask, tmp_path: Path) -> None:
    class Chain:
        def task(self, number: int, /) -> Task:
            return on_chain(tiny)

        def store_url(self, task: int, /) -> str:
            return "s3://somewhere/else"

    with pytest.raises(BlobMissing, match="s3://somewhere/else"):
        open_materials(Chain(), 1, str(tmp_path / "empty"), tmp_path / "cache")
