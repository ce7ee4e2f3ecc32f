"""The demonstration: played to its end after kills, and its parts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from demo_play import TASK, wait_for
from rich.console import Console

from ledger.errors import TrainledgerError
from ledger.types import VaultTotals
from trainer.demo.commands import CommandFailed, Commands
from trainer.demo.report import Earning, _check
from trainer.demo.runs import open_run
from trainer.demo.workers import WorkerProcess

SOLVENT = VaultTotals(held=10, staked=4, owed=6)


def start(home: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    words = ["demo", "--json", "--home", str(home), "--task-file", str(home.parent / "task.toml")]
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", *words], stdout=output, stderr=(home.parent / "progress").open("ab")
    )


@pytest.mark.full  # .ci/run plays the whole demonstration, undisturbed
@pytest.mark.chain
@pytest.mark.timeout(800)  # a whole demonstration and a half, beside other tests
def test_demo_killed_in_training_goes_on_and_adds_up(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK)
    progress, result = tmp_path / "progress", tmp_path / "result"
    with result.open("wb") as output:
        first = start(tmp_path / "demo", output)
        try:
            wait_for(progress, "Claimed round 0", first)
        finally:
            first.kill()
            first.wait()
        assert result.read_bytes() == b""
        second = start(tmp_path / "demo", output)
        assert second.wait(480) == 0, progress.read_text()
    report = json.loads(result.read_text())
    assert [one["round"] for one in report["rounds"]] == [0, 1]
    assert {len(one["rounds"]) for one in report["earnings"]} == {1}
    assert sum(int(one["received"]) for one in report["earnings"]) == sum(int(one["paid"]) for one in report["rounds"])
    assert all(0 < int(one["paid"]) <= 25 * 10**18 for one in report["rounds"])
    vault = {name: int(value) for name, value in report["vault"].items()}
    assert vault["held"] == vault["staked"] + vault["owed"]
    # The cheat lost its bond of 10, half of it to the auditor.
    assert vault["staked"] == 390 * 10**18
    dispute = report["dispute"]
    assert (dispute["lost"], dispute["awarded"]) == (str(10 * 10**18), str(5 * 10**18))
    assert dispute["cheat"] not in [one["worker"] for one in report["rounds"]]
    assert 6 <= dispute["transactions"] <= 16
    assert dispute["gas"] < 2_500_000
    shown = progress.read_text()
    assert "the challenger won by proof" in shown  # walked down to one element, and not settled by a clock
    assert "near parameter.embedding.weight" in shown
    assert report["sample"].startswith("def ")
    # One task only, and both commands in one run; the orphaned workers of the killed one are gone.
    assert [path.name for path in (tmp_path / "demo").glob("run-*")] == ["run-1"]
    assert "Going on with the demonstration" in progress.read_text()
    assert report["task"] == 1
    listing = subprocess.run(["ps", "-ww", "-eo", "command"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listing


def test_open_run_goes_on_until_finished_and_then_starts_afresh(tmp_path: Path) -> None:
    first = open_run(tmp_path)
    assert (first.folder.name, first.resumed) == ("run-1", False)
    assert first.password_file.stat().st_mode & 0o777 == 0o600
    first.note(task=3)
    first.note(port=1)
    again = open_run(tmp_path)
    assert (again.folder, again.resumed, again.read()) == (first.folder, True, {"task": 3, "port": 1})
    again.note(finished=True)
    assert open_run(tmp_path).folder.name == "run-2"


def test_open_run_killed_before_its_password_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "run-4").mkdir()
    assert open_run(tmp_path).folder.name == "run-5"


def commands(folder: Path) -> Commands:
    return Commands(open_run(folder), "http://127.0.0.1:9", Console(file=(folder / "console").open("w")))


def test_commands_failing_names_the_command_and_its_words(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        commands(tmp_path).say("task", "show", "1")
    assert caught.value.status == 3
    assert "`trainledger task show 1` ended with exit code 3" in caught.value.problem
    assert "No answer from the chain at http://127.0.0.1:9" in caught.value.problem


def test_worker_process_that_keeps_dying_is_given_up_with_its_words(tmp_path: Path) -> None:
    worker = WorkerProcess("worker-1", "green", ["worker", "run", "--no-such-option"], commands(tmp_path))
    worker.start()
    console = Console(file=(tmp_path / "shown").open("w+"))

    def watch_to_the_end() -> None:
        while worker.watch(console):
            time.sleep(0.1)

    with pytest.raises(TrainledgerError, match=r"worker-1 ended with exit code 2 4 times: .*no-such-option"):
        watch_to_the_end()


def test_worker_process_start_ends_only_its_own_orphan(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        worker = WorkerProcess("worker-1", "green", ["worker", "run", "--no-such-option"], commands(tmp_path))
        (worker.log_path.parent / "worker-1.pid").write_text(str(sleeper.pid))
        worker.start()
        worker.stop()
        assert sleeper.poll() is None  # the number belongs to somebody else now
    finally:
        os.kill(sleeper.pid, signal.SIGKILL)
        sleeper.wait()


def test_worker_process_start_ends_an_orphan_whose_command_line_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as in many a terminal: `ps` would cut its lines
    words = ["-c", "import time; time.sleep(60)", "-m", "trainer.cli", "x" * 200, "--account", "worker-1"]
    orphan = subprocess.Popen([sys.executable, *words])
    try:
        worker = WorkerProcess("worker-1", "green", ["worker", "run", "--no-such-option"], commands(tmp_path))
        (worker.log_path.parent / "worker-1.pid").write_text(str(orphan.pid))
        worker.start()
        worker.stop()
        assert orphan.wait(10) == -signal.SIGTERM
    finally:
        orphan.kill()
        orphan.wait()


@pytest.mark.parametrize(
    ("earning", "totals", "losses", "problem"),
    [
        (Earning(name="w", address="0x", rounds=(0,), expected=5, received=4), SOLVENT, [2.0, 1.0], "received 4 wei"),
        (Earning(name="w", address="0x", rounds=(), expected=0, received=0), SOLVENT, [2.0, 1.0], r"rounds \[\]"),
        (
            Earning(name="w", address="0x", rounds=(0,), expected=5, received=5),
            VaultTotals(held=9, staked=4, owed=6),
            [2.0, 1.0],
            "holds 9 wei and owes 10",
        ),
        (Earning(name="w", address="0x", rounds=(0,), expected=5, received=5), SOLVENT, [2.0, 2.0], "did not fall"),
    ],
)
def test_check_refuses_what_does_not_add_up(
    earning: Earning, totals: VaultTotals, losses: list[float], problem: str
) -> None:
    with pytest.raises(TrainledgerError, match=problem):
        _check([earning], totals, losses)
