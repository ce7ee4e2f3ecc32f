"""Whole games in memory about merges: whatever is wrong anywhere loses, states that nobody submitted among it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from arena import dispute, matter_of
from dispute_programs import base_state, dataset, task
from liars import Plant, plants
from merge_programs import SLOTS, merge_inputs, merged_task, slot_state
from plain_truth import Lies, record_of
from small_programs import engine
from test_game_matrix import check, random_games
from test_game_rules import replayed
from torch import Tensor
from worlds import LONG, LONGEST, SHORT, merge_world, random_merge_world

from ledger.disputes.moves import ProgramProof
from ledger.disputes.positions import Phase
from trainer.commit.hashing import Kind, leaf, merkle_proof, merkle_root, seal
from trainer.commit.states import inputs_root, state_root
from trainer.commit.tensors import tensor_root
from trainer.dispute import judge, runs
from trainer.dispute.explain import explain, program_of
from trainer.dispute.proving import Refused, entered_run
from trainer.dispute.truth import SegmentTruth
from trainer.dispute.values import RunValues, Truth
from trainer.engine.engines import Engine, ReferenceEngine
from trainer.engine.segment import run_merge
from trainer.engine.state import State
from trainer.program.exact import program_root
from trainer.program.exact.operations import Load

MERGE, EVALUATION = 0, 1


@pytest.mark.parametrize("make", [ReferenceEngine, engine], ids=["reference", "compiled"])
def test_truth_of_a_merge_is_what_merging_gives(make: Callable[[], Engine]) -> None:
    on = make()
    base, inputs, program = base_state(LONG), merge_inputs(LONG), merged_task(LONG)
    truth = SegmentTruth(program, dataset(), base, steps=1, inputs=inputs, slot=SLOTS, engine=on)
    roots = [None if state is None else state_root(state.values()) for state in inputs]
    assert truth.state_root(0) == inputs_root(state_root(base.values()), roots)
    assert truth.state_root(2) == state_root(run_merge(program, dataset(), base, inputs, engine=on).state.values())
    for number in range(2):
        assert truth.run(number).state_before == truth.state_root(number)
        assert truth.run(number).state_after == truth.state_root(number + 1)
    assert len(truth.state(0)) == (SLOTS + 1) * len(truth.state(1)) == (SLOTS + 1) * len(truth.state(2))


@pytest.mark.parametrize(
    ("count", "steps", "merges"), [(2, 1, True), (4, 1, True), (3, 2, True), (3, 0, True), (3, 1, False)]
)
def test_truth_of_no_merge_of_the_task_is_refused(count: int, steps: int, merges: bool) -> None:
    program = merged_task(SHORT) if merges else task(SHORT)
    with pytest.raises(ValueError, match=f"no merge of {count} states in {steps} steps"):
        SegmentTruth(program, dataset(), base_state(SHORT), steps=steps, inputs=[None] * count)


def test_truth_of_a_merge_hashes_a_missing_slot_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(runs, "tensor_root", lambda tensor: hashed.append(tensor) or tensor_root(tensor))
    truth = SegmentTruth(merged_task(SHORT), dataset(), base_state(SHORT), steps=1, inputs=[None] * SLOTS)
    assert truth.state_root(0) == inputs_root(state_root(base_state(SHORT).values()), [None] * SLOTS)
    assert len(hashed) == len(base_state(SHORT))


@pytest.mark.parametrize(
    ("place", "merges", "number", "takes"),
    [
        (1, False, 0, 0),
        (2, False, 1, 0),
        (5, True, 0, SLOTS),
        (2, True, 1, 0),
        (1, False, 0, SLOTS),  # from here on the header is of another kind of program than the run
        (2, False, 1, SLOTS),
        (5, True, 0, 0),
        (2, True, 1, SLOTS),
    ],
)
def test_entering_a_run_needs_as_many_inputs_as_its_kind(place: int, merges: bool, number: int, takes: int) -> None:
    program = (merged_task(SHORT).merge if takes else task(SHORT).training).program  # type: ignore[union-attr]  # it has one
    records = [b"TLXT\x00\x02\x00\x00" + bytes(8), *(bytes(32) for _ in range(5))]
    records[place] = program_root(program)
    leaves = [leaf(Kind.PROGRAM, record) for record in records]
    root = seal(Kind.PROGRAM, 2, 6, merkle_root(Kind.PROGRAM, leaves))
    matter = matter_of(merge_world(SHORT).plain, submitted=bytes(32), claimed=bytes(32))
    matter = replace(matter, task_program=root, merge=merges)
    seed, path = (tuple(merkle_proof(Kind.PROGRAM, leaves, at)) for at in (0, place))
    proof = ProgramProof(0, seed, records[place], path, record_of(program, 0))
    if takes == (SLOTS if place == 5 else 0):
        run = entered_run(matter, number, b"before".ljust(32), proof)
        assert (run.program, run.inputs, run.states) == (records[place], takes, 5)
    else:
        with pytest.raises(Refused, match="WrongRecord"):
            entered_run(matter, number, b"before".ljust(32), proof)


def test_games_about_merges_spread_over_all_lies_honest_side_wins() -> None:
    rng, moves = random.Random(1), Counter[str]()
    for length, count in ((SHORT, 14), (LONG, 10)):
        at = merge_world(length)
        for run in (MERGE, EVALUATION):
            every = list(plants(at.plain.run(run), rng))
            moves += check(at, run, rng.sample(every, count))
    assert {"EnterRun", "EnterTensor", "EnterState", "OpenChunk", "ProveElement", "ProveStateLeaf"} <= moves.keys()


@pytest.mark.parametrize("state", range(SLOTS + 1))
def test_games_about_every_tensor_of_every_state_that_is_loaded(state: int) -> None:
    at = merge_world(SHORT)
    tensors = at.plain.run(MERGE).states
    loads = [
        number
        for number, one in enumerate(at.plain.run(MERGE).program.operations)
        if isinstance(one.attributes, Load) and one.attributes.index // tensors == state
    ]
    chosen = [
        plant
        for plant in plants(at.plain.run(MERGE), random.Random(2))
        if plant.name.startswith(tuple(f"load {number} element" for number in loads)) and plant.name.endswith("alone")
    ]
    assert len(chosen) >= len(loads) > 0
    assert check(at, MERGE, chosen)["ProveElement"] == 2 * len(chosen)


@pytest.mark.parametrize("name", ["parameter.x", "counter.step", "moment.unused"])
def test_games_about_a_tensor_of_the_state_after_a_merge(name: str) -> None:
    at = merge_world(SHORT)
    chosen = [one for one in plants(at.plain.run(MERGE), random.Random(3)) if one.name.startswith(f"state {name} ")]
    assert len(chosen) > 2
    check(at, MERGE, chosen)


def test_games_about_an_unchanged_tensor_that_is_a_slots_and_not_the_bases() -> None:
    at = merge_world(SHORT)
    number = list(base_state(SHORT)).index("moment.unused")
    for slot in (0, 2):

        def slots(tensor: Tensor, slot: int = slot) -> None:
            tensor.copy_(slot_state(SHORT, slot)["moment.unused"])

        moves = check(at, MERGE, [Plant(f"the moment of slot {slot}", Lies(states={number: slots}))])
        assert moves["ProveStateLeaf"] == 2


@dataclass
class OtherInputs:
    """Values of a merge of other states, by one who says that they are the round's. Its evidence leads to its own."""

    own: Truth
    agreed: bytes

    def state_root(self, run: int) -> bytes:
        return self.own.state_root(run) if run else self.agreed

    def run(self, number: int) -> RunValues:
        return self.own.run(number)

    def program_proof(self, number: int) -> ProgramProof:
        return self.own.program_proof(number)


