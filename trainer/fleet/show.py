"""A fleet's progress: one table for people, lines of JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import IO, Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ledger.amounts import format_tokens
from ledger.cli.output import table
from trainer.fleet.orders import Report

_COLUMNS = ("worker", "machine", "state", "task", "round", "step", "loss", "tokens/s", "rounds", "earned", "starts")


class FleetReporter(Protocol):
    """Where a fleet's words go."""

    def show(self, reports: Sequence[Report]) -> None:
        """Where all workers stand, and what is new of them. May be called often."""

    def say(self, event: str, text: str, **fields: object) -> None:
        """Something happened to the fleet as a whole."""

    def over(self, reports: Sequence[Report]) -> None:
        """Where all workers stood at the end."""


def summary(reports: Sequence[Report]) -> dict[str, Any]:
    """All workers and their totals, as JSON: amounts are decimal strings of wei, losses nats per token or null."""
    return {
        "workers": [_as_json(report) for report in reports],
        "training": sum(report.progress is not None for report in reports),
        "tokens_per_second": sum(_speed(report) for report in reports),
        "rounds_submitted": sum(report.submitted for report in reports),
        "earned": str(sum(report.earned for report in reports)),
        "starts": sum(report.starts for report in reports),
    }


def _speed(report: Report) -> float:
    return 0.0 if report.progress is None else float(report.progress["tokens_per_second"])


def _as_json(report: Report) -> dict[str, Any]:
    progress = report.progress or {}
    return {
        "member": report.name,
        "machine": report.machine,
        "process": report.process,
        "state": report.state,
        **{name: progress.get(name) for name in ("task", "round", "step", "steps", "loss", "tokens_per_second")},
        "rounds_submitted": report.submitted,
        "earned": str(report.earned),
        "starts": report.starts,
        "problem": report.problem,
    }


def fleet_table(reports: Sequence[Report]) -> Table:
    """One line a worker, and one of totals."""
    rows = [_row(report) for report in reports]
    whole = summary(reports)
    speed = f"{whole['tokens_per_second']:,.0f}" if whole["training"] else ""
    total = ["TOTAL", "", f"{whole['training']} training", "", "", "", "", speed]
    total += [whole["rounds_submitted"], format_tokens(int(whole["earned"])), whole["starts"]]
    right = ("task", "round", "step", "loss", "tokens/s", "rounds", "earned", "starts")
    return table(_COLUMNS, [*rows, total], right=right)


def _row(report: Report) -> list[object]:
    progress = report.progress
    work: list[object] = ["", "", "", "", ""]
    if progress is not None:
        loss = "not finite" if progress["loss"] is None else f"{progress['loss']:.4f}"
        step = f"{progress['step']}/{progress['steps']}"
        work = [progress["task"], progress["round"], step, loss, f"{progress['tokens_per_second']:,.0f}"]
    state = "training" if progress is not None else "waiting" if report.state == "working" else report.state
    return [report.name, report.machine, state, *work, report.submitted, format_tokens(report.earned), report.starts]


class JsonFleet:
    """What each worker says, a line each with its name as `member`; and every few seconds an event "fleet" of all."""

    def __init__(self, stream: IO[str], *, interval: float = 2.0) -> None:
        self._stream, self._interval, self._shown_at = stream, interval, time.monotonic()

    def show(self, reports: Sequence[Report]) -> None:
        for report in reports:
            for _, record in report.news:
                self._write(record)
        if time.monotonic() - self._shown_at >= self._interval:
            self.say("fleet", "", **summary(reports))
            self._shown_at = time.monotonic()

    def say(self, event: str, text: str, **fields: object) -> None:
        self._write({"event": event, "text": text, "time": round(time.time(), 3), **fields})

    def over(self, reports: Sequence[Report]) -> None:
        self.say("fleet-finished", "", **summary(reports))

    def _write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()


class TextFleet:
    """Each worker's sentences with its name in front; on a terminal the table below them, elsewhere now and then."""

    def __init__(self, console: Console, *, interval: float = 30.0) -> None:
        self._console, self._interval, self._shown_at = console, interval, time.monotonic()
        self._live: Live | None = None

    def show(self, reports: Sequence[Report]) -> None:
        if self._console.is_terminal and self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        for report in reports:
            for _, record in report.news:
                if record["text"]:
                    self._print(f"{report.name:<12} {record['text']}")
        if self._live is not None:
            self._live.update(fleet_table(reports), refresh=True)
        elif time.monotonic() - self._shown_at >= self._interval:
            self._console.print(fleet_table(reports))
            self._shown_at = time.monotonic()

    def say(self, event: str, text: str, **fields: object) -> None:
        self._print(text)

    def over(self, reports: Sequence[Report]) -> None:
        if self._live is not None:
            self._live.update(fleet_table(reports), refresh=True)
            self._live.stop()
        else:
            self._console.print(fleet_table(reports))

    def _print(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, highlight=False, soft_wrap=True)
