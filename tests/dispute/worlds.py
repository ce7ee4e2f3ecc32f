"""Segments for games: their values plainly, as liars change them, and as an honest party has them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from arena import Game, dispute
from dispute_programs import SEED, base_state, dataset, primitives, random_run, task
from liars import Plant
from merge_programs import merge_inputs, merged_task, random_merge
from plain_truth import Lies, PlainSegment, bump
from torch import Tensor

from ledger.disputes.moves import ProgramProof
from trainer.dispute import judge
from trainer.dispute.committed import DatasetProofs
from trainer.dispute.runs import RunTruth
from trainer.dispute.truth import SegmentTruth
from trainer.dispute.values import Truth
from trainer.engine.exact.batching import DatasetBatches
from trainer.program.exact import BuiltProgram

STEPS = 3
SHORT, LONG, LONGEST = 300, 2_500, 71_685  # folds of one call, of 3 blocks, of more blocks than points


class World:
    """One segment: its values plainly, as liars change them, and as an honest party has them."""

    def __init__(self, plain: PlainSegment, party: Truth) -> None:
        self.plain, self.party = plain, party

    def liar(self, run: int, plant: Plant) -> PlainSegment:
        """The segment with the lie in one run, and with a false result in any case."""
        liar = self.plain.lying({run: plant.lies}, self.party)
        if liar.state_root(self.plain.steps + 1) == self.plain.state_root(self.plain.steps + 1):
            liar = self.plain.lying({run: plant.lies, self.plain.steps: Lies(states={0: bump(0)})}, self.party)
        return liar

    def both_ways(self, run: int, plant: Plant) -> list[Game]:
        """The lie as a submission that is challenged, and as a challenge of the true submission."""
        liar = self.liar(run, plant)
        return [dispute(self.plain, liar, judge, honest=side, party=self.party) for side in ("challenger", "defender")]


class RandomTruth:
    """An honest party's values where both of a task's programs are random ones."""

    def __init__(self, plain: PlainSegment) -> None:
        self._plain, self._data = plain, DatasetProofs(dataset())
        self._runs: dict[int, RunTruth] = {}

    def state_root(self, run: int) -> bytes:
        return self._plain.state_root(run)

    def program_proof(self, number: int) -> ProgramProof:
        return self._plain.program_proof(number)

    def run(self, number: int) -> RunTruth:
        if number not in self._runs:
            built = self._plain.programs[number == self._plain.steps]
            state = self._plain.run(number).state_before
            self._runs[number] = RunTruth(built, state, self._data, seed=SEED)
        return self._runs[number]


def batches(state: Sequence[Tensor]) -> DatasetBatches:
    return DatasetBatches(data=dataset(), seed=SEED, step=int(state[1].item()))


@functools.cache
def world(length: int, steps: int = STEPS) -> World:
    """The world of a real task, whose folds have so many elements."""
    programs, state = task(length), base_state(length)
    plain = PlainSegment(
        programs.training,
        programs.evaluation,
        list(state.values()),
        steps=steps,
        seed=SEED,
        records=programs.manifest.records,
        dataset=dataset().root,
        batches=batches,
    )
    assert plain.task_program == programs.root
    return World(plain, SegmentTruth(programs, dataset(), state, steps=steps))


@functools.cache
def merge_world(length: int) -> World:
    """The world of a merge of three slots, the second of which is missing."""
    programs, base, inputs = merged_task(length), base_state(length), merge_inputs(length)
    assert programs.merge is not None
    plain = PlainSegment(
        programs.merge,
        programs.evaluation,
        [tensor for state in (base, *inputs) for tensor in (base if state is None else state).values()],
        steps=1,
        seed=SEED,
        records=programs.manifest.records,
        dataset=dataset().root,
        batches=batches,
    )
    assert plain.task_program == programs.root
    return World(plain, SegmentTruth(programs, dataset(), base, steps=1, inputs=inputs))


@functools.cache
def random_merge_world(seed: int) -> World:
    """The world of a random merge, after which the same program runs over what it gave."""
    merge, other = random_merge(seed)
    constants = tuple(merge.constants)
    return _world_of(BuiltProgram(merge.program, constants), merge.state, BuiltProgram(other, constants), steps=1)


@functools.cache
def random_world(seed: int) -> World:
    """The world of a random program, run over and over."""
    return _world_of(*random_run(seed))


@functools.cache
def primitive_world() -> World:
    """The world of a program with every primitive in a POINTWISE of its own."""
    return _world_of(*primitives())


def _world_of(
    built: BuiltProgram, state: list[Tensor], last: BuiltProgram | None = None, *, steps: int = STEPS
) -> World:
    plain = PlainSegment(built, last or built, state, steps=steps, seed=SEED, dataset=dataset().root, batches=batches)
    return World(plain, RandomTruth(plain))
