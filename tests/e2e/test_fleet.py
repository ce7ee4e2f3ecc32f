"""`fleet up`: workers over a Ray cluster of this machine, and a real chain. Who is killed comes back."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stage import Process, Stage

from ledger.types import SlotStatus

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

PASSWORD = "a fleet's password"
MEAN = """
[round]
slots = 4
deadline_seconds = 900
merge_reward = "2"

[merge]
kind = "mean"
"""


def members(fleet: Process) -> dict[str, dict[str, Any]]:
    """Each worker, as the last line about the whole fleet has it."""
    said = [line for line in fleet.lines() if line["event"] in ("fleet", "fleet-finished")]
    return {one["member"]: one for one in said[-1]["workers"]} if said else {}


def wait_until(fleet: Process, what: Callable[[], bool], *, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert fleet.popen.poll() is None, fleet.err.read_text()[-3000:]
        assert time.monotonic() < end, fleet.out.read_text()[-3000:]
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def start(stage: Stage, *words: str, workers: int, name: str) -> Process:
    names = [f"{name}-{number}" for number in range(1, workers + 1)]
    for one in names:
        stage.fund(one)
    stage.keystore(*names, password=PASSWORD)
    options = ["--workers", str(workers), "--name", name, "--stake", "50", "--exit-when-done", *words]
    return stage.command(None, "fleet", "up", *options, TRAINLEDGER_PASSWORD=PASSWORD)


def process_of(fleet: Process, name: str, *, other: int | None = None) -> int:
    """The worker's process, another than one that was there before."""
    wait_until(fleet, lambda: members(fleet).get(name, {}).get("process") not in (None, other))
    return int(members(fleet)[name]["process"])


def test_killed_worker_is_back_and_ctrl_c_keeps_its_training(stage: Stage) -> None:
    task = stage.post(rounds=1, steps=100_000, lease=600, window=600, target=0.2)
    fleet = start(stage, "--task", str(task), workers=1, name="solo")
    wait_until(fleet, lambda: (members(fleet).get("solo-1", {}).get("step") or 0) > 0)
    first = process_of(fleet, "solo-1")
    os.kill(first, signal.SIGKILL)
    said = fleet.wait_for("restarting", member="solo-1")
    assert said["text"] == "The worker was ended by signal 9. Starting it again."
    resumed = fleet.wait_for("resumed", member="solo-1")
    assert resumed["step"] > 0
    second = process_of(fleet, "solo-1", other=first)
    os.killpg(fleet.popen.pid, signal.SIGINT)
    assert fleet.ended() == 128 + signal.SIGINT, fleet.err.read_text()
    assert not alive(second)
    assert members(fleet)["solo-1"]["state"] == "stopped"
    assert members(fleet)["solo-1"]["starts"] == 2
    assert list((stage.home / "workers").rglob("round-0-*.safetensors"))
    slot = stage.client("deployer").slot(task, 0)
    assert slot.status is SlotStatus.LEASED


@pytest.mark.full
@pytest.mark.timeout(600)
def test_four_workers_one_model_with_a_worker_and_a_watcher_killed(own_stage: Stage) -> None:
    stage = own_stage
    task = stage.post(rounds=2, steps=10_000, lease=600, window=600, target=0.2, more=MEAN)
    fleet = start(stage, "--task", str(task), workers=4, name="four")
    wait_until(fleet, lambda: fleet.events().count("claimed") == 4)
    worker = process_of(fleet, "four-1")
    watched = process_of(fleet, "four-2")
    os.kill(worker, signal.SIGKILL)
    os.kill(parent(watched), signal.SIGKILL)  # Ray's process, whose worker must end before another is started
    fleet.wait_for("restarting", member="four-1")
    process_of(fleet, "four-2", other=watched)
    assert not alive(watched)
    stage.play_out(task, seconds=400)
    assert fleet.ended(seconds=120) == 0, fleet.err.read_text()
    found = members(fleet)
    assert {one["state"] for one in found.values()} == {"done"}
    assert found["four-1"]["starts"] == 2
    assert fleet.events().count("submitted") == 2 * 5  # two rounds of four slots and a merge; none was done twice
    assert sum(one["rounds_submitted"] for one in found.values()) == 2 * 5
    assert stage.ask("verify", str(task), "--all")["agrees"] is True


@pytest.mark.full
def test_killed_fleet_leaves_no_worker_and_goes_on(stage: Stage) -> None:
    task = stage.post(rounds=1, steps=20_000, lease=600, window=600, target=0.2)
    words = ("--task", str(task), "--json", "--", "--idle-exit", "600")
    first = start(stage, *words, workers=1, name="again")
    wait_until(first, lambda: (members(first).get("again-1", {}).get("step") or 0) > 0)
    worker = process_of(first, "again-1")
    first.kill()
    end = time.monotonic() + 60.0
    while alive(worker):
        assert time.monotonic() < end
        time.sleep(0.1)
    options = ("--workers", "1", "--name", "again", *words)
    second = stage.command(None, "fleet", "up", *options, TRAINLEDGER_PASSWORD=PASSWORD)
    assert second.wait_for("resumed", member="again-1")["step"] > 0
    second.wait_for("submitted", member="again-1")
    os.kill(second.popen.pid, signal.SIGTERM)
    assert second.ended() == 128 + signal.SIGTERM


@pytest.mark.full
def test_fleet_that_the_cluster_has_no_room_for_refused(stage: Stage) -> None:
    fleet = start(stage, "--cpus", "1000", workers=2, name="large")
    assert fleet.ended() == 2
    assert "2 workers of 1000 CPUs each need 2000, and the Ray cluster has" in fleet.err.read_text()


def test_unfunded_accounts_and_unknown_tasks_refused(stage: Stage) -> None:
    task = stage.post(rounds=1)
    words = ("fleet", "up", "--name", "poor", "--task", str(task), "--json")
    done = stage.run(*words, "--workers", "1", TRAINLEDGER_PASSWORD=PASSWORD)
    assert done.exit_code == 3
    assert "has no ether and lacks 5 tokens of stake." in done.stderr
    done = stage.run(*words, "--task", "999", TRAINLEDGER_PASSWORD=PASSWORD)
    assert done.exit_code == 3
    assert "Task 999 does not exist" in done.stderr
