from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ledger.open.records import OpenParameters, OpenPhase, OpenRound, OpenSlot, OpenTask, Question, Stage
from ledger.open.words import due_now
from trainer.open.policy import Deed, Due, RoundView, why_waiting, work_due

ME, OTHER, NOBODY = "0x" + "aB" * 20, "0x" + "Cd" * 20, "0x" + "00" * 20
PARAMETERS = OpenParameters(
    specification_hash=b"s" * 32,
    program_root=b"p" * 32,
    initial_state_root=b"i" * 32,
    train_leaf=b"t" * 32,
    public_node=b"n" * 32,
    held_out_bytes=64,
    state_tensors=4,
    slots_per_round=2,
    full_gain=0x3F800000,
    slot_reward=10,
    floor_reward=1,
    score_reward=1,
    bond=5,
    fee=1,
    commit_seconds=100,
    reveal_seconds=100,
    held_out_seconds=100,
    lease_seconds=100,
    challenge_window=100,
)


def slot(number: int, stage: Stage, worker: str = OTHER, **changes: Any) -> OpenSlot:
    made = OpenSlot(
        task=1,
        round=0,
        slot=number,
        worker=worker,
        attempt=0,
        deadline=0,
        stage=stage,
        open_games=0,
        payout=worker,
        held_out_loss=0,
        bonded=True,
        question=Question.NONE,
        commitment=bytes(32),
        trained_root=bytes(32),
        scored_root=bytes(32),
    )
    return replace(made, **changes)


def view(
    now: int, *slots: OpenSlot, baseline: Stage = Stage.EMPTY, phase: OpenPhase = OpenPhase.RUNNING, **state: Any
) -> RoundView:
    numbers: dict[str, Any] = {"commit_end": 0, "reveal_end": 0, "held_out_end": 0, "held_out_at": 0, "resolved": 0}
    opened = [one for one in slots if one.stage not in (Stage.EMPTY, Stage.COMMITTED)]
    numbers |= {"committed": len(slots), "opened": len(opened), "best": None}
    numbers["revealed"] = sum(one.stage is not Stage.COPY for one in opened)
    task = OpenTask(number=1, parameters=PARAMETERS, requester="0x", rounds=2, current_round=0, phase=phase)
    own = next((one.slot for one in slots if one.worker == ME), None)
    return RoundView(
        task=task,
        state=OpenRound(task=1, round=0, **(numbers | state)),
        slots=(*slots, slot(2, baseline, NOBODY)),
        own=own,
        now=now,
    )


PERIODS = {"commit_end": 100, "reveal_end": 200, "held_out_end": 300}
SHOWN = {"commit_end": 50, "reveal_end": 60, "held_out_end": 160, "held_out_at": 100}


@pytest.mark.parametrize(
    ("at", "due"),
    [
        (view(10), [Due(Deed.COMMIT)]),
        (view(10, slot(0, Stage.COMMITTED), **PERIODS), [Due(Deed.COMMIT)]),
        (view(101, slot(0, Stage.COMMITTED), **PERIODS), []),
        (view(10, phase=OpenPhase.CLOSED), []),
        (view(10, slot(0, Stage.COMMITTED, ME), **PERIODS), []),  # more can come
        (view(101, slot(0, Stage.COMMITTED, ME), **PERIODS), [Due(Deed.REVEAL, 0)]),
        (view(10, slot(0, Stage.COMMITTED), slot(1, Stage.COMMITTED, ME), **PERIODS), [Due(Deed.REVEAL, 1)]),
        (view(201, slot(0, Stage.COMMITTED, ME), **PERIODS), []),
        (view(101, slot(0, Stage.REVEALED, ME), **PERIODS), []),
    ],
)
def test_what_a_worker_does_before_the_data_is_shown(at: RoundView, due: list[Due]) -> None:
    assert work_due(at, ME) == due


def test_a_worker_scores_its_own_state_then_the_base_then_what_others_left() -> None:
    slots = (slot(0, Stage.REVEALED), slot(1, Stage.REVEALED, ME.upper().replace("0X", "0x")))
    early, late = (view(now, *slots, baseline=Stage.REVEALED, **SHOWN) for now in (150, 201))
    assert [due.slot for due in work_due(early, ME)] == [1, 2]
    assert [due.slot for due in work_due(late, ME)] == [1, 2, 0]
    won = slot(0, Stage.REVEALED, OTHER, attempt=1, deadline=300)
    assert [due.slot for due in work_due(view(250, won, baseline=Stage.FINALISED, **SHOWN), ME)] == []
    assert [due.slot for due in work_due(view(301, won, baseline=Stage.FINALISED, **SHOWN), ME)] == [0]


