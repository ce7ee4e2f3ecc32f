"""Replaying one slot: run the programs from what it starts from and compare what comes out with what was submitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ledger.types import Checkpoint
from trainer.commit.states import state_root
from trainer.engine.engines import Engine
from trainer.engine.segment import StepReport, run_merge, run_segment
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import Materials


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """What a replay gave. Roots are 32 bytes, losses binary32 bits; `actual` is `state`'s root."""

    round: int
    expected: bytes
    actual: bytes
    expected_loss: int
    actual_loss: int
    steps: int
    seconds: float
    state: State

    @property
    def matches(self) -> bool:
        """The replay ends in the submitted state, and the loss that was paid for is that state's."""
        return self.actual == self.expected and self.actual_loss == self.expected_loss


def replay_round(
    materials: Materials,
    base: State,
    claim: Checkpoint,
    *,
    slot: int = 0,
    inputs: Sequence[State | None] | None = None,
    engine: Engine | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ReplayResult | None:
    """Trains the claim's steps from `base`, or merges, and compares. None where `should_stop` ended it early.

    The states must be those that the claim names; the caller has checked that.

    Args:
        slot: that trained; it decides the batches.
        inputs: of a merge, the state of each slot in order, None where one is missing; None where nothing is merged.
        engine: None takes the reference; every engine gives the same bits.

    Raises:
        ResourceError: memory ran out.
    """
    if inputs is not None:
        result = run_merge(materials.program, materials.dataset, base, inputs, engine=engine)
    else:
        result = run_segment(
            materials.program,
            materials.dataset,
            base,
            steps=claim.steps,
            engine=engine,
            slot=slot,
            on_step=on_step,
            should_stop=should_stop,
        )
    if not result.completed:
        return None
    return ReplayResult(
        round=claim.round,
        expected=claim.state_root,
        actual=state_root(result.state.values()),
        expected_loss=claim.heldout_loss,
        actual_loss=heldout_loss_bits(result.state),
        steps=claim.steps,
        seconds=result.seconds,
        state=result.state,
    )
