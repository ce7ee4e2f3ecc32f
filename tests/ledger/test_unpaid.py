"""Why an attempt is not paid: facts in, words out."""

from __future__ import annotations

from typing import Any

import pytest
from life import BOND, FEE, LOSS, parameters
from round_life import MERGE, SLOTS, round_parameters

from ledger.attempts import Attempt, AttemptKey, Award, Stage, read_attempts
from ledger.types import ZERO_ADDRESS, Event, Round, Slot, SlotStatus
from ledger.unpaid import Facts, OpenGame, Reason, why_not_paid

ALICE, BOB, CAROL = ("0x" + letter * 40 for letter in "abc")
ROOT = b"\5" * 32
NOW = 1_000_000


def attempt(stage: Stage, slot: int = 0, **fields: Any) -> Attempt:
    known: dict[str, Any] = {"deadline": NOW + 60, "worker": ALICE, "operator": BOB, "payout": CAROL}
    return Attempt(key=AttemptKey(3, 0, slot, 0), stage=stage, **(known | fields))


def slot(number: int, status: SlotStatus = SlotStatus.SUBMITTED, **fields: Any) -> Slot:
    known: dict[str, Any] = {
        "task": 3, "round": 0, "worker": ALICE, "attempt": 0, "deadline": NOW + 30, "open_games": 0,
        "payout": CAROL, "steps": 10, "heldout_loss": LOSS, "state_root": ROOT,
    }  # fmt: skip
    return Slot(slot=number, status=status, **(known | fields))


def state(**fields: Any) -> Round:
    """A round that is frozen, with all inputs collected."""
    known: dict[str, Any] = {
        "task": 3, "round": 0, "deadline": NOW + 90, "frozen_at": NOW - 10, "generation": 0, "running": 0,
        "submitted": SLOTS, "finalised": 0, "counted": SLOTS, "collected": SLOTS + 1,
        "submitted_slots": frozenset((0, 1)), "counted_slots": frozenset((0, 1)), "inputs_root": ROOT, "ready": False,
    }  # fmt: skip
    return Round(**(known | fields))


def reason(done: Attempt, **fields: Any) -> Reason:
    known: dict[str, Any] = {"parameters": parameters(), "attempt": done, "now": NOW}
    found = why_not_paid(Facts(**(known | fields)))
    assert found is not None
    return found


def merged(done: Attempt, **fields: Any) -> Reason:
    known: dict[str, Any] = {
        "parameters": round_parameters(),
        "round": state(),
        "merge": slot(MERGE),
        "inputs": (slot(0, SlotStatus.FINALISED), slot(1, SlotStatus.FINALISED)),
    }
    return reason(done, **(known | fields))


def missing(found: Reason) -> list[tuple[str, int | None]]:
    return [(condition.text, condition.until) for condition in found.conditions if not condition.met]


THAWED = {"frozen_at": 0, "generation": 1, "collected": 0, "submitted": 1, "inputs_root": bytes(32)}


def test_paid_and_withdrawn_needs_no_words() -> None:
    facts = Facts(parameters=parameters(), attempt=attempt(Stage.FINAL, paid=5), now=NOW)
    assert why_not_paid(facts) is None


def test_final_and_not_withdrawn() -> None:
    found = reason(attempt(Stage.FINAL, paid=15 * 10**17), credited=True)
    assert found == Reason(
        text=f"its pay of 1.5 is credited to {CAROL} and not withdrawn", command=f"withdraw --account {CAROL}"
    )


def test_final_and_worth_nothing() -> None:
    found = reason(attempt(Stage.FINAL, paid=0))
    assert (found.lost, found.command) == (True, None)
    assert "earned nothing" in found.text


def test_lease_that_runs_waits_for_its_submission() -> None:
    found = reason(attempt(Stage.LEASED))
    assert (found.text, found.lost, found.command) == ("nothing is submitted yet", False, None)
    assert missing(found) == [("a submission, before the lease ends at 12 Jan 13:47:40 UTC", NOW + 60)]


def test_lease_runs_until_its_last_second() -> None:
    assert not reason(attempt(Stage.LEASED, deadline=NOW)).lost
    late = reason(attempt(Stage.LEASED, deadline=NOW - 1))
    assert (late.lost, late.command) == (True, "task settle 3")
    assert late.text.endswith("the fee of 0.01 is burned")
    assert merged(attempt(Stage.LEASED, deadline=NOW - 1)).text.endswith("unless the round froze without it")


def test_lease_that_the_round_froze_without() -> None:
    found = merged(attempt(Stage.LEASED))
    assert "before the round froze" in found.text
    assert found.command == "task settle 3"
    assert missing(found)[0] == ("a round that is not frozen", None)
    open_ = merged(attempt(Stage.LEASED), round=state(**THAWED))
    assert (open_.text, open_.command) == ("nothing is submitted yet", None)


@pytest.mark.parametrize(
    ("stand", "words"), [(False, "they are others now"), (None, "they are not collected again yet")]
)
def test_lease_of_a_merge_whose_inputs_changed(stand: bool | None, words: str) -> None:
    found = merged(attempt(Stage.LEASED, MERGE), inputs_stand=stand)
    assert words in found.text
    assert (found.lost, found.command) == (False, "task settle 3")
    same = merged(attempt(Stage.LEASED, MERGE))
    assert same.text == "nothing is submitted yet"


