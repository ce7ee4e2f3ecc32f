"""Which of all open slots a worker takes first: the one that promises most for a second of its machine. Pure.

Gas is left out: it is paid in ether and rewards in tokens, and the chain knows no rate between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from trainer.worker.board import TaskView
from trainer.worker.policy import Reason, reward_of

# Nobody knows how long a program takes that was never run here. Leases are made for slower machines than most, so it is
# assumed to take this share of one: rather too hopeful, since what is never tried is never measured.
UNTRIED_SHARE: Final = 0.25

Looked = tuple[TaskView, Reason | None]


def best_first(looked: Iterable[Looked], seconds: Callable[[TaskView], float | None]) -> list[Looked]:
    """Tasks, each looked at from the slot that would be claimed, by what that promises; those that wait come last.

    Args:
        looked: with why there is no slot to claim, or None.
        seconds: that the slot takes here, as far as it was measured.
    """

    def key(one: Looked) -> tuple[bool, float, int]:
        view, waits = one
        promised = 0.0 if waits is not None else expected_pay(view) / seconds_assumed(view, seconds(view))
        return waits is not None, -promised, view.task.number

    return sorted(looked, key=key)


def expected_pay(view: TaskView) -> float:
    """Wei that a slot can be expected to pay.

    Its reward, times the share that the last round's slots were paid of theirs, which improve the loss less and less;
    a merge is paid whole. Earlier attempts at the slot that came to nothing speak against it: the first halves what is
    expected, the second leaves a third.
    """
    parameters, slot = view.task.parameters, view.slot
    share = 1.0 if view.paid_share is None or parameters.is_merge(slot.slot) else view.paid_share
    return reward_of(parameters, slot) * share / (1 + slot.attempt)


def seconds_assumed(view: TaskView, measured: float | None) -> float:
    """Seconds that a slot takes here: measured, or a share of its lease; of a merge, as many steps as it has states."""
    if measured is not None:
        return max(measured, 1e-9)
    parameters = view.task.parameters
    whole = UNTRIED_SHARE * parameters.lease_seconds
    if not parameters.is_merge(view.slot.slot):
        return whole
    return whole * min(1.0, (1 + parameters.slots_per_round) / parameters.steps_per_round)
