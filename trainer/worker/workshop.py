"""Getting a round ready to be trained: its materials, its first state, and whether this machine is up to it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger.amounts import format_tokens
from ledger.errors import BlobMissing, DataError, SettingsError, SpecificationError, ToolMissing
from trainer.commit.states import inputs_root
from trainer.engine.engines import Engine, ReferenceEngine
from trainer.engine.segment import run_segment
from trainer.engine.state import State, step_of
from trainer.materials import Description, Materials, fetch_description, fetch_materials
from trainer.program.estimate import estimate
from trainer.store import BlobStore
from trainer.worker.board import TaskView
from trainer.worker.machine import SpeedRecord, free_memory
from trainer.worker.policy import Reason, WorkerOptions, judge_resources, judge_speed, judge_store
from trainer.worker.ports import ChainReader
from trainer.worker.progress import Reporter
from trainer.worker.round import RESUME, Prepared
from trainer.worker.snapshots import JobKey, SnapshotStore
from trainer.worker.starts import StartingStates
from trainer.worker.stop import Stop

# A task whose materials could not be had is tried again after so many seconds, then twice as many, up to the last.
_FIRST_RETRY, _LAST_RETRY = 5.0, 300.0
# Steps run to learn a program's speed before anything is promised about it.
_TRIAL_STEPS = 4
# A round that seems to take so many leases is not even tried; the estimate is rough, so this is wide.
_HOPELESS = 8
# Nothing can interrupt a single run of a program, so one that seems to take so many seconds is not begun either.
_LONGEST_RUN = 86_400.0
# One run of each round is repeated on the reference interpreter, which is so many times slower than a compiled program
# on the same processor: 60 to 80 were measured.
_REFERENCE_SLOWER = 100
# Files that a round leaves on the disk at once: two bases, the snapshot, the one that replaces it, the result.
_STATES_ON_DISK = 5
_KEPT_MATERIALS = 2
_KEPT_BASES = 2
# Seconds between two lines about a download.
_DOWNLOAD_NEWS = 5.0


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which ledger this is: chain id, address, and the hash of the block that the deployment is in."""

    chain_id: int
    ledger: str
    deployment_block: str


@dataclass(frozen=True)
class _Failure:
    """`needed`: what failed is needed by a round that is leased already, too."""

    reason: Reason
    needed: bool
    retry_at: float
    pause: float


