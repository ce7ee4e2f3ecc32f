"""A game in the words of its program."""

from __future__ import annotations

import dataclasses

from dispute_programs import task
from test_game_rules import replayed  # the positions of whole games
from worlds import LONG, world

from ledger.disputes.positions import Phase, Position
from trainer.dispute.explain import explain, near_tensors

PROGRAM = task(LONG).training.program


def positions(lie: str) -> dict[Phase, Position]:
    return {played.position.phase: played.position for played, _ in replayed(world(LONG), lie)}


def test_explain_fold_names_operation_parameter_and_element() -> None:
    found = positions("matmul 10 fold wrong from block 3")
    said = explain(PROGRAM, found[Phase.FOLD])
    assert said is not None
    assert said.line.startswith("%10: f32[2, 2] = MATMUL(%6[0 + 2500·0], %8")
    assert (said.program, said.kind, said.near) == ("training", "MATMUL", ("parameter.x",))
    assert (said.first, said.last, said.index) == (
        found[Phase.FOLD].fold.element,
        found[Phase.FOLD].fold.element,
        divmod(found[Phase.FOLD].fold.element, 2),
    )
    assert str(said).endswith(f"in the training program, near parameter.x; element {list(said.index or ())}")


def test_explain_chunk_names_its_elements_up_to_the_tensors_end() -> None:
    said = explain(PROGRAM, positions("pointwise 28 padding")[Phase.CHUNK])
    assert said is not None
    assert (said.first, said.last, said.index) == (19 * 256, 4_999, None)
    assert said.as_json() == {
        "program": "training",
        "line": said.line,
        "near": ["parameter.x"],
        "first_element": 19 * 256,
        "last_element": 4_999,
        "index": None,
    }


def test_explain_state_tensor_by_its_name() -> None:
    found = positions("state counter.step element 0")
    said = explain(PROGRAM, found[Phase.CHUNK])
    assert said is not None
    assert (said.kind, said.near, said.index) == ("counter.step", (), (0,))
    assert said.line == "state counter.step: i64[1] <- %32"


def test_explain_nothing_before_a_tensor_is_entered() -> None:
    for phase, position in positions("state counter.step element 0").items():
        assert (explain(PROGRAM, position) is None) is (phase in (Phase.RUNS, Phase.TRACE, Phase.STATE))


def test_explain_last_run_is_of_the_evaluation() -> None:
    position = positions("matmul 10 fold wrong from block 3")[Phase.FOLD]
    last = dataclasses.replace(position, run=dataclasses.replace(position.run, number=position.matter.steps))
    said = explain(PROGRAM, last)
    assert said is not None
    assert said.program == "evaluation"


def test_near_tensors_parameters_before_others_nearest_first() -> None:
    assert near_tensors(PROGRAM, 29) == ["parameter.table"]
    assert near_tensors(PROGRAM, 31) == ["counter.step"]
    assert near_tensors(PROGRAM, 21) == ["parameter.x"]
