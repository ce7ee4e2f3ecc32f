"""What a round of an open task waits for, and what anybody may do for it, by the records alone."""

from __future__ import annotations

from typing import Any

import pytest
from open_world import PERIOD, SLOTS, parameters

from ledger.open.records import OpenPhase, OpenRound, OpenSlot, OpenTask, Question, Stage, escrow_number
from ledger.open.words import Wait, describe_round, describe_slot, due_now, wait_of
from ledger.types import ZERO_ADDRESS

WORKER = "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
COMMITS, REVEALS, SHOWN_BY, SHOWN_AT = 1000, 2000, 3000, 2500


def task(**fields: Any) -> OpenTask:
    defaults: dict[str, Any] = {"rounds": 2, "current_round": 0, "phase": OpenPhase.RUNNING}
    return OpenTask(number=1, parameters=parameters(), requester=WORKER, **(defaults | fields))


def state(**fields: Any) -> OpenRound:
    """A round in which three states were committed to and opened, and whose held-out data was shown."""
    defaults: dict[str, Any] = {
        "commit_end": COMMITS, "reveal_end": REVEALS, "held_out_end": SHOWN_BY, "held_out_at": SHOWN_AT,
        "committed": SLOTS, "opened": SLOTS, "revealed": SLOTS, "resolved": 0, "best": None,
    }  # fmt: skip
    return OpenRound(task=1, round=0, **(defaults | fields))


def slot(number: int, stage: Stage, **fields: Any) -> OpenSlot:
    defaults: dict[str, Any] = {
        "worker": WORKER, "attempt": 0, "deadline": 0, "open_games": 0, "payout": WORKER, "held_out_loss": 0,
        "bonded": True, "question": Question.NONE, "commitment": bytes(32), "trained_root": bytes(32),
        "scored_root": bytes(32),
    }  # fmt: skip
    return OpenSlot(task=1, round=0, slot=number, stage=stage, **(defaults | fields))


def named(found: list[Any]) -> list[tuple[str, int | None]]:
    return [(due.action, None if due.slot is None else due.slot.slot) for due in found]


def test_due_the_baseline_goes_before_what_is_compared_with_it() -> None:
    slots = [slot(0, Stage.SCORED, deadline=5000), slot(1, Stage.REVEALED), slot(SLOTS, Stage.SCORED, deadline=5000)]
    assert named(due_now(task(), state(), slots, now=5000)) == [("expire", 1)]
    assert named(due_now(task(), state(), slots, now=5001)) == [("finalise", SLOTS), ("expire", 1)]
    final = [*slots[:2], slot(SLOTS, Stage.FINALISED)]
    assert named(due_now(task(), state(), final, now=5001)) == [("finalise", 0), ("expire", 1)]
    missing = [*slots[:2], slot(SLOTS, Stage.MISSING)]
    assert named(due_now(task(), state(), missing, now=5001)) == [("finalise", 0), ("expire", 1)]


@pytest.mark.parametrize("stopper", [{"open_games": 1}, {"question": Question.OPEN}, {"deadline": 6000}])
def test_due_nothing_is_final_that_is_disputed_asked_about_or_in_its_window(stopper: dict[str, Any]) -> None:
    slots = [slot(0, Stage.SCORED, **({"deadline": 5000} | stopper)), slot(SLOTS, Stage.FINALISED)]
    assert due_now(task(), state(), slots, now=5001) == []


def test_due_of_each_period() -> None:
    committed, revealed = slot(0, Stage.COMMITTED), slot(1, Stage.REVEALED)
    baseline = slot(SLOTS, Stage.EMPTY)
    unshown = state(held_out_at=0, committed=2, opened=1, revealed=1)
    assert due_now(task(), state(commit_end=0), [baseline], now=9000) == []
    assert due_now(task(current_round=2), unshown, [committed, revealed, baseline], now=9000) == []
    assert due_now(task(), unshown, [committed, revealed, baseline], now=REVEALS) == []
    assert named(due_now(task(), unshown, [committed, revealed, baseline], now=REVEALS + 1)) == [("forfeit", 0)]
    late = due_now(task(), unshown, [committed, revealed, baseline], now=SHOWN_BY + 1)
    assert named(late) == [("forfeit", 0), ("settle_default", 1)]
    asked = slot(1, Stage.REVEALED, question=Question.OPEN)
    assert named(due_now(task(), unshown, [asked, baseline], now=SHOWN_BY + 1)) == []
    nothing = state(held_out_at=0, committed=1, opened=1, revealed=0)
    assert due_now(task(), nothing, [slot(0, Stage.COPY), baseline], now=COMMITS) == []
    assert named(due_now(task(), nothing, [slot(0, Stage.COPY), baseline], now=COMMITS + 1)) == [("skip", None)]


def test_wait_of_a_state_is_its_workers_then_anybodys() -> None:
    baseline = slot(SLOTS, Stage.REVEALED, worker=ZERO_ADDRESS)
    mine = slot(0, Stage.REVEALED)
    owned, end = SHOWN_AT + PERIOD, SHOWN_AT + 2 * PERIOD
    assert wait_of(task(), state(), mine, baseline, now=owned) == Wait("its worker scores it", owned)
    assert wait_of(task(), state(), mine, baseline, now=owned + 1) == Wait("anybody scores it", end)
    assert wait_of(task(), state(), mine, baseline, now=end + 1) == Wait("anybody may give it up")
    assert wait_of(task(), state(), baseline, baseline, now=owned) == Wait("anybody scores it", end)
    won = slot(0, Stage.REVEALED, attempt=1, deadline=7000, bonded=False)
    assert wait_of(task(), state(), won, baseline, now=7000) == Wait("its worker scores it", 7000)
    assert wait_of(task(), state(), won, baseline, now=7001) == Wait("anybody scores it", 7000 + PERIOD)
    for stage in (Stage.EMPTY, Stage.COPY, Stage.MISSING, Stage.FINALISED):
        assert wait_of(task(), state(), slot(0, stage), baseline, now=9000) is None
        assert stage.settled is (stage is not Stage.EMPTY)


def test_wait_of_a_commit_and_of_disputes() -> None:
    baseline = slot(SLOTS, Stage.EMPTY)
    waits = [wait_of(task(), state(), slot(0, Stage.COMMITTED), baseline, now=now) for now in (REVEALS, REVEALS + 1)]
    assert waits == [Wait("its worker reveals it", REVEALS), Wait("anybody may forfeit it")]
    disputed = slot(0, Stage.SCORED, open_games=2)
    assert wait_of(task(), state(), disputed, baseline, now=0) == Wait("2 disputes")


def test_describe_round_of_one_that_is_over_or_closed() -> None:
    assert describe_round(task(current_round=1), state(), now=0) == "it has ended"
    assert describe_round(task(phase=OpenPhase.CLOSED), state(commit_end=0), now=0) == "the task is closed"
    assert describe_slot(task(), 3, SLOTS) == "the baseline of round 3"
    assert describe_slot(task(), 3, 1) == "slot 1 of round 3"


def test_escrow_number_is_apart_from_other_tasks_and_audit_budgets() -> None:
    assert escrow_number(5) == 5 + 2**62
    assert escrow_number(2**32) & 1 << 63 == 0
