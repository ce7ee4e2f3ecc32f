"""What a task needs to be worked on, checked or sampled from: specification, program, layout and data set.

Everything comes from a store that nobody trusts, so everything is checked against the roots on chain before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, SpecificationError
from ledger.spec import TaskSpecification
from ledger.types import Task
from trainer.data.dataset import Dataset, check_program, fetch_dataset
from trainer.program.description import MAXIMUM_BYTES, MAXIMUM_STEPS, TrainingProgram
from trainer.program.layout import StateLayout
from trainer.store import BlobStore

# A title of 200 and a description of 10,000 characters, at most 12 bytes each once escaped, with the rest.
SPECIFICATION_BYTES = 2**17


class TaskSource(Protocol):
    """The part of a ledger client that tells of tasks."""

    def task(self, number: int, /) -> Task: ...

    def store_url(self, task: int, /) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Description:
    """The small part of a task's materials: enough to judge whether to take it."""

    task: Task
    specification: TaskSpecification
    program: TrainingProgram
    layout: StateLayout


@dataclass(frozen=True, kw_only=True)
class Materials(Description):
    """All of it. `store` is where the task's states are read and written."""

    dataset: Dataset
    store: BlobStore


def specification_path(digest: bytes) -> str:
    """Where a specification lies in a store (formats §4)."""
    return f"specifications/{root_hex(digest)}.json"


def program_path(root: bytes) -> str:
    """Where a program lies in a store (formats §4)."""
    return f"programs/{root_hex(root)}.json"


def fetch_description(task: Task, store: BlobStore) -> Description:
    """Fetches specification and program and compares every root and number with the chain's.

    Raises:
        BlobMissing: not in the store.
        BlobCorrupt: the bytes are not what the chain's root says.
        SpecificationError: they are, but what they say cannot be worked on; the field is named.
    """
    parameters = task.parameters
    path = specification_path(parameters.specification_hash)
    specification = _parse_specification(path, store.get_bytes(path, max_bytes=SPECIFICATION_BYTES), task)
    path = program_path(parameters.program_root)
    data = store.get_bytes(path, max_bytes=MAXIMUM_BYTES)
    try:
        program = TrainingProgram.from_bytes(data)
    except SpecificationError as error:
        raise SpecificationError(
            f"The program of task {task.number} cannot be run: {error.problem}", field=error.field, remedy=error.remedy
        ) from error
    if program.root != parameters.program_root:
        raise BlobCorrupt(path, f"its root is {root_hex(program.root)}")
    layout = StateLayout.of(program)
    if len(layout) != parameters.state_tensors:
        raise SpecificationError(
            f"Task {task.number} says that a state has {parameters.state_tensors} tensors; its program has "
            f"{len(layout)}.",
            field="stateTensors",
            remedy="No submission of it could be proved, so leave the task alone.",
        )
    steps = parameters.rounds * parameters.steps_per_round
    if steps > MAXIMUM_STEPS:
        raise SpecificationError(
            f"Task {task.number} asks for {steps} steps in all, and programs can count {MAXIMUM_STEPS}.",
            field="rounds",
            remedy="Leave the task alone.",
        )
    return Description(task=task, specification=specification, program=program, layout=layout)


def _parse_specification(path: str, data: bytes, task: Task) -> TaskSpecification:
    try:
        specification = TaskSpecification.from_bytes(data)
    except SpecificationError as error:
        raise BlobCorrupt(path, error.problem.rstrip(".")) from error
    if specification.hash() != task.parameters.specification_hash:
        raise BlobCorrupt(path, f"its hash is {root_hex(specification.hash())}")
    specification.check_against(task.parameters)
    return specification


def fetch_materials(
    description: Description,
    store: BlobStore,
    cache: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Materials:
    """Adds the data set, fetched part by part into `cache` (resumable) and verified.

    `progress` is given (part, bytes so far, bytes in all) of each download; what it raises ends the download, which
    goes on from there the next time.

    Raises:
        BlobMissing, BlobCorrupt: a part of the data set, named.
        SpecificationError: the data set does not fit the program.
        ResourceError: the disk is full.
    """
    dataset = fetch_dataset(description.specification.dataset, store, cache / "datasets", progress=progress)
    check_program(description.program, dataset)
    return Materials(
        task=description.task,
        specification=description.specification,
        program=description.program,
        layout=description.layout,
        dataset=dataset,
        store=store,
    )


def open_materials(chain: TaskSource, number: int, store_url: str, cache: Path) -> Materials:
    """A task's materials from one's own store, for commands that read.

    Raises:
        ContractReverted: there is no such task.
        BlobMissing: with the store that the task names, where that is another one.
    """
    task = chain.task(number)
    store = BlobStore(store_url, cache=cache)
    try:
        return fetch_materials(fetch_description(task, store), store, cache)
    except BlobMissing as error:
        named = chain.store_url(number)
        if named and named.rstrip("/") != store.url.rstrip("/"):
            raise BlobMissing(
                error.path, error.store, remedy=f"The task names the store {named}: give that one with --store."
            ) from error
        raise
