"""Segments: run a task's programs for some steps from one state, and give the next (docs/programs.md)."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ledger.errors import MachineFault
from trainer.commit.states import state_root
from trainer.engine.batches import TokenData
from trainer.engine.engines import Engine, ReferenceEngine, Run, StepLost
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.memory import memory_errors
from trainer.engine.state import State, check_state, heldout_loss_of
from trainer.program.exact import BuiltProgram
from trainer.program.layout import HELDOUT_LOSS
from trainer.program.task import TaskProgram

_LOSS, _STEP = 0, 1  # places of the tensors that every state begins with


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Where a running segment stands. `loss` is the mean training loss (nats per token) of the step just done.

    `step` is the state's counter after the step, `done` of `total` counts this call's steps, `seconds` since it began.
    """

    step: int
    done: int
    total: int
    loss: float
    tokens: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SegmentResult:
    """What a segment gave.

    Attributes:
        state: the next state; where `completed` is false, a state to go on from, not yet measured.
        steps: steps done in this call; 1 of a merge.
        train_losses: (counter after the step, loss) of each reported step; none of a merge.
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
    program: TaskProgram,
    dataset: TokenData,
    state: State,
    *,
    steps: int,
    engine: Engine | None = None,
    slot: int = 0,
    report_every: int = 10,
    on_step: Callable[[StepReport], None] | None = None,
    snapshot: Callable[[State], None] | None = None,
    snapshot_seconds: float = 10.0,
    should_stop: Callable[[], bool] | None = None,
    recheck: int | None = None,
) -> SegmentResult:
    """Run the training program `steps` times from `state`, then the evaluation program once, and give the next state.

    The result is a function of program, data, state, steps and slot alone, the same on every machine and engine. To
    resume an interrupted segment, call it again from the last snapshot with the steps that are left, which follow from
    the two counters (`steps_between`). `steps` may be 0, which only measures (a snapshot may be of the last step).

    Args:
        steps: at least 0. slot: of the round, it decides the batches.
        engine: what runs the programs; None takes the reference.
        report_every: the loss is read, and `on_step` and `should_stop` called, every so many steps and at the last.
        snapshot: given a copy of the state about every `snapshot_seconds`. It is the very state between two steps,
            with the last batch's loss where the held-out one will be. A step that is lost leaves one, too.
        should_stop: true ends the segment early, with `completed` false.
        recheck: the run, from 0 (`steps` is the evaluation), that is repeated on the reference and compared.

    Raises:
        MachineFault: the run that was repeated gave other bits: nothing of this segment can be trusted.
        StepLost: the engine could not go on; where it still knew the state before that step, `snapshot` got it.
        ResourceError: memory ran out.
        ValueError: the state does not follow the program's layout.
    """
    if steps < 0 or report_every < 1:
        raise ValueError(f"steps is {steps} and report_every {report_every}")
    check_state(state, program.layout)
    with memory_of(program):
        segment = _Segment(program, dataset, engine or ReferenceEngine(), slot=slot, recheck=recheck)
        began = last_snapshot = time.perf_counter()
        losses: list[tuple[int, float]] = []
        done, stopped = 0, False
        run = segment.open(program.training, list(state.values())) if steps else None
        with _keeping(snapshot, lambda lost: _held(program, lost)):
            while run is not None and done < steps and not stopped:
                segment.step(run, program.training, number=done)
                done += 1
                if done % report_every == 0 or done == steps:
                    report = segment.report(run, done=done, total=steps, seconds=time.perf_counter() - began)
                    losses.append((report.step, report.loss))
                    if on_step is not None:
                        on_step(report)
                    stopped = done < steps and should_stop is not None and should_stop()
                if snapshot is not None and done < steps and time.perf_counter() - last_snapshot >= snapshot_seconds:
                    snapshot(_named(program, run.state()))
                    last_snapshot = time.perf_counter()
            trained = state if run is None else _named(program, run.state())
        del run  # its memory, before the evaluation takes some
        with _keeping(snapshot, lambda lost: trained):
            ended = trained if stopped else segment.evaluated(trained, number=steps)
    return SegmentResult(
        state=ended,
        steps=done,
        completed=not stopped,
        train_losses=tuple(losses),
        heldout_loss=heldout_loss_of(ended),
        seconds=time.perf_counter() - began,
        tokens=done * program.tokens_per_step,
        not_finite_at=next((at for at, value in losses if not math.isfinite(value)), None),
    )


def measured(program: TaskProgram, dataset: TokenData, state: State, *, engine: Engine | None = None) -> State:
    """The state with its held-out loss measured: a segment of no steps."""
    return run_segment(program, dataset, state, steps=0, engine=engine).state


def run_merge(
    program: TaskProgram,
    dataset: TokenData,
    base: State,
    inputs: Sequence[State | None],
    *,
    engine: Engine | None = None,
    recheck: int | None = None,
) -> SegmentResult:
    """Run the merge program once on a round's base and its slots' states, then the evaluation program (docs/rounds.md).

    The result is a function of programs, data and states alone, the same on every machine and engine.

    Args:
        inputs: the state of each slot in order; None where one is missing, which is the base and takes no memory.
        engine: what runs the programs; None takes the reference.
        recheck: the run, 0 the merge and 1 the evaluation, that is repeated on the reference and compared.

    Raises:
        MachineFault: the run that was repeated gave other bits: nothing of this segment can be trusted.
        ResourceError: memory ran out.
        ValueError: the task has no merge program, or one of other states than these.
    """
    merge, taken = _taken(program, base, inputs)
    with memory_of(program):
        # Only an evaluation program that reads the train part would see the slot: the merge is slot W.
        segment = _Segment(program, dataset, engine or ReferenceEngine(), slot=program.slots, recheck=recheck)
        began = time.perf_counter()
        merged = segment.merged(merge, taken)
        ended = segment.evaluated(merged, number=1)
    return SegmentResult(
        state=ended,
        steps=1,
        completed=True,
        train_losses=(),
        heldout_loss=heldout_loss_of(ended),
        seconds=time.perf_counter() - began,
        tokens=0,
        not_finite_at=None,
    )


def merged_state(
    program: TaskProgram,
    dataset: TokenData,
    base: State,
    inputs: Sequence[State | None],
    *,
    heldout_loss: int,
    root: bytes,
    engine: Engine | None = None,
) -> State | None:
    """The state of a merge whose end is known: the merge program is run, and the evaluation program where it must be.

    Most evaluation programs change nothing of a merged state but its held-out loss, which the chain knows. So the loss
    is put into the state, and the root tells whether that was all.

    Args:
        inputs: as in `run_merge`, which raises the same errors.
        heldout_loss: binary32 bits that the state was submitted with. root: of the state, as it was submitted.

    Returns:
        The state of that root, or None where these states do not give it.
    """
    merge, taken = _taken(program, base, inputs)
    with memory_of(program):
        segment = _Segment(program, dataset, engine or ReferenceEngine(), slot=program.slots, recheck=None)
        state = segment.merged(merge, taken)
        state[HELDOUT_LOSS] = torch.from_numpy(np.array([heldout_loss], "<u4").view("<f4"))
        if state_root(state.values()) != root:
            state = segment.evaluated(state, number=1)
    return state if state_root(state.values()) == root else None


def _taken(program: TaskProgram, base: State, inputs: Sequence[State | None]) -> tuple[BuiltProgram, list[Tensor]]:
    """The merge program, and the tensors of all states that it takes."""
    if program.merge is None or len(inputs) != program.slots:
        raise ValueError(f"{len(inputs)} states to merge, in a task whose rounds have {program.slots} slots")
    states = [base, *(base if state is None else state for state in inputs)]
    for state in states:
        check_state(state, program.layout)
    return program.merge, [tensor for state in states for tensor in state.values()]


class _Segment:
    """What all runs of a segment have in common."""

    def __init__(
        self, program: TaskProgram, dataset: TokenData, engine: Engine, *, slot: int, recheck: int | None
    ) -> None:
        self._program, self._dataset, self._slot = program, dataset, slot
        self._engine = engine
        self._recheck = None if engine.is_reference else recheck

    def open(self, built: BuiltProgram, state: list[Tensor]) -> Run:
        """A run of one of the programs, holding the state."""
        run = self._engine.open(built)
        run.load(state)
        return run

    def step(self, run: Run, built: BuiltProgram, *, number: int) -> None:
        """Runs a program once; `number` counts the segment's runs."""
        # Which samples a batch has follows from the state's own counter.
        batches = DatasetBatches(
            data=self._dataset, seed=self._program.seed, slot=self._slot, step=int(run.tensor(_STEP).item())
        )
        if number != self._recheck:
            run.step(batches)
            return
        before = run.state()
        run.step(batches)
        repeated = ReferenceEngine().open(built)
        repeated.load(before)
        repeated.step(batches)
        _compare(built, run.state(), repeated.state(), engine=self._engine.name, number=number)

    def merged(self, built: BuiltProgram, taken: list[Tensor]) -> State:
        """The state that a merge makes of the tensors of all its states."""
        run = self.open(built, taken)
        run.step()
        made = run.state()
        if self._recheck == 0:
            repeated = ReferenceEngine().open(built)
            repeated.load(taken)
            repeated.step()
            _compare(built, made, repeated.state(), engine=self._engine.name, number=0)
        return _named(self._program, made)

    def evaluated(self, state: State, *, number: int) -> State:
        """The state after the evaluation program."""
        run = self.open(self._program.evaluation, list(state.values()))
        self.step(run, self._program.evaluation, number=number)
        return _named(self._program, run.state())

    def report(self, run: Run, *, done: int, total: int, seconds: float) -> StepReport:
        """Where the segment stands."""
        return StepReport(
            step=int(run.tensor(_STEP).item()),
            done=done,
            total=total,
            loss=float(run.tensor(_LOSS).item()),
            tokens=done * self._program.tokens_per_step,
            seconds=seconds,
        )


