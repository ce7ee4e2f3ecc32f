"""`trainledger selftest`: passes here, and says so when a machine is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ledger.errors import MachineFault
from trainer.cli import app
from trainer.engine.exact.selftest import KNOWN_ANSWERS

ROOT = Path(__file__).resolve().parent.parent.parent


def test_selftest_names_what_is_right() -> None:
    result = CliRunner().invoke(app, ["selftest"])
    assert result.exit_code == 0, result.output
    assert all(name in result.stdout for name in KNOWN_ANSWERS)
    assert "the fastest here is" in result.stdout


def test_selftest_json_is_the_whole_result() -> None:
    result = CliRunner().invoke(app, ["selftest", "--json"])
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert {one["name"] for one in document["checks"]} == {*KNOWN_ANSWERS, "an exact product"}
    assert document["fastest"] in document["backends"]


def test_selftest_on_a_wrong_machine_is_refused_and_the_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN_ANSWERS, "square root", "11" * 32)
    result = CliRunner().invoke(app, ["selftest", "--json"])
    assert result.exit_code == MachineFault.exit_code
    assert json.loads(result.stdout)["passed"] is False
    assert "does not compute exactly: square root" in json.loads(result.stderr)["problem"]


def test_selftest_runs_with_torch_and_numpy_alone() -> None:
    absent = ("web3", "typer", "rich", "fsspec", "eth_account", "rfc8785")
    blocked = f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
    program = blocked + "from trainer.engine.exact.selftest import main\nsys.argv[1:] = []\nsys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
