"""The protocol as discrete events: workers, rounds of slots, merges, challenge windows, blocks. Nothing is computed.

What is left out: disputes and audits (nobody cheats), tickets, the store's own limits.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy
from scale_setting import Counts, Setting

Steps = Generator[simpy.Event, Any, Any]


class Chain:
    """Blocks of a gas limit, which take transactions in the order in which they came."""

    def __init__(self, world: simpy.Environment, setting: Setting, counts: Counts) -> None:
        self._world, self._setting, self._counts = world, setting, counts
        self._waiting: deque[tuple[int, float, simpy.Event]] = deque()
        world.process(self._blocks())

    def send(self, gas: int) -> Steps:
        """Sends a transaction, and waits until its receipt is seen."""
        yield self._world.timeout(self._setting.latency)
        included = self._world.event()
        self._waiting.append((gas, self._world.now, included))
        self._counts.longest_queue = max(self._counts.longest_queue, len(self._waiting))
        yield included
        yield self._world.timeout(self._setting.latency)

    def _blocks(self) -> Steps:
        while True:
            yield self._world.timeout(self._setting.block_seconds)
            left = self._setting.block_gas
            while self._waiting and self._waiting[0][0] <= left:
                gas, since, included = self._waiting.popleft()
                left -= gas
                self._counts.gas += gas
                self._counts.transactions += 1
                self._counts.waited_seconds += self._world.now - since
                included.succeed()


@dataclass(eq=False)
class Worker:
    """One machine. `bases` are the rounds whose base it keeps, by task: the last one, of at most two tasks."""

    step_seconds: float
    bases: dict[int, int] = field(default_factory=dict)

    def keep(self, task: int, number: int) -> None:
        self.bases.pop(task, None)
        self.bases[task] = number
        while len(self.bases) > 2:
            self.bases.pop(next(iter(self.bases)))


class Pool:
    """Idle workers, and who waits for one. Merges come first: everybody waits for them, and they are short."""

    def __init__(self, world: simpy.Environment, workers: list[Worker]) -> None:
        self._world = world
        self._idle = list(workers)
        self._waiting: dict[bool, deque[simpy.Event]] = {True: deque(), False: deque()}

    def get(self, task: int, *, merge: bool = False) -> simpy.Event:
        """An event whose value is a worker: if there is a choice, one that keeps a base of the task's."""
        asked = self._world.event()
        if self._idle:
            worker = max(self._idle, key=lambda one: one.bases.get(task, -1))
            self._idle.remove(worker)
            asked.succeed(worker)
        else:
            self._waiting[merge].append(asked)
        return asked

    def put(self, worker: Worker) -> None:
        """Gives a worker back."""
        for merge in (True, False):
            if self._waiting[merge]:
                self._waiting[merge].popleft().succeed(worker)
                return
        self._idle.append(worker)

    def withdraw(self, asked: simpy.Event) -> None:
        """Takes back a `get` of a slot's."""
        if asked.triggered:
            self.put(asked.value)
        else:
            self._waiting[False].remove(asked)


@dataclass(eq=False)
class Attempt:
    """One lease: whether it was claimed, when its machine is repaired, the seconds that it has trained, and the tokens
    of it that nobody has taken yet.
    """

    claimed: bool = False
    back_at: float = 0.0
    seconds: float = 0.0
    tokens: int = 0


@dataclass(eq=False)
class Round:
    """A round under way: its first claim, the quorum, when slots were submitted, and who submitted the last one."""

    task: int
    number: int
    opened: simpy.Event
    enough: simpy.Event
    submitted: list[float] = field(default_factory=list)
    merger: Worker | None = None