@contextmanager
def _keeping(snapshot: Callable[[State], None] | None, held: Callable[[StepLost], State | None]) -> Iterator[None]:
    """Where a step is lost, gives `snapshot` what `held` finds of the state before it."""
    try:
        yield
    except StepLost as lost:
        kept = held(lost)
        if snapshot is not None and kept is not None:
            snapshot(kept)
        raise


def _held(program: TaskProgram, lost: StepLost) -> State | None:
    return None if lost.state is None else _named(program, lost.state)


def _named(program: TaskProgram, tensors: list[Tensor]) -> State:
    return OrderedDict(zip(program.layout.names, tensors, strict=True))


def _compare(built: BuiltProgram, found: list[Tensor], wanted: list[Tensor], *, engine: str, number: int) -> None:
    for tensor, here, there in zip(built.program.states, found, wanted, strict=True):
        # As bytes, which tell zeros and NaNs apart; in one row, because a tensor may have no dimensions.
        if not torch.equal(*(one.reshape(-1).view(torch.uint8) for one in (here, there))):
            raise MachineFault(
                f"Run {number} of the segment gave another {tensor.name} on the {engine} engine than on the reference.",
                remedy="Nothing was submitted. Try `trainledger selftest`, and check this machine's memory; the "
                "reference engine alone is right but slow (TRAINLEDGER_ENGINE=reference).",
            )


def memory_of(program: TaskProgram) -> AbstractContextManager[None]:
    """Names a task's sizes where its training runs out of memory."""
    return memory_errors(
        f"training ({program.layout.parameter_count:,} parameters, batches of {program.tokens_per_step:,} tokens)",
        remedy="Close other programs, use a machine with more memory, or leave this task to others; "
        "a requester can post it again with a smaller batch_size, context or width.",
    )
