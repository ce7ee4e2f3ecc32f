"""What rounds of open tasks are worked on and checked with: materials, states, held-out data; each checked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, DataError, SpecificationError
from ledger.open.records import OpenParameters, OpenRound, OpenSlot, OpenTask
from ledger.spec import TaskSpecification
from trainer.checkpoints import load_state
from trainer.commit.states import state_root
from trainer.data.dataset import Dataset, fetch_dataset
from trainer.engine.engines import Engine
from trainer.engine.state import State
from trainer.materials import SPECIFICATION_BYTES, fetch_program, specification_path
from trainer.open.held_out import rebuild, siblings, tokens_read
from trainer.open.scoring import Score, score_state, with_loss
from trainer.program.layout import StateLayout
from trainer.program.task import TaskProgram
from trainer.store import BlobStore

_KEPT_TASKS = 4
_KEPT_STATES = 2
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class OpenReads(Protocol):
    """The part of `OpenClient` that tells of open tasks."""

    def task(self, number: int, /) -> OpenTask: ...

    def round(self, task: int, round_number: int, /) -> OpenRound: ...

    def slot(self, task: int, round_number: int, slot: int, /) -> OpenSlot: ...

    def base_root(self, task: int, round_number: int, /) -> bytes: ...

    def held_out_root(self, task: int, round_number: int, /) -> bytes: ...

    def held_out_tokens(self, task: int, round_number: int, /) -> bytes | None: ...


@dataclass(frozen=True, kw_only=True)
class OpenMaterials:
    """What all rounds of an open task share. `dataset` is the public one; `store` is where states are."""

    parameters: OpenParameters
    specification: TaskSpecification
    program: TaskProgram
    dataset: Dataset
    store: BlobStore

    @property
    def layout(self) -> StateLayout:
        """The tensors of the task's states."""
        return self.program.layout


