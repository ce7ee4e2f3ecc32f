"""What a worker decides: every reason with its exact words and its identity, which comes first, and every limit."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worker_fakes import ALICE, BOB, REQUESTER, TOKEN

from ledger.performance import float_bits
from ledger.types import ZERO_ADDRESS, Admission, Slot, SlotStatus, StakeAccount, Task, TaskParameters
from trainer.worker.policy import (
    LEASE_MARGIN,
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
    mine,
)

ASKED = TaskParameters(
    specification_hash=b"s" * 32,
    program_root=b"p" * 32,
    dataset_root=b"d" * 32,
    initial_state_root=b"i" * 32,
    state_tensors=5,
    rounds=3,
    steps_per_round=50,
    minimum_steps=50,
    slot_reward=10 * TOKEN,
    bond=5 * TOKEN,
    lease_fee=TOKEN // 4,
    lease_seconds=60,
    challenge_window=60,
)
FREE = Slot(
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
HELD = dataclasses.replace(FREE, worker=BOB, deadline=1030, attempt=2)
STAKE = StakeAccount(staked=8 * TOKEN, locked=2 * TOKEN, unbonding=0, unbonding_release=0, credit=0, payout=ALICE)


def given_facts(**changes: Any) -> TaskFacts:
    parameters = {name: changes.pop(name) for name in list(changes) if hasattr(ASKED, name)}
    task = {name: changes.pop(name) for name in ("current_round", "closed") if name in changes}
    on_chain = {"number": 1, "requester": REQUESTER, "current_round": 1, "closed": False, **task}
    values: dict[str, Any] = {
        "task": Task(parameters=dataclasses.replace(ASKED, **parameters), **on_chain),
        "slot": FREE,
        "now": 1000,
        "worker": ALICE,
        "account": STAKE,
        "authorised": True,
        "turn_left": 0.0,
    }
    return TaskFacts(**(values | changes))


def held(status: SlotStatus, **changes: Any) -> Slot:
    return dataclasses.replace(HELD, status=status, **changes)


NEEDS_STAKE = {"admission": Admission.STAKE_AND_TICKET, "minimum_stake": 9 * TOKEN}
# In the order in which they are looked at: of two obstacles the one further up is named.
TABLE: list[tuple[dict[str, Any], Reason]] = [
    ({"current_round": 3}, Reason("complete", "all 3 rounds are done")),
    ({"closed": True}, Reason("closed", "its requester has closed it")),
    (
        {"slot": held(SlotStatus.OPEN)},
        Reason("reserved", f"round 1 is kept for {BOB}, who won the dispute about it, for 30 s more",
               (1, SlotStatus.OPEN, BOB, 2)),
    ),
    (
        {"slot": held(SlotStatus.LEASED)},
        Reason("leased", f"round 1 is leased to {BOB} for 30 s more", (1, SlotStatus.LEASED, BOB, 2)),
    ),
    (
        {"slot_reward": 9 * TOKEN},
        Reason("pay", "a round pays at most 9 tokens and you asked for 9.5; lower --minimum-pay to take it",
               (95 * TOKEN // 10,)),
    ),
    (
        {"authorised": False},
        Reason("operator", f"your key may not claim on the stake of {ALICE}; its owner can allow it with "
                           "`trainledger account authorise`"),
    ),
    (
        NEEDS_STAKE,
        Reason("minimum-stake", f"it admits only who has staked 9 tokens, and {ALICE} has staked 8; add some with "
                                "`trainledger account stake`", (8 * TOKEN,)),
    ),
    (
        {"bond": 6 * TOKEN + 1},
        Reason("bond", "a claim locks a bond of 6.000000000000000001 tokens, and 6 of the 8 staked by "
                       f"{ALICE} are free; add some with `trainledger account stake`", (8 * TOKEN, 2 * TOKEN)),
    ),
    (
        {"turn_left": 2.4},
        Reason("turn", "you did the round before; others may go first for 2 s", (1,)),
    ),
]  # fmt: skip
OPTIONS = WorkerOptions(minimum_pay=95 * TOKEN // 10)


@pytest.mark.parametrize(("changes", "expected"), TABLE, ids=[reason.code for _, reason in TABLE])
def test_judge_claim_says_exactly_what_is_in_the_way(changes: dict[str, Any], expected: Reason) -> None:
    assert judge_claim(given_facts(**changes), OPTIONS) == expected
    assert expected.key == (expected.code, *expected.about)


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(range(len(TABLE)), 2)))
def test_judge_claim_of_two_obstacles_names_the_first(first: int, second: int) -> None:
    both = {**TABLE[second][0], **TABLE[first][0]}
    reason = judge_claim(given_facts(**both), OPTIONS)
    assert reason is not None
    assert reason.code == TABLE[first][1].code


@pytest.mark.parametrize(
    ("slot", "text"),
    [
        (held(SlotStatus.SUBMITTED), f"round 1 holds the submission of {BOB}; its window closes in 30 s"),
        (held(SlotStatus.SUBMITTED, worker=ALICE.lower()), "round 1 holds your submission; its window closes in 30 s"),
        (
            held(SlotStatus.SUBMITTED, deadline=990, open_games=2),
            f"round 1 holds the submission of {BOB}; its window closes in 0 s and 2 disputes are open",
        ),
        (held(SlotStatus.FINALISED), "round 1 is being closed"),
        (held(SlotStatus.LEASED, deadline=1000), f"round 1 is leased to {BOB} for 0 s more"),
    ],
)
def test_judge_claim_tells_whose_work_a_slot_holds(slot: Slot, text: str) -> None:
    reason = judge_claim(given_facts(slot=slot), OPTIONS)
    assert reason is not None
    assert reason.text == text
    assert reason.about[:4] == (1, slot.status, slot.worker, 2)


def test_judge_claim_limits_are_inclusive() -> None:
    for changes in (
        {"slot_reward": OPTIONS.minimum_pay},
        {"bond": 6 * TOKEN},
        {**NEEDS_STAKE, "minimum_stake": 8 * TOKEN},
        {"admission": Admission.TICKET, "minimum_stake": 9 * TOKEN},
        {"turn_left": 0.0},
        {"turn_left": 9.0, "has_snapshot": True},
        {"slot": held(SlotStatus.LEASED, deadline=999)},
    ):
        assert judge_claim(given_facts(**changes), OPTIONS) is None
    reason = judge_claim(given_facts(slot_reward=OPTIONS.minimum_pay - 1), OPTIONS)
    assert reason is not None
    assert reason.code == "pay"


@given(status=st.sampled_from(list(SlotStatus)), deadline=st.integers(0, 2000), now=st.integers(0, 2000))
def test_claimable_is_open_or_leased_and_over(status: SlotStatus, deadline: int, now: int) -> None:
    slot = held(status, deadline=deadline)
    over = status is SlotStatus.LEASED and now > deadline
    assert lease_over(slot, now) is over
    # An open slot with a deadline is kept for who won the game about it.
    assert claimable(slot, now, BOB) is (over or status is SlotStatus.OPEN)
    assert claimable(slot, now, ALICE) is (over or (status is SlotStatus.OPEN and now > deadline))
    assert mine(slot, BOB.upper().replace("X", "x")) is (status is not SlotStatus.OPEN)
    assert not mine(slot, ALICE)


def test_judge_speed_says_exactly_what_is_in_the_way() -> None:
    slow = judge_speed(ASKED, WorkerOptions(), seconds_per_step=2.0, steps_left=40)
    assert slow == Reason(
        "slow",
        "the 40 steps of a round would take about 100 s on this machine and the lease lasts 60 s; you would lose the "
        "lease fee, 0.25 tokens",
        (60,),
    )
    options = WorkerOptions(minimum_pay_per_second=TOKEN)
    assert judge_speed(ASKED, options, seconds_per_step=0.19, steps_left=10) is None
    poor = judge_speed(ASKED, options, seconds_per_step=0.4, steps_left=10)
    assert poor == Reason(
        "pay-per-second",
        "it pays at most 0.5 tokens a second on this machine and you asked for 1; lower --minimum-pay-per-second to "
        "take it",
        (TOKEN,),
    )


@given(seconds=st.floats(0, 100), left=st.integers(0, 50), lease=st.integers(1, 5000))
def test_judge_speed_fits_the_lease_with_its_margin(seconds: float, left: int, lease: int) -> None:
    parameters = dataclasses.replace(ASKED, lease_seconds=lease)
    reason = judge_speed(parameters, WorkerOptions(), seconds_per_step=seconds, steps_left=left)
    assert (reason is None) is (seconds * left * LEASE_MARGIN <= lease)
    assert LEASE_MARGIN == 1.25


@pytest.mark.parametrize(
    ("memory", "disk", "expected"),
    [
        (3 * 2**20, 10**9, Reason("memory", "it needs about 4 MiB of memory and 3 are free", (True,))),
        (0, 0, Reason("memory", "it needs about 4 MiB of memory and 0 are free", (True,))),
        (None, 2**20, Reason("disk", "it needs about 8 MiB of disk and 1 are free", (True,))),
        (4 * 2**20, 8 * 2**20, None),
        (None, None, None),
    ],
)
def test_judge_resources_says_exactly_what_is_short(
    memory: int | None, disk: int | None, expected: Reason | None
) -> None:
    found = judge_resources(memory_needed=4 * 2**20, memory_free=memory, disk_needed=8 * 2**20, disk_free=disk)
    assert found == expected


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


@given(tail=st.text(st.characters(codec="ascii"), max_size=12), allowed=st.sampled_from(["s3://m", "s3://m/", "/data"]))
def test_judge_store_never_leaves_an_allowed_prefix(tail: str, allowed: str) -> None:
    stem = allowed.rstrip("/")
    used = judge_store(stem + tail, "file:///own", (allowed,))
    inside = (tail == "" or tail.startswith("/")) and ".." not in tail
    assert used == (stem + tail if inside else None)
    assert judge_store(stem + tail, "file:///own", ()) is None


def test_changed_tells_again_when_anything_of_the_identity_changes() -> None:
    shown = {1: Reason("bond", "x", (8, 2)), 2: Reason("turn", "y", (1,))}
    now = {1: Reason("bond", "z", (8, 2)), 2: Reason("turn", "y", (2,)), 3: Reason("closed", "w")}
    assert changed(now, shown) == {2: now[2], 3: now[3]}
    assert changed({}, shown) == {}


def test_describe_pay_shows_four_digits_of_each_loss() -> None:
    assert describe_pay(ASKED) == "10 tokens a round"
    parameters = dataclasses.replace(
        ASKED, has_target=True, base_loss=float_bits(5.54321), target_loss=float_bits(1.5), slot_reward=25 * TOKEN // 10
    )
    assert describe_pay(parameters) == (
        "up to 2.5 tokens a round, for a held-out loss going from 5.5432 to 1.5000 in 3 rounds"
    )