@pytest.mark.parametrize("merge", [False, True])
def test_submission_whose_conditions_are_all_met(merge: bool) -> None:
    found = (merged if merge else reason)(attempt(Stage.SUBMITTED, MERGE if merge else 0, deadline=NOW - 1))
    assert (missing(found), found.command, found.lost) == ([], "task settle 3", False)
    assert found.text == "nothing is missing: anybody can finalise it now"
    assert len(found.conditions) == (5 if merge else 3)


def test_window_is_open_until_its_last_second() -> None:
    found = reason(attempt(Stage.SUBMITTED, deadline=NOW))
    assert missing(found) == [("the end of its challenge window, open until 12 Jan 13:46:40 UTC", NOW)]
    assert found.text == f"it waits for {missing(found)[0][0]}"
    assert found.command is None


def test_each_dispute_is_named_with_its_clock() -> None:
    games = (
        OpenGame(number=4, defender_to_move=True, deadline=NOW),
        OpenGame(number=7, defender_to_move=False, deadline=NOW - 1),
    )
    found = reason(attempt(Stage.SUBMITTED, deadline=NOW - 1), games=games)
    assert missing(found) == [
        ("the end of dispute 4: the defender has until 12 Jan 13:46:40 UTC to move", NOW),
        ("the end of dispute 7: the challenger is late", NOW - 1),
    ]
    assert found.command == "dispute settle 7"
    assert reason(attempt(Stage.SUBMITTED), games=games[:1]).command is None


@pytest.mark.parametrize(
    ("waiting", "words", "until", "command"),
    [
        ({}, "slot 1 of round 0, whose window is open until 12 Jan 13:47:10 UTC, to be final", NOW + 30, None),
        ({"deadline": NOW - 1}, "slot 1 of round 0, which anybody can finalise now", NOW - 1, "task settle 3"),
        ({"open_games": 2}, "slot 1 of round 0, which is in 2 open disputes, to be final", None, None),
        ({"status": SlotStatus.OPEN}, "slot 1 of round 0, which is open, to be final", None, None),
    ],
)
def test_merge_names_the_inputs_that_are_not_final(
    waiting: dict[str, Any], words: str, until: int | None, command: str | None
) -> None:
    inputs = (slot(0, SlotStatus.FINALISED), slot(1, **waiting))
    found = merged(attempt(Stage.SUBMITTED, MERGE, deadline=NOW - 1), inputs=inputs)
    assert missing(found) == [(words, until)]
    assert found.command == command


def test_merge_of_a_round_that_thawed_waits_for_it_to_freeze() -> None:
    made = attempt(Stage.SUBMITTED, MERGE, deadline=NOW - 1)
    inputs = (slot(0, SlotStatus.FINALISED), slot(1, SlotStatus.OPEN))
    found = merged(made, round=state(**THAWED), inputs=inputs, inputs_stand=None)
    (first, until), second = missing(found)
    assert first.startswith("a round that is frozen: thawed, 1 of 2 submitted, quorum 1 after 12 Jan")
    assert until == NOW + 90
    assert second == ("slot 1 of round 0, which is open, to be final", None)
    assert (found.lost, found.command) == (False, None)
    ready = merged(made, round=state(**(THAWED | {"ready": True})), inputs=inputs, inputs_stand=None)
    assert ready.command == "task settle 3"


def test_merge_waits_for_inputs_to_be_collected() -> None:
    found = merged(attempt(Stage.SUBMITTED, MERGE, deadline=NOW - 1), round=state(collected=1), inputs_stand=None)
    assert missing(found) == [("3 inputs of the merge collected (1 are)", None)]
    assert found.command == "task settle 3"


def test_merge_of_other_inputs_is_void() -> None:
    found = merged(attempt(Stage.SUBMITTED, MERGE, deadline=NOW - 1), inputs_stand=False)
    assert (found.lost, found.command, missing(found)) == (True, "task settle 3", [])
    assert "void" in found.text
    assert merged(attempt(Stage.SUBMITTED, MERGE), inputs_stand=False).command is None


def test_attempts_that_ended_without_pay() -> None:
    assert "it was void" in merged(attempt(Stage.VOID, MERGE)).text
    lapsed = reason(attempt(Stage.LAPSED, fee=FEE))
    assert lapsed.text == "its lease ended without a submission; 0.01 of its bond burned, the rest is free"
    fell = reason(attempt(Stage.FELL), fell_in=9, slot=slot(0))
    assert fell.text == "it fell in dispute 9; its bond of 0.1 is locked until its slot is final"
    assert (lapsed.lost, fell.lost, fell.command) == (True, True, None)