def fetch_open_materials(
    task: OpenTask, store: BlobStore, cache: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> OpenMaterials:
    """Fetches specification, programs and public data set, and compares every root and number with the chain's.

    Raises:
        BlobMissing: not in the store. BlobCorrupt: the bytes are not what their root says.
        SpecificationError: they are, but the task cannot be worked on; the field is named.
    """
    parameters, path = task.parameters, specification_path(task.parameters.specification_hash)
    data = store.get_bytes(path, max_bytes=SPECIFICATION_BYTES)
    try:
        specification = TaskSpecification.from_bytes(data)
    except SpecificationError as error:
        raise BlobCorrupt(path, error.problem.rstrip(".")) from error
    if specification.hash() != parameters.specification_hash:
        raise BlobCorrupt(path, f"its hash is {root_hex(specification.hash())}")
    program = fetch_program(parameters.program_root, store)
    for name, here, there in (
        ("program", specification.program, parameters.program_root),
        ("initial_state", specification.initial_state, parameters.initial_state_root),
        ("rounds", specification.rounds, task.rounds),
        ("slots_per_round", specification.slots_per_round, parameters.slots_per_round),
        ("state tensors", len(program.layout), parameters.state_tensors),
        ("slots that are merged", program.slots, 1),
    ):
        if here != there:
            shown = [root_hex(value) if isinstance(value, bytes) else str(value) for value in (here, there)]
            raise SpecificationError(
                f"Open task {task.number} says {name} = {shown[0]} where the chain has {shown[1]}.",
                field=name,
                remedy="Do not work on this task.",
            )
    dataset = fetch_dataset(specification.dataset, store, cache / "datasets", progress=progress)
    _check_data(task, program, dataset)
    return OpenMaterials(
        parameters=parameters, specification=specification, program=program, dataset=dataset, store=store
    )


def _check_data(task: OpenTask, program: TaskProgram, public: Dataset) -> None:
    """That scores can be proved on whatever the requester shows later: only a round's held-out part is hidden."""
    parameters = task.parameters
    if siblings(public) != (parameters.train_leaf, parameters.public_node):
        raise SpecificationError(
            f"The data sets of open task {task.number}'s rounds have another train part, header or tokenizer than its "
            f"public one.",
            field="dataset",
            remedy="Do not work on this task: nobody could prove a score.",
        )
    needed = 2 * tokens_read(program)
    if parameters.held_out_bytes != 2 * len(public.heldout) or parameters.held_out_bytes < needed:
        raise SpecificationError(
            f"The rounds of open task {task.number} have {parameters.held_out_bytes} bytes of held-out tokens; its "
            f"public data set has {2 * len(public.heldout)}, and its programs read {needed}.",
            field="held_out_bytes",
            remedy="Do not work on this task: nobody could prove a score.",
        )


class OpenSource:
    """Materials, states, data and scores of open tasks.

    Args:
        store_of: URL of the store where everything about a task is looked for. cache: of downloads, may be shared.
        engine: runs evaluations.
    """

    def __init__(self, chain: OpenReads, *, store_of: Callable[[int], str], cache: Path, engine: Engine) -> None:
        self._chain, self._store_of, self._cache, self.engine = chain, store_of, cache, engine
        self._materials: OrderedDict[tuple[int, bytes], OpenMaterials] = OrderedDict()
        self._states: OrderedDict[bytes, State] = OrderedDict()
        self._data: OrderedDict[bytes, Dataset] = OrderedDict()

    def materials(self, task: OpenTask) -> OpenMaterials:
        """What all rounds of a task share. Raises as `fetch_open_materials`."""
        key = (task.number, task.parameters.specification_hash)
        if key not in self._materials:
            store = BlobStore(self._store_of(task.number), cache=self._cache)
            self._materials[key] = fetch_open_materials(task, store, self._cache)
        return _recent(self._materials, key, _KEPT_TASKS)

    def state(self, task: OpenTask, root: bytes) -> State:
        """A state by its root, from the store. Raises BlobMissing, BlobCorrupt, ResourceError, DataError."""
        if root not in self._states:
            materials = self.materials(task)
            self._states[root] = load_state(materials.store, root, materials.layout)
        return _recent(self._states, root, _KEPT_STATES)

    def base(self, task: OpenTask, round_number: int) -> State:
        """The state that a round starts from: the first one, or that of the best slot with its loss in it.

        Nobody has to store a state again for the loss: the chain has it.

        Raises:
            BlobMissing, BlobCorrupt, ResourceError, DataError: the state that it is made of cannot be had.
        """
        root = self._chain.base_root(task.number, round_number)
        if root in self._states:
            return _recent(self._states, root, _KEPT_STATES)
        for before in range(round_number - 1, -1, -1):
            best = self._chain.round(task.number, before).best
            slot = None if best is None else self._chain.slot(task.number, before, best)
            if slot is None or slot.scored_root != root:
                continue
            state = with_loss(self.state(task, slot.trained_root), slot.held_out_loss)
            if state_root(state.values()) != root:
                raise DataError(
                    f"The best state of round {before} of open task {task.number} does not give the base "
                    f"{root_hex(root)}.",
                    remedy="Its score was false and nobody challenged it: leave the task alone.",
                )
            self._states[root] = state
            return _recent(self._states, root, _KEPT_STATES)
        return self.state(task, root)

    def scored(self, task: OpenTask, round_number: int, slot: int) -> State:
        """What is scored in a slot: the state revealed there, or the base. Raises as `base`."""
        if slot == task.parameters.baseline:
            return self.base(task, round_number)
        return self.state(task, self._chain.slot(task.number, round_number, slot).trained_root)

    def data(self, task: OpenTask, round_number: int) -> Dataset:
        """The data set of a round whose held-out tokens were shown.

        Raises:
            DataError: they were not yet, or do not go with the task's public data set.
        """
        root = self._chain.held_out_root(task.number, round_number)
        if root not in self._data:
            shown = self._chain.held_out_tokens(task.number, round_number)
            if shown is None:
                raise DataError(
                    f"The held-out data of round {round_number} of open task {task.number} was not shown yet.",
                    remedy="Wait for its requester.",
                )
            self._data[root] = rebuild(self.materials(task).dataset, shown, root)
        return _recent(self._data, root, _KEPT_TASKS)

    def score(self, task: OpenTask, round_number: int, slot: int, *, engine: Engine | None = None) -> Score:
        """The true score of a slot, on `engine` where one is named.

        Raises:
            MachineFault: the reference gave other bits.
            BlobMissing, BlobCorrupt, ResourceError, DataError: state or data cannot be had.
        """
        return score_state(
            self.materials(task).program,
            self.data(task, round_number),
            self.scored(task, round_number, slot),
            slot=slot,
            engine=engine or self.engine,
        )

    def fetched(self, task: OpenTask, root: bytes) -> State:
        """A state that is in the store now; what is in memory does not count. Raises as `state`."""
        materials = self.materials(task)
        return load_state(materials.store, root, materials.layout)


def _recent(known: OrderedDict[_Key, _Value], key: _Key, most: int) -> _Value:
    """What is known under a key, which becomes the last to be forgotten."""
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
    return known[key]
