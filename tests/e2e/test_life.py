"""The main job, end to end, as users do it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from stage import TOKEN, Stage

from ledger.performance import bits_float, pay_for
from ledger.types import Checkpoint, TaskParameters

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def done(stage: Stage) -> tuple[int, TaskParameters, list[Checkpoint]]:
    """A task of four rounds that two workers have trained to its end."""
    task = stage.post(rounds=4, steps=30, target=0.2)
    workers = [stage.worker(name, "--task", str(task), "--exit-when-done") for name in ("alice", "bob")]
    stage.play_out(task)
    for worker in workers:
        assert worker.ended() == 0, worker.err.read_text()
        assert worker.events()[-1] == "finished"
    client = stage.client("deployer")
    return task, client.task(task).parameters, client.lineage(task)


def test_life_two_workers_are_paid_by_the_formula_to_the_wei(
    stage: Stage, done: tuple[int, TaskParameters, list[Checkpoint]]
) -> None:
    task, parameters, lineage = done
    client = stage.client("deployer")
    for name in ("alice", "bob"):
        address = stage.wallet(name).address
        own = [entry for entry in lineage if entry.worker == address]
        assert own, f"{name} got no round"
        earned = sum(
            pay_for(parameters, round_number=entry.round, steps=entry.steps, loss_bits=entry.heldout_loss)
            for entry in own
        )
        assert client.stake_account(address).credit == earned
        said = next(line for line in reversed(_lines(stage, name)) if line["event"] == "finished")
        assert said["earned"] == str(earned)
    # The target is out of reach, so that the formula, and not its cap, decides some of the pay.
    assert 0 < sum(client.stake_account(stage.wallet(name).address).credit for name in ("alice", "bob")) < 40 * TOKEN
    assert client.escrow(task) == 0
    assert client.totals().solvent


def _lines(stage: Stage, name: str) -> list[dict[str, object]]:
    return [line for process in stage.processes if name in process.out.name for line in process.lines()]


def test_life_loss_falls_in_every_round(done: tuple[int, TaskParameters, list[Checkpoint]]) -> None:
    _, parameters, lineage = done
    losses = [bits_float(parameters.base_loss), *(bits_float(entry.heldout_loss) for entry in lineage)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5


def test_life_verify_agrees_with_every_round(stage: Stage, done: tuple[int, TaskParameters, list[Checkpoint]]) -> None:
    task, _, lineage = done
    said = stage.ask("verify", str(task))
    assert said["agrees"] is True
    assert [entry["verdict"] for entry in said["rounds"]] == ["agrees"] * 4
    assert [entry["replayed_root"] for entry in said["rounds"]] == ["0x" + e.state_root.hex() for e in lineage]
    assert {entry["stored"] for entry in said["rounds"]} == {"whole"}


def test_life_exported_checkpoint_measures_the_same_in_plain_float32(
    stage: Stage, done: tuple[int, TaskParameters, list[Checkpoint]], tmp_path: Path
) -> None:
    task, _, lineage = done
    said = stage.ask("checkpoint", "export", str(task), "--to", str(tmp_path / "model"))
    assert said["state_root"] == "0x" + lineage[-1].state_root.hex()
    measured = subprocess.run(
        [sys.executable, "measure.py"], cwd=tmp_path / "model", capture_output=True, text=True, timeout=60
    )
    assert measured.returncode == 0, measured.stderr
    # Products of 13-bit operands against float32: about 1e-4 of the loss.
    assert float(measured.stdout) == pytest.approx(bits_float(lineage[-1].heldout_loss), rel=1e-3)


def test_life_generate_is_a_function_of_its_seed(
    stage: Stage, done: tuple[int, TaskParameters, list[Checkpoint]]
) -> None:
    words = ("generate", "--task", str(done[0]), "--prompt", "line ", "--tokens", "40", "--seed")
    first, same, other = (stage.ask(*words, seed)["text"] for seed in ("1", "1", "2"))
    assert first == same != other
    assert first.startswith("line ")


def test_life_posting_the_same_task_again_is_refused_only_while_it_runs(stage: Stage) -> None:
    file = str(stage.task_file(rounds=1, steps=31))
    number = stage.ask("task", "create", file, account="requester")["task"]
    again = stage.run("task", "create", file, account="requester")
    assert again.exit_code == 2
    assert f"task {number}" in again.stderr
    assert stage.ask("task", "create", file, "--again", account="requester")["task"] == number + 1
    for task in (number, number + 1):
        stage.client("requester").close_task(task)
    assert stage.ask("task", "create", file, account="requester")["task"] == number + 2
    stage.client("requester").close_task(number + 2)


def test_life_dry_run_posts_and_publishes_nothing(stage: Stage) -> None:
    count, blobs = stage.client("deployer").task_count(), sorted((stage.home / "store").rglob("*"))
    said = stage.ask("task", "create", str(stage.task_file(rounds=1, steps=32)), "--dry-run", account="requester")
    assert said["task"] is None
    assert said["escrow"]["tokens"] == "10"
    assert stage.client("deployer").task_count() == count
    assert sorted((stage.home / "store").rglob("*")) == blobs


def test_life_requester_without_tokens_is_told_before_anything_is_prepared(stage: Stage) -> None:
    stage.fund("poor", tokens=0)
    refused = stage.run("task", "create", str(stage.task_file()), account="poor")
    assert refused.exit_code == 3
    assert "has 0 TRAIN and needs 20." in refused.stderr


def test_life_target_that_is_reached_already_is_refused(stage: Stage) -> None:
    refused = stage.run("task", "create", str(stage.task_file(target=50.0)), account="requester")
    assert refused.exit_code == 2
    assert "reward.target_loss is 50.0" in refused.stderr
