"""Values of disputed segments over a real store: what is kept, what is missing, and what turns out to be damaged."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from small_programs import engine
from worker_bench import TinyTask, publish_tiny_task  # the worker's tests' helpers lie beside these
from worker_fakes import ALICE, FakeChain, FakeLedger

from ledger.errors import BlobMissing, DataError
from ledger.types import Round
from trainer.checkpoints import save_state, state_path
from trainer.commit.states import inputs_root, state_root
from trainer.dispute.journal import FolderKeeper, forget_journals
from trainer.dispute.segments import Segment, SegmentSource
from trainer.engine.engines import ReferenceEngine
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.engine.state import State, heldout_loss_bits
from trainer.program.exact import DType, ProgramBuilder, Role
from trainer.program.task import TaskProgram
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


class MergeChain(FakeChain):
    """A chain that tells what merges take, and of no slot that is submitted now."""

    roots: list[bytes]

    def round(self, task: int, round_number: int, /) -> Round:
        none: frozenset[int] = frozenset()
        numbers = dict.fromkeys(("deadline", "frozen_at", "generation", "running", "submitted", "finalised"), 0)
        return Round(
            task=task,
            round=round_number,
            **numbers,
            counted=0,
            collected=0,
            submitted_slots=none,
            counted_slots=none,
            inputs_root=bytes(32),
            ready=False,
        )

    def merge_inputs(self, task: int, round_number: int, inputs_root: bytes, /) -> tuple[bytes, ...]:
        return tuple(self.roots)


class MergeWorld(World):
    """A round of the tiny task whose merge takes two states: what slot 0 has submitted, and a missing slot."""

    def __init__(self, tiny: TinyTask, states: list[State], folder: Path) -> None:
        merged = publish_tiny_task(folder / "store", rounds=3, steps=STEPS, other=merging(tiny.program))
        super().__init__(merged, folder)
        self.program = merged.program
        self.roots = [state_root(states[number].values()) for number in (0, 1, 0)]
        self.chain = MergeChain(self.ledger, ALICE)
        self.chain.roots = self.roots
        for state in states:
            save_state(merged.store, state, merged.program.layout)
        self.segment = Segment(
            task=1,
            round=0,
            slot=2,
            steps=1,
            base=inputs_root(self.roots[0], self.roots[1:]),
            task_program=merged.program.root,
            dataset=tiny.dataset.root,
            merge=True,
        )


def merging(program: TaskProgram) -> TaskProgram:
    """The same programs with a merge of two slots: the difference of their counters, sums of their parameters."""
    build = ProgramBuilder(Role.MERGE, inputs=2)
    for tensor in program.training.program.states:
        build.state(tensor.name, tensor.dtype, tensor.shape)
    subtract = Kernel(2, (Instruction(Op.INPUT, 0), Instruction(Op.INPUT, 1), Instruction(Op.ISUB, 0, 1)))
    for tensor in program.training.program.states:
        first, second = (build.load(tensor.name, state=state) for state in (1, 2))
        if tensor.dtype is DType.INT64:
            build.store(tensor.name, build.pointwise(subtract, first, second, dtype=DType.INT32))
        elif tensor.name.startswith("parameter."):
            both = build.cat([first.unsqueeze(-1), second.unsqueeze(-1)], -1)
            build.store(tensor.name, build.sum_last(both))
    return dataclasses.replace(program, merge=build.finish())


def test_truth_of_a_merge_takes_what_the_chain_says(tiny: TinyTask, states: list[State], tmp_path: Path) -> None:
    world = MergeWorld(tiny, states, tmp_path)
    truth = world.source().truth(world.segment)
    assert truth.state_root(0) == world.segment.base
    merged = dict(zip(world.program.layout.names, truth.state(1), strict=True))
    assert merged["counter.step"].item() == STEPS
    for name, tensor in merged.items():
        if name.startswith("parameter."):
            torch.testing.assert_close(tensor, states[0][name] + states[1][name])
        elif name != "counter.step":
            assert torch.equal(tensor, states[0][name])
    for number in range(2):
        assert truth.run(number).state_before == truth.state_root(number)
        assert truth.run(number).state_after == truth.state_root(number + 1)
    again = world.source().truth(world.segment)
    assert again.state_root(2) == truth.state_root(2)  # from the journal
    assert again.state_root(0) == world.segment.base


def test_truth_of_a_merge_of_unknown_or_missing_states_is_a_data_error(
    tiny: TinyTask, states: list[State], tmp_path: Path
) -> None:
    world = MergeWorld(tiny, states, tmp_path)
    roots = world.roots
    for wrong in (roots[:2], [*roots, roots[0]], [roots[0], roots[0], roots[1]], [b"\x07" * 32, *roots[1:]], []):
        world.chain.roots = wrong
        with pytest.raises(DataError, match="No states are known"):
            world.source().truth(world.segment)
    world.chain.roots = roots
    Path(world.store.url.removeprefix("file://"), state_path(roots[1])).unlink()
    with pytest.raises(BlobMissing):
        world.source().truth(world.segment)


def test_segment_of_the_slot_after_those_that_train_is_the_merge(tiny: TinyTask) -> None:
    ledger = FakeLedger()
    ledger.post(dataclasses.replace(tiny.parameters, slots_per_round=4), tiny.store.url)
    chain = FakeChain(ledger, ALICE)
    task, slot = chain.task(1), chain.slot(1, 0)
    found = [Segment.of_slot(task, dataclasses.replace(slot, slot=number), bytes(32)).merge for number in range(5)]
    assert found == [False, False, False, False, True]
    alone = dataclasses.replace(task, parameters=tiny.parameters)
    assert not Segment.of_slot(alone, dataclasses.replace(slot, slot=1), bytes(32)).merge


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