@pytest.mark.parametrize(
    ("at", "due"),
    [
        (view(150, slot(0, Stage.COMMITTED), **PERIODS), None),
        (view(201, slot(0, Stage.COMMITTED), **PERIODS), ("forfeit", 0)),
        (view(201, slot(0, Stage.MISSING), **PERIODS, opened=0, revealed=0), ("skip", None)),
        (view(150, slot(0, Stage.COPY), slot(1, Stage.COPY), **PERIODS), ("skip", None)),
        (view(300, slot(0, Stage.REVEALED), **PERIODS), None),
        (view(301, slot(0, Stage.REVEALED), **PERIODS), ("settle_default", 0)),
        (view(301, slot(0, Stage.REVEALED, question=Question.OPEN), **PERIODS), None),
        (view(300, slot(0, Stage.REVEALED), baseline=Stage.REVEALED, **SHOWN), None),
        (view(301, slot(0, Stage.REVEALED), baseline=Stage.FINALISED, **SHOWN), ("expire", 0)),
        (view(301, slot(0, Stage.FINALISED), baseline=Stage.REVEALED, **SHOWN), ("expire", 2)),
        (view(200, slot(0, Stage.SCORED, deadline=199), baseline=Stage.REVEALED, **SHOWN), None),
        (view(200, slot(0, Stage.SCORED, deadline=200), baseline=Stage.MISSING, **SHOWN), None),
        (view(200, slot(0, Stage.SCORED, deadline=199), baseline=Stage.MISSING, **SHOWN), ("finalise", 0)),
        (view(200, slot(0, Stage.SCORED, deadline=199, open_games=1), baseline=Stage.MISSING, **SHOWN), None),
        (view(200, slot(0, Stage.SCORED, deadline=199, question=Question.OPEN), baseline=Stage.MISSING, **SHOWN), None),
    ],
)
def test_what_anybody_may_do(at: RoundView, due: tuple[str, int | None] | None) -> None:
    found = [
        (one.action, None if one.slot is None else one.slot.slot)
        for one in due_now(at.task, at.state, at.slots, now=at.now)
    ]
    assert found[:1] == ([] if due is None else [due])


@pytest.mark.parametrize(
    ("at", "code", "until"),
    [
        (view(10, slot(0, Stage.COMMITTED, ME), **PERIODS), "commits", 100),
        (view(101, slot(0, Stage.COMMITTED), **PERIODS), "reveals", 200),
        (view(101, slot(0, Stage.REVEALED, ME), **PERIODS), "held-out", 300),
        (view(150, slot(0, Stage.REVEALED), baseline=Stage.SCORED, **SHOWN), "scores", 200),
        (view(150, slot(0, Stage.SCORED, deadline=180), baseline=Stage.FINALISED, **SHOWN), "windows", 180),
        (view(150, slot(0, Stage.SCORED, open_games=1), baseline=Stage.FINALISED, **SHOWN), "disputes", None),
        (
            view(150, slot(0, Stage.SCORED, question=Question.OPEN), baseline=Stage.FINALISED, **SHOWN),
            "questions",
            None,
        ),
        (view(10, phase=OpenPhase.CLOSED), "closed", None),
    ],
)
def test_why_a_round_waits(at: RoundView, code: str, until: int | None) -> None:
    waiting = why_waiting(at, ME)
    assert (waiting.code, waiting.until) == (code, until)


def test_when_a_task_is_over() -> None:
    assert not view(10).over
    assert view(10, phase=OpenPhase.CLOSED).over
    assert not view(10, slot(0, Stage.COMMITTED), phase=OpenPhase.CLOSED, **PERIODS).over
    defaulted = {"phase": OpenPhase.CLOSED, **PERIODS}
    assert not view(301, slot(0, Stage.FINALISED), slot(1, Stage.REVEALED), **defaulted).over
    assert view(301, slot(0, Stage.FINALISED), slot(1, Stage.FINALISED), **defaulted).over
