"""Verification over a lineage made by hand: what a lying node or a damaged store could show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from small_programs import users_engine
from worker_bench import TinyTask, publish_tiny_task  # the worker's tests' helpers lie beside these
from worker_fakes import ALICE, REQUESTER  # as above

from ledger.errors import DataError, SpecificationError
from ledger.performance import float_bits
from ledger.types import Checkpoint, Task
from trainer.checkpoints import save_state, state_path
from trainer.commit.states import state_root
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import Materials, fetch_description, fetch_materials
from trainer.verify.replay import replay_round
from trainer.verify.task import Claim, RoundVerdict, TaskVerdict, TaskVerifier

ROUNDS = 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    return publish_tiny_task(tmp_path_factory.mktemp("verify") / "store", rounds=ROUNDS, steps=4)


@pytest.fixture(scope="module")
def materials(tiny: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Materials:
    task = Task(number=1, parameters=tiny.parameters, requester=REQUESTER, current_round=ROUNDS, closed=False)
    return fetch_materials(fetch_description(task, tiny.store), tiny.store, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def states(tiny: TinyTask) -> list[State]:
    return tiny.states(ROUNDS)


@pytest.fixture
def lineage(tiny: TinyTask, states: list[State]) -> list[Checkpoint]:
    """Honest entries; every state is in the store, whole."""
    roots = [save_state(tiny.store, state, tiny.program.layout) for state in states]
    return [
        Checkpoint(
            task=1,
            round=number,
            parent=roots[number],
            state_root=roots[number + 1],
            worker=ALICE,
            steps=4,
            heldout_loss=heldout_loss_bits(states[number + 1]),
        )
        for number in range(ROUNDS)
    ]


def verify(materials: Materials, lineage: list[Checkpoint], *rounds: int) -> list[RoundVerdict]:
    claims = [Claim(entry=entry, final=True) for entry in lineage]
    return list(TaskVerifier(materials, claims, engine=users_engine()).verify(list(rounds) or list(range(len(claims)))))


def drop(tiny: TinyTask, root: bytes) -> Path:
    path = Path(tiny.store._root) / state_path(root)
    path.unlink()
    return path


def test_base_of_a_round_that_a_reorganisation_took_back_is_missing(
    materials: Materials, lineage: list[Checkpoint]
) -> None:
    verifier = TaskVerifier(materials, [Claim(entry=lineage[0], final=True)], engine=users_engine())
    assert verifier.base_root(1) == lineage[0].state_root
    with pytest.raises(DataError, match="Round 2 has no base, since round 1 has not ended"):
        verifier.base_root(2)


def test_verify_honest_lineage_agrees_without_any_state_but_the_first(
    tiny: TinyTask, materials: Materials, lineage: list[Checkpoint]
) -> None:
    for entry in lineage:
        drop(tiny, entry.state_root)
    verdicts = verify(materials, lineage)
    assert [(v.verdict, v.stored, v.replayed) for v in verdicts] == [
        ("agrees", "missing", entry.state_root) for entry in lineage
    ]
    assert TaskVerdict(task=1, rounds=tuple(verdicts)).first_difference is None


def test_verify_last_round_alone_is_replayed_from_the_nearest_state(
    tiny: TinyTask, materials: Materials, lineage: list[Checkpoint]
) -> None:
    drop(tiny, lineage[1].state_root)
    (verdict,) = verify(materials, lineage, 2)
    assert (verdict.verdict, verdict.replayed) == ("agrees", lineage[2].state_root)


def test_verify_false_loss_with_a_true_root_differs(materials: Materials, lineage: list[Checkpoint]) -> None:
    lineage[1] = dataclasses.replace(lineage[1], heldout_loss=float_bits(0.125))
    verdicts = verify(materials, lineage)
    assert [v.verdict for v in verdicts] == ["agrees", "differs", "agrees"]
    assert "but 0.125 was submitted" in verdicts[1].problems[0]


def test_verify_broken_link_differs(materials: Materials, lineage: list[Checkpoint]) -> None:
    lineage[2] = dataclasses.replace(lineage[2], parent=lineage[0].state_root)
    verdicts = verify(materials, lineage)
    assert [v.verdict for v in verdicts] == ["agrees", "agrees", "differs"]
    assert "its parent is" in verdicts[2].problems[0]


@pytest.mark.parametrize("steps", [3, 5])
def test_verify_steps_outside_the_task_differ(materials: Materials, lineage: list[Checkpoint], steps: int) -> None:
    lineage[0] = dataclasses.replace(lineage[0], steps=steps)
    verdicts = verify(materials, lineage, 0)
    assert verdicts[0].verdict == "differs"
    assert f"it did {steps} steps, and 4 to 4 are asked" in verdicts[0].problems


def test_verify_after_a_false_round_whose_state_is_gone_is_unchecked(
    materials: Materials, lineage: list[Checkpoint]
) -> None:
    lineage[1] = dataclasses.replace(lineage[1], state_root=b"\x77" * 32)
    lineage[2] = dataclasses.replace(lineage[2], parent=b"\x77" * 32)
    verdicts = verify(materials, lineage)
    assert [v.verdict for v in verdicts] == ["agrees", "differs", "unchecked"]
    assert "round 1 differs" in verdicts[2].problems[0]
    result = TaskVerdict(task=1, rounds=tuple(verdicts))
    assert result.first_difference is verdicts[1]
    assert result.unchecked == (verdicts[2],)


def test_verify_damaged_file_is_reported_apart(tiny: TinyTask, materials: Materials, lineage: list[Checkpoint]) -> None:
    path = Path(tiny.store._root) / state_path(lineage[0].state_root)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    verdicts = verify(materials, lineage)
    assert [v.verdict for v in verdicts] == ["agrees"] * 3
    assert [v.stored for v in verdicts] == ["corrupt", "whole", "whole"]
    assert TaskVerdict(task=1, rounds=tuple(verdicts)).damaged == (verdicts[0],)


def test_verify_round_without_a_result_is_refused(materials: Materials, lineage: list[Checkpoint]) -> None:
    with pytest.raises(SpecificationError, match="Round 3 of task 1 has no result yet; 3 rounds have"):
        verify(materials, lineage, 3)


def test_replay_round_can_be_stopped(materials: Materials, states: list[State], lineage: list[Checkpoint]) -> None:
    long = dataclasses.replace(lineage[0], steps=50)
    assert replay_round(materials, states[0], long, should_stop=lambda: True) is None
    whole = replay_round(materials, states[0], lineage[0])
    assert whole is not None
    assert whole.matches
    assert whole.actual == state_root(whole.state.values())


def test_round_verdict_as_json_holds_no_number_that_json_lacks(materials: Materials, lineage: list[Checkpoint]) -> None:
    import json

    lineage[0] = dataclasses.replace(lineage[0], heldout_loss=0x7FC00000)
    (verdict,) = verify(materials, lineage, 0)
    assert verdict.verdict == "differs"
    document = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
    assert document["heldout_loss"] is None
    assert document["round"] == 0
