"""`audit` and `dispute play` over an in-memory ledger: what they find, and every way in which they end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from trainer_cli import TrainerCommands, make_commands
from web3 import Web3
from worker_fakes import ALICE, BOB, kinds

from ledger.atomic import release_lock, try_lock
from ledger.canonical import root_hex
from ledger.errors import MachineFault
from trainer.commit.states import state_root
from trainer.engine.state import State


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerCommands:
    return make_commands(tmp_path, monkeypatch)


@pytest.fixture
def states(commands: TrainerCommands) -> list[State]:
    return commands.tiny.states(1)


def wrong(state: State) -> State:
    """The state with one element changed."""
    changed = {name: tensor.clone() for name, tensor in state.items()}
    next(tensor for name, tensor in changed.items() if name.startswith("parameter.")).view(-1)[0] += 1
    return type(state)(changed)


def audit(commands: TrainerCommands, *words: str, code: int = 0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Lines of standard output, and the error's JSON."""
    done = commands.run("audit", "1", "--once", *words, "--json")
    assert done.exit_code == code, done.output
    error = json.loads(done.stderr) if done.stderr else {}
    return [json.loads(line) for line in done.stdout.splitlines()], error


def test_audit_dry_run_right_submission_agrees(commands: TrainerCommands, states: list[State]) -> None:
    commands.play(states, final=False)
    said, _ = audit(commands, "--dry-run")
    assert [line["event"] for line in said] == ["started", "replaying", "audited", "finished"]
    found = said[2]
    assert {name: found[name] for name in ("task", "round", "attempt", "worker", "finding", "problem", "game")} == {
        "task": 1,
        "round": 0,
        "attempt": 0,
        "worker": ALICE,
        "finding": "agrees",
        "problem": "",
        "game": None,
    }
    assert found["submitted_root"] == found["replayed_root"] == root_hex(state_root(states[1].values()))
    assert (said[3]["agrees"], said[3]["differs"], said[3]["unchecked"]) == (1, 0, 0)
    assert commands.signed == [False]  # no account is needed


def test_audit_dry_run_wrong_submission_fails_and_challenges_nobody(
    commands: TrainerCommands, states: list[State]
) -> None:
    commands.play([states[0], wrong(states[1])], final=False)
    said, error = audit(commands, "--dry-run", code=4)
    assert said[2]["finding"] == "differs"
    assert said[2]["replayed_root"] == root_hex(state_root(states[1].values())) != said[2]["submitted_root"]
    assert error["error"] == "VerificationFailed"
    assert kinds(commands.ledger) == ["claim", "submit"]
    text = commands.run("audit", "1", "--once", "--dry-run")
    assert "Round 0 of task 1 is WRONG: the replay ends in 0x" in text.stdout


def test_audit_missing_data_are_no_fraud(commands: TrainerCommands, states: list[State]) -> None:
    commands.play([states[0], wrong(states[1])], final=False)
    shutil.rmtree(commands.store / "states")
    said, error = audit(commands, "--dry-run", code=4)
    assert said[2]["finding"] == "unchecked"
    assert error["error"] == "DataError"
    assert "was not checked" in error["problem"]
    assert "--store" in error["remedy"]


def test_audit_without_stake_says_how_much_and_what_to_do(commands: TrainerCommands, states: list[State]) -> None:
    commands.play([states[0], wrong(states[1])], final=False)
    commands.client.address = BOB
    said, error = audit(commands, code=3)
    assert said[2]["finding"] == "differs"
    assert error["error"] == "InsufficientFunds"
    assert error["problem"] == f"Account {BOB} has 0 tokens of free stake and needs 5."
    assert "trainledger account stake" in error["remedy"]


def test_audit_own_submission_is_left_alone(commands: TrainerCommands, states: list[State]) -> None:
    commands.play([states[0], wrong(states[1])], final=False)
    said, _ = audit(commands)
    assert [line["event"] for line in said] == ["started", "finished"]


def test_audit_wrong_questions(commands: TrainerCommands) -> None:
    assert "contradict" in commands.fail(2, "audit", "--once", "--exit-when-done")["problem"]
    assert "puts up no stake" in commands.fail(2, "audit", "--dry-run", "--stake-of", BOB)["problem"]
    refused = commands.fail(2, "audit", "--once", "--stake-of", BOB)
    assert refused["problem"] == f"{ALICE} may not act on the stake of {Web3.to_checksum_address(BOB)}."
    assert commands.run("audit", "7", "--once").exit_code == 3


def test_audit_second_one_of_the_same_account_refused(commands: TrainerCommands) -> None:
    folder = commands.home / "auditors" / ALICE.lower()
    folder.mkdir(parents=True)
    held = try_lock(folder / "lock")
    assert held is not None
    refused = commands.fail(2, "audit", "--once")
    release_lock(held)
    assert f"An audit of account {ALICE} is already running in this home" in refused["problem"]


def test_audit_machine_that_fails_the_self_test_looks_at_nothing(
    commands: TrainerCommands, states: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.play([states[0], wrong(states[1])], final=False)
    commands.client.address = BOB

    def failing(device: str) -> None:
        raise MachineFault("This machine does not compute exactly: max.", remedy="Do not stake on it.")

    monkeypatch.setattr("trainer.cli.selftest.check_machine", failing)
    said, error = audit(commands, code=8)
    assert (said, error["error"]) == ([], "MachineFault")
