from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from worker_fakes import ALICE, BOB, REQUESTER, TOKEN

from ledger.performance import float_bits
from ledger.types import ZERO_ADDRESS, Admission, Slot, SlotStatus, StakeAccount, Task, TaskParameters
from trainer.worker.policy import (
    Reason,
    TaskFacts,
    WorkerOptions,
    changed,
    claimable,
    describe_pay,
    judge_claim,
    judge_resources,
    judge_speed,
    judge_store,
    lease_over,
)

PARAMETERS = TaskParameters(
    specification_hash=b"s" * 32,
    program_root=b"p" * 32,
    dataset_root=b"d" * 32,
    initial_state_root=b"i" * 32,
    state_tensors=5,
    rounds=4,
    steps_per_round=100,
    minimum_steps=100,
    slot_reward=10 * TOKEN,
    bond=5 * TOKEN,
    lease_fee=TOKEN,
    lease_seconds=60,
    challenge_window=60,
)
OPEN = Slot(
    task=1,
    round=1,
    slot=0,
    worker=ZERO_ADDRESS,
    attempt=0,
    deadline=0,
    status=SlotStatus.OPEN,
    open_games=0,
    payout=ZERO_ADDRESS,
    steps=0,
    heldout_loss=0,
    state_root=bytes(32),
)


def facts(*, parameters: dict[str, Any] | None = None, slot: dict[str, Any] | None = None, **changes: Any) -> TaskFacts:
    task = Task(
        number=1,
        parameters=dataclasses.replace(PARAMETERS, **(parameters or {})),
        requester=REQUESTER,
        current_round=1,
        closed=False,
    )
    account = StakeAccount(staked=8 * TOKEN, locked=0, unbonding=0, unbonding_release=0, credit=0, payout=ALICE)
    values: dict[str, Any] = {
        "task": task,
        "slot": dataclasses.replace(OPEN, **(slot or {})),
        "now": 1000,
        "worker": ALICE,
        "account": account,
        "authorised": True,
        "turn_left": 0.0,
        **changes,
    }
    return TaskFacts(**values)


def code(given: TaskFacts, **options: Any) -> str | None:
    reason = judge_claim(given, WorkerOptions(**options))
    return None if reason is None else reason.code


def test_judge_claim_takes_a_task_with_nothing_in_the_way() -> None:
    assert code(facts()) is None


@pytest.mark.parametrize(
    ("slot", "now", "expected"),
    [
        ({"status": SlotStatus.LEASED, "worker": BOB, "deadline": 1000}, 1000, "leased"),
        ({"status": SlotStatus.LEASED, "worker": BOB, "deadline": 1000}, 1001, None),
        ({"status": SlotStatus.SUBMITTED, "worker": BOB, "deadline": 1000}, 2000, "submitted"),
        ({"status": SlotStatus.FINALISED, "worker": BOB, "deadline": 1000}, 2000, "finalised"),
    ],
)
def test_judge_claim_respects_the_slot_to_the_second(slot: dict[str, Any], now: int, expected: str | None) -> None:
    assert code(facts(slot=slot, now=now)) == expected


def test_judge_claim_names_who_holds_the_slot_and_for_how_long() -> None:
    given = facts(slot={"status": SlotStatus.LEASED, "worker": BOB, "deadline": 1042})
    reason = judge_claim(given, WorkerOptions())
    assert reason is not None
    assert reason.text == f"round 1 is leased to {BOB} for 42 s more"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parameters": {"slots_per_round": 2}}, "slots"),
        ({"authorised": False}, "operator"),
        ({"parameters": {"bond": 9 * TOKEN}}, "bond"),
        ({"parameters": {"admission": Admission.STAKE, "minimum_stake": 9 * TOKEN}}, "minimum-stake"),
        ({"parameters": {"admission": Admission.STAKE, "minimum_stake": 8 * TOKEN}}, None),
        ({"turn_left": 2.0}, "turn"),
        ({"turn_left": 2.0, "has_snapshot": True}, None),
    ],
)
def test_judge_claim_names_what_is_in_the_way(changes: dict[str, Any], expected: str | None) -> None:
    assert code(facts(**changes)) == expected


