"""The simulated protocol: cases computed by hand, and nothing lost on the way."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import simpy
from scale import committed_gas, figures_of
from scale_model import Chain, Outcome, simulate
from scale_setting import Counts, Gas, Setting

GAS = Gas(claim=10, submit=9, finalise=8, collect=5, collect_slot=1, lapsed=7)
# Two workers, one round of two slots, a step of one second; requests and files take no time.
TINY = Setting(
    workers=2,
    slots=2,
    tasks=1,
    steps=104,
    step_seconds=1.0,
    tokens_per_step=3,
    spread=0.0,
    failures_per_hour=0.0,
    repair_seconds=0.0,
    lease_seconds=500.0,
    deadline_seconds=500.0,
    quorum=1.0,
    window_seconds=53.0,
    difference_bytes=10.0,
    state_bytes=200.0,
    merge_seconds=4.0,
    latency=0.0,
    requests=0,
    bandwidth=1e12,
    poll_seconds=0.0,
    block_seconds=10.0,
    block_gas=1000,
    gas=GAS,
    horizon=10_000.0,
    warm=0.0,
    rounds=1,
    staggered=False,
)
MANY = dataclasses.replace(
    TINY,
    workers=40,
    slots=4,
    tasks=2,
    spread=0.3,
    poll_seconds=1.0,
    latency=0.2,
    bandwidth=50.0,
    requests=3,
    rounds=5,
    staggered=True,
    horizon=1e6,
)


def run(setting: Setting = TINY, **changes: Any) -> Outcome:
    return simulate(dataclasses.replace(setting, **changes))


def test_a_round_by_hand() -> None:
    """Claimed at 10, trained at 114, submitted at 120, collected at 130, the merge claimed at 140 and submitted at 150.

    Slots are final at 180, the block after 120 + 53; the merge, and the round, at 210, the block after 150 + 53.
    """
    assert (run(horizon=209.9).whole.rounds, run(horizon=210.1).whole.rounds) == (0, 1)
    done = run().whole
    assert (done.trained, done.paid, done.lost) == (624, 624, 0)
    assert done.gas == GAS.of_round(2) == 3 * 27 + 5 + 2
    assert (done.claims, done.lapsed, done.transactions) == (2, 0, 10)
    assert done.sent == 2 * 10 + 200
    assert done.received == 2 * 200 + 10  # the first state, whole; for the merge, the other slot's file
    assert done.busy_seconds == 2 * 104


def test_later_bases_are_merged_or_fetched_whichever_is_fewer_bytes() -> None:
    one = run().whole.received
    assert run(rounds=2).whole.received - one == 10 + 10  # who merged has the base; the other fetches the other's file
    assert run(rounds=2, state_bytes=9.0).whole.received == 2 * 9 + 10 + 9 + 10


def test_blocks_take_what_fits_in_order() -> None:
    """Of 27 gas in blocks of 20, claims of 10: two a block."""
    late = run(workers=6, block_gas=20).whole
    assert late.paid == late.trained == 3 * 624
    world, counts = simpy.Environment(), Counts()
    chain = Chain(world, dataclasses.replace(TINY, block_gas=20), counts)
    ended: list[tuple[int, float]] = []

    def send(number: int, gas: int) -> Any:
        yield from chain.send(gas)
        ended.append((number, world.now))

    for number, gas in enumerate((10, 15, 5, 20, 1)):
        world.process(send(number, gas))
    world.run(until=100)
    assert ended == [(0, 10), (1, 20), (2, 20), (3, 30), (4, 40)]
    assert (counts.gas, counts.longest_queue) == (51, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spread": 0.8, "quorum": 0.5, "deadline_seconds": 150.0},
        {"failures_per_hour": 20.0, "repair_seconds": 30.0},
        {"failures_per_hour": 20.0, "repair_seconds": 600.0, "quorum": 0.5, "spread": 0.0},
        {"failures_per_hour": 20.0, "repair_seconds": 600.0, "spread": 0.0},
        {"block_gas": 40},
        {"last_merges": False, "tasks": 3},
        {"spread": 0.8, "quorum": 0.5, "deadline_seconds": 150.0, "failures_per_hour": 20.0, "repair_seconds": 900.0},
    ],
)
def test_all_work_is_paid_or_lost_once_all_is_final(changes: dict[str, Any]) -> None:
    outcome = run(MANY, **changes)
    done, setting = outcome.whole, outcome.setting
    each, rounds = setting.steps * setting.tokens_per_step, setting.workers // setting.slots * setting.tasks * 5
    assert done.rounds == rounds
    assert done.trained == done.paid + done.lost
    assert outcome.unsettled == 0
    assert done.paid <= rounds * setting.slots * each
    if setting.quorum == 1.0:
        assert done.paid == rounds * setting.slots * each
        assert done.gas == rounds * GAS.of_round(setting.slots) + done.lapsed * (GAS.claim + GAS.lapsed)
    else:
        assert done.paid >= rounds * math.ceil(setting.quorum * setting.slots) * each
    if setting.spread == 0.0:
        assert done.busy_seconds - done.wasted_seconds == pytest.approx(done.paid / setting.tokens_per_step)
    if "deadline_seconds" in changes or setting.repair_seconds > setting.lease_seconds:
        assert done.wasted_seconds > 0


def test_work_in_hand_is_neither_paid_nor_lost() -> None:
    for horizon in (150.0, 400.0, 900.0):
        outcome = run(MANY, horizon=horizon, rounds=None)
        assert outcome.whole.trained == outcome.whole.paid + outcome.whole.lost + outcome.unsettled
        assert outcome.unsettled > 0


def test_a_slot_reopens_when_its_lease_ends_and_not_when_its_machine_is_repaired() -> None:
    """One machine of two fails in its first round and is gone for good: the other does both slots, and the merge."""
    one = dataclasses.replace(TINY, failures_per_hour=36.0, repair_seconds=1e9, lease_seconds=150.0)
    seeds = [seed for seed in range(1, 40) if run(one, seed=seed, horizon=2_000.0).whole.rounds]
    lapsed = [run(one, seed=seed, horizon=2_000.0).whole.lapsed for seed in seeds]
    assert max(lapsed) == 1
    assert all(run(one, seed=seed, horizon=2_000.0).whole.paid == 624 for seed in seeds)


def test_nobody_trains_more_than_all_the_time() -> None:
    outcome = run(MANY, tasks=4, rounds=None, horizon=5_000.0, warm=0.25)
    assert 0.7 < outcome.busy <= 1.0
    assert outcome.tokens_per_second < outcome.most_tokens_per_second
    assert outcome.measured.paid < outcome.whole.paid


def test_same_seed_same_outcome() -> None:
    first, second, other = run(MANY), run(MANY), run(MANY, seed=2)
    assert first == second
    assert first.whole != other.whole


def test_whole_groups_alone() -> None:
    with pytest.raises(ValueError, match="no whole groups"):
        run(workers=3)


def test_committed_gas_is_that_of_the_snapshot() -> None:
    gas = committed_gas()
    assert abs(gas.collect + 128 * gas.collect_slot - 880_055) < 128
    figures = figures_of(run(dataclasses.replace(MANY, gas=gas, block_gas=10**9)))
    assert figures["gas a token"] == pytest.approx(gas.of_round(4) / 4 / 312)
