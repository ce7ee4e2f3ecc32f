"""Values of disputed segments over a real store: what is kept, what is missing, and what turns out to be damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_programs import engine
from worker_bench import TinyTask, publish_tiny_task  # the worker's tests' helpers lie beside these
from worker_fakes import ALICE, FakeChain, FakeLedger

from ledger.errors import BlobMissing, DataError
from trainer.checkpoints import save_state, state_path
from trainer.commit.states import state_root
from trainer.dispute.journal import FolderKeeper, forget_journals
from trainer.dispute.segments import Segment, SegmentSource
from trainer.engine.engines import ReferenceEngine
from trainer.engine.state import State, heldout_loss_bits
from trainer.worker.stop import Interrupted

STEPS = 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    return publish_tiny_task(tmp_path_factory.mktemp("segments") / "store", rounds=3, steps=STEPS)


@pytest.fixture(scope="module")
def states(tiny: TinyTask) -> list[State]:
    """Before round 0, and after it."""
    return tiny.states(1)


def segment_of(tiny: TinyTask, base: State, *, round_number: int = 0) -> Segment:
    return Segment(
        task=1,
        round=round_number,
        slot=0,
        steps=STEPS,
        base=state_root(base.values()),
        task_program=tiny.program.root,
        dataset=tiny.dataset.root,
    )


class World:
    def __init__(self, tiny: TinyTask, folder: Path) -> None:
        self.ledger = FakeLedger()
        self.ledger.post(tiny.parameters, tiny.store.url)
        self.chain = FakeChain(self.ledger, ALICE)
        self.store, self.folder, self.steps = tiny.store, folder, 0
        self.stop_at = -1

    def source(self) -> SegmentSource:
        return SegmentSource(
            self.chain,
            store_of=lambda task: self.store.url,
            cache=self.folder / "cache",
            journals=self.folder / "journals",
            engine=engine(),
            between=self._between,
        )

    def _between(self) -> None:
        if self.steps == self.stop_at:
            raise Interrupted("Interrupted.")
        self.steps += 1


@pytest.fixture
def world(tiny: TinyTask, tmp_path: Path) -> World:
    return World(tiny, tmp_path)


def test_truth_gives_what_the_worker_computes(world: World, tiny: TinyTask, states: list[State]) -> None:
    truth = world.source().truth(segment_of(tiny, states[0]))
    assert truth.state_root(STEPS + 1) == state_root(states[1].values())
    assert truth.state_root(0) == state_root(states[0].values())


def test_truth_is_kept_for_the_next_question(world: World, tiny: TinyTask, states: list[State]) -> None:
    source, segment = world.source(), segment_of(tiny, states[0])
    source.truth(segment).state_root(STEPS + 1)
    ran = world.steps
    source.truth(segment).state_root(STEPS + 1)
    assert world.steps == ran == STEPS + 1
    source.fresh(segment).state_root(STEPS + 1)
    assert world.steps == 2 * ran


def test_truth_after_a_kill_goes_on_from_the_journal(world: World, tiny: TinyTask, states: list[State]) -> None:
    segment = segment_of(tiny, states[0])
    world.stop_at = 9
    with pytest.raises(Interrupted):
        world.source().truth(segment).state_root(STEPS + 1)
    world.stop_at, world.steps = -1, 0
    assert world.source().truth(segment).state_root(STEPS + 1) == state_root(states[1].values())
    assert world.steps == STEPS + 1 - 8  # every second state was kept, up to the one after 8 steps


def test_truth_interrupted_goes_on_in_the_same_process(world: World, tiny: TinyTask, states: list[State]) -> None:
    source, segment = world.source(), segment_of(tiny, states[0])
    world.stop_at = 7
    with pytest.raises(Interrupted):
        source.truth(segment).state_root(STEPS + 1)
    world.stop_at = -1
    assert source.truth(segment).state_root(STEPS + 1) == state_root(states[1].values())


@pytest.mark.parametrize("harm", ["cut", "flip", "swap"])
def test_truth_damaged_journal_is_computed_anew(world: World, tiny: TinyTask, states: list[State], harm: str) -> None:
    segment = segment_of(tiny, states[0])
    world.source().truth(segment).state_root(STEPS + 1)
    files = sorted((world.folder / "journals").glob("*/run-*.safetensors"))
    assert files
    for path in files:
        data = path.read_bytes()
        if harm == "cut":
            path.write_bytes(data[: len(data) // 2])
        elif harm == "flip":
            path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
        else:
            path.write_bytes(files[0].read_bytes())
    assert world.source().truth(segment).state_root(STEPS + 1) == state_root(states[1].values())


def test_truth_base_missing_from_the_store_is_replayed(world: World, tiny: TinyTask, states: list[State]) -> None:
    second = segment_of(tiny, states[1], round_number=1)
    save_state(tiny.store, states[1], tiny.program.layout)
    expected = world.source().truth(second).state_root(STEPS + 1)
    Path(tiny.store.url.removeprefix("file://"), state_path(second.base)).unlink()
    do_round(world, tiny, states[1])
    other = World(tiny, world.folder / "elsewhere")
    other.ledger, other.chain = world.ledger, world.chain
    assert other.source().truth(second).state_root(STEPS + 1) == expected


def do_round(world: World, tiny: TinyTask, after: State) -> None:
    """Round 0 as a worker does it."""
    chain, task = world.chain, world.chain.task(1)
    world.ledger.stake(ALICE, 100 * 10**18)
    base, root = chain.base_root(1, 0), state_root(after.values())
    chain.claim(task, 0, base_root=base, attempt=0, worker=ALICE)
    chain.submit(
        1,
        0,
        attempt=0,
        base_root=base,
        state_root=root,
        steps=STEPS,
        loss_bits=heldout_loss_bits(after),
        proof=[],
    )
    world.ledger.advance(1_000)
    chain.finalise(1, 0, attempt=0, state_root=root)


def test_truth_missing_first_state_is_a_data_error(world: World, tiny: TinyTask, states: list[State]) -> None:
    unknown = Segment(**{**segment_of(tiny, states[0]).__dict__, "base": b"\x07" * 32})
    with pytest.raises(BlobMissing):
        world.source().truth(unknown)


def test_truth_other_programs_than_the_games_are_a_data_error(
    world: World, tiny: TinyTask, states: list[State]
) -> None:
    other = Segment(**{**segment_of(tiny, states[0]).__dict__, "task_program": b"\x07" * 32})
    with pytest.raises(DataError, match="has not the programs and data"):
        world.source().truth(other)


def test_distrust_goes_on_with_the_reference_and_forgets(world: World, tiny: TinyTask, states: list[State]) -> None:
    source, segment = world.source(), segment_of(tiny, states[0])
    source.truth(segment).state_root(3)
    assert list((world.folder / "journals").iterdir())
    assert source.distrust()
    assert source.engine.is_reference
    assert not list((world.folder / "journals").iterdir())
    assert source.truth(segment).state_root(3) is not None
    assert not source.distrust()
    assert isinstance(source.engine, ReferenceEngine)


def test_keeper_gives_the_nearest_state_at_or_before(tiny: TinyTask, states: list[State], tmp_path: Path) -> None:
    keeper = FolderKeeper(tmp_path / "one", tiny.program.layout, spacing=4)
    first, second = (list(state.values()) for state in states)
    assert keeper.nearest(5) is None
    for run, state in ((4, first), (5, second), (6, first), (8, second)):
        keeper.keep(run, state)
    again = FolderKeeper(tmp_path / "one", tiny.program.layout, spacing=4)
    for run, expected, state in ((3, None, None), (4, 4, first), (7, 4, first), (8, 8, second), (99, 8, second)):
        found = again.nearest(run)
        assert (None if found is None else found[0]) == expected
        if found is not None:
            assert state_root(found[1]) == state_root(state)
    held = keeper.nearest(7)
    assert held is not None
    assert held[0] == 6  # the last ones stay in memory, whatever their number


def test_forget_journals_keeps_the_newest(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / str(number)).mkdir()
        os.utime(tmp_path / str(number), (number, number))
    forget_journals(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4"]
    forget_journals(tmp_path / "none", keep=2)
