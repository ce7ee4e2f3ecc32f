"""Who watches one worker: starts it again where that may help, and hands on what it says."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from trainer.fleet.host import WorkerHost
from trainer.fleet.orders import ENDED, Order, Report

# Stands for a worker. Each start takes the next word of a plan: an exit code, "kill", or "wait" for the input's end.
_WORKER = """
import json, os, signal, sys
from pathlib import Path
folder = Path(os.environ["TRAINLEDGER_HOME"])
starts = folder / "starts"
number = int(starts.read_text()) if starts.exists() else 0
starts.write_text(str(number + 1))
(folder / "seen").write_text(json.dumps({"words": sys.argv[1:], "environment": dict(os.environ)}))
say = lambda **fields: print(json.dumps(fields), flush=True)
say(event="started", text="Here.")
say(event="progress", step=1, steps=2, tokens_per_second=10.0)
what = (folder / "plan").read_text().split()[number]
if what == "round":
    say(event="submitted", text="Submitted.")
    say(event="paid", text="Paid.", earned=str(5 + number))
    what = "1"
if what == "wait":
    while os.read(0, 10):
        pass
    sys.exit(143)
if what == "0":
    say(event="finished", text="Gone.", earned="3")
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "8":
    error = {"error": "MachineFault", "problem": "It is wrong.", "remedy": "Mend it.", "exit_code": 8}
    print("something else", json.dumps(error), sep="\\n", file=sys.stderr)
    what = "1"  # as torchrun ends, whatever its processes do
sys.exit(int(what))
"""


def start(home: Path, plan: str, *, restarts: int = 2, ranks: int = 1) -> WorkerHost:
    (home / "plan").write_text(plan)
    order = Order(
        name="ann",
        address="0xAB",
        key=b"a key",
        password="secret",
        deployment=b"a record",
        home=str(home),
        settings={"TRAINLEDGER_POLL_SECONDS": "7"},
        words=("--task", "3"),
        ranks=ranks,
        restarts=restarts,
    )
    return WorkerHost(order, command=(sys.executable, "-c", _WORKER), first_pause=0.01)


def ended(host: WorkerHost) -> Report:
    end = time.monotonic() + 30.0
    while (report := host.report()).state not in ENDED:
        assert time.monotonic() < end, report
        time.sleep(0.01)
    return report


def test_host_starts_a_worker_that_dies_again(tmp_path: Path) -> None:
    report = ended(start(tmp_path, "kill 1 0"))
    assert (report.state, report.starts, report.process, report.exit_code) == ("done", 3, None, 0)
    texts = [record["text"] for _, record in report.news if record["event"] == "restarting"]
    assert texts == [
        "The worker was ended by signal 9. Starting it again.",
        "The worker ended with exit code 1. Starting it again.",
    ]
    assert {record["member"] for _, record in report.news} == {"ann"}


def test_host_gives_up_after_as_many_starts_as_allowed(tmp_path: Path) -> None:
    report = ended(start(tmp_path, "1 1 1 0"))
    assert (report.state, report.starts) == ("failed", 3)
    assert report.problem == "The worker ended with exit code 1."


def test_host_counts_anew_after_a_round_and_adds_up_what_was_earned(tmp_path: Path) -> None:
    report = ended(start(tmp_path, "1 round 1 round 0", restarts=2))
    assert (report.state, report.starts) == ("done", 5)
    assert (report.submitted, report.earned) == (2, 6 + 8 + 3)


def test_host_does_not_repeat_what_would_be_the_same(tmp_path: Path) -> None:
    report = ended(start(tmp_path, "8 0"))
    assert (report.state, report.starts) == ("failed", 1)
    assert report.problem == "It is wrong. Mend it."


def test_host_stop_ends_the_worker_by_its_input(tmp_path: Path) -> None:
    host = start(tmp_path, "wait 0")
    while host.report().progress is None:
        time.sleep(0.01)
    host.stop()
    report = ended(host)
    assert (report.state, report.starts, report.exit_code) == ("stopped", 1, 143)
    assert report.progress is None


def test_host_news_are_numbered_and_told_once(tmp_path: Path) -> None:
    host = start(tmp_path, "1 0")
    report = ended(host)
    assert [number for number, _ in report.news] == [1, 2, 3, 4]
    assert [record["event"] for _, record in host.report(since=1).news] == ["restarting", "started", "finished"]
    assert host.report(since=4).news == ()


def test_host_worker_gets_its_account_and_nothing_of_torchruns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TRAINLEDGER_STORE", "file:///elsewhere")
    ended(start(tmp_path, "0", ranks=2))
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["words"] == ["--ranks", "2", "worker", "run", "--task", "3", "--json"]
    own = {name: value for name, value in seen["environment"].items() if name.startswith("TRAINLEDGER_")}
    keys, record = tmp_path / "fleet/keys", tmp_path / "fleet/deployments/ann/deployment.json"
    assert own == {
        "TRAINLEDGER_HOME": str(tmp_path),
        "TRAINLEDGER_POLL_SECONDS": "7",
        "TRAINLEDGER_KEYSTORE": str(keys),
        "TRAINLEDGER_DEPLOYMENT": str(record),
        "TRAINLEDGER_ACCOUNT": "ann",
        "TRAINLEDGER_PASSWORD": "secret",
    }
    assert "RANK" not in seen["environment"]
    assert record.read_bytes() == b"a record"
    assert (keys / "ann.json").read_bytes() == b"a key"
    assert os.stat(keys / "ann.json").st_mode & 0o777 == 0o600


def test_order_shows_no_secret() -> None:
    order = Order(password="secret", deployment=b"record", home="/home", settings={"URL": "http://user:word@host"})
    assert not any(word in repr(order) for word in ("secret", "word@", "record"))
