"""Whole games in memory about scores of open tasks: segments of no steps, whose one run is the evaluation."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from arena import matter_of
from dispute_programs import base_state, dataset, task
from liars import plants
from plain_truth import record_of
from small_programs import engine
from test_game_matrix import check, random_games
from worlds import LONG, LONGEST, SHORT, world

from ledger.disputes.moves import ProgramProof
from trainer.commit.hashing import Kind, leaf, merkle_proof, merkle_root, seal
from trainer.commit.states import state_root
from trainer.dispute.proving import Refused, entered_run
from trainer.dispute.truth import SegmentTruth
from trainer.engine.engines import ReferenceEngine
from trainer.open.scoring import score_state
from trainer.program.exact import program_root

EVALUATION = 0


@pytest.mark.parametrize("compiled", [False, True], ids=["reference", "compiled"])
def test_truth_of_a_score_is_what_scoring_gives(compiled: bool) -> None:
    on = engine() if compiled else ReferenceEngine()
    program, state = task(LONG), base_state(LONG)
    truth = SegmentTruth(program, dataset(), state, steps=0, slot=3, engine=on)
    assert truth.runs == 1
    assert truth.state_root(0) == state_root(state.values())
    assert truth.state_root(1) == score_state(program, dataset(), state, slot=3, engine=on).root
    assert truth.run(0).state_after == truth.state_root(1) != truth.state_root(0)
    with pytest.raises(IndexError):
        truth.run(1)


@pytest.mark.parametrize(("place", "enters"), [(2, True), (1, False)])
def test_the_one_run_of_a_score_is_of_the_evaluation_program(place: int, enters: bool) -> None:
    programs = task(SHORT)
    program = (programs.evaluation if place == 2 else programs.training).program
    records = [b"TLXT\x00\x02\x00\x00" + bytes(8), *(bytes(32) for _ in range(5))]
    records[place] = program_root(program)
    leaves = [leaf(Kind.PROGRAM, record) for record in records]
    root = seal(Kind.PROGRAM, 2, 6, merkle_root(Kind.PROGRAM, leaves))
    matter = replace(matter_of(world(SHORT, 0).plain, submitted=bytes(32), claimed=bytes(32)), task_program=root)
    seed, path = (tuple(merkle_proof(Kind.PROGRAM, leaves, at)) for at in (0, place))
    proof = ProgramProof(0, seed, records[place], path, record_of(program, 0))
    assert matter.steps == 0
    if enters:
        assert entered_run(matter, EVALUATION, matter.base, proof).program == records[place]
    else:
        with pytest.raises(Refused):
            entered_run(matter, EVALUATION, matter.base, proof)


def test_games_about_scores_spread_over_all_lies_honest_side_wins() -> None:
    rng, moves = random.Random(1), Counter[str]()
    for length, count in ((SHORT, 20), (LONG, 12), (LONGEST, 3)):
        at = world(length, 0)
        every = list(plants(at.plain.run(EVALUATION), rng))
        moves += check(at, EVALUATION, rng.sample(every, count))
    assert {"EnterRun", "EnterTensor", "EnterState", "OpenChunk", "ProveElement", "ProveStateLeaf"} <= moves.keys()


@pytest.mark.full
@pytest.mark.parametrize("length", [SHORT, LONG, LONGEST])
def test_games_about_scores_of_every_lie_honest_side_wins(length: int) -> None:
    at = world(length, 0)
    check(at, EVALUATION, plants(at.plain.run(EVALUATION), random.Random(length)))


def test_games_about_scores_against_random_moves_honest_side_wins() -> None:
    assert sum(random_games(world(LONG, 0), 4, 40).values()) > 100