@pytest.mark.parametrize(
    ("status", "closed", "command"),
    [
        (SlotStatus.FINALISED, False, "task settle 3"),
        (SlotStatus.OPEN, True, "task settle 3"),
        (SlotStatus.LEASED, True, None),
        (SlotStatus.OPEN, False, None),
    ],
)
def test_bond_of_a_fall_is_taken_once_its_slot_is_final(status: SlotStatus, closed: bool, command: str | None) -> None:
    fell = reason(attempt(Stage.FELL), fell_in=9, slot=slot(0, status), closed=closed)
    assert fell.command == command
    award = Award(winner=ZERO_ADDRESS, awarded=0, burned=BOND, transaction=ROOT)
    taken = reason(attempt(Stage.FELL, award=award), fell_in=9, slot=slot(0, status), closed=closed)
    assert (taken.text, taken.command) == ("it fell in dispute 9; its bond of 0.1 is lost", None)


def test_bond_of_a_fall_whose_round_went_on_without_the_slot() -> None:
    fell = reason(attempt(Stage.FELL), fell_in=9, slot=slot(0, SlotStatus.OPEN), passed=True)
    assert fell.text == "it fell in dispute 9; its bond of 0.1 is lost, and anybody can have it taken now"
    assert fell.command == "task settle 3"
    redone = reason(attempt(Stage.FELL), fell_in=9, slot=slot(0, SlotStatus.FINALISED), passed=True)
    assert redone.command == "task settle 3"


def event(name: str, place: int, **arguments: object) -> Event:
    known: dict[str, object] = {"task": 3, "round": 0, "slot": 0, "attempt": 0}
    return Event(
        contract="TrainingLedger",
        name=name,
        arguments=arguments if name == "Withdrawn" else known | arguments,
        block_number=place // 2,
        block_hash=ROOT,
        transaction=bytes([place]) * 32,
        log_index=place % 2,
    )


CLAIMED = event("SlotClaimed", 1, worker=ALICE, operator=BOB, payout=CAROL, leaseEnd=50)
SUBMITTED = event("Submitted", 2, stateRoot=ROOT, steps=7, heldOutLoss=LOSS, windowEnd=90)


def test_attempts_are_read_from_the_log() -> None:
    log = read_attempts([CLAIMED, SUBMITTED, event("WindowShortened", 3, windowEnd=70)])
    (made,) = log.attempts.values()
    assert (made.stage, made.deadline, made.steps, made.loss_bits) == (Stage.SUBMITTED, 70, 7, LOSS)
    assert [made.concerns(one) for one in (ALICE, BOB, CAROL, ZERO_ADDRESS)] == [True, True, True, False]
    assert made.was_submitted
    assert made.ended is None
    (leased,) = read_attempts([CLAIMED]).attempts.values()
    assert (leased.stage, leased.deadline, leased.was_submitted) == (Stage.LEASED, 50, False)


@pytest.mark.parametrize(
    ("end", "stage"),
    [
        (event("LeaseExpired", 4, feeBurned=FEE), Stage.LAPSED),
        (event("SubmissionFell", 4), Stage.FELL),
        (event("MergeVoid", 4), Stage.VOID),
        (event("Finalised", 4, paid=8), Stage.FINAL),
    ],
)
def test_each_end_of_an_attempt(end: Event, stage: Stage) -> None:
    (made,) = read_attempts([CLAIMED, SUBMITTED, end]).attempts.values()
    assert (made.stage, made.ended, made.ended_at) == (stage, bytes([4]) * 32, (2, 0))
    assert made.paid == (8 if stage is Stage.FINAL else 0)
    assert made.fee == (FEE if stage is Stage.LAPSED else 0)


def test_the_first_withdrawal_after_the_end_took_the_pay() -> None:
    def withdrawal(place: int, account: str) -> Event:
        return event("Withdrawn", place, account=account, to=account, amount=1)

    before, others, first, second = (
        withdrawal(place, account) for place, account in ((3, CAROL), (5, ALICE), (6, CAROL), (8, CAROL))
    )
    final = event("Finalised", 4, paid=8)
    log = read_attempts([CLAIMED, SUBMITTED, before, final, others])
    (made,) = log.attempts.values()
    assert log.withdrawn(made) is None
    log = read_attempts([CLAIMED, SUBMITTED, before, final, others, first, second])
    assert log.withdrawn(made) == bytes([6]) * 32


def test_an_award_is_kept_with_its_fall() -> None:
    award = event("FallAwarded", 6, winner=BOB, awarded=BOND // 2, burned=BOND // 2)
    (made,) = read_attempts([CLAIMED, SUBMITTED, event("SubmissionFell", 4), award]).attempts.values()
    assert (made.stage, made.ended) == (Stage.FELL, bytes([4]) * 32)
    assert made.award == Award(winner=BOB, awarded=BOND // 2, burned=BOND // 2, transaction=bytes([6]) * 32)


def test_attempts_of_one_slot_are_kept_apart() -> None:
    again = event("SlotClaimed", 5, worker=BOB, operator=BOB, payout=BOB, leaseEnd=99, attempt=1)
    log = read_attempts([CLAIMED, event("LeaseExpired", 4, feeBurned=FEE), again])
    assert [(key.attempt, made.stage) for key, made in log.attempts.items()] == [(0, Stage.LAPSED), (1, Stage.LEASED)]
