from __future__ import annotations

from typing import Any

import pytest
from dispute_positions import CHALLENGER, position, run_entered, word

from ledger.disputes.positions import Folding, GameView, Outcome, Phase, Position, Subject, View
from ledger.disputes.words import Place, describe_outcome, describe_place, place_of


def tree(**fields: Any) -> View:
    usual: dict[str, Any] = {"leaves": 831, "index": 0, "height": 10, "width": 6, "node": word(1)}
    return View(**(usual | fields))


def subject(**fields: Any) -> Subject:
    usual: dict[str, Any] = {"of_state": False, "number": 412, "dtype": 1, "size": 65_536, "record": word(7)}
    return Subject(**(usual | fields))


def inside(phase: Phase, **fields: Any) -> Position:
    return position(phase=phase, run=run_entered(), **fields)


CASES: list[tuple[Position, str, Place]] = [
    (position(), "which of the runs 0 to 100 (of 101) differs first", Place()),
    (position(low=36, high=38), "which of the runs 36 to 37 (of 101) differs first", Place()),
    (position(low=37, high=38), "run 37 of 101", Place(run=37)),
    (
        inside(Phase.TRACE, tree=tree()),
        "run 37 of 101, which of the operations 0 to 829 (of 830) or the state after it differs first",
        Place(run=37),
    ),
    (
        inside(Phase.TRACE, tree=tree(height=4, index=25, width=4)),
        "run 37 of 101, which of the operations 400 to 415 (of 830) differs first",
        Place(run=37),
    ),
    (inside(Phase.TRACE, tree=tree(height=0, index=4, width=0)), "run 37 of 101, operation 4 of 830", Place(run=37)),
    (inside(Phase.TRACE, tree=tree(height=0, index=830, width=0)), "run 37 of 101, the state after it", Place(run=37)),
    (
        inside(Phase.STATE, tree=tree(leaves=12, height=4, width=4)),
        "run 37 of 101, the state after it, which of the tensors 0 to 11 (of 12) differs first",
        Place(run=37),
    ),
    (
        inside(Phase.TENSOR, subject=subject(), tree=tree(leaves=64, height=6)),
        "run 37 of 101, operation 412 of 830, which of the chunks 0 to 63 (of 64) differs first",
        Place(run=37, operation=412),
    ),
    (
        inside(Phase.TENSOR, subject=subject(of_state=True, number=3), tree=tree(leaves=1, height=0, width=0)),
        "run 37 of 101, tensor 3 of 12 of the state after it, chunk 0 of 1",
        Place(run=37, tensor=3),
    ),
    (
        inside(Phase.CHUNK, subject=subject(), tree=tree(leaves=64, height=0, width=0, index=5)),
        "run 37 of 101, operation 412 of 830, chunk 5 of 64",
        Place(run=37, operation=412, chunk=5),
    ),
    (
        inside(
            Phase.FOLD, subject=subject(), fold=Folding(element=1300, bits=9, opening=True), low=0, high=48, tree=tree()
        ),
        "run 37 of 101, operation 412 of 830, element 1300, blocks 0 to 47 of its fold",
        Place(run=37, operation=412, element=1300),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("made", "text", "place"), CASES, ids=[str(number) for number in range(len(CASES))])
def test_describe_place_of_every_phase(made: Position, text: str, place: Place) -> None:
    assert describe_place(made) == text
    assert place_of(made) == place


@pytest.mark.parametrize(
    ("outcome", "late", "text"),
    [
        (Outcome.RUNNING, False, "running"),
        (Outcome.VOID, False, "void: the submission fell in another game"),
        (Outcome.CHALLENGER_WON, False, "the challenger won by proof"),
        (Outcome.CHALLENGER_WON, True, "the challenger won: the defender did not move in time"),
        (Outcome.DEFENDER_WON, True, "the defender won: the challenger did not move in time"),
    ],
    ids=["running", "void", "proof", "late-defender", "late-challenger"],
)
def test_describe_outcome(outcome: Outcome, late: bool, text: str) -> None:
    view = GameView(
        position=position(), posted=b"", deadline=0, outcome=outcome, winner=CHALLENGER, late=late, moved_block=1
    )
    assert describe_outcome(view) == text