class Group:
    """Workers who share tasks."""

    def __init__(
        self,
        world: simpy.Environment,
        setting: Setting,
        chain: Chain,
        counts: Counts,
        number: int,
        chance: random.Random,
    ) -> None:
        self._world, self._setting, self._chain, self._counts = world, setting, chain, counts
        self._chance = chance
        self.unsettled = 0
        self.workers = [
            Worker(setting.step_seconds * math.exp(chance.gauss(0.0, setting.spread))) for _ in range(setting.slots)
        ]
        self._pool = Pool(world, self.workers)
        round_seconds = setting.steps * setting.step_seconds + setting.window_seconds
        for place in range(setting.tasks):
            starts = chance.uniform(0.0, round_seconds) if setting.staggered else 0.0
            world.process(self._task(number * setting.tasks + place, starts))

    @property
    def _tokens(self) -> int:
        return self._setting.steps * self._setting.tokens_per_step

    def _task(self, task: int, starts: float) -> Steps:
        yield self._world.timeout(starts)
        for number in itertools.count() if self._setting.rounds is None else range(self._setting.rounds):
            yield from self._round(Round(task, number, self._world.event(), self._world.event()))
            self._counts.rounds += 1

    def _round(self, work: Round) -> Steps:
        setting, world = self._setting, self._world
        slots = [world.process(self._slot(work)) for _ in range(setting.slots)]
        yield world.all_of(slots) | world.process(self._quorum_after_deadline(work))
        for slot in slots:
            if slot.is_alive:
                slot.interrupt()
        yield from self._chain.send(setting.gas.collect + setting.gas.collect_slot * setting.slots)
        merged = yield from self._merge(work)
        finals = [world.process(self._finalise(at)) for at in work.submitted]
        yield world.all_of(finals)
        yield from self._until(merged + setting.window_seconds)
        yield from self._chain.send(setting.gas.finalise)
        self._counts.paid += len(work.submitted) * self._tokens
        self.unsettled -= len(work.submitted) * self._tokens

    def _quorum_after_deadline(self, work: Round) -> Steps:
        """Ends when the round may go on without the slots that are missing."""
        yield work.opened
        yield self._world.timeout(self._setting.deadline_seconds)
        yield work.enough

    def _slot(self, work: Round) -> Steps:
        """A slot until it is submitted, or until its round goes on without it."""
        done = False
        while not done:
            asked = self._pool.get(work.task)
            try:
                worker = yield asked
            except simpy.Interrupt:
                self._pool.withdraw(asked)
                return
            attempt = Attempt()
            try:
                done = yield from self._attempt(work, worker, attempt)
            except simpy.Interrupt:
                self._lose(attempt)
                if attempt.claimed:  # anybody may expire it
                    self._world.process(self._chain.send(self._setting.gas.lapsed))
                done = True
            if self._setting.last_merges and len(work.submitted) == self._setting.slots:
                work.merger = worker
            else:
                self._world.process(self._give_back(worker, attempt.back_at))

    def _give_back(self, worker: Worker, time: float) -> Steps:
        """A machine that failed takes no slot before it is repaired."""
        yield from self._until(time)
        self._pool.put(worker)

    def _attempt(self, work: Round, worker: Worker, attempt: Attempt) -> Generator[simpy.Event, Any, bool]:
        """One worker's lease of a slot; whether it was submitted."""
        setting, world = self._setting, self._world
        yield world.timeout(self._chance.uniform(0.0, setting.poll_seconds) + setting.requests * setting.latency)
        yield from self._base(work, worker)
        yield from self._chain.send(setting.gas.claim)
        self._counts.claims += 1
        attempt.claimed = True
        if not work.opened.triggered:
            work.opened.succeed()
        lease_ends = world.now + setting.lease_seconds
        if not (yield from self._train(worker, lease_ends, attempt)):
            self._lose(attempt)
            yield from self._until(lease_ends)
            yield from self._chain.send(setting.gas.lapsed)
            self._counts.lapsed += 1
            return False
        yield from self._move(sent=setting.difference_bytes)
        yield from self._chain.send(setting.gas.submit)
        work.submitted.append(world.now)
        if len(work.submitted) == max(1, math.ceil(setting.quorum * setting.slots)):
            work.enough.succeed()
        attempt.tokens = 0
        return True

    def _train(self, worker: Worker, lease_ends: float, attempt: Attempt) -> Generator[simpy.Event, Any, bool]:
        """Whether the segment was done within the lease. A failed machine goes on from its snapshot if it may."""
        setting, world = self._setting, self._world
        left = setting.steps * worker.step_seconds
        while left > 0:
            rate = setting.failures_per_hour / 3600
            until_failure = self._chance.expovariate(rate) if rate else math.inf
            trains = min(left, until_failure, max(0.0, lease_ends - world.now))
            began = world.now
            try:
                yield world.timeout(trains)
            finally:
                self._counts.busy_seconds += world.now - began
                attempt.seconds += world.now - began
            left -= trains
            if left <= 0:
                break
            if until_failure <= trains:
                attempt.back_at = world.now + setting.repair_seconds
                yield from self._until(min(attempt.back_at, lease_ends))
            if world.now >= lease_ends:
                return False
        self._counts.trained += self._tokens
        self.unsettled += self._tokens
        attempt.tokens = self._tokens
        return True

    def _lose(self, attempt: Attempt) -> None:
        self._counts.lost += attempt.tokens
        self._counts.wasted_seconds += attempt.seconds
        self.unsettled -= attempt.tokens
        attempt.seconds, attempt.tokens = 0.0, 0

    def _merge(self, work: Round) -> Generator[simpy.Event, Any, float]:
        """Claims, runs and submits the merge; gives the time of its submission."""
        setting, world = self._setting, self._world
        worker = work.merger
        if worker is None:
            worker = yield self._pool.get(work.task, merge=True)
        yield world.timeout(self._chance.uniform(0.0, setting.poll_seconds) + setting.requests * setting.latency)
        yield from self._base(work, worker)
        files = len(work.submitted) - 1  # one of them it has probably sent itself
        yield from self._move(received=setting.difference_bytes * files, files=files)
        yield from self._chain.send(setting.gas.claim)
        yield world.timeout(setting.merge_seconds)
        yield from self._move(sent=setting.state_bytes)
        yield from self._chain.send(setting.gas.submit)
        worker.keep(work.task, work.number + 1)
        self._pool.put(worker)
        return float(world.now)

    def _base(self, work: Round, worker: Worker) -> Steps:
        """Has the round's base: kept, merged from the slots' files, or fetched whole, whichever is fewest bytes."""
        setting = self._setting
        behind = work.number - worker.bases.get(work.task, -1)
        if behind == 0:
            return
        files = behind * setting.slots - 1  # one of the last round's it has probably sent itself
        if behind > work.number or files * setting.difference_bytes >= setting.state_bytes:
            yield from self._move(received=setting.state_bytes)
        else:
            yield from self._move(received=files * setting.difference_bytes, files=files)
            yield self._world.timeout(behind * setting.merge_seconds)
        worker.keep(work.task, work.number)

    def _move(self, *, sent: float = 0.0, received: float = 0.0, files: int = 1) -> Steps:
        self._counts.sent += sent
        self._counts.received += received
        yield self._world.timeout(files * self._setting.latency + (sent + received) / self._setting.bandwidth)

    def _finalise(self, submitted: float) -> Steps:
        yield from self._until(submitted + self._setting.window_seconds)
        yield from self._chain.send(self._setting.gas.finalise)

    def _until(self, time: float) -> Steps:
        yield self._world.timeout(max(0.0, time - self._world.now))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a simulation gave.

    Attributes:
        whole: from the start to the end; measured: after the warm-up alone. seconds: of what was measured.
        unsettled: tokens submitted, or trained and about to be, of rounds that were not final at the end.
        most_tokens_per_second: of all workers, if each trained all the time.
    """

    setting: Setting
    whole: Counts
    measured: Counts
    seconds: float
    unsettled: int
    most_tokens_per_second: float

    @property
    def tokens_per_second(self) -> float:
        return self.measured.paid / self.seconds

    @property
    def busy(self) -> float:
        """Share of all workers' time that they trained in."""
        return self.measured.busy_seconds / (self.seconds * self.setting.workers)

    @property
    def chain_load(self) -> float:
        """Gas over what the blocks could hold."""
        return self.measured.gas / (self.seconds / self.setting.block_seconds * self.setting.block_gas)


def simulate(setting: Setting) -> Outcome:
    """Runs one setting. The same setting gives the same outcome."""
    if setting.workers % setting.slots:
        raise ValueError(f"{setting.workers} workers are no whole groups of {setting.slots}")
    world, counts, chance = simpy.Environment(), Counts(), random.Random(setting.seed)
    chain = Chain(world, setting, counts)
    groups = [
        Group(world, setting, chain, counts, number, chance) for number in range(setting.workers // setting.slots)
    ]
    speeds = [worker.step_seconds for group in groups for worker in group.workers]
    warm = setting.warm * setting.horizon
    if warm:
        world.run(until=warm)
    before = Counts(**vars(counts))
    world.run(until=setting.horizon)
    return Outcome(
        setting=setting,
        whole=counts,
        measured=counts.since(before),
        seconds=setting.horizon - warm,
        unsettled=sum(group.unsettled for group in groups),
        most_tokens_per_second=sum(setting.tokens_per_step / one for one in speeds),
    )
