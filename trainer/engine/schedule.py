"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from trainer.program.description import ScheduleConfig


def learning_rate(schedule: ScheduleConfig, step: int) -> float:
    """Rate of the step that starts with `counter.step` = step ≥ 0.

    Warm-up: rate × (step + 1) / (warmup + 1). Then half a cosine from the rate to the minimum at `total_steps`; the
    minimum from there on, however long a task goes on.
    """
    low, high = schedule.minimum_learning_rate, schedule.learning_rate
    if step < schedule.warmup_steps:
        return high * (step + 1) / (schedule.warmup_steps + 1)
    if step >= schedule.total_steps:
        return low
    done = (step - schedule.warmup_steps) / (schedule.total_steps - schedule.warmup_steps)
    return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * done))