def test_judge_claim_of_ended_tasks() -> None:
    task = facts().task
    assert code(facts(task=dataclasses.replace(task, closed=True))) == "closed"
    assert code(facts(task=dataclasses.replace(task, current_round=4))) == "complete"


def test_judge_claim_minimum_pay_is_inclusive() -> None:
    assert code(facts(), minimum_pay=10 * TOKEN) is None
    assert code(facts(), minimum_pay=10 * TOKEN + 1) == "pay"


def test_lease_over_only_after_its_last_second() -> None:
    leased = dataclasses.replace(OPEN, status=SlotStatus.LEASED, deadline=1000)
    assert not lease_over(leased, 1000)
    assert lease_over(leased, 1001)
    assert not claimable(leased, 1000)
    assert not lease_over(dataclasses.replace(leased, status=SlotStatus.SUBMITTED), 5000)


def test_judge_speed_refuses_a_lease_that_is_too_short_with_a_margin() -> None:
    options = WorkerOptions()
    assert judge_speed(PARAMETERS, options, seconds_per_step=0.48, steps_left=100) is None
    slow = judge_speed(PARAMETERS, options, seconds_per_step=0.49, steps_left=100)
    assert slow is not None
    assert slow.code == "slow"
    assert "lease fee, 1 tokens" in slow.text
    assert judge_speed(PARAMETERS, options, seconds_per_step=0.49, steps_left=50) is None


def test_judge_speed_compares_the_pay_of_a_second() -> None:
    options = WorkerOptions(minimum_pay_per_second=TOKEN)
    assert judge_speed(PARAMETERS, options, seconds_per_step=0.09, steps_left=100) is None
    reason = judge_speed(PARAMETERS, options, seconds_per_step=0.2, steps_left=100)
    assert reason is not None
    assert reason.code == "pay-per-second"


@pytest.mark.parametrize(
    ("memory", "disk", "expected"), [(100, 100, None), (99, 100, "memory"), (100, 49, "disk"), (None, None, None)]
)
def test_judge_resources(memory: int | None, disk: int | None, expected: str | None) -> None:
    reason = judge_resources(memory_needed=100, memory_free=memory, disk_needed=50, disk_free=disk)
    assert (None if reason is None else reason.code) == expected


@pytest.mark.parametrize(
    ("hint", "used"),
    [
        ("s3://models", "s3://models"),
        ("s3://models/a/b", "s3://models/a/b"),
        ("s3://models-of-a-stranger", None),
        ("s3://models/../secrets", None),
        ("file:///etc", None),
        ("", None),
        ("file:///own/", None),
    ],
)
def test_judge_store_uses_a_strangers_url_only_where_allowed(hint: str, used: str | None) -> None:
    assert judge_store(hint, "file:///own", ("s3://models/",)) == used


def test_changed_shows_a_reason_once_until_it_is_another() -> None:
    first = Reason("leased", "leased for 5 s more", (BOB, 0))
    later = Reason("leased", "leased for 4 s more", (BOB, 0))
    other = Reason("leased", "leased for 60 s more", (ALICE, 1))
    assert changed({1: first}, {}) == {1: first}
    assert changed({1: later}, {1: first}) == {}
    assert changed({1: other}, {1: first}) == {1: other}


def test_describe_pay_tells_for_which_loss() -> None:
    assert describe_pay(PARAMETERS) == "10 tokens a round"
    target = dataclasses.replace(PARAMETERS, has_target=True, base_loss=float_bits(5.5), target_loss=float_bits(2.0))
    assert "from 5.5000 to 2.0000 in 4 rounds" in describe_pay(target)
