"""Every field of a lineage changed in turn, and the last submission: what replay says of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from small_programs import users_engine
from worker_bench import TinyTask, publish_tiny_task
from worker_fakes import ALICE, BOB, REQUESTER, TOKEN, FakeChain, FakeLedger

from ledger.canonical import root_hex
from ledger.errors import SpecificationError
from ledger.performance import float_bits
from ledger.types import Checkpoint, Task
from trainer.checkpoints import save_state, state_path
from trainer.commit.states import loss_proof, state_root
from trainer.engine.engines import ReferenceEngine
from trainer.engine.segment import StepReport
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import Materials, fetch_description, fetch_materials
from trainer.verify.replay import ReplayResult, replay_round
from trainer.verify.task import Claim, RoundVerdict, TaskVerdict, TaskVerifier, claims_of

ROUNDS, STEPS = 3, 3
STRANGE = b"\x77" * 32


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    changes = {"minimum_steps": 2}
    return publish_tiny_task(tmp_path_factory.mktemp("tampering") / "store", rounds=ROUNDS, steps=STEPS, **changes)


@pytest.fixture(scope="module")
def states(tiny: TinyTask) -> list[State]:
    states = tiny.states(ROUNDS)
    for state in states:
        save_state(tiny.store, state, tiny.program.layout)
    return states


@pytest.fixture(scope="module")
def materials(tiny: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Materials:
    task = Task(number=1, parameters=tiny.parameters, requester=REQUESTER, current_round=ROUNDS, closed=False)
    return fetch_materials(fetch_description(task, tiny.store), tiny.store, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def lineage(states: list[State]) -> list[Checkpoint]:
    roots = [state_root(state.values()) for state in states]
    return [
        Checkpoint(
            task=1,
            round=number,
            parent=roots[number],
            state_root=roots[number + 1],
            worker=ALICE,
            steps=STEPS,
            heldout_loss=heldout_loss_bits(states[number + 1]),
        )
        for number in range(ROUNDS)
    ]


def verdicts_of(materials: Materials, lineage: list[Checkpoint], **options: Any) -> list[RoundVerdict]:
    claims = [Claim(entry=entry, final=True) for entry in lineage]
    return list(TaskVerifier(materials, claims, **{"engine": users_engine(), **options}).verify(range(len(claims))))


def summary(verdicts: list[RoundVerdict]) -> list[tuple[str, str]]:
    return [(verdict.verdict, verdict.stored) for verdict in verdicts]


@pytest.mark.parametrize("at", range(ROUNDS))
def test_verify_false_root_in_any_round_is_the_first_difference(
    materials: Materials, lineage: list[Checkpoint], at: int
) -> None:
    true = lineage[at].state_root
    lineage[at] = dataclasses.replace(lineage[at], state_root=STRANGE)
    verdicts = verdicts_of(materials, lineage)
    verdict = TaskVerdict(task=1, rounds=tuple(verdicts)).first_difference
    assert verdict is verdicts[at]
    assert (verdict.replayed, verdict.stored) == (true, "missing")
    assert verdict.problems == (f"the replay ends in {root_hex(true)}, but {root_hex(STRANGE)} was submitted",)
    assert [one.verdict for one in verdicts[:at]] == ["agrees"] * at
    if at + 1 < ROUNDS:  # what follows names the true base, which the false round did not end in
        assert verdicts[at + 1].problems == (
            f"its parent is {root_hex(true)}, but the round before ended in {root_hex(STRANGE)}",
        )
        assert [one.verdict for one in verdicts[at + 2 :]] == ["agrees"] * (ROUNDS - at - 2)


@pytest.mark.parametrize("at", range(ROUNDS))
@pytest.mark.parametrize("loss", [0x00000000, 0x7F800000, 0x7FC00000, 0xBF800000])
def test_verify_false_loss_in_any_round_differs_alone(
    materials: Materials, lineage: list[Checkpoint], at: int, loss: int
) -> None:
    lineage[at] = dataclasses.replace(lineage[at], heldout_loss=loss)
    verdicts = verdicts_of(materials, lineage)
    assert summary(verdicts) == [("differs" if number == at else "agrees", "whole") for number in range(ROUNDS)]
    shown = {0: "0.0", 0x7F800000: "inf", 0x7FC00000: "nan", 0xBF800000: "-1.0"}[loss]
    (problem,) = verdicts[at].problems
    assert problem.endswith(f", but {shown} was submitted")


def test_verify_loss_one_bit_away_differs(materials: Materials, lineage: list[Checkpoint]) -> None:
    lineage[1] = dataclasses.replace(lineage[1], heldout_loss=lineage[1].heldout_loss ^ 1)
    assert [one.verdict for one in verdicts_of(materials, lineage)] == ["agrees", "differs", "agrees"]


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_verify_false_number_of_steps_differs_even_where_it_is_allowed(
    materials: Materials, lineage: list[Checkpoint], steps: int
) -> None:
    lineage[2] = dataclasses.replace(lineage[2], steps=steps)
    verdict = verdicts_of(materials, lineage)[2]
    assert verdict.verdict == "differs"
    allowed = [f"it did {steps} steps, and 2 to 3 are asked"] if steps != 2 else []
    assert list(verdict.problems[: len(allowed)]) == allowed
    assert any(problem.startswith("the replay ends in ") for problem in verdict.problems)


def test_verify_two_rounds_swapped_differ(materials: Materials, lineage: list[Checkpoint]) -> None:
    first, second, third = lineage
    swapped = [dataclasses.replace(second, round=0), dataclasses.replace(first, round=1), third]
    verdicts = verdicts_of(materials, swapped)
    assert [one.verdict for one in verdicts] == ["differs", "differs", "differs"]
    assert all(any(problem.startswith("its parent is ") for problem in one.problems) for one in verdicts)


def test_verify_state_of_another_round_under_the_name_is_corrupt(
    tiny: TinyTask, materials: Materials, lineage: list[Checkpoint], states: list[State]
) -> None:
    folder = Path(tiny.store._root)
    path = folder / state_path(lineage[1].state_root)
    whole = path.read_bytes()
    path.write_bytes((folder / state_path(lineage[0].state_root)).read_bytes())
    try:
        verdicts = verdicts_of(materials, lineage)
    finally:
        path.write_bytes(whole)
    assert summary(verdicts) == [("agrees", "whole"), ("agrees", "corrupt"), ("agrees", "whole")]
    assert f"its tensors have the root {root_hex(lineage[0].state_root)}" in verdicts[1].stored_problem


def test_verify_worker_and_order_of_the_question_change_nothing(
    materials: Materials, lineage: list[Checkpoint]
) -> None:
    lineage[1] = dataclasses.replace(lineage[1], worker=BOB)
    claims = [Claim(entry=entry, final=True) for entry in lineage]
    asked = list(TaskVerifier(materials, claims).verify([2, 0, 2, 1]))
    assert [(one.claim.entry.round, one.claim.entry.worker, one.verdict) for one in asked] == [
        (0, ALICE, "agrees"),
        (1, BOB, "agrees"),
        (2, ALICE, "agrees"),
    ]


@pytest.mark.parametrize("rounds", [[-1], [0, 3], [99]])
def test_verify_unknown_round_refused_before_any_replay(
    materials: Materials, lineage: list[Checkpoint], rounds: list[int]
) -> None:
    seen: list[int] = []
    claims = [Claim(entry=entry, final=True) for entry in lineage]
    verifier = TaskVerifier(materials, claims, on_step=lambda number, _: seen.append(number))
    with pytest.raises(SpecificationError, match=f"Round {max(rounds) if max(rounds) > 2 else -1} of task 1") as caught:
        list(verifier.verify(rounds))
    assert (caught.value.field, caught.value.remedy, seen) == ("round", "Name a round below 3.", [])


def test_verify_reports_the_steps_of_the_round_that_it_replays(materials: Materials, lineage: list[Checkpoint]) -> None:
    seen: list[tuple[int, int]] = []

    def note(number: int, report: StepReport) -> None:
        seen.append((number, report.step))

    verdicts_of(materials, lineage, on_step=note)
    assert seen == [(0, 3), (1, 6), (2, 9)]


def test_replay_round_false_base_gives_another_root(
    materials: Materials, states: list[State], lineage: list[Checkpoint]
) -> None:
    nudged = type(states[0])((name, tensor.clone()) for name, tensor in states[0].items())
    nudged["parameter.embedding.weight"][0, 0] += 2**-20
    for base, matches in ((states[0], True), (nudged, False)):
        result = replay_round(materials, base, lineage[0])
        assert result is not None
        assert (result.matches, result.actual == lineage[0].state_root) == (matches, matches)
        assert (result.round, result.steps, result.expected) == (0, 3, lineage[0].state_root)


@pytest.mark.parametrize(("root", "loss", "matches"), [(0, 0, True), (1, 0, False), (0, 1, False), (1, 1, False)])
def test_replay_result_matches_only_in_root_and_loss(states: list[State], root: int, loss: int, matches: bool) -> None:
    actual, bits = state_root(states[0].values()), float_bits(2.5)
    result = ReplayResult(
        round=0,
        expected=STRANGE if root else actual,
        actual=actual,
        expected_loss=bits + loss,
        actual_loss=bits,
        steps=1,
        seconds=0.1,
        state=states[0],
    )
    assert result.matches is matches


@pytest.mark.parametrize("threads", [None, 1, 2], ids=["reference", "1 thread", "2 threads"])
def test_verify_gives_the_same_verdicts_on_every_engine(
    materials: Materials, lineage: list[Checkpoint], threads: int | None
) -> None:
    true = [entry.state_root for entry in lineage]
    lineage[2] = dataclasses.replace(lineage[2], state_root=STRANGE)
    verdicts = verdicts_of(materials, lineage, engine=ReferenceEngine() if threads is None else users_engine(threads))
    assert summary(verdicts) == [("agrees", "whole"), ("agrees", "whole"), ("differs", "missing")]
    assert [one.replayed for one in verdicts] == true


def test_claims_of_are_the_lineage_and_the_open_submission(tiny: TinyTask, states: list[State]) -> None:
    ledger = FakeLedger()
    number = ledger.post(tiny.parameters)
    ledger.stake(ALICE, 50 * TOKEN)
    chain = FakeChain(ledger, ALICE)
    assert claims_of(chain, chain.task(number)) == []
    for at, state in enumerate(states[1:]):
        base = chain.base_root(number, at)
        chain.claim(chain.task(number), at, base_root=base, attempt=0, worker=ALICE)
        assert len(claims_of(chain, chain.task(number))) == at  # a lease is no result
        root, bits = state_root(state.values()), heldout_loss_bits(state)
        proof = loss_proof(state.values())
        chain.submit(number, at, attempt=0, base_root=base, state_root=root, steps=3, loss_bits=bits, proof=proof)
        claims = claims_of(chain, chain.task(number))
        assert [claim.final for claim in claims] == [True] * at + [False]
        expected = Checkpoint(
            task=number, round=at, parent=base, state_root=root, worker=ALICE, steps=3, heldout_loss=bits
        )
        assert claims[-1].entry == expected
        ledger.advance(101)
        chain.finalise(number, at, attempt=0, state_root=root)
        assert claims_of(chain, chain.task(number))[-1] == Claim(entry=expected, final=True)
    assert chain.task(number).complete
