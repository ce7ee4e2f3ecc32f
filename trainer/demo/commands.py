"""Runs trainledger's own commands for the demonstration, shown as a user would type them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ledger.errors import TrainledgerError
from trainer.demo.runs import Run


class CommandFailed(TrainledgerError):
    """A command of the demonstration failed. `exit_code` of the demonstration is the command's own."""

    def __init__(self, command: str, status: int, words: str) -> None:
        super().__init__(
            f"`{command}` ended with exit code {status}: {words.strip() or 'it said nothing'}",
            remedy="Run `trainledger demo` again: it goes on where it stopped.",
        )
        self.status = status


@dataclass(frozen=True)
class Commands:
    """Runs commands in one run's home against one chain. With `json`, nothing is echoed. `threads` 0 means all."""

    run: Run
    rpc_url: str
    console: Console
    json: bool = False
    threads: int = 0

    def environment(self) -> dict[str, str]:
        """What a user would export once instead of repeating flags."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRAINLEDGER_")}
        return kept | {
            "TRAINLEDGER_HOME": str(self.run.folder),
            "TRAINLEDGER_RPC_URL": self.rpc_url,
            "TRAINLEDGER_PASSWORD_FILE": str(self.run.password_file),
            "TRAINLEDGER_THREADS": str(self.threads),
            "PYTHONUNBUFFERED": "1",
        }

    def arguments(self, *words: str, module: str = "trainer.cli") -> list[str]:
        """The argument vector of a command, run by this very Python."""
        return [sys.executable, "-m", module, *words]

    def show(self, *words: str) -> None:
        """Prints a command line as typed."""
        self.console.print(f"[bold cyan]$ trainledger {shlex.join(words)}[/]", highlight=False, soft_wrap=True)

    def say(self, *words: str) -> str:
        """Runs a command, echoing it and what it prints; returns its standard output."""
        self.show(*words)
        output = self._call(*words)
        for line in output.rstrip().splitlines():
            self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        return output

    def ask(self, *words: str) -> Any:
        """Runs a command with --json, silently, and returns its document."""
        return json.loads(self._call(*words, "--json"))

    def _call(self, *words: str) -> str:
        done = subprocess.run(self.arguments(*words), env=self.environment(), capture_output=True, text=True)
        if done.returncode != 0:
            raise CommandFailed(f"trainledger {shlex.join(words)}", done.returncode, done.stderr or done.stdout)
        return done.stdout