@pytest.mark.parametrize("honest", ["challenger", "defender"])
@pytest.mark.parametrize(
    "inputs",
    [
        [slot_state(SHORT, 0), slot_state(SHORT, 1), slot_state(SHORT, 2)],  # one that is missing
        [slot_state(SHORT, 2), None, slot_state(SHORT, 0)],  # exchanged
        [slot_state(SHORT, 0), None, None],  # left out
        [slot_state(SHORT, 0), None, slot_state(SHORT, 3)],  # another state of a slot
    ],
    ids=["not missing", "exchanged", "left out", "another"],
)
def test_games_about_other_inputs_than_the_rounds(inputs: list[State | None], honest: str) -> None:
    at = merge_world(SHORT)
    wrong = SegmentTruth(merged_task(SHORT), dataset(), base_state(SHORT), steps=1, inputs=inputs)
    assert wrong.state_root(0) != at.party.state_root(0)
    assert wrong.state_root(2) != at.party.state_root(2)
    # Proofs of its own states are refused.
    game = dispute(at.plain, OtherInputs(wrong, at.party.state_root(0)), judge, honest=honest, party=at.party)
    assert game.late or game.names[-1] == "ProveElement"
    # With the honest side's proofs, what it reads is refuted.
    plain = at.plain.of_state([tensor for one in (base_state(SHORT), *inputs) for tensor in _given(one)], at.party)
    game = dispute(at.plain, OtherInputs(plain, at.party.state_root(0)), judge, honest=honest, party=at.party)
    assert not game.late
    assert game.names[-1] == "ProveElement"


def _given(state: State | None) -> list[Tensor]:
    return list((base_state(SHORT) if state is None else state).values())


def test_games_about_merges_against_random_moves_honest_side_wins() -> None:
    assert sum(random_games(merge_world(LONG), 5, 30).values()) > 90


def test_explain_names_the_merge_program_and_a_tensor_once() -> None:
    at, programs = merge_world(LONG), merged_task(LONG)
    program = programs.merge.program if programs.merge is not None else None
    assert program is not None
    number = next(n for n, one in enumerate(program.operations) if one.code.name == "CAT")
    found = {one.position.phase: one.position for one, _ in replayed(at, f"cat {number} element 0 alone", run=MERGE)}
    assert program_of(programs, found[Phase.CHUNK]).program == program
    said = explain(program, found[Phase.CHUNK])
    assert said is not None
    assert (said.program, said.near) == ("merge", ("parameter.x",))
    ended = {one.position.phase: one.position for one, _ in replayed(at, "state moment.unused root", run=EVALUATION)}
    assert program_of(programs, ended[Phase.TRACE]) is programs.evaluation


@pytest.mark.full
@pytest.mark.parametrize("run", [MERGE, EVALUATION])
@pytest.mark.parametrize("length", [SHORT, LONG, LONGEST])
def test_games_about_merges_of_every_lie_honest_side_wins(length: int, run: int) -> None:
    at = merge_world(length)
    check(at, run, plants(at.plain.run(run), random.Random(length)))


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(number, marks=pytest.mark.full) for number in range(4, 40))]
)
def test_games_about_random_merges_honest_side_wins(seed: int) -> None:
    at, rng = random_merge_world(seed), random.Random(seed)
    every = list(plants(at.plain.run(MERGE), rng))
    check(at, MERGE, rng.sample(every, min(len(every), 12)) if seed < 4 else every)
