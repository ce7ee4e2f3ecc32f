"""Segments: run a program for some steps from one state, and give the next."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from ledger.errors import ResourceError
from trainer.engine.batches import TokenData, batch
from trainer.engine.determinism import check_device, set_determinism
from trainer.engine.evaluate import heldout_loss
from trainer.engine.schedule import learning_rate
from trainer.engine.state import State, capture, check_state, step_of, training_objects
from trainer.models import LanguageModel
from trainer.program.description import MAXIMUM_STEPS, TrainingProgram
from trainer.program.layout import HELDOUT_LOSS, StateLayout

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Where a running segment stands. `loss` is the mean training loss (nats per token) of the step just done.

    `step` is the counter after the step, `done` of `total` counts this call's steps, `seconds` since it began.
    """

    step: int
    done: int
    total: int
    loss: float
    learning_rate: float
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What a segment gave.

    Attributes:
        state: the next state; where `completed` is false, a state to go on from, whose held-out loss is still the
            one it started with.
        steps: steps done in this call. train_losses: (counter after the step, loss) of each reported step.
        heldout_loss: float32 value as stored in the state. seconds: wall time with evaluation.
        tokens: training tokens seen. not_finite_at: first reported step whose loss was NaN or infinite.
    """

    state: State
    steps: int
    completed: bool
    train_losses: tuple[tuple[int, float], ...]
    heldout_loss: float
    seconds: float
    tokens: int
    not_finite_at: int | None


def run_segment(
    program: TrainingProgram,
    dataset: TokenData,
    state: State,
    *,
    steps: int,
    slot: int = 0,
    device: str = "cpu",
    report_every: int = 10,
    on_step: Callable[[StepReport], None] | None = None,
    snapshot: Callable[[State], None] | None = None,
    snapshot_seconds: float = 10.0,
    should_stop: Callable[[], bool] | None = None,
) -> SegmentResult:
    """Train `steps` more optimizer steps from `state`, measure the held-out loss, and give the next state.

    The result is a function of program, data, state, steps and slot alone. To resume an interrupted segment, call it
    again from the last snapshot with the steps that are left: `start + asked - step_of(snapshot)`; the result is the
    same to the bit. `steps` may be 0, which only measures (a snapshot may be of the last step).

    Args:
        steps: at least 0. slot: of the round, it decides the batches.
        report_every: the loss is read, and `on_step` and `should_stop` called, every so many steps and at the last.
        snapshot: given a copy of the state about every `snapshot_seconds`; it has the base's held-out loss.
        should_stop: true ends the segment early, with `completed` false.

    Raises:
        ResourceError: memory ran out. SettingsError: see `check_device` and `set_determinism`.
        ValueError: the state does not follow the program's layout, or no window fits the data.
    """
    if steps < 0 or report_every < 1:
        raise ValueError(f"steps is {steps} and report_every {report_every}")
    check_state(state, StateLayout.of(program))
    start = step_of(state)
    if start + steps > MAXIMUM_STEPS:
        raise ValueError(f"step {start + steps} is beyond the last one, {MAXIMUM_STEPS}")
    check_device(device)
    set_determinism(program.threads)
    with _memory_errors(program):
        run = _Run(program, dataset, state, slot=slot, device=device)
        began = last_snapshot = time.perf_counter()
        losses: list[tuple[int, float]] = []
        done, stopped = 0, False
        while done < steps and not stopped:
            loss = run.step()
            done += 1
            if done % report_every == 0 or done == steps:
                report = run.report(loss, done=done, total=steps, seconds=time.perf_counter() - began)
                losses.append((report.step, report.loss))
                if on_step is not None:
                    on_step(report)
                stopped = done < steps and should_stop is not None and should_stop()
            if snapshot is not None and done < steps and time.perf_counter() - last_snapshot >= snapshot_seconds:
                snapshot(run.capture(state[HELDOUT_LOSS]))
                last_snapshot = time.perf_counter()
        ended = run.capture(state[HELDOUT_LOSS] if stopped else heldout_loss(run.model, dataset, program))
    return SegmentResult(
        state=ended,
        steps=done,
        completed=not stopped,
        train_losses=tuple(losses),
        heldout_loss=float(ended[HELDOUT_LOSS].item()),
        seconds=time.perf_counter() - began,
        tokens=done * program.batch_size * program.context,
        not_finite_at=next((at for at, value in losses if not math.isfinite(value)), None),
    )


class _Run:
    """Model, optimizer and counter of one running segment."""

    model: LanguageModel
    optimizer: AdamW

    def __init__(self, program: TrainingProgram, dataset: TokenData, state: State, *, slot: int, device: str) -> None:
        self._program, self._dataset, self._slot, self._device = program, dataset, slot, device
        self.model, self.optimizer = training_objects(program, state, device=device)
        self.model.train()
        self._parameters = list(self.model.parameters())
        self._counter = step_of(state)
        self._rate = 0.0

    def step(self) -> Tensor:
        """One optimizer step; the loss stays on the device, so that nothing waits for it."""
        program = self._program
        inputs, targets = batch(self._dataset, program, step=self._counter, slot=self._slot)
        loss: Tensor = self.model(inputs.to(self._device), targets.to(self._device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch has no type for it
        if program.optimizer.gradient_clip > 0:
            clip_grad_norm_(self._parameters, program.optimizer.gradient_clip)
        self._rate = learning_rate(program.schedule, self._counter)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate
        self.optimizer.step()
        self._counter += 1
        return loss.detach()

    def report(self, loss: Tensor, *, done: int, total: int, seconds: float) -> StepReport:
        """Read the loss and put a report together."""
        return StepReport(
            step=self._counter,
            done=done,
            total=total,
            loss=loss.item(),
            learning_rate=self._rate,
            tokens=done * self._program.batch_size * self._program.context,
            seconds=seconds,
        )

    def capture(self, loss: float | Tensor) -> State:
        """The state now."""
        return capture(self.model, self.optimizer, step=self._counter, loss=loss)


@contextmanager
def _memory_errors(program: TrainingProgram) -> Iterator[None]:
    """Turn the several ways in which PyTorch runs out of memory into one error that says what to change."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not exhausted and not any(sign in text.lower() for sign in _OUT_OF_MEMORY):
            raise
        first = text.splitlines()[0] if text else "no memory left"
        raise ResourceError(
            f"Out of memory while training (batch {program.batch_size} of {program.context} tokens, "
            f"width {program.model.width}, {program.model.layers} layers): {first}",
            remedy="Close other programs, use a machine with more memory, or leave this task to others; "
            "a requester can post it again with a smaller batch_size, context or width.",
        ) from error