class Workshop:
    """Prepares rounds; what failed is tried again later, ever less often, and what succeeded is kept for the next.

    `cache` may be shared by all processes of a home; `bases`, where first states are kept, is this worker's own.
    """

    def __init__(
        self,
        chain: ChainReader,
        *,
        identity: Identity,
        options: WorkerOptions,
        engine: Engine,
        store_url: str,
        open_store: Callable[[str], BlobStore],
        cache: Path,
        bases: Path,
        snapshots: SnapshotStore,
        speeds: SpeedRecord,
        reporter: Reporter,
        stop: Stop,
        clock: Callable[[], float],
    ) -> None:
        self._chain = chain
        self._identity = identity
        self._options = options
        self._engine = engine
        self._store_url = store_url
        self._open_store = open_store
        self._cache = cache
        self._bases = bases
        self._snapshots = snapshots
        self._speeds = speeds
        self._reporter = reporter
        self._stop = stop
        self._clock = clock
        self._starts = StartingStates(
            chain,
            engine=engine,
            folder=bases,
            free_memory=self._free_memory,
            reporter=reporter,
            stop=stop,
            resume=RESUME,
        )
        self._materials: dict[bytes, Materials] = {}
        self._failures: dict[JobKey, _Failure] = {}

    def key(self, view: TaskView) -> JobKey:
        """What names the work on a slot of a task's current round."""
        task = view.task
        base = self._chain.base_root(task.number, task.current_round)
        if view.state is not None and task.parameters.is_merge(view.slot.slot):
            base = view.state.inputs_root
        return JobKey(
            chain_id=self._identity.chain_id,
            ledger=self._identity.ledger,
            deployment_block=self._identity.deployment_block,
            task=task.number,
            round=task.current_round,
            slot=view.slot.slot,
            base_root=base,
            specification_hash=task.parameters.specification_hash,
        )

    def seconds_of(self, view: TaskView) -> float | None:
        """Seconds that a slot takes here, as far as the same task's rounds or merges were run before."""
        parameters = view.task.parameters
        if parameters.is_merge(view.slot.slot):
            return self._speeds.seconds_to_merge(parameters.program_root, self._engine.setting)
        speed = self._speeds.seconds_per_step(parameters.program_root, self._engine.setting)
        return None if speed is None else speed * parameters.steps_per_round

    def prepare(self, view: TaskView, *, leased: bool) -> Prepared | Reason:
        """A round with everything that training it takes, or what is missing.

        `leased`: the round is this worker's already, so only what makes it impossible counts.

        Raises:
            ResourceError: the disk filled up, or memory ran out in the trial.
            Interrupted, Terminated: asked to stop.
        """
        key = self.key(view)
        failure = self._failures.get(key)
        if failure is not None and self._clock() < failure.retry_at and (failure.needed or not leased):
            return failure.reason
        try:
            prepared = self._assemble(view, key)
        except (DataError, SpecificationError) as error:
            return self._failed(key, Reason("materials", _text(error), (str(error),)), needed=True)
        if isinstance(prepared, Reason):
            return self._failed(key, prepared, needed=True)
        reason = None if leased else self._judge(prepared)
        if reason is not None:
            return self._failed(key, reason, needed=False)
        self._failures.pop(key, None)
        return prepared

    def _failed(self, key: JobKey, reason: Reason, *, needed: bool) -> Reason:
        before = self._failures.get(key)
        pause = _FIRST_RETRY if before is None else min(_LAST_RETRY, before.pause * 2)
        self._failures[key] = _Failure(reason, needed, self._clock() + pause, pause)
        return reason

    def _assemble(self, view: TaskView, key: JobKey) -> Prepared | Reason:
        materials = self._materials_of(view)
        if isinstance(materials, Reason):
            return materials
        snapshot = self._snapshots.load(key, materials.layout)
        if snapshot is not None:
            return Prepared(
                key=key,
                materials=materials,
                start=snapshot.state,
                base_step=snapshot.base_step,
                snapshot=snapshot,
            )
        roots = [key.base_root]
        if materials.task.parameters.is_merge(key.slot):
            roots = list(self._chain.merge_inputs(key.task, key.round, key.base_root))
            if not roots or inputs_root(roots[0], roots[1:]) != key.base_root:
                return Reason(
                    "inputs", f"the inputs of the merge of round {key.round} changed just now", (key.base_root,)
                )
        watch = self._download_watch()
        start = self._starts.base(
            materials, key.round, roots[0], progress=lambda done, total: watch("the first state", done, total)
        )
        merged = self._starts.slots(materials, key.round, start, roots)
        self._forget_old_bases()
        return Prepared(
            key=key, materials=materials, start=start, base_step=step_of(start), snapshot=None, merged=merged or None
        )

    def _download_watch(self) -> Callable[[str, int, int], None]:
        """Shows the progress of long downloads, and ends them (to be gone on with later) when asked to stop."""
        shown_at = self._clock()

        def watch(what: str, done: int, total: int) -> None:
            nonlocal shown_at
            if self._stop.requested:
                raise self._stop.error(remedy=RESUME)
            if self._clock() - shown_at >= _DOWNLOAD_NEWS:
                shown_at = self._clock()
                self._reporter.say(
                    "downloading", f"Downloading {what}: {done / 2**20:.1f} of {total / 2**20:.1f} MiB.", done=done
                )

        return watch

    def _forget_old_bases(self) -> None:
        """Keeps the disk from filling with the states of rounds long past."""
        files = sorted(self._bases.rglob("*.safetensors"), key=_written_at, reverse=True)
        for path in files[_KEPT_BASES:]:
            path.unlink(missing_ok=True)
        if files:
            oldest = min(map(_written_at, files[:_KEPT_BASES]))
            for path in self._bases.rglob("*.difference"):  # each is to a base that was there before it
                if _written_at(path) < oldest:
                    path.unlink(missing_ok=True)

    def _materials_of(self, view: TaskView) -> Materials | Reason:
        task = view.task
        digest = task.parameters.specification_hash
        known = self._materials.get(digest)
        if known is not None and known.task.parameters == task.parameters:
            return known
        hint = self._chain.store_url(task.number)
        named = judge_store(hint, self._store_url, self._options.allowed_stores)
        try:
            store = self._open_store(named or self._store_url)
        except (SettingsError, ToolMissing) as error:
            if named is None:
                raise
            return Reason("store", f"the store that it names cannot be used: {error}", (named,))
        description = fetch_description(task, store)
        short = self._too_large(description)
        if short is not None:
            return short
        materials = fetch_materials(description, store, self._cache, progress=self._download_watch())
        self._materials.pop(digest, None)
        while len(self._materials) >= _KEPT_MATERIALS:
            self._materials.pop(next(iter(self._materials)))
        self._materials[digest] = materials
        return materials

    def _too_large(self, description: Description) -> Reason | None:
        memory = self._free_memory()
        disk = self._snapshots.free_bytes()
        if self._options.disk_bytes is not None:
            disk = min(disk, self._options.disk_bytes)
        return judge_resources(
            memory_needed=estimate(description.program).memory_bytes,
            memory_free=memory,
            disk_needed=_STATES_ON_DISK * description.layout.total_bytes,
            disk_free=disk,
        )

    def _free_memory(self) -> int | None:
        """Bytes that work may take here, as far as the system and the options tell."""
        memory, most = free_memory(self._options.device), self._options.memory_bytes
        return most if memory is None else memory if most is None else min(memory, most)

    def _judge(self, prepared: Prepared) -> Reason | None:
        if prepared.steps_left == 0 or prepared.merged is not None:
            return None  # a merge is a single pass over the states
        materials, parameters = prepared.materials, prepared.materials.task.parameters
        program = materials.program
        speed = self._speeds.seconds_per_step(program.root, self._engine.setting)
        if speed is None:
            hopeless = self._too_slow_to_try(materials)
            if hopeless is not None:
                return hopeless
            speed = self._measure(materials, prepared.start)
        reason = judge_speed(parameters, self._options, seconds_per_step=speed, steps_left=prepared.steps_left)
        if reason is not None:
            # Other programs may have kept the machine busy just then: a refusal must not outlive its cause.
            self._speeds.forget(program.root, self._engine.setting)
        return reason

    def _too_slow_to_try(self, materials: Materials) -> Reason | None:
        """A stranger's program may be of any length, so it is judged by its cost before a single step is tried."""
        parameters = materials.task.parameters
        needed = estimate(materials.program)
        rate = self._speeds.flops_per_second(self._engine)
        longest = max(needed.work_per_step, needed.work_to_measure)
        single, repeated = longest / rate, 0.0
        if not self._engine.is_reference:
            repeated = longest / self._reference_rate(rate)
        whole = (needed.work_per_step * parameters.steps_per_round + needed.work_to_measure) / rate + repeated
        if whole > _HOPELESS * parameters.lease_seconds:
            flops = needed.flops_per_step * parameters.steps_per_round + needed.flops_to_measure
            return Reason(
                "slow",
                f"a round takes {flops / 1e9:,.0f} GFLOP, about {whole:,.0f} s on this machine by its general speed, "
                f"and the lease lasts {parameters.lease_seconds} s",
                (parameters.lease_seconds,),
            )
        if max(single, repeated) > _LONGEST_RUN:
            return Reason(
                "slow",
                f"a single run of its programs takes about {max(single, repeated):,.0f} s on this machine by its "
                f"general speed, and nothing could interrupt it; {_LONGEST_RUN:,.0f} s are the most",
                (parameters.lease_seconds,),
            )
        return None

    def _reference_rate(self, rate: float) -> float:
        """Operations a second of the reference, which is on the processor whatever the engine is on."""
        if self._options.device == "cpu":
            return rate / _REFERENCE_SLOWER
        return self._speeds.flops_per_second(ReferenceEngine())

    def _measure(self, materials: Materials, state: State) -> float:
        """Runs a few steps and one evaluation, and spreads the evaluation over a round's steps. Seconds per step.

        The first step is repeated on the reference: an engine that is wrong here is found before a bond is locked.
        """
        program, parameters = materials.program, materials.task.parameters
        self._reporter.say(
            "preparing", f"Preparing the programs of task {materials.task.number}.", task=materials.task.number
        )
        for built in (program.training, program.evaluation):
            self._engine.open(built)  # compiled now, so that compiling is no part of what is measured
        asked = parameters.steps_per_round
        times: list[float] = []
        result = run_segment(
            program,
            materials.dataset,
            state,
            steps=min(_TRIAL_STEPS, asked),
            engine=self._engine,
            report_every=1,
            on_step=lambda report: times.append(report.seconds),
            should_stop=lambda: self._stop.requested,
            recheck=0,
        )
        if not result.completed:
            raise self._stop.error(remedy=RESUME)
        # The first step is repeated, as one of each round is; of the others the middle one, for a moment's stall is no
        # speed.
        steps = [later - earlier for earlier, later in itertools.pairwise(times)]
        step = statistics.median(steps) if steps else times[0]
        total = times[0] + step * (asked - 1) + (result.seconds - times[-1])
        self._speeds.note(program.root, self._engine.setting, seconds=total, steps=asked)
        self._say_cost(materials, seconds=total)
        return total / asked

    def _say_cost(self, materials: Materials, *, seconds: float) -> None:
        needed, parameters = estimate(materials.program), materials.task.parameters
        flops = needed.flops_per_step * parameters.steps_per_round + needed.flops_to_measure
        hourly = int(parameters.slot_reward * 3600 / max(seconds, 1e-3))
        self._reporter.say(
            "measured",
            f"A round of task {materials.task.number} will take about {seconds:.0f} s on this machine: "
            f"{flops / 1e9:,.1f} GFLOP, {needed.memory_bytes / 2**20:,.0f} MiB of memory, at most "
            f"{format_tokens(hourly - hourly % 10**16)} tokens an hour.",
            task=materials.task.number,
            seconds=round(seconds, 3),
            flops=flops,
            memory_bytes=needed.memory_bytes,
            reward_per_hour=str(hourly),
        )


def _written_at(path: Path) -> float:
    return path.stat().st_mtime


def _text(error: DataError | SpecificationError) -> str:
    words = str(error)
    if isinstance(error, BlobMissing):
        return f"{words} (--allow-store lets the worker use the store that the task names)"
    return words
