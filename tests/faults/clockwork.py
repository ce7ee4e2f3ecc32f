"""Virtual time, and actors in threads of their own of which exactly one runs at a time.

So whole processes can be interleaved at each of their calls, a wait of an hour takes no time, and a seed gives the same
order again.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

# Real seconds in which an actor must come to its next call: more is a deadlock.
_STUCK = 120.0


class Killed(BaseException):
    """An actor's process dies: no handler of the product may catch this, and none goes on after it."""


class Actor:
    """A process that is played in a thread. `outcome` is what it raised, once it has ended; None for a good end."""

    def __init__(self, clock: Clockwork, name: str, play: Callable[[], None]) -> None:
        self.name, self.ended, self.killed = name, False, False
        self.outcome: BaseException | None = None
        self._clock, self._play = clock, play
        self._go = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self.killed:
                self._play()
        except Killed:
            self.killed = True
        except BaseException as error:  # handed to who looks at the schedule
            self.outcome = error
        self.ended = True
        self._clock.baton.release()

    def turn(self) -> None:
        """Runs until its next call or its end; on the clock's own thread."""
        if self.ended:
            return
        self._go.release()
        if not self._clock.baton.acquire(timeout=_STUCK):
            raise AssertionError(f"{self.name} does not come to its next call: a deadlock")

    def rest(self) -> None:
        """Gives others their turn; on the actor's own thread.

        Raises:
            Killed: it died meanwhile.
        """
        self._clock.baton.release()
        self._go.acquire()
        if self.killed:
            raise Killed


class Clockwork:
    """Seconds since the beginning, and what happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self.baton = threading.Semaphore(0)
        self.actors: list[Actor] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._running: Actor | None = None
        self._limit = 0.0

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Something that happens at a time, between two calls of any actor."""
        heapq.heappush(self._due, (max(when, self.now), next(self._numbers), act))

    def start(self, name: str, play: Callable[[], None]) -> Actor:
        """A new process, which begins now."""
        actor = Actor(self, name, play)
        self.actors.append(actor)
        actor.thread.start()
        self.at(self.now, lambda: self._turn(actor))
        return actor

    def here(self) -> Actor | None:
        """The actor on whose thread this is asked."""
        running = self._running
        return running if running is not None and running.thread is threading.current_thread() else None

    def sleep(self, seconds: float) -> None:
        """Waits on an actor's thread. Time passes, and others act meanwhile."""
        actor = self.here()
        assert actor is not None, "only actors wait"
        until = self.now + seconds
        if until > self._limit or (self._due and self._due[0][0] <= until):
            self.at(until, lambda: self._turn(actor))
            actor.rest()
        else:
            self.now = until

    def kill(self, actor: Actor) -> None:
        """Ends a process wherever it waits."""
        if not actor.ended:
            actor.killed = True
            self._turn(actor)

    def run(self, *, until: Callable[[], bool], limit: float) -> bool:
        """Lets time pass until something holds. False where it does not by the limit, or nothing happens any more."""
        self._limit = limit
        while not until():
            if not self._due or self._due[0][0] > limit:
                return False
            self.now, _, act = heapq.heappop(self._due)
            act()
        return True

    def close(self) -> None:
        """Ends all that still run."""
        for actor in self.actors:
            self.kill(actor)
            actor.thread.join(_STUCK)

    def _turn(self, actor: Actor) -> None:
        self._running = actor
        try:
            actor.turn()
        finally:
            self._running = None


class VirtualTime:
    """Stands in for the module `time` in modules that wait."""

    def __init__(self, clock: Clockwork) -> None:
        self._clock, self._measured = clock, 0.0

    def perf_counter(self) -> float:
        """What is measured takes no time of the schedule, and the same on every machine: workers choose by it."""
        if self._clock.here() is None:
            return time.perf_counter()
        self._measured += 0.001
        return self._clock.now + self._measured

    def monotonic(self) -> float:
        return self._clock.now if self._clock.here() is not None else time.monotonic()

    def sleep(self, seconds: float) -> None:
        if self._clock.here() is not None:
            self._clock.sleep(seconds)
        else:
            time.sleep(seconds)
