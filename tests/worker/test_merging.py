"""A worker that makes a round's base of the slots' difference files, and fetches it whole where that is better."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_programs import engine, first_state, traced
from worker_bench import Recorder, publish_tiny_task, tiny_dataset, tiny_program
from worker_fakes import REQUESTER

from ledger.errors import BlobMissing
from ledger.types import Checkpoint, Slot, SlotStatus, Task
from trainer.checkpoints import keep_state, save_state, state_path
from trainer.commit.states import inputs_root, state_root
from trainer.differences import difference_path, save_difference
from trainer.engine.segment import run_merge, run_segment
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import Materials
from trainer.program.description import DilocoConfig, MeanConfig, MergeConfig
from trainer.program.estimate import estimate
from trainer.store import BlobStore
from trainer.worker.merging import OwnMerges, final_merge
from trainer.worker.starts import StartingStates
from trainer.worker.stop import Stop

SLOTS, STEPS = 3, 3


@dataclasses.dataclass
class History:
    """Final rounds: the bases, and each round's slots, None where one is missing."""

    materials: Materials
    bases: list[State]
    slots: list[list[State | None]]

    def root(self, number: int) -> bytes:
        return state_root(self.bases[number].values())

    def sent(self, number: int) -> list[bytes]:
        return [state_root(state.values()) for state in self.slots[number] if state is not None]

    def inputs(self, number: int) -> tuple[bytes, ...]:
        base = self.root(number)
        return base, *(base if one is None else state_root(one.values()) for one in self.slots[number])


class FinalRounds:
    """The chain, as far as merging for oneself reads it."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.loss_is_off = 0

    def slot(self, task: int, number: int, slot: int, /) -> Slot:
        assert slot == SLOTS
        return Slot(
            task=task,
            round=number,
            slot=slot,
            worker=REQUESTER,
            attempt=0,
            deadline=0,
            status=SlotStatus.FINALISED,
            open_games=0,
            payout=REQUESTER,
            steps=1,
            heldout_loss=0,
            state_root=self.history.root(number + 1),
            generation=2,
        )

    def inputs_root(self, task: int, number: int, generation: int, /) -> bytes:
        assert generation == 2
        base, *slots = self.history.inputs(number)
        return inputs_root(base, slots)

    def merge_inputs(self, task: int, number: int, root: bytes, /) -> tuple[bytes, ...]:
        return self.history.inputs(number) if root == self.inputs_root(task, number, 2) else ()

    def checkpoint(self, task: int, number: int, /) -> Checkpoint:
        state = self.history.bases[number + 1]
        return Checkpoint(
            task=task,
            round=number,
            parent=self.history.root(number),
            state_root=state_root(state.values()),
            worker=REQUESTER,
            steps=1,
            heldout_loss=heldout_loss_bits(state) + self.loss_is_off,
        )


def made(merge: MergeConfig, folder: Path, *, rounds: int) -> History:
    description, dataset = dataclasses.replace(tiny_program(), merge=merge), tiny_dataset()
    program = traced(description, dataset)
    tiny = publish_tiny_task(folder / "store", steps=STEPS, other=program)
    task = Task(number=1, parameters=tiny.parameters, requester=REQUESTER, current_round=rounds, closed=False)
    materials = Materials(
        task=task,
        specification=tiny.specification,
        program=program,
        dataset=dataset,
        store=BlobStore(str(folder / "store"), cache=folder / "cache"),
    )
    history = History(materials, [first_state(description, dataset, measure=True)], [])
    for number in range(rounds):
        base = history.bases[-1]
        slots: list[State | None] = [
            run_segment(program, dataset, base, steps=STEPS, slot=slot, engine=engine()).state for slot in range(SLOTS)
        ]
        if number == 1:
            slots[1] = None
        history.slots.append(slots)
        history.bases.append(run_merge(program, dataset, base, slots, engine=engine()).state)
    return history


@pytest.fixture(scope="module")
def diloco(tmp_path_factory: pytest.TempPathFactory) -> History:
    return made(DilocoConfig(slots=SLOTS), tmp_path_factory.mktemp("diloco"), rounds=2)


@pytest.fixture
def stored(diloco: History, tmp_path: Path) -> History:
    """The history with a store of its own, in which each slot's difference file lies and no whole state."""
    store = BlobStore(str(tmp_path / "blobs"), cache=tmp_path / "blob-cache")
    history = dataclasses.replace(diloco, materials=dataclasses.replace(diloco.materials, store=store))
    publish_differences(history, store)
    store.sent_bytes = 0
    return history


def publish_differences(history: History, store: BlobStore, kept: Path | None = None) -> None:
    layout = history.materials.layout
    for number, slots in enumerate(history.slots):
        for state in slots:
            if state is not None:
                base, root = history.bases[number], history.root(number)
                save_difference(store, state, base, layout, base_root=root, kept=kept)


def merges(history: History, folder: Path, *, free: int | None = None, chain: Any = None) -> OwnMerges:
    return OwnMerges(chain or FinalRounds(history), engine=engine(), folder=folder, free_memory=lambda: free)


def base(history: History, folder: Path, number: int, **changes: Any) -> State | None:
    made = merges(history, folder, **changes)
    return made.base(history.materials, number, history.root(number), progress=lambda done, total: None)


def keep(history: History, number: int, folder: Path) -> None:
    keep_state(history.bases[number], history.root(number), folder)


