import math

import pytest

from trainer.engine.schedule import learning_rate
from trainer.program.description import ScheduleConfig

SCHEDULE = ScheduleConfig(learning_rate=1e-3, minimum_learning_rate=1e-4, warmup_steps=100, total_steps=2000)


def test_learning_rate_warms_up_linearly() -> None:
    assert learning_rate(SCHEDULE, 0) == pytest.approx(1e-3 / 101)
    assert learning_rate(SCHEDULE, 49) == pytest.approx(50e-3 / 101)
    assert learning_rate(SCHEDULE, 100) == 1e-3


def test_learning_rate_falls_along_half_a_cosine_to_the_minimum() -> None:
    assert learning_rate(SCHEDULE, 1050) == pytest.approx((1e-3 + 1e-4) / 2)
    quarter = 1e-4 + 9e-4 * 0.5 * (1 + math.cos(math.pi / 4))
    assert learning_rate(SCHEDULE, 575) == pytest.approx(quarter)
    rates = [learning_rate(SCHEDULE, step) for step in range(100, 2000)]
    assert rates == sorted(rates, reverse=True)


def test_learning_rate_stays_at_the_minimum_after_the_schedule() -> None:
    assert [learning_rate(SCHEDULE, step) for step in (2000, 2001, 10**6)] == [1e-4] * 3


def test_learning_rate_warm_up_as_long_as_the_schedule_never_divides_by_zero() -> None:
    schedule = ScheduleConfig(learning_rate=1.0, minimum_learning_rate=0.5, warmup_steps=10, total_steps=10)
    assert [learning_rate(schedule, step) for step in (9, 10)] == [pytest.approx(10 / 11), 0.5]
