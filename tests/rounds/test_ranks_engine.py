"""Ranks as the engine of whole segments: the state root that anybody else gets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_programs import LIBRARIES, TEXT, Runs, first_state, small, traced

from trainer.commit.states import state_root
from trainer.engine.engines import ReferenceEngine
from trainer.engine.segment import run_merge, run_segment
from trainer.program.description import MeanConfig
from trainer.program.task import TaskProgram
from trainer.rounds import RanksEngine


@pytest.fixture(scope="module")
def runs() -> Runs:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    return Runs(train=tokens[:9000], heldout=tokens[9000:])


@pytest.fixture(scope="module")
def program(runs: Runs) -> TaskProgram:
    return traced(small(batch_size=8, shards=4, model={"layers": 1}), runs)


@pytest.fixture(scope="module")
def wanted(program: TaskProgram, runs: Runs) -> bytes:
    return root(program, runs, ReferenceEngine())


def root(program: TaskProgram, runs: Runs, engine: ReferenceEngine | RanksEngine) -> bytes:
    first = first_state(small(batch_size=8, shards=4, model={"layers": 1}), runs)
    return state_root(run_segment(program, runs, first, steps=2, engine=engine, recheck=1).state.values())


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_segment_on_ranks_has_the_references_root(ranks: int, program: TaskProgram, runs: Runs, wanted: bytes) -> None:
    engine = RanksEngine(ranks, threads=1, folder=None)
    try:
        assert root(program, runs, engine) == wanted
        if ranks == 2:  # once more: the processes are kept, and the program opened before is let go
            assert root(program, runs, engine) == wanted
    finally:
        engine.close()


def test_merge_with_ranks_runs_in_this_process_and_has_the_references_root(runs: Runs) -> None:
    description = dataclasses.replace(small(batch_size=8, shards=4, model={"layers": 1}), merge=MeanConfig(slots=2))
    program, first = traced(description, runs), first_state(description, runs)
    after = run_segment(program, runs, first, steps=1).state
    wanted = state_root(run_merge(program, runs, first, [after, None]).state.values())
    for folder in (None, LIBRARIES):
        engine = RanksEngine(2, threads=1, folder=folder)
        try:
            found = run_merge(program, runs, first, [after, None], engine=engine, recheck=0).state
        finally:
            engine.close()
        assert state_root(found.values()) == wanted


def test_ranks_engine_names_all_that_its_speed_depends_on() -> None:
    settings = {RanksEngine(ranks, threads=threads, folder=None).setting for ranks in (1, 2) for threads in (1, 2)}
    assert len(settings) == 4
    assert not RanksEngine(2, threads=1, folder=None).is_reference
