"""What a worker says while it works: sentences and a progress bar for people, one JSON object a line for programs."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import IO, Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ledger.amounts import format_tokens


@dataclass(frozen=True, kw_only=True)
class RoundProgress:
    """Where a round stands: `step` of `steps` are done.

    `loss` is in nats per token, smoothed over the last steps; `earned` in wei, since this worker started.
    """

    task: int
    round: int
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    eta_seconds: float
    earned: int


class Reporter(Protocol):
    """Where a worker's words go."""

    def say(self, event: str, text: str, **fields: object) -> None:
        """Something happened once: `event` is its stable name, `text` a sentence, `fields` its values."""
        ...

    def progress(self, progress: RoundProgress) -> None:
        """Training went on. May be called often; the reporter shows what is worth showing."""
        ...

    def round_over(self) -> None:
        """Training of the round that progress was last told of has ended, well or not."""
        ...


class JsonReporter:
    """One JSON object a line, flushed at once: `event`, `time` (Unix seconds), `text`, and the event's own fields.

    Amounts are decimal strings of wei, roots "0x" strings, losses null where they are not finite. Progress comes at
    most every `interval` seconds, and always for the last step.
    """

    def __init__(self, stream: IO[str], *, interval: float = 1.0) -> None:
        self._stream = stream
        self._interval = interval
        self._shown_at = -math.inf

    def say(self, event: str, text: str, **fields: object) -> None:
        self._write({"event": event, "time": round(time.time(), 3), "text": text, **fields})

    def progress(self, progress: RoundProgress) -> None:
        now = time.monotonic()
        if now - self._shown_at < self._interval and progress.step < progress.steps:
            return
        self._shown_at = now
        fields: dict[str, Any] = asdict(progress)
        fields["earned"] = str(progress.earned)
        self._write({"event": "progress", "time": round(time.time(), 3), **fields})

    def round_over(self) -> None:
        self._shown_at = -math.inf

    def _write(self, record: dict[str, object]) -> None:
        self._stream.write(json.dumps({name: _plain(value) for name, value in record.items()}) + "\n")
        self._stream.flush()


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class TextReporter:
    """Sentences with the time of day; on a terminal a live bar, elsewhere a line of progress every few seconds."""

    def __init__(self, console: Console, *, interval: float = 5.0) -> None:
        self._console = console
        self._interval = interval
        self._shown_at = -math.inf
        self._bar: Progress | None = None
        self._bar_task: TaskID | None = None
        self._lock = threading.Lock()

    def say(self, event: str, text: str, **fields: object) -> None:
        self._console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {escape(text)}", highlight=False, soft_wrap=True)

    def progress(self, progress: RoundProgress) -> None:
        with self._lock:
            if self._console.is_terminal:
                self._show_bar(progress)
                return
            now = time.monotonic()
            if now - self._shown_at < self._interval and progress.step < progress.steps:
                return
            self._shown_at = now
        self.say("progress", progress_line(progress))

    def round_over(self) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
            self._bar, self._bar_task, self._shown_at = None, None, -math.inf

    def _show_bar(self, progress: RoundProgress) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), console=self._console
            )
            self._bar.start()
            self._bar_task = self._bar.add_task("", total=progress.steps, words="")
        assert self._bar_task is not None  # made together with the bar, just above
        self._bar.update(
            self._bar_task,
            completed=progress.step,
            total=progress.steps,
            description=f"task {progress.task} round {progress.round}",
            words=progress_line(progress, short=True),
        )

    def __enter__(self) -> TextReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.round_over()


def progress_line(progress: RoundProgress, *, short: bool = False) -> str:
    """One line of progress; `short` leaves out what the bar already shows."""
    where = (
        f"{progress.step}/{progress.steps}"
        if short
        else (f"Task {progress.task} round {progress.round}: step {progress.step}/{progress.steps}")
    )
    return (
        f"{where}, loss {progress.loss:.4f}, {progress.tokens_per_second:,.0f} tokens/s, "
        f"{duration(progress.eta_seconds)} to go, {format_tokens(progress.earned)} earned"
    )


def duration(seconds: float) -> str:
    """Seconds as people read them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
