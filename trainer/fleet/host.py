"""Runs one worker as a process of this machine: starts it again when it dies, and says where it stands."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ledger.atomic import release_lock, try_lock, write_atomically
from ledger.errors import MachineFault, ToolMissing, UsageError
from trainer.fleet.child import PATIENCE
from trainer.fleet.orders import Order, Report, State
from trainer.worker.folders import worker_folder

# Exit codes that would be the same another time.
_HOPELESS = frozenset({UsageError.exit_code, ToolMissing.exit_code, MachineFault.exit_code})
# Seconds before a worker is started again: at first, then twice as many each time up to the last.
_FIRST_PAUSE, _LAST_PAUSE = 1.0, 60.0
_KEPT_NEWS, _KEPT_ERRORS = 1000, 40
_LOCK_POLL = 0.2
# What torchrun tells its processes, which a worker must not take for its own.
_TORCHRUN = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
_COMMAND = (sys.executable, "-m", "trainer.fleet.child")


class WorkerHost:
    """A worker and who watches it. Its methods may be called from any thread, and return at once."""

    def __init__(self, order: Order, *, command: Sequence[str] = _COMMAND, first_pause: float = _FIRST_PAUSE) -> None:
        """Starts the worker.

        Args:
            command: what runs the words of a trainledger command until its standard input ends. first_pause: seconds.
        """
        self._order, self._command = order, tuple(command)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._state: State = "starting"
        self._process: subprocess.Popen[str] | None = None
        self._starts = self._failures = self._submitted = self._number = 0
        self._earned_before = self._earned = 0
        self._progress: dict[str, Any] | None = None
        self._news: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_KEPT_NEWS)
        self._errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
        self._problem = ""
        self._exit_code: int | None = None
        self._pause = first_pause
        self._incarnation = secrets.token_hex(8)
        threading.Thread(target=self._run, daemon=True).start()

    def report(self, since: int = 0) -> Report:
        """Where the worker stands, with all that it said after the news of that number."""
        with self._lock:
            return Report(
                name=self._order.name,
                incarnation=self._incarnation,
                machine=socket.gethostname(),
                state=self._state,
                process=None if self._process is None else self._process.pid,
                starts=self._starts,
                progress=self._progress,
                submitted=self._submitted,
                earned=self._earned_before + self._earned,
                news=tuple(one for one in self._news if one[0] > since),
                problem=self._problem,
                exit_code=self._exit_code,
            )

    def stop(self) -> None:
        """Has the worker end between two steps, with a snapshot, and not start again."""
        self._stop.set()
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # nobody else would hear of it
            self._end("failed", f"{type(error).__name__}: {error}")

    def _watch(self) -> None:
        environment = self._prepare()
        while not self._stop.is_set():
            self._wait_for_lock()
            code = self._once(environment)
            if code == 0:
                self._end("done", "")
                return
            if self._stop.is_set():
                break
            code, problem = self._reason(code)
            if code in _HOPELESS or self._failures >= self._order.restarts:
                self._end("failed", problem)
                return
            self._failures += 1
            with self._lock:
                self._state, self._problem = "restarting", problem
            self._say("restarting", f"{problem} Starting it again.", exit_code=code)
            self._stop.wait(self._pause)
            self._pause = min(_LAST_PAUSE, 2 * self._pause)
        self._end("stopped", "")

    def _prepare(self) -> dict[str, str]:
        """Puts key and deployment record where the worker finds them; the worker's environment."""
        order, folder = self._order, Path(self._order.home) / "fleet"
        record = folder / "deployments" / order.name / "deployment.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        (folder / "keys").mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(folder / "keys" / f"{order.name}.json", order.key, mode=0o600)
        write_atomically(record, order.deployment)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TRAINLEDGER_", "TORCHELASTIC_")) and name not in _TORCHRUN
        }
        own = {
            "TRAINLEDGER_HOME": order.home,
            "TRAINLEDGER_KEYSTORE": str(folder / "keys"),
            "TRAINLEDGER_DEPLOYMENT": str(record),
            "TRAINLEDGER_ACCOUNT": order.name,
            "TRAINLEDGER_PASSWORD": order.password,
            "PYTHONUNBUFFERED": "1",
        }
        return kept | order.settings | own

    def _wait_for_lock(self) -> None:
        """Waits for a worker of this account that outlived who watched it, and is about to end."""
        path = worker_folder(Path(self._order.home), self._order.address) / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + PATIENCE
        while not self._stop.is_set() and time.monotonic() < end:
            descriptor = try_lock(path)
            if descriptor is not None:
                release_lock(descriptor)
                return
            self._stop.wait(_LOCK_POLL)

    def _once(self, environment: dict[str, str]) -> int:
        """Runs the worker until it ends: its exit code, negative where a signal ended it."""
        ranks = ["--ranks", str(self._order.ranks)] if self._order.ranks > 1 else []
        process = subprocess.Popen(
            [*self._command, *ranks, "worker", "run", *self._order.words, "--json"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for who watches it
        )
        self._errors.clear()
        with self._lock:
            self._process, self._state = process, "working"
            self._starts += 1
        if self._stop.is_set() and process.stdin is not None:
            process.stdin.close()
        errors = threading.Thread(target=self._read_errors, args=(process,), daemon=True)
        errors.start()
        assert process.stdout is not None  # asked for above
        for line in process.stdout:
            self._take(line)
        code = process.wait()
        errors.join(1.0)
        with self._lock:
            if process.stdin is not None:
                process.stdin.close()  # ranks that outlived torchrun end by it
            self._process, self._progress, self._exit_code = None, None, code
            self._earned_before, self._earned = self._earned_before + self._earned, 0
        return code

    def _read_errors(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None  # asked for where it was started
        for line in process.stderr:
            self._errors.append(line.strip())

    def _take(self, line: str) -> None:
        """Notes what the worker said."""
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # cut short by a kill
            return
        with self._lock:
            if record.get("event") == "progress":
                self._progress = record if record["step"] < record["steps"] else None
                return
            if record.get("event") == "submitted":
                self._submitted += 1
                self._failures, self._progress = 0, None
            if record.get("event") in ("paid", "finished"):
                self._earned = int(record["earned"])
        self._say(record.pop("event", ""), record.pop("text", ""), **record)

    def _say(self, event: str, text: str, **fields: Any) -> None:
        with self._lock:
            self._number += 1
            moment = {"time": round(time.time(), 3)} | fields
            self._news.append((self._number, {"event": event, "member": self._order.name, "text": text, **moment}))

    def _reason(self, code: int) -> tuple[int, str]:
        """The exit code and the sentence by which a worker ended; torchrun's own code says nothing."""
        for line in reversed(self._errors):
            try:
                error = json.loads(line)
                return int(error["exit_code"]), f"{error['problem']} {error['remedy']}".strip()
            except (ValueError, KeyError, TypeError):
                continue
        if code < 0:
            return code, f"The worker was ended by signal {-code}."
        return code, f"The worker ended with exit code {code}."

    def _end(self, state: State, problem: str) -> None:
        with self._lock:
            self._state, self._problem, self._process = state, problem, None
        if problem:
            self._say("failed", problem)
