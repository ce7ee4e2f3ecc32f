"""The real command line as tests drive it: in this process through typer's runner, or as a subprocess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from ledger.cli import make_app
from ledger.keys import KeyStore, Wallet

PASSWORD = "correct horse"
PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class CommandLine:
    """Runs commands in a home of its own. `rpc_url` and `deployment` are added to each where given."""

    home: Path
    rpc_url: str | None = None
    deployment: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        values = {"TRAINLEDGER_HOME": str(self.home), "TRAINLEDGER_PASSWORD": PASSWORD}
        if self.rpc_url:
            values["TRAINLEDGER_RPC_URL"] = self.rpc_url
        if self.deployment:
            values["TRAINLEDGER_DEPLOYMENT"] = str(self.deployment)
        return values

    @property
    def keys(self) -> KeyStore:
        """With a cheap key derivation: the cost stands in the file, so unlocking is quick too."""
        return KeyStore(self.home / "keys", scrypt_cost=2)

    def add(self, wallet: Wallet, name: str) -> Wallet:
        """Stores a test wallet under a name."""
        return self.keys.import_key(name, wallet._key.key.hex(), PASSWORD)

    def run(self, *arguments: str, input: str = "", **environment: str | None) -> Result:
        """Runs a command in this process."""
        values: dict[str, str | None] = {**self.environment, **environment}
        return CliRunner().invoke(make_app(), list(arguments), input=input, env=values, prog_name="trainledger")

    def json(self, *arguments: str) -> Any:
        """Runs a command that must succeed with --json, and reads what it printed."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        assert result.stderr == ""
        return json.loads(result.stdout)

    def fail(self, code: int, *arguments: str, **environment: str | None) -> str:
        """Runs a command that must fail with one sentence and a remedy; returns the sentence."""
        result = self.run(*arguments, **environment)
        assert result.exit_code == code, (result.stdout, result.stderr)
        lines = result.stderr.splitlines()
        errors = [line for line in lines if line.startswith("Error: ")]
        assert len(errors) == 1
        assert lines[-1].startswith("Try: ")
        assert "Traceback" not in result.output
        return errors[0].removeprefix("Error: ")

    def process(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs the whole `trainledger` in a process of its own."""
        return subprocess.run(
            [sys.executable, "-c", "from trainer.cli import main; main()", *arguments],
            env={**os.environ, **self.environment, **options.pop("env", {})},
            stdout=options.pop("output", subprocess.PIPE),
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            cwd=PROJECT,
            check=False,
            **options,
        )
