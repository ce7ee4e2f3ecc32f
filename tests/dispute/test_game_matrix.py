"""Whole games in memory: whatever is wrong anywhere in a segment loses, and whatever is true wins."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from arena import Solver, matter_of, play_out
from liars import Plant, plants
from random_play import RandomPlayer
from worlds import LONG, LONGEST, SHORT, STEPS, World, primitive_world, random_world, world

from ledger.disputes.positions import Outcome
from trainer.dispute import judge
from trainer.dispute.solver import opening_points
from trainer.dispute.values import Concede

EVALUATION = STEPS


def check(at: World, run: int, chosen: Iterable[Plant]) -> Counter[str]:
    """Plays each lie both ways; `dispute` demands that the honest side wins. Returns the moves that were made.

    Few liars may run out of moves (those whose tensors have a root that is nothing's): the others go on to a verdict.
    """
    moves: Counter[str] = Counter()
    late = Counter()
    for plant in chosen:
        for game in at.both_ways(run, plant):
            moves.update(game.names)
            late["root" in plant.name, game.late] += 1
    assert late[False, True] <= late[False, False] / 20
    return moves


def test_games_spread_over_all_lies_honest_side_wins() -> None:
    rng, moves = random.Random(1), Counter()
    for length, count in ((SHORT, 12), (LONG, 14), (LONGEST, 4)):
        at = world(length)
        for run in (1, EVALUATION):
            every = list(plants(at.plain.run(run), rng))
            moves += check(at, run, rng.sample(every, count))
    at = primitive_world()
    moves += check(at, 2, rng.sample(list(plants(at.plain.run(2), rng)), 10))
    assert {"EnterRun", "EnterTensor", "EnterState", "OpenChunk", "ProveElement", "ProveStateLeaf"} <= moves.keys()


@pytest.mark.parametrize("label", ["from block 1", "from block 71", "but at its end"])
@pytest.mark.parametrize("code", ["matmul", "sum", "max", "scatter_add"])
def test_games_wrong_accumulator_of_a_long_fold_honest_side_wins(code: str, label: str) -> None:
    at = world(LONGEST)
    every = [plant for plant in plants(at.plain.run(1), random.Random(2)) if label in plant.name and code in plant.name]
    assert every
    moves = check(at, 1, every[:1])
    assert moves["OpenFold"] == 2  # once by the liar, once by the honest side
    assert moves["ProveBlock"] + moves["ProveRounding"] == 2
    assert moves["NarrowFold"] >= ("71" in label)


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
def test_games_of_every_primitive_honest_side_wins() -> None:
    at = primitive_world()
    check(at, 1, plants(at.plain.run(1), random.Random(6)))


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
