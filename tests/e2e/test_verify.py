"""False work on a real chain, damaged stores, and what `verify` and workers make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_programs import users_engine
from stage import Stage

from ledger.errors import DataError
from ledger.types import Task
from trainer.checkpoints import load_state, save_state, state_path
from trainer.commit.states import loss_proof, state_root
from trainer.engine.segment import run_segment
from trainer.engine.state import State, heldout_loss_bits
from trainer.materials import Materials, open_materials

pytestmark = pytest.mark.chain


def do_round(stage: Stage, task: int, name: str, *, false: bool = False, publish: bool = True) -> bytes:
    """Claims, trains and submits the current round without a worker, and closes it; false work differs in one bit."""
    client = stage.client(name)
    state, materials = client.task(task), open_materials(client, task, str(stage.home / "store"), stage.home / "c")
    base_root = client.base_root(task, state.current_round)
    attempt = client.next_attempt(task, state.current_round)
    client.claim(state, state.current_round, base_root=base_root, attempt=attempt, worker=client.address)
    result = train(materials, base_root, state)
    if false:
        tensor = result["parameter." + materials.layout.parameters[0].name.removeprefix("parameter.")]
        tensor.view(-1)[0] += 1
    root = state_root(result.values())
    if publish:
        save_state(materials.store, result, materials.layout)
    client.submit(
        task,
        state.current_round,
        attempt=attempt,
        base_root=base_root,
        state_root=root,
        steps=state.parameters.steps_per_round,
        loss_bits=heldout_loss_bits(result),
        proof=loss_proof(result.values()),
    )
    stage.chain.advance(state.parameters.challenge_window + 1)
    client.finalise(task, state.current_round, attempt=attempt, state_root=root)
    return root


def train(materials: Materials, base_root: bytes, task: Task) -> State:
    base = load_state(materials.store, base_root, materials.layout)
    steps = task.parameters.steps_per_round
    return run_segment(materials.program, materials.dataset, base, steps=steps, engine=users_engine()).state


@pytest.fixture(scope="module")
def honest_task(stage: Stage) -> int:
    task = stage.post(rounds=2, steps=10)
    for name in ("alice", "bob"):
        do_round(stage, task, name)
    return task


def fresh_home(stage: Stage, folder: Path) -> dict[str, str]:
    """Another machine: nothing cached, the same chain and store."""
    return {
        "TRAINLEDGER_HOME": str(folder),
        "TRAINLEDGER_DEPLOYMENT": str(stage.home / "deployments" / "31337"),
        "TRAINLEDGER_STORE": str(stage.home / "store"),
    }


def test_verify_names_the_first_round_that_is_false(stage: Stage) -> None:
    task = stage.post(rounds=3, steps=11)
    honest = do_round(stage, task, "alice")
    false = do_round(stage, task, "bob", false=True)
    do_round(stage, task, "alice")  # honest work on a false base
    done = stage.run("verify", str(task), "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == DataError.exit_code
    assert said["first_difference"] == 1
    assert [entry["verdict"] for entry in said["rounds"]] == ["agrees", "differs", "agrees"]
    assert said["rounds"][0]["replayed_root"] == "0x" + honest.hex()
    assert said["rounds"][1]["submitted_root"] == "0x" + false.hex() != said["rounds"][1]["replayed_root"]
    error = json.loads(done.stderr)
    assert error["error"] == "VerificationFailed"
    assert f"Round 1 of task {task} does not replay" in error["problem"]


def test_verify_one_round_needs_no_other(stage: Stage, honest_task: int) -> None:
    said = stage.ask("verify", str(honest_task), "--round", "1")
    assert [(entry["round"], entry["verdict"]) for entry in said["rounds"]] == [(1, "agrees")]


def test_verify_replays_states_that_the_store_lost(stage: Stage, tmp_path: Path) -> None:
    task = stage.post(rounds=3, steps=12)
    for _ in range(2):
        do_round(stage, task, "alice")
    do_round(stage, task, "bob", false=True)
    for entry in stage.client("alice").lineage(task):
        (stage.home / "store" / state_path(entry.state_root)).unlink()
    done = stage.run("verify", str(task), "--round", "2", "--json", **fresh_home(stage, tmp_path))
    (verdict,) = json.loads(done.stdout)["rounds"]
    assert (verdict["verdict"], verdict["stored"]) == ("differs", "missing")
    assert done.exit_code == DataError.exit_code


def test_verify_tells_a_damaged_file_from_a_false_root(stage: Stage, honest_task: int, tmp_path: Path) -> None:
    root = stage.client("alice").checkpoint(honest_task, 0).state_root
    path = stage.home / "store" / state_path(root)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = stage.run("verify", str(honest_task), "--json", **fresh_home(stage, tmp_path))
    path.write_bytes(whole)
    said = json.loads(done.stdout)
    assert [entry["verdict"] for entry in said["rounds"]] == ["agrees", "agrees"]
    assert [entry["stored"] for entry in said["rounds"]] == ["corrupt", "whole"]
    assert done.exit_code == DataError.exit_code
    assert json.loads(done.stderr)["error"] == "BlobCorrupt"


def test_verify_names_the_chunk_of_a_damaged_data_set(stage: Stage, honest_task: int, tmp_path: Path) -> None:
    root = stage.client("alice").task(honest_task).parameters.dataset_root
    path = stage.home / "store" / "datasets" / ("0x" + root.hex()) / "train.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    done = stage.run("verify", str(honest_task), **fresh_home(stage, tmp_path))
    path.write_bytes(whole)
    assert done.exit_code == DataError.exit_code
    assert "train.bin is corrupt: chunk 4" in done.stderr


def test_verify_without_a_result_or_task_says_so(stage: Stage) -> None:
    task = stage.post(rounds=1, steps=13)
    assert stage.ask("verify", str(task)) == {"task": task, "agrees": True, "first_difference": None, "rounds": []}
    refused = stage.run("verify", str(task), "--round", "0")
    assert refused.exit_code == 2
    assert f"Round 0 of task {task} has no result yet" in refused.stderr
    assert "Task 999 does not exist" in stage.run("verify", "999").stderr


def test_commands_name_the_tasks_own_store_when_theirs_lacks_it(stage: Stage, honest_task: int, tmp_path: Path) -> None:
    elsewhere = {**fresh_home(stage, tmp_path), "TRAINLEDGER_STORE": str(tmp_path / "empty")}
    for words in (["verify", str(honest_task)], ["generate", "--task", str(honest_task)]):
        done = stage.run(*words, **elsewhere)
        assert done.exit_code == DataError.exit_code
        assert str(stage.home / "store") in done.stderr


def test_export_of_a_round_that_is_not_final_is_refused(stage: Stage, honest_task: int, tmp_path: Path) -> None:
    refused = stage.run("checkpoint", "export", str(honest_task), "--round", "2", "--to", str(tmp_path / "x"))
    assert refused.exit_code == 2
    assert "rounds 0 to 1 have" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_generate_refuses_an_empty_prompt(stage: Stage, honest_task: int) -> None:
    refused = stage.run("generate", "--task", str(honest_task), "--prompt", "")
    assert refused.exit_code == 2
    assert "--prompt is empty" in refused.stderr
