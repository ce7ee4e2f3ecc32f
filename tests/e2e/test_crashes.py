"""kill -9 of worker and chain at any moment, lost leases and stops: the same command goes on, nothing happens twice."""

from __future__ import annotations

import os
import signal
import time

import pytest
from small_programs import users_engine
from stage import Stage, kill_anvil

from ledger.errors import ChainError
from ledger.events import fetch_events
from ledger.types import Event, SlotStatus
from trainer.checkpoints import load_state
from trainer.commit.states import state_root
from trainer.engine.segment import run_segment
from trainer.materials import open_materials

pytestmark = pytest.mark.chain

LONG = {"rounds": 1, "steps": 4_000}  # some seconds of training, so that something can go wrong in the middle


_honest: dict[bytes, bytes] = {}


def honest_root(stage: Stage, task: int) -> bytes:
    """What a worker that nothing ever happened to submits for round 0: trained here, in one piece, with no worker."""
    specification = stage.client("deployer").task(task).parameters.specification_hash
    if specification not in _honest:
        _honest[specification] = train_honestly(stage, task)
    return _honest[specification]


def train_honestly(stage: Stage, task: int) -> bytes:
    client = stage.client("deployer")
    materials = open_materials(client, task, str(stage.home / "store"), stage.home / "test-cache")
    base = load_state(materials.store, materials.task.parameters.initial_state_root, materials.layout)
    steps = materials.task.parameters.steps_per_round
    result = run_segment(materials.program, materials.dataset, base, steps=steps, engine=users_engine())
    return state_root(result.state.values())


def landed(stage: Stage, task: int, name: str) -> list[Event]:
    """Events of a kind about a task that are on the chain."""
    client = stage.client("deployer")
    events = fetch_events(client.web3, stage.deployment, names={name}, artifacts=client.artifacts)
    return [event for event in events if event.arguments["task"] == task]


def assert_done_once(stage: Stage, task: int, *, claims: int = 1) -> None:
    assert [len(landed(stage, task, name)) for name in ("SlotClaimed", "Submitted", "Finalised")] == [claims, 1, 1]
    assert stage.client("deployer").checkpoint(task, 0).state_root == honest_root(stage, task)


@pytest.fixture(scope="module")
def first_steps(stage: Stage) -> None:
    """Lets both workers measure the program's speed, so that later workers start at once."""
    task = stage.post(**LONG)
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    stage.play_out(task)
    assert worker.ended() == 0
    assert_done_once(stage, task)


def repeat_task(stage: Stage) -> int:
    """The same task once more."""
    return int(stage.ask("task", "create", str(stage.task_file(**LONG)), "--again", account="requester")["task"])


@pytest.mark.usefixtures("first_steps")
# The schedules of tests/faults kill workers in every call; here one real process is killed in each run.
@pytest.mark.parametrize(
    "moment",
    ["progress", *(pytest.param(moment, marks=pytest.mark.full) for moment in ("claimed", "published", "submitted"))],
)
def test_worker_killed_and_started_again_submits_the_same_root_once(stage: Stage, moment: str) -> None:
    task = repeat_task(stage)
    words = ("--task", str(task), "--exit-when-done")
    worker = stage.worker("alice", *words)
    worker.wait_for(moment)
    if moment == "progress":
        time.sleep(0.3)  # some snapshots later
    worker.kill()
    slot = stage.client("deployer").slot(task, 0)
    # After "published" the submission may or may not have gone out: both must be gone on from.
    could_be = {"published": {SlotStatus.LEASED, SlotStatus.SUBMITTED}, "submitted": {SlotStatus.SUBMITTED}}
    assert slot.status in could_be.get(moment, {SlotStatus.LEASED})
    again = stage.worker("alice", *words)
    stage.play_out(task)
    assert again.ended() == 0, again.err.read_text()
    assert_done_once(stage, task)
    if moment == "progress":
        assert again.said("resumed")["step"] > 0


@pytest.mark.usefixtures("first_steps")
def test_chain_killed_in_training_is_waited_for(stage: Stage) -> None:
    task = repeat_task(stage)
    stage.chain.save()
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    worker.wait_for("progress")
    kill_anvil(stage.chain)
    worker.wait_for("chain-lost")
    stage.chain.start()
    stage.play_out(task)
    assert worker.ended() == 0, worker.err.read_text()
    # The claim may have been among the blocks that were lost, and then it was made again.
    assert_done_once(stage, task)


@pytest.mark.usefixtures("first_steps")
def test_lease_over_in_training_costs_the_fee_and_not_the_work(stage: Stage) -> None:
    task, client = repeat_task(stage), stage.client("alice")
    before = client.stake_account(client.address).staked
    worker = stage.worker("alice", "--task", str(task), "--exit-when-done")
    worker.wait_for("progress")
    stage.chain.advance(100)
    lost = worker.wait_for("lease-lost")
    assert "ran out" in lost["text"]
    assert "is kept" in lost["text"]
    stage.play_out(task)
    assert worker.ended() == 0, worker.err.read_text()
    assert worker.said("finished")["rounds_submitted"] == 1
    assert_done_once(stage, task, claims=2)
    fee = client.task(task).parameters.lease_fee
    assert client.stake_account(client.address).staked == before - fee


@pytest.mark.usefixtures("first_steps")
def test_worker_stopped_by_a_signal_keeps_its_step(stage: Stage) -> None:
    task = repeat_task(stage)
    words = ("--task", str(task), "--exit-when-done")
    worker = stage.worker("alice", *words)
    worker.wait_for("progress")
    os.kill(worker.popen.pid, signal.SIGTERM)
    assert worker.ended() == 143
    assert "is kept" in worker.err.read_text()
    assert "same command" in worker.err.read_text()
    again = stage.worker("alice", *words)
    assert again.wait_for("resumed")["step"] > 0
    stage.play_out(task)
    assert again.ended() == 0
    assert_done_once(stage, task)


@pytest.mark.usefixtures("first_steps")
def test_second_worker_of_an_account_is_refused_while_the_first_lives(stage: Stage) -> None:
    first = stage.worker("alice", "--idle-exit", "60")
    first.wait_for("started")
    second = stage.run("worker", "run", "--idle-exit", "1", account="alice")
    assert second.exit_code == 2
    assert f"process {first.popen.pid}" in second.stderr
    first.kill()
    assert stage.run("worker", "run", "--idle-exit", "0.5", account="alice").exit_code == 0


def test_worker_without_a_chain_says_so(stage: Stage) -> None:
    refused = stage.run("worker", "run", account="alice", TRAINLEDGER_RPC_URL="http://127.0.0.1:9")
    assert refused.exit_code == ChainError.exit_code
    assert "No answer from the chain at http://127.0.0.1:9" in refused.stderr


def test_worker_of_an_unknown_task_is_refused(stage: Stage) -> None:
    refused = stage.run("worker", "run", "--task", "99", account="alice")
    assert refused.exit_code == ChainError.exit_code
    assert "Task 99 does not exist" in refused.stderr


def test_worker_with_two_contradicting_flags_is_refused(stage: Stage) -> None:
    refused = stage.run("worker", "run", "--once", "--max-rounds", "2", account="alice")
    assert refused.exit_code == 2
