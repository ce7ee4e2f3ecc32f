from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import PROJECT, CommandLine

pytestmark = [pytest.mark.chain, pytest.mark.timeout(120)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Keeper:
    """A running `trainledger up --json`; `document` is what it reported."""

    def __init__(self, line: CommandLine, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from ledger.cli import make_app; make_app()()", "up", "--json", *arguments],
            env={**os.environ, **line.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        text = ""
        assert self.process.stdout is not None
        while not text.endswith("\n}\n"):
            part = self.process.stdout.readline()
            assert part, (text, self.process.stderr.read() if self.process.stderr else "")
            text += part
        self.document: dict[str, Any] = json.loads(text)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[CommandLine]:
    """A home whose chain is ended with the test, whoever was killed in it."""
    line = CommandLine(tmp_path / "home")
    yield line
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(json.loads((line.home / "chain" / "node.json").read_text())["pid"], signal.SIGKILL)


def test_up_deploys_once_and_goes_on_after_stops_and_kills(home: CommandLine) -> None:
    home.keys.new("alice", "correct horse")
    port = str(free_port())
    first = Keeper(home, "--chain-port", port, "--fund", "alice")
    assert first.document["started"] is True
    assert first.document["rpc_url"] == f"http://127.0.0.1:{port}"
    ledger = first.document["ledger"]
    # Other commands find the chain's port by themselves, and the funds are there.
    end = time.monotonic() + 20
    while home.json("account", "show", "alice")["tokens_held"]["tokens"] != "1000":
        assert time.monotonic() < end
    home.json("account", "stake", "3", "--account", "alice")

    said = home.run("up", "--minimum-clock", "5000")
    assert "The contracts are there already: a side has 120 seconds in a dispute, and 30 for each move." in said.stderr
    second = home.json("up")
    assert (second["started"], second["rpc_url"], second["ledger"]) == (False, first.document["rpc_url"], ledger)

    time.sleep(2)  # the saver looks twice a second
    node = json.loads((home.home / "chain" / "node.json").read_text())["pid"]
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    adopting = Keeper(home, "--chain-port", port)
    assert (adopting.document["started"], adopting.document["ledger"]) == (True, ledger)
    assert adopting.end(signal.SIGKILL) == -signal.SIGKILL
    os.kill(node, signal.SIGKILL)
    loading = Keeper(home, "--chain-port", port, "--fund", "alice")
    assert loading.document["ledger"] == ledger
    assert home.json("account", "show", "alice")["staked"]["tokens"] == "3"
    assert loading.end(signal.SIGTERM) == 0
    assert "No answer" in home.fail(3, "task", "list", TRAINLEDGER_RPC_URL=f"http://127.0.0.1:{port}")

    last = Keeper(home, "--chain-port", port)
    assert last.document["ledger"] == ledger
    assert last.end(signal.SIGINT) == 0


def test_up_port_taken_says_by_whom_and_what_to_do(home: CommandLine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = home.run("up", "--chain-port", str(port))
    assert result.exit_code == 3
    assert f"Port {port} is in use" in result.stderr
    assert "--chain-port" in result.stderr


def test_up_with_rpc_url_or_bad_amount_is_refused(home: CommandLine) -> None:
    assert "--rpc-url names one" in home.fail(2, "up", "--rpc-url", "http://127.0.0.1:1")
    assert "--ether is 'x'" in home.fail(2, "up", "--ether", "x")
    assert "no account 'nobody'" in home.fail(2, "up", "--fund", "nobody")
    assert not (home.home / "chain").exists()
