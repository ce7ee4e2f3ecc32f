"""Processes of the demonstration (workers, a cheat, an auditor): started, watched, shown, started again if they die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from ledger.errors import TrainledgerError
from trainer.demo.commands import Commands

_RESTARTS = 3
_STOP_SECONDS = 20.0


class WorkerProcess:
    """One `trainledger … --json` that runs on, whose lines are shown with its name in front.

    Its output goes to a file, not a pipe, so that a worker outlives a killed demonstration, and can say so.

    Args:
        words: the command, with the account's name in it. module: whose command it is.

    Attributes:
        losses: of the rounds that were trained.
        found_right: (round, state root) of submissions that an audit agreed to.
        in_training: whether the last that it said was progress of a round with steps left.
    """

    def __init__(
        self, name: str, colour: str, words: list[str], commands: Commands, *, module: str = "trainer.cli"
    ) -> None:
        self.name = name
        self.losses: dict[int, list[float]] = {}
        self.found_right: set[tuple[int, str]] = set()
        self.in_training = False
        self._module = module
        self._colour = colour
        self._words = words
        self._commands = commands
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[str] | None = None
        self._pid_file = commands.run.folder / f"{name}.pid"

    @property
    def started(self) -> bool:
        """Whether a process of it was started in this demonstration."""
        return self._process is not None

    @property
    def log_path(self) -> Path:
        """All that this worker said, one JSON object a line."""
        return self._commands.run.folder / f"{self.name}.jsonl"

    def start(self) -> None:
        """Starts the process, after stopping one that a killed demonstration left behind."""
        self._stop_orphan()
        self._starts += 1
        with self.log_path.open("ab") as log, (self.log_path.with_suffix(".err")).open("ab") as errors:
            self._process = subprocess.Popen(
                self._commands.arguments(*self._words, "--json", module=self._module),
                env=self._commands.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
            )
        self._pid_file.write_text(str(self._process.pid))
        if self._log is None:
            self._log = self.log_path.open(encoding="utf-8")
            self._log.seek(0, os.SEEK_END)

    def watch(self, console: Console) -> bool:
        """Shows what is new; True while the process runs.

        Raises:
            TrainledgerError: the process died more often than it may.
        """
        self._show_news(console)
        assert self._process is not None  # start comes first
        status = self._process.poll()
        if status is None:
            return True
        self._show_news(console)
        if status == 0:
            self._pid_file.unlink(missing_ok=True)
            return False
        if self._starts > _RESTARTS:
            words = self.log_path.with_suffix(".err").read_text(encoding="utf-8", errors="replace").strip()
            raise TrainledgerError(
                f"{self.name} ended with exit code {status} {self._starts} times: {words.splitlines()[-2:]}.",
                remedy=f"See {self.log_path}; then run the demonstration again.",
            )
        self._print(console, f"ended with exit code {status}; starting it again")
        self.start()
        return True

    def stop(self) -> None:
        """Ends the process politely, so that it saves a snapshot; kills it where that takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """Ends the process as a power cut would (kill -9). `start` starts it again."""
        assert self._process is not None  # start comes first
        self._process.kill()
        self._process.wait()
        self._pid_file.unlink(missing_ok=True)
        self.in_training = False

    def _stop_orphan(self) -> None:
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return
        if self._is_worker(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + _STOP_SECONDS
            while self._is_worker(pid) and time.monotonic() < deadline:
                time.sleep(0.1)
            if self._is_worker(pid):
                os.kill(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)

    def _is_worker(self, pid: int) -> bool:
        """Whether the process of that number is this worker, and not another that was given the number since."""
        listing = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
        return all(word in listing.stdout for word in (self._module, self.name))

    def _show_news(self, console: Console) -> None:
        assert self._log is not None  # start comes first
        while True:
            place = self._log.tell()
            line = self._log.readline()
            if not line.endswith("\n"):  # nothing yet, or half a line
                self._log.seek(place)
                return
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # a line cut short by a kill
                continue
            self._show(console, record)

    def _show(self, console: Console, record: dict[str, Any]) -> None:
        if record.get("event") == "audited" and record.get("finding") == "agrees":
            self.found_right.add((int(record["round"]), str(record["submitted_root"])))
        self.in_training = record.get("event") == "progress" and int(record["step"]) < int(record["steps"])
        if record.get("event") != "progress":
            if record.get("text"):
                self._print(console, str(record["text"]))
            return
        loss = record.get("loss")
        self.losses.setdefault(int(record["round"]), []).append(float("nan") if loss is None else float(loss))
        self._print(
            console,
            f"round {record['round']}  step {record['step']:>4}/{record['steps']}  loss {self._number(loss)}  "
            f"{record['tokens_per_second']:,.0f} tokens/s  {record['eta_seconds']:.0f} s to go",
        )

    @staticmethod
    def _number(loss: float | None) -> str:
        return "not finite" if loss is None else f"{loss:.4f}"

    def _print(self, console: Console, text: str) -> None:
        console.print(f"[{self._colour}]{self.name:<9}[/] ", end="")
        console.print(text, markup=False, highlight=False, soft_wrap=True)
