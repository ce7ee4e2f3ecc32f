"""Doing one round that is leased: train, keep, publish, submit. Every stage can be killed and taken up again."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.errors import (
    BlobCorrupt,
    BlobMissing,
    ChainError,
    ContractReverted,
    DataError,
    LeaseLost,
    MachineFault,
    ResourceError,
    TransactionFailed,
)
from ledger.performance import bits_float
from ledger.types import Slot, SlotStatus
from trainer.checkpoints import keep_state, load_state, save_state
from trainer.commit.states import loss_proof
from trainer.differences import save_difference
from trainer.engine.engines import Engine
from trainer.engine.segment import StepReport, run_merge, run_segment
from trainer.engine.state import State, heldout_loss_bits, step_of, steps_between
from trainer.materials import Materials
from trainer.worker.lease import LONGEST_PAUSE, Lease, LeaseWatch, is_outage, lease_problem, round_problem
from trainer.worker.machine import SpeedRecord
from trainer.worker.policy import WorkerOptions, mine
from trainer.worker.ports import WorkerChain
from trainer.worker.progress import Reporter, RoundProgress, duration
from trainer.worker.slots import slot_name
from trainer.worker.snapshots import JobKey, Snapshot, SnapshotStore
from trainer.worker.stop import Stop

RESUME = "Run the same command again: it goes on where this one stopped."


class MoveDue(Exception):
    """A dispute waits for this worker's move: training stops for it, and goes on from its snapshot afterwards."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A slot that can be worked on here: `start` is its base state, or a snapshot of training begun before.

    `merged` are the states that a merge takes beside the base, None for a slot that is missing; training has None.
    """

    key: JobKey
    materials: Materials
    start: State
    base_step: int
    snapshot: Snapshot | None
    merged: tuple[State | None, ...] | None = None

    @property
    def is_merge(self) -> bool:
        return self.materials.task.parameters.is_merge(self.key.slot)

    @property
    def name(self) -> str:
        """What is worked on, as users read it."""
        return slot_name(self.materials.task.parameters, self.key.task, self.key.round, self.key.slot)

    @property
    def steps_left(self) -> int:
        asked = 1 if self.is_merge else self.materials.task.parameters.steps_per_round
        if self.snapshot is not None and self.snapshot.stage == "trained":
            return 0
        return asked if self.is_merge else asked - steps_between(self.base_step, step_of(self.start))


@dataclass(frozen=True, kw_only=True)
class RoundDone:
    """A submission that stands on chain. `loss_bits` is binary32, `steps` what was done in the round."""

    key: JobKey
    task: int
    round: int
    slot: int
    attempt: int
    state_root: bytes
    steps: int
    loss_bits: int


class _SmoothLoss:
    """Mean of the last steps' losses, the older ones counting less: one batch's loss says little about training."""

    def __init__(self, *, memory_steps: float = 25.0) -> None:
        self._memory = memory_steps
        self._sum = self._weight = 0.0
        self._seen = 0

    def add(self, loss: float, *, steps: int) -> float:
        """The mean after a loss measured at step number `steps`; not finite once a loss is not."""
        fade = math.exp((self._seen - steps) / self._memory)
        self._seen = steps
        self._sum, self._weight = self._sum * fade + loss, self._weight * fade + 1.0
        return self._sum / self._weight


class RoundRunner:
    """Trains and submits leased rounds of one worker. What it made stays in `bases`: it need not be fetched again."""

    def __init__(
        self,
        chain: WorkerChain,
        *,
        options: WorkerOptions,
        engine: Engine,
        snapshots: SnapshotStore,
        bases: Path,
        speeds: SpeedRecord,
        reporter: Reporter,
        stop: Stop,
        earned: Callable[[], int],
        move_due: Callable[[], bool] = lambda: False,
    ) -> None:
        self._chain = chain
        self._options = options
        self._engine = engine
        self._snapshots = snapshots
        self._bases = bases
        self._speeds = speeds
        self._reporter = reporter
        self._stop = stop
        self._earned = earned
        self._move_due = move_due

    def run(self, prepared: Prepared, lease: Lease) -> RoundDone:
        """Takes a leased round to its submission.

        Raises:
            LeaseLost: the slot is no longer this worker's; its snapshot is kept.
            Interrupted, Terminated: asked to stop; the snapshot is written.
            ResourceError: disk or memory ran out; the last snapshot is kept.
            MachineFault: the run that was repeated on the reference gave other bits; the snapshots are gone.
            MoveDue: a dispute comes first; the snapshot is written.
        """
        trained = prepared.snapshot
        if trained is None or trained.stage != "trained":
            trained = self._train(prepared, lease) if prepared.merged is None else self._merge(prepared, lease)
        self._publish(prepared, trained, lease)
        return self._submit(prepared, trained, lease)

    def _train(self, prepared: Prepared, lease: Lease) -> Snapshot:
        materials, base_step = prepared.materials, prepared.base_step
        program, asked = materials.program, materials.task.parameters.steps_per_round
        before = steps_between(base_step, step_of(prepared.start))

        def keep(state: State) -> None:
            self._snapshots.save(
                prepared.key, attempt=lease.attempt, base_step=base_step, stage="training", state=state
            )

        smooth = _SmoothLoss()

        def show(report: StepReport) -> None:
            loss = smooth.add(report.loss, steps=report.done)
            self._reporter.progress(self._progress(report, lease, loss=loss, before=before, asked=asked))

        with LeaseWatch(self._chain, lease, self._reporter, poll_seconds=self._options.poll_seconds) as watch:
            try:
                result = run_segment(
                    program,
                    materials.dataset,
                    prepared.start,
                    steps=asked - before,
                    slot=lease.slot,
                    engine=self._engine,
                    report_every=self._report_every(prepared),
                    on_step=show,
                    snapshot=keep,
                    snapshot_seconds=self._options.snapshot_seconds,
                    should_stop=lambda: self._stop.requested or watch.problem is not None or self._move_due(),
                    # Any run of the segment, the evaluation too; nobody can know beforehand which.
                    recheck=secrets.randbelow(asked - before + 1),
                )
            except MachineFault:
                self._snapshots.remove(prepared.key)
                raise
            finally:
                self._reporter.round_over()
        if not result.completed:
            keep(result.state)
            done = before + result.steps
            if self._stop.requested:
                raise self._stop.error(remedy=f"Step {done} of {asked} is kept. {RESUME}")
            if watch.problem is None:
                raise MoveDue
            raise LeaseLost(watch.problem, remedy=f"Step {done} of {asked} is kept, in case the slot comes back.")
        if before == 0:  # in what was left of a round, measuring and the repeated run would count for too much
            self._speeds.note(program.root, self._engine.setting, seconds=result.seconds, steps=result.steps)
        if result.not_finite_at is not None:
            self._reporter.say(
                "loss-not-finite",
                f"The training loss was not finite at step {result.not_finite_at}; the program goes on as written.",
                task=lease.task,
                round=lease.round,
                step=result.not_finite_at,
            )
        return self._snapshots.save(
            prepared.key, attempt=lease.attempt, base_step=base_step, stage="trained", state=result.state
        )

    def _merge(self, prepared: Prepared, lease: Lease) -> Snapshot:
        materials = prepared.materials
        assert prepared.merged is not None
        there = sum(state is not None for state in prepared.merged)
        self._reporter.say(
            "merging",
            f"Merging {there} of {len(prepared.merged)} states of round {lease.round} of task {lease.task}.",
            task=lease.task,
            round=lease.round,
            states=there,
        )
        result = run_merge(
            materials.program,
            materials.dataset,
            prepared.start,
            prepared.merged,
            engine=self._engine,
            recheck=secrets.randbelow(2),
        )
        self._speeds.note_merge(materials.program.root, self._engine.setting, seconds=result.seconds)
        return self._snapshots.save(
            prepared.key, attempt=lease.attempt, base_step=prepared.base_step, stage="trained", state=result.state
        )

    def _report_every(self, prepared: Prepared) -> int:
        speed = self._speeds.seconds_per_step(prepared.materials.program.root, self._engine.setting)
        return 1 if speed is None else max(1, min(1000, int(self._options.attention_seconds / speed)))

    def _progress(self, report: StepReport, lease: Lease, *, loss: float, before: int, asked: int) -> RoundProgress:
        seconds = max(report.seconds, 1e-9)
        return RoundProgress(
            task=lease.task,
            round=lease.round,
            step=before + report.done,
            steps=asked,
            loss=loss,
            tokens_per_second=report.tokens / seconds,
            eta_seconds=(report.total - report.done) * seconds / report.done,
            earned=self._earned(),
        )

    def _publish(self, prepared: Prepared, trained: Snapshot, lease: Lease) -> None:
        """Puts the state into the store before anybody is told its root. A store that is down is waited for."""
        began, pause, silent = time.monotonic(), self._options.poll_seconds, False
        store = prepared.materials.store
        while True:
            try:
                root = self._save(prepared, trained.state)
                break
            except DataError as error:
                if not silent:
                    self._reporter.say(
                        "store-lost", f"{error.problem} The trained state is kept; trying again.", task=lease.task
                    )
                silent, pause = True, min(LONGEST_PAUSE, pause * 2)
                self._wait_for_store(lease, pause)
        if root != trained.root:  # memory that flips bits; a submission of either root would be disputed
            raise ResourceError(
                f"The state changed while it was saved: {root_hex(trained.root)} became {root_hex(root)}.",
                remedy="Check this machine's memory.",
            )
        self._reporter.say(
            "published",
            f"State {root_hex(root)} is in the store (took {duration(time.monotonic() - began)}; in all "
            f"{store.sent_bytes / 2**20:.1f} MiB sent there, {store.received_bytes / 2**20:.1f} MiB received).",
            task=prepared.key.task,
            round=prepared.key.round,
            state_root=root,
            sent_bytes=store.sent_bytes,
            received_bytes=store.received_bytes,
        )

    def _save(self, prepared: Prepared, state: State) -> bytes:
        """Stores a state: that of a slot among several as its difference to the base, which its merge has anyway.

        Whole where the base was fetched before a crash and the store has lost it since.
        """
        store, layout, key = prepared.materials.store, prepared.materials.layout, prepared.key
        if prepared.is_merge or not prepared.materials.task.parameters.merges:
            root = save_state(store, state, layout)
            keep_state(state, root, self._bases)
            return root
        try:
            base = prepared.start
            if prepared.snapshot is not None:
                base = load_state(store, key.base_root, layout, self._bases)
        except (BlobMissing, BlobCorrupt):
            root = save_state(store, state, layout)
            keep_state(state, root, self._bases)
            return root
        return save_difference(store, state, base, layout, base_root=key.base_root, kept=self._bases)

    def _wait_for_store(self, lease: Lease, seconds: float) -> None:
        """Waits while the lease stands. Raises LeaseLost when it does not, and what a stop asks for."""
        if self._stop.requested:
            raise self._stop.error(remedy=f"The trained state is kept. {RESUME}")
        self._stop.wait(seconds)
        try:
            problem = self._problem(lease, self._chain.slot(lease.task, lease.round, lease.slot))
        except ChainError as error:
            if not is_outage(error):
                raise
            return
        if problem is not None:
            raise LeaseLost(problem, remedy="The trained state is kept, in case the slot comes back.")

    def _submit(self, prepared: Prepared, trained: Snapshot, lease: Lease) -> RoundDone:
        done = RoundDone(
            key=prepared.key,
            task=lease.task,
            round=lease.round,
            slot=lease.slot,
            attempt=lease.attempt,
            state_root=trained.root,
            steps=1 if prepared.is_merge else steps_between(prepared.base_step, step_of(trained.state)),
            loss_bits=heldout_loss_bits(trained.state),
        )
        proof = loss_proof(trained.state.values())
        pause, silent = self._options.poll_seconds, False
        while (outage := self._try_submit(prepared, lease, done, proof)) is not None:
            if not silent:
                self._reporter.say(
                    "chain-lost", f"{outage} The trained state is kept, and submitted when it answers.", task=done.task
                )
            if self._stop.requested:
                raise self._stop.error(remedy=f"The trained state is kept. {RESUME}")
            silent, pause = True, min(LONGEST_PAUSE, pause * 2)
            self._stop.wait(pause)
        self._reporter.say(
            "submitted",
            f"Submitted {prepared.name}: {done.steps} step{'s' * (done.steps != 1)}, "
            f"held-out loss {bits_float(done.loss_bits):.4f}.",
            task=done.task,
            round=done.round,
            slot=done.slot,
            attempt=done.attempt,
            state_root=done.state_root,
            steps=done.steps,
            heldout_loss=bits_float(done.loss_bits),
        )
        return done

    def _try_submit(self, prepared: Prepared, lease: Lease, done: RoundDone, proof: list[bytes]) -> str | None:
        """Submits once. None: the submission stands. A text: the chain did not answer, and how it failed to."""
        try:
            try:
                self._chain.submit(
                    done.task,
                    done.round,
                    attempt=done.attempt,
                    base_root=prepared.key.base_root,
                    state_root=done.state_root,
                    steps=done.steps,
                    loss_bits=done.loss_bits,
                    proof=proof,
                    slot=done.slot,
                )
            except (ContractReverted, TransactionFailed) as refusal:
                self._check_stands(lease, done, refusal)
        except ChainError as error:
            if not is_outage(error):
                raise
            return error.problem
        return None

    def _check_stands(self, lease: Lease, done: RoundDone, refusal: ContractReverted | TransactionFailed) -> None:
        """Returns if the submission stands all the same. Raises LeaseLost where the lease is gone, else the refusal."""
        try:
            slot = self._chain.slot(done.task, done.round, lease.slot)
        except ContractReverted as error:
            raise LeaseLost(
                f"Task {done.task} is no longer on the chain, which must have lost its last blocks.",
                remedy="The trained state is kept.",
            ) from error
        held = slot.status in (SlotStatus.SUBMITTED, SlotStatus.FINALISED)
        if held and mine(slot, lease.worker) and slot.state_root == done.state_root:
            return
        problem = self._problem(lease, slot)
        if problem is not None:
            raise LeaseLost(problem, remedy="The trained state is kept, in case the slot comes back.") from refusal
        raise refusal

    def _problem(self, lease: Lease, slot: Slot) -> str | None:
        now = self._chain.chain_time()
        problem = lease_problem(lease, slot, now)
        if problem is None and lease.merges:
            problem = round_problem(lease, self._chain.round(lease.task, lease.round), now)
        return problem


def describe_lease(prepared: Prepared) -> str:
    """What was claimed, in one sentence."""
    parameters = prepared.materials.task.parameters
    return (
        f"Claimed {prepared.name} for {duration(parameters.lease_seconds)}, with a bond of "
        f"{format_tokens(parameters.bond)} tokens."
    )
