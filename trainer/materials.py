"""What a task needs to be worked on, checked or sampled from: specification, program, layout and data set.

Everything comes from a store that nobody trusts, so everything is checked against the roots on chain before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, SpecificationError
from ledger.spec import TaskSpecification
from ledger.types import Task
from trainer.commit.tensors import tensor_bytes, tensor_root
from trainer.data.dataset import Dataset, check_programs, fetch_dataset
from trainer.engine.exact.interpreter import TORCH_DTYPES
from trainer.program.exact import BuiltProgram, Program, encode_program, load_program, program_root
from trainer.program.exact.encoding import MAXIMUM_FILE_BYTES, file_root
from trainer.program.exact.operations import ConstantTensor
from trainer.program.layout import StateLayout
from trainer.program.task import (
    MAXIMUM_CONSTANT_BYTES,
    MAXIMUM_MANIFEST_BYTES,
    Manifest,
    TaskProgram,
    constants_of,
)
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
    program: TaskProgram

    @property
    def layout(self) -> StateLayout:
        """The tensors of the task's states."""
        return self.program.layout


@dataclass(frozen=True, kw_only=True)
class Materials(Description):
    """All of it. `store` is where the task's states are read and written."""

    dataset: Dataset
    store: BlobStore


def specification_path(digest: bytes) -> str:
    """Where a specification lies in a store (formats §4)."""
    return f"specifications/{root_hex(digest)}.json"


def manifest_path(root: bytes) -> str:
    """Where the manifest of a task's programs lies in a store (programs.md)."""
    return f"programs/{root_hex(root)}.json"


def program_path(root: bytes) -> str:
    """Where a single program lies in a store (programs.md)."""
    return f"programs/{root_hex(root)}.program"


def constant_path(root: bytes) -> str:
    """Where the data of a program's constant lies in a store (programs.md)."""
    return f"tensors/{root_hex(root)}.bin"


def publish_program(program: TaskProgram, store: BlobStore) -> None:
    """Puts a task's programs into a store. Safe to repeat; the manifest comes last.

    Raises:
        ResourceError: the store is full. DataError: it does not answer.
        SpecificationError: nobody could fetch it again, see `check_readable`.
    """
    check_readable(program)
    manifest = program.manifest.to_bytes()
    for built in program.programs:
        for declared, data in zip(built.program.constants, built.constants, strict=True):
            store.put_bytes(constant_path(declared.root), bytes(tensor_bytes(data)))
        store.put_bytes(program_path(program_root(built.program)), encode_program(built.program))
    store.put_bytes(manifest_path(program.root), manifest)


def check_readable(program: TaskProgram) -> None:
    """Checks that what is published of a program can be fetched again: within all limits of programs.md.

    Raises:
        SpecificationError: the description, a program or the constants are too long, or hold what readers do not take.
    """
    try:
        Manifest.from_bytes(program.manifest.to_bytes())
        left = MAXIMUM_CONSTANT_BYTES
        for built in program.programs:
            load_program(encode_program(built.program))
            left -= sum(_bytes_of(constant) for constant in constants_of(built.program, left))
    except SpecificationError as error:
        raise SpecificationError(
            error.problem,
            field=error.field,
            remedy=error.remedy or "Nobody could fetch this: use fewer layers, a shorter context or a smaller batch.",
        ) from error


def fetch_program(root: bytes, store: BlobStore) -> TaskProgram:
    """A task's programs from a store, everything checked: roots, every rule of programs.md, and that they fit.

    Raises:
        BlobMissing: a file is not in the store.
        BlobCorrupt: a file is not what its root says.
        SpecificationError: it is, but cannot be run.
    """
    path = manifest_path(root)
    data = store.get_bytes(path, max_bytes=MAXIMUM_MANIFEST_BYTES)
    try:
        manifest = Manifest.from_bytes(data)
    except SpecificationError as error:  # its root cannot be known before it is read
        raise BlobCorrupt(path, error.problem.rstrip(".")) from error
    if manifest.root != root:
        raise BlobCorrupt(path, f"its root is {root_hex(manifest.root)}")
    left = MAXIMUM_CONSTANT_BYTES
    programs: list[BuiltProgram | None] = []
    for one in (manifest.training, manifest.evaluation, manifest.generation, manifest.merge):
        program = None if one is None else _fetch_single(one, store)
        constants = () if program is None else constants_of(program, left)
        left -= sum(_bytes_of(constant) for constant in constants)
        tensors = tuple(_fetch_constant(constant, store) for constant in constants)
        programs.append(None if program is None else BuiltProgram(program, tensors))
    training, evaluation, generation, merge = programs
    assert training is not None  # the manifest has both
    assert evaluation is not None
    return TaskProgram(
        seed=manifest.seed,
        training=training,
        evaluation=evaluation,
        generation=generation,
        merge=merge,
        description=manifest.description,
    )


def _fetch_single(root: bytes, store: BlobStore) -> Program:
    path = program_path(root)
    data = store.get_bytes(path, max_bytes=MAXIMUM_FILE_BYTES)
    # The root first: a file that was damaged on its way is no fault of the program's author.
    try:
        found = file_root(data)
    except SpecificationError as error:
        raise BlobCorrupt(path, error.problem.rstrip(".")) from error
    if found != root:
        raise BlobCorrupt(path, f"its root is {root_hex(found)}")
    return load_program(data)


def _bytes_of(constant: ConstantTensor) -> int:
    return math.prod(constant.shape) * constant.dtype.size


def _fetch_constant(constant: ConstantTensor, store: BlobStore) -> Tensor:
    path, size = constant_path(constant.root), _bytes_of(constant)
    data = store.get_bytes(path, max_bytes=size)
    if len(data) != size:
        raise BlobCorrupt(path, f"it has {len(data)} bytes and should have {size}")
    # bytearray: frombuffer wants memory that it could write to
    tensor = torch.frombuffer(bytearray(data), dtype=TORCH_DTYPES[constant.dtype]).reshape(constant.shape)
    if tensor_root(tensor) != constant.root:
        raise BlobCorrupt(path, f"its root is {root_hex(tensor_root(tensor))}")
    return tensor


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
    try:
        program = fetch_program(parameters.program_root, store)
    except SpecificationError as error:
        raise SpecificationError(
            f"The program of task {task.number} cannot be run: {error.problem}", field=error.field, remedy=error.remedy
        ) from error
    if len(program.layout) != parameters.state_tensors:
        raise SpecificationError(
            f"Task {task.number} says that a state has {parameters.state_tensors} tensors; its program has "
            f"{len(program.layout)}.",
            field="stateTensors",
            remedy="No submission of it could be proved, so leave the task alone.",
        )
    if program.slots != parameters.slots_per_round:
        raise SpecificationError(
            f"Task {task.number} says that a round has {parameters.slots_per_round} slots; its programs are for "
            f"{program.slots}.",
            field="slotsPerRound",
            remedy="No round of it could be merged, so leave the task alone.",
        )
    return Description(task=task, specification=specification, program=program)


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
    check_programs(description.program, dataset)
    return Materials(
        task=description.task,
        specification=description.specification,
        program=description.program,
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