def sizes(history: History, roots: list[bytes]) -> int:
    return sum(history.materials.store.size(difference_path(root)) for root in roots)


def test_base_is_merged_of_difference_files_and_kept(stored: History, tmp_path: Path) -> None:
    folder, store = tmp_path / "bases", stored.materials.store
    keep(stored, 0, folder)
    state = base(stored, folder, 1)
    assert state is not None
    assert state_root(state.values()) == stored.root(1)
    assert store.received_bytes == sizes(stored, stored.sent(0))
    assert store.received_bytes < stored.materials.layout.total_bytes
    assert (folder / state_path(stored.root(1))).exists()
    again = base(stored, folder, 2)  # from what was kept
    assert again is not None
    assert state_root(again.values()) == stored.root(2)
    assert store.received_bytes == sizes(stored, [*stored.sent(0), *stored.sent(1)])


def test_base_is_merged_over_several_rounds(stored: History, tmp_path: Path) -> None:
    keep(stored, 0, tmp_path / "bases")
    state = base(stored, tmp_path / "bases", 2)
    assert state is not None
    assert state_root(state.values()) == stored.root(2)


def test_what_this_machine_sent_is_not_fetched(stored: History, tmp_path: Path) -> None:
    folder, store = tmp_path / "bases", stored.materials.store
    keep(stored, 0, folder)
    publish_differences(dataclasses.replace(stored, slots=[stored.slots[0][:1]]), store, kept=folder)
    assert base(stored, folder, 1) is not None
    assert store.received_bytes == sizes(stored, stored.sent(0)[1:])


def test_a_kept_difference_file_that_is_damaged_is_fetched(stored: History, tmp_path: Path) -> None:
    folder, store = tmp_path / "bases", stored.materials.store
    keep(stored, 0, folder)
    publish_differences(dataclasses.replace(stored, slots=[stored.slots[0][:1]]), store, kept=folder)
    local = folder / difference_path(stored.sent(0)[0])
    local.write_bytes(local.read_bytes()[:-1])
    assert base(stored, folder, 1) is not None
    assert store.received_bytes == sizes(stored, stored.sent(0))
    assert not local.exists()


@pytest.mark.parametrize("fault", ["no base", "no file", "damaged file", "little memory", "another end"])
def test_base_is_fetched_whole_where_it_cannot_be_merged(stored: History, tmp_path: Path, fault: str) -> None:
    folder, changes = tmp_path / "bases", dict[str, Any]()
    if fault != "no base":
        keep(stored, 0, folder)
    file = tmp_path / "blobs" / difference_path(stored.sent(0)[0])
    if fault == "no file":
        file.unlink()
    elif fault == "damaged file":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    elif fault == "little memory":
        changes["free"] = estimate(stored.materials.program).memory_to_merge - 1
    elif fault == "another end":
        swapped = dataclasses.replace(stored, slots=[[None, *stored.slots[0][1:]]])
        changes["chain"] = FinalRounds(swapped)
    assert base(stored, folder, 1, **changes) is None
    assert not (folder / state_path(stored.root(1))).exists()
    if fault in ("no base", "no file", "little memory"):
        assert stored.materials.store.received_bytes == 0


def test_a_loss_that_the_chain_has_wrong_is_measured(stored: History, tmp_path: Path) -> None:
    chain = FinalRounds(stored)
    chain.loss_is_off = 1
    keep(stored, 0, tmp_path / "bases")
    state = base(stored, tmp_path / "bases", 1, chain=chain)
    assert state is not None
    assert heldout_loss_bits(state) == heldout_loss_bits(stored.bases[1])


def test_base_is_fetched_whole_where_that_is_fewer_bytes(tmp_path: Path) -> None:
    """By the mean, a slot sends all that it has but its own held-out loss."""
    history = made(MeanConfig(slots=SLOTS), tmp_path, rounds=1)
    publish_differences(history, history.materials.store)
    keep(history, 0, tmp_path / "bases")
    assert base(history, tmp_path / "bases", 1) is None
    assert history.materials.store.received_bytes == 0


def test_final_merge_is_none_where_the_chain_lost_the_inputs(stored: History) -> None:
    chain: Any = FinalRounds(stored)
    found = final_merge(chain, stored.materials, 1)
    assert found is not None
    assert found.slots == set(stored.sent(1))
    chain.merge_inputs = lambda *_: ()
    assert final_merge(chain, stored.materials, 1) is None


def test_starting_states_merge_or_fetch(stored: History, tmp_path: Path) -> None:
    """A worker that merges says so; where it cannot, the state comes from the store."""
    recorder, folder = Recorder(), tmp_path / "bases"
    chain: Any = FinalRounds(stored)
    starts = StartingStates(
        chain, engine=engine(), folder=folder, free_memory=lambda: None, reporter=recorder, stop=Stop(), resume=""
    )

    def start(number: int) -> State:
        return starts.base(stored.materials, number, stored.root(number), progress=lambda done, total: None)

    with pytest.raises(BlobMissing):
        start(0)
    keep(stored, 0, folder)
    assert state_root(start(1).values()) == stored.root(1)
    assert recorder.events == ["merged-here"]
    (tmp_path / "blobs" / difference_path(stored.sent(1)[0])).unlink()
    save_state(stored.materials.store, stored.bases[2], stored.materials.layout)
    assert state_root(start(2).values()) == stored.root(2)
    assert recorder.events == ["merged-here"]
