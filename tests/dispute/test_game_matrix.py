"""Whole games in memory: whatever is wrong anywhere in a segment loses, and whatever is true wins."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from arena import Game, Solver, dispute, matter_of, play_out
from dispute_programs import SEED, base_state, dataset, random_run, task
from liars import Plant, plants
from plain_truth import Lies, PlainSegment, bump
from random_play import RandomPlayer
from torch import Tensor

from ledger.disputes.moves import ProgramProof
from ledger.disputes.positions import Outcome
from trainer.dispute import judge
from trainer.dispute.committed import DatasetProofs
from trainer.dispute.runs import RunTruth
from trainer.dispute.solver import opening_points
from trainer.dispute.truth import SegmentTruth
from trainer.dispute.values import Concede, Truth
from trainer.engine.exact.batching import DatasetBatches

STEPS = 3
SHORT, LONG, LONGEST = 300, 2_500, 71_685  # folds of one call, of 3 blocks, of more blocks than points
EVALUATION = STEPS


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
        records=programs.manifest.records,
        dataset=dataset().root,
        batches=batches,
    )
    assert plain.task_program == programs.root
    return World(plain, SegmentTruth(programs, dataset(), state, steps=steps))


@functools.cache
def random_world(seed: int) -> World:
    """The world of a random program, run over and over."""
    built, state = random_run(seed)
    plain = PlainSegment(built, built, state, steps=STEPS, seed=SEED, dataset=dataset().root, batches=batches)
    return World(plain, RandomTruth(plain))


def check(at: World, run: int, chosen: Iterable[Plant]) -> Counter[str]:
    """Plays each lie both ways; `dispute` demands that the honest side wins. Returns the moves that were made."""
    moves: Counter[str] = Counter()
    for plant in chosen:
        for game in at.both_ways(run, plant):
            moves.update(game.names)
    return moves


def test_games_spread_over_all_lies_honest_side_wins() -> None:
    rng, moves = random.Random(1), Counter()
    for length, count in ((SHORT, 25), (LONG, 25), (LONGEST, 8)):
        at = world(length)
        for run in (1, EVALUATION):
            every = list(plants(at.plain.run(run), rng))
            moves += check(at, run, rng.sample(every, count))
    assert {"EnterRun", "EnterTensor", "EnterState", "OpenChunk", "ProveElement", "ProveStateLeaf"} <= moves.keys()


@pytest.mark.parametrize("label", ["from block 1", "from block 71", "but at its end"])
@pytest.mark.parametrize("code", ["matmul", "sum", "max", "scatter_add"])
def test_games_wrong_accumulator_of_a_long_fold_honest_side_wins(code: str, label: str) -> None:
    at = world(LONGEST)
    every = [plant for plant in plants(at.plain.run(1), random.Random(2)) if label in plant.name and code in plant.name]
    assert every
    moves = check(at, 1, every[:1])
    assert moves["OpenFold"] == 1  # the other way round the liar has opened the chunk, or had to prove it
    assert moves["ProveBlock"] + moves["ProveRounding"] == 1


@pytest.mark.parametrize("steps", [70, pytest.param(1_100, marks=pytest.mark.full)])
def test_games_of_a_long_segment_narrow_to_one_run(steps: int) -> None:
    at, rng = world(SHORT, steps), random.Random(3)
    for run in (0, steps // 2, steps - 1, steps):
        plant = rng.choice(list(plants(at.plain.run(run), rng)))
        moves = check(at, run, [plant])
        assert moves["Narrow"] >= 2, run


@pytest.mark.full
@pytest.mark.parametrize("run", [0, 2, EVALUATION])
@pytest.mark.parametrize("length", [SHORT, LONG, LONGEST])
def test_games_of_every_lie_honest_side_wins(length: int, run: int) -> None:
    at = world(length)
    check(at, run, plants(at.plain.run(run), random.Random(length)))


@pytest.mark.full
@pytest.mark.parametrize("seed", range(40))
def test_games_of_random_programs_honest_side_wins(seed: int) -> None:
    at, rng = random_world(seed), random.Random(seed)
    run = rng.randrange(STEPS + 1)
    check(at, run, plants(at.plain.run(run), rng))


def random_games(at: World, seed: int, count: int) -> Counter[str]:
    """Games of an honest side, whichever it is, against a player without sense; the honest side has to win."""
    rng, moves = random.Random(seed), Counter()
    runs = at.plain.steps + 1
    true = at.party.state_root(runs)
    for _ in range(count):
        fool, sage = RandomPlayer(at.party, rng), Solver(at.party)
        if rng.random() < 0.5:
            submitted = rng.randbytes(32)
            points = opening_points(at.party, steps=at.plain.steps, submitted=submitted)
            assert not isinstance(points, Concede)
            players, honest, won = (fool, sage), "challenger", Outcome.CHALLENGER_WON
        else:
            submitted, points = true, fool.points(runs)
            players, honest, won = (sage, fool), "defender", Outcome.DEFENDER_WON
        matter = matter_of(at.plain, submitted=submitted, claimed=points[-1])
        game = play_out(matter, points, *players, judge, honest=honest)
        assert game.outcome is won, game.names
        moves.update(game.names)
    return moves


def test_games_against_random_moves_honest_side_wins() -> None:
    moves = random_games(world(LONG), 4, 60)
    assert sum(moves.values()) > 200


@pytest.mark.full
@pytest.mark.parametrize("seed", range(30))
def test_games_against_random_moves_in_random_programs_honest_side_wins(seed: int) -> None:
    random_games(random_world(seed), seed, 40)
    random_games(world(LONGEST), seed, 10)
