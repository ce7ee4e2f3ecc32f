"""Being asked to stop: Ctrl-C and SIGTERM end a worker between two steps, with a snapshot and no half-written file."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import ClassVar

from ledger.errors import TrainledgerError


class Interrupted(TrainledgerError):
    """Ctrl-C."""

    exit_code: ClassVar[int] = 128 + signal.SIGINT


class Terminated(TrainledgerError):
    """SIGTERM."""

    exit_code: ClassVar[int] = 128 + signal.SIGTERM


class Stop:
    """Whether somebody asked to stop, and a sleep that such a request ends."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._signal = signal.SIGINT

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def request(self, number: signal.Signals = signal.SIGINT) -> None:
        self._signal = number
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not on when a stop is requested."""
        self._event.wait(seconds)

    def error(self, *, remedy: str) -> TrainledgerError:
        """What to raise once work has been put in order."""
        if self._signal is signal.SIGTERM:
            return Terminated("Stopped by SIGTERM.", remedy=remedy)
        return Interrupted("Interrupted.", remedy=remedy)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A Stop that SIGINT and SIGTERM request; a second signal acts as the system's default does.

    Only in the main thread, which is the only one that Python lets handle signals.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.request(signal.Signals(number))
        # Whoever asks twice does not want to wait for the snapshot.
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
