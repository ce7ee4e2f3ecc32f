"""Work for all ranks of one worker at once: how it is asked for and answered, whoever started them (docs/ranks.md).

Each rank has a link to the process that asks, a pipe or a TCP connection. Both carry the same messages: a pickled
function with its arguments one way, and what became of it the other way.
"""

from __future__ import annotations

import multiprocessing.connection
import pickle
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar

from trainer.engine.engines import StepLost
from trainer.engine.exact.exchange import RankMissed, TorchGroup

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
# Asks a rank to leave.
_FAREWELL = b""


class RankFailed(StepLost):
    """A rank died, failed or did not answer; the others were stopped.

    Attributes:
        rank: which one. details: its traceback, "" where it left none.
    """

    def __init__(self, rank: int, problem: str, *, details: str = "", remedy: str = "") -> None:
        super().__init__(
            f"Rank {rank} {problem}; the other ranks were stopped.",
            remedy=remedy or "Run the segment again from its last checkpoint, on fewer ranks if memory was short.",
        )
        self.rank = rank
        self.details = details


@dataclass
class RankContext:
    """What work finds on its rank: the group, the device that it computes on, and what earlier work left there."""

    group: TorchGroup
    device: str = "cpu"
    held: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """What work raised on a rank. `missed`: only that another rank was gone."""

    problem: str
    details: str
    missed: bool

    @classmethod
    def of(cls, error: Exception) -> Failure:
        text = "".join(traceback.format_exception(error))
        return cls(f"failed: {type(error).__name__}: {error}", text, isinstance(error, RankMissed))


class Ranks(ABC):
    """Ranks that wait for work. Not for two threads at a time.

    Attributes:
        own: what the asking process holds where it is a rank itself, else None.
    """

    own: RankContext | None = None

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._failure: RankFailed | None = None
        self._links: dict[int, Connection] = {}

    @property
    @abstractmethod
    def ranks(self) -> int:
        """How many there are."""

    def call(
        self, work: Callable[Concatenate[RankContext, Arguments], Result], *args: Arguments.args, **_: Arguments.kwargs
    ) -> list[Result]:
        """work(context, *args) on every rank at once: their results, by rank.

        Args:
            work: a function that its module names; arguments and results are pickled.

        Raises:
            RankFailed: a rank died, raised or took too long; the others were stopped, and there are no more calls.
        """
        if self._failure is not None:
            raise self._failure
        if self._links:
            message = pickle.dumps((work, args))
            for link in self._links.values():
                # Beside this thread: a rank that has stopped reading must not keep it from the timeout.
                threading.Thread(target=send, args=(link, message), daemon=True).start()
        return self._answers(self._timeout, self._done_here(work, args))

    def stop(self, rank: int, problem: str) -> NoReturn:
        """Ends the ranks because one did something that it should not.

        Raises:
            RankFailed: always.
        """
        self._failure = RankFailed(rank, problem)
        self._end()
        raise self._failure

    @abstractmethod
    def close(self) -> None:
        """Ends the ranks: asked first, then without asking."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _done_here(self, work: Callable[..., Any], args: tuple[Any, ...]) -> dict[int, Any]:
        """What this process has to answer itself, by rank: nothing, where it is none."""
        return {}

    def _answers(self, timeout: float, answers: dict[int, Any]) -> list[Any]:
        """Waits for one answer of each rank that has none in `answers`."""
        deadline = time.monotonic() + timeout
        while len(answers) < self.ranks:
            missing = {self._links[rank]: rank for rank in range(self.ranks) if rank not in answers}
            left = max(0.0, deadline - time.monotonic())
            ready = multiprocessing.connection.wait(list(missing), left)
            if not ready:
                self._fail(min(missing.values()), Failure(f"gave no answer within {timeout:g} seconds", "", False))
            for link in ready:
                assert isinstance(link, Connection)
                rank = missing[link]
                answer = received(link)
                if isinstance(answer, Failure):
                    self._fail(rank, answer)
                answers[rank] = answer
        return [answers[rank] for rank in range(self.ranks)]

    @abstractmethod
    def _fail(self, rank: int, failure: Failure) -> NoReturn:
        """Stops all ranks and raises RankFailed, which blames the one that began it: the others may only miss it."""

    @abstractmethod
    def _end(self) -> None:
        """Ends the ranks without asking."""


def received(link: Connection) -> Any:
    """A rank's answer, or the Failure in its place."""
    try:
        return pickle.loads(link.recv_bytes())
    except (EOFError, OSError):  # its end is closed, because it is gone
        return Failure("is gone", "", False)


def send(link: Connection, message: bytes) -> None:
    """Sends to who may be gone, which whoever waits for its answer sees."""
    try:
        link.send_bytes(message)
    except OSError:
        return


def dismiss(link: Connection) -> None:
    """Asks a rank to leave."""
    send(link, _FAREWELL)
    link.close()


def serve(context: RankContext, link: Connection, *, leave_on_failure: bool) -> bool:
    """A rank's work, until its link closes; whether it was asked to leave.

    Args:
        leave_on_failure: after work that raised. The group's connections then close, which the others do not wait on.
    """
    while True:
        try:
            message = link.recv_bytes()
        except (EOFError, OSError):
            return False
        if message == _FAREWELL:
            return True
        try:
            work, arguments = pickle.loads(message)
            answer = work(context, *arguments)
        except Exception as error:
            answer = Failure.of(error)
        send(link, pickle.dumps(answer))
        if leave_on_failure and isinstance(answer, Failure):
            return False
