"""`worker run` and `task create`: what each option decides, what they say as JSON, and how they are interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from trainer_cli import FakeClient, TrainerCommands, make_commands
from worker_bench import write_task_file
from worker_fakes import ALICE, BOB, TOKEN, FakeChain, kinds, submitted

from ledger.atomic import release_lock, try_lock
from ledger.performance import float_bits
from ledger.types import Admission, SlotStatus
from trainer.commit.states import state_root


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerCommands:
    return make_commands(tmp_path, monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_task_file(tmp_path, rounds=3, losses="target_loss = 2.0")


def named(said: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in said if line["event"] == event]


def reasons(said: list[dict[str, Any]]) -> list[str]:
    return [line["reason"] for line in named(said, "waiting")]


def test_worker_exit_when_done_plays_the_task_to_its_end(commands: TrainerCommands) -> None:
    said = commands.events("--task", "1", "--exit-when-done", "--turn-seconds", "0")
    shown = [line["event"] for line in said if line["event"] not in ("progress", "waiting")]
    one_round = ["claimed", "published", "submitted", "finalised", "paid"]
    assert shown == ["started", "preparing", "measured", *one_round, *one_round, "finished"]
    assert [set(line) - {"event", "time", "text"} for line in named(said, "claimed")] == [
        {"task", "round", "slot", "attempt", "deadline"}
    ] * 2
    assert submitted(commands.ledger) == [state_root(state.values()) for state in commands.tiny.states(2)[1:]]
    finished = said[-1]
    assert {name: finished[name] for name in list(finished)[3:]} == {
        "rounds_submitted": 2,
        "rounds_paid": 2,
        "earned": str(20 * TOKEN),
        "waiting": 0,
        "payout": ALICE,
    }
    assert finished["text"] == (
        "Submitted 2 rounds; 2 became final and earned 20 tokens. "
        f"`trainledger withdraw` as {ALICE} collects what is earned."
    )
    assert commands.signed == [True]


def test_worker_once_waits_until_it_is_paid_unless_others_finalise(commands: TrainerCommands) -> None:
    first = commands.events("--once", "--no-finalise")[-1]
    assert (first["rounds_submitted"], first["rounds_paid"], first["waiting"]) == (1, 0, 1)
    assert "1 round still in the challenge window." in first["text"]
    assert kinds(commands.ledger) == ["claim", "submit"]
    commands.ledger.advance(200)
    second = commands.events("--once", "--turn-seconds", "0")[-1]
    # The round before became final in this worker's time too.
    assert (second["rounds_submitted"], second["rounds_paid"], second["waiting"]) == (1, 2, 0)
    assert kinds(commands.ledger) == ["claim", "submit", "finalise", "claim", "submit", "finalise"]


def test_worker_max_rounds_leaves_the_rest_to_others(commands: TrainerCommands) -> None:
    said = commands.events("--max-rounds", "1", "--turn-seconds", "0")
    assert said[-1]["rounds_submitted"] == 1
    assert commands.client.task(1).current_round == 1
    assert commands.client.slot(1, 1).status is SlotStatus.OPEN


def test_worker_says_why_it_does_nothing_once(commands: TrainerCommands) -> None:
    idle = ["--idle-exit", "0.1"]
    pay = commands.events("--minimum-pay", "10.000000000000000001", *idle)
    assert reasons(pay) == ["pay"]
    assert "you asked for 10.000000000000000001" in named(pay, "waiting")[0]["detail"]
    assert reasons(commands.events(*idle, TRAINLEDGER_MINIMUM_PAY="11")) == ["pay"]
    assert reasons(commands.events("--minimum-pay", "9", "--memory-limit", "1", *idle)) == ["memory"]
    assert reasons(commands.events("--minimum-pay-per-second", "100000000", *idle)) == ["pay-per-second"]
    assert kinds(commands.ledger) == []
    commands.ledger.books.staked[ALICE] = 4 * TOKEN
    assert reasons(commands.events(*idle)) == ["bond"]


def test_worker_that_lost_its_lease_for_good_exits_with_its_code(
    commands: TrainerCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FakeChain(commands.ledger, BOB)
    commands.ledger.stake(BOB, 20 * TOKEN)
    submit = commands.client.submit

    def late(*words: Any, **more: Any) -> Any:
        commands.ledger.advance(1000)
        base = commands.tiny.parameters.initial_state_root
        other.claim(commands.ledger.books.tasks[1], 0, base_root=base, attempt=1, worker=BOB)
        return submit(*words, **more)

    monkeypatch.setattr(commands.client, "submit", late)
    done = commands.run("worker", "run", "--task", "1", "--idle-exit", "0.05")
    assert done.exit_code == 7
    assert done.stdout.splitlines()[-1].endswith("Submitted 0 rounds; 0 became final and earned 0 tokens.")
    assert done.stderr.startswith(
        f"Error: The lease of round 0 of task 1 ran out, and {BOB} has taken the slot.\nTry: "
    )
    assert kinds(commands.ledger) == ["claim", "claim"]


def test_worker_told_to_do_a_round_fails_where_its_state_is_missing(commands: TrainerCommands) -> None:
    empty = commands.home / "empty"
    error = commands.fail(4, "worker", "run", "--once", "--idle-exit", "0.05", "--store", str(empty))
    assert error["error"] == "DataError"
    assert error["problem"].startswith("No round was done. Task 1: ")
    assert str(empty) in error["problem"]
    commands.fail(4, "worker", "run", "--task", "1", "--idle-exit", "0.05", "--store", str(empty))
    # A worker that takes whatever there is has left a broken task alone, as it should.
    assert reasons(commands.events("--idle-exit", "0.05", "--store", str(empty))) == ["materials"]
    assert kinds(commands.ledger) == []


def test_worker_ticket_seconds_bound_the_search(commands: TrainerCommands) -> None:
    commands.ledger.post(
        commands.tiny.parameters.__class__(
            **{**commands.tiny.parameters.__dict__, "admission": Admission.TICKET, "ticket_target": 2**200}
        )
    )
    said = commands.events("--task", "2", "--ticket-seconds", "0.05", "--idle-exit", "0.1")
    assert reasons(said) == ["ticket"]
    assert f"one takes {2**56:,} tries on average" in named(said, "waiting")[0]["detail"]
    assert 0 < max(commands.client.tickets) <= 0.05


def test_worker_on_anothers_stake_says_so(commands: TrainerCommands) -> None:
    commands.ledger.stake(BOB, 20 * TOKEN)
    bob = "0x" + "b0" * 20
    said = commands.events("--stake-of", bob, "--idle-exit", "0.05")
    assert reasons(said) == ["operator"]
    assert said[0]["text"].startswith(f"Working as {ALICE} on the stake of 0x")
    assert said[0]["worker"].lower() == bob
    assert commands.fail(2, "worker", "run", "--stake-of", "nobody")["error"] == "WalletError"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_worker_interrupted_keeps_its_work_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    steps = 1100  # training asks whether to stop after 1000 at the latest
    commands = make_commands(tmp_path, monkeypatch, steps=steps)
    real = FakeClient.claim

    def claim_and_signal(client: FakeClient, *arguments: Any, **options: Any) -> None:
        real(client, *arguments, **options)
        os.kill(os.getpid(), number)

    commands.client.claim = claim_and_signal.__get__(commands.client)  # type: ignore[method-assign]
    before = signal.getsignal(number)
    done = commands.run("worker", "run", "--json")
    assert done.exit_code == 128 + number
    assert signal.getsignal(number) is before
    error = json.loads(done.stderr)
    assert error["problem"] == ("Interrupted." if number is signal.SIGINT else "Stopped by SIGTERM.")
    assert (error["exit_code"], "again" in error["remedy"]) == (128 + number, True)
    assert all(json.loads(line)["event"] != "finished" for line in done.stdout.splitlines())
    del commands.client.claim  # type: ignore[method-assign]
    said = commands.events("--once")
    (resumed,) = named(said, "resumed")
    assert (resumed["task"], resumed["round"]) == (1, 0)
    assert 0 < resumed["step"] < steps
    assert submitted(commands.ledger) == [state_root(commands.tiny.states(1)[1].values())]
    assert kinds(commands.ledger) == ["claim", "submit", "finalise"]


def test_worker_text_tells_the_round_in_words(commands: TrainerCommands) -> None:
    done = commands.run("worker", "run", "--once")
    assert done.exit_code == 0
    lines = [line.partition(" ")[2] for line in done.stdout.splitlines()]
    assert lines[0] == f"Working as {ALICE}."
    assert lines[-1].startswith("Submitted 1 round; 1 became final and earned 10 tokens. `trainledger withdraw` as")
    assert any(line.startswith("Submitted round 0 of task 1: 4 steps, held-out loss ") for line in lines)


def test_worker_wrong_questions(commands: TrainerCommands) -> None:
    run = ["worker", "run"]
    error = commands.fail(2, *run, "--once", "--max-rounds", "2")
    assert error["problem"] == "--once and --max-rounds contradict each other."
    for option, value in (("--minimum-pay", "much"), ("--minimum-pay-per-second", "-1"), ("--minimum-pay", "1e-19")):
        assert commands.fail(2, *run, option, value)["problem"].startswith(f"{option} is ")
    for option, value in (("--task", "0"), ("--max-rounds", "0"), ("--idle-exit", "nan"), ("--memory-limit", "x")):
        assert commands.fail(2, *run, option, value)["problem"].startswith(f"Invalid value for '{option}'")
    assert "UnknownTask(task=7)" in commands.fail(3, *run, "--task", "7")["problem"]
    assert "PyTorch sees" in commands.fail(2, *run, TRAINLEDGER_DEVICE="cuda:64")["problem"]
    assert kinds(commands.ledger) == []


def test_worker_second_one_of_the_same_account_refused(commands: TrainerCommands) -> None:
    folder = commands.home / "workers" / ALICE.lower()
    folder.mkdir(parents=True, exist_ok=True)
    held = try_lock(folder / "lock")
    assert held is not None
    (folder / "lock").write_text("4242\n")
    try:
        error = commands.fail(2, "worker", "run", "--once")
    finally:
        release_lock(held)
    assert error["problem"] == f"A worker of account {ALICE} is already running in this home (process 4242)."


def test_worker_store_of_a_task_that_cannot_be_used_is_a_reason(commands: TrainerCommands) -> None:
    commands.ledger.books.urls[1] = "memory://models/a::file:///etc"
    said = commands.events("--allow-store", "memory://models", "--idle-exit", "0.05")
    assert reasons(said) == ["store"]
    assert "it is a chain of URLs" in named(said, "waiting")[0]["detail"]
    # Not allowed, the name is not even looked at.
    assert commands.events("--once")[-1]["rounds_paid"] == 1


def test_task_create_json_is_what_goes_on_chain(commands: TrainerCommands, file: Path) -> None:
    said = commands.ask("task", "create", str(file))
    parameters = commands.client.task(2).parameters
    assert said == {
        "task": 2,
        "specification_hash": "0x" + parameters.specification_hash.hex(),
        "program_root": "0x" + parameters.program_root.hex(),
        "dataset_root": "0x" + parameters.dataset_root.hex(),
        "initial_state_root": "0x" + parameters.initial_state_root.hex(),
        "parameters": 256 * 8 + 8 * 8 + 12 * 64 + 2 * 8 + 8,
        "base_loss": said["base_loss"],
        "slots_per_round": 1,
        "slot_reward": {"wei": str(2_500_000_000_000_000_000), "tokens": "2.5"},
        "merge_reward": None,
        "escrow": {"wei": str(7_500_000_000_000_000_000), "tokens": "7.5"},
        "store": f"file://{commands.store}",
    }
    assert float_bits(said["base_loss"]) == parameters.base_loss
    assert (parameters.rounds, parameters.steps_per_round, parameters.lease_fee) == (3, 5, 0)
    assert commands.client.store_url(2) == f"file://{commands.store}"
    assert commands.signed == [True]
    assert commands.events("--task", "2", "--once")[-1]["rounds_paid"] == 1


def test_task_create_dry_run_leaves_no_trace(commands: TrainerCommands, file: Path) -> None:
    before = sorted(commands.store.rglob("*"))
    dry = commands.ask("task", "create", str(file), "--dry-run")
    done = commands.run("task", "create", str(file), "--dry-run")
    assert (done.exit_code, done.stdout) == (0, "Dry run: nothing was published or posted.\n")
    assert "Escrow: 7.5 TLT (3 rounds of 2.5), out of 1000." in done.stderr
    assert "Data set: 4,591 tokens to train on, 510 held out. Model: 2,904 parameters" in done.stderr
    assert sorted(commands.store.rglob("*")) == before
    assert commands.client.task_count() == 1
    assert commands.ask("task", "create", str(file)) == {**dry, "task": 2}


def test_task_create_dry_run_shows_what_merges_cost(commands: TrainerCommands, file: Path) -> None:
    rounds = '\n[round]\nslots = 2\nmerge_reward = "0.5"\n[merge]\nkind = "mean"\n'
    file.write_text(file.read_text() + rounds)
    dry = commands.ask("task", "create", str(file), "--dry-run")
    assert (dry["slots_per_round"], dry["merge_reward"]["tokens"], dry["escrow"]["tokens"]) == (2, "0.5", "16.5")
    done = commands.run("task", "create", str(file), "--dry-run")
    assert "Escrow: 16.5 TLT (3 rounds of 2 slots for 2.5 and a merge for 0.5), out of 1000." in done.stderr
    commands.client.balance = 16 * TOKEN
    error = commands.fail(3, "task", "create", str(file))
    assert error["problem"] == f"Account {ALICE} has 16 TLT and needs 16.5."


def test_task_create_same_task_needs_again_while_it_runs(commands: TrainerCommands, file: Path) -> None:
    done = commands.run("task", "create", str(file))
    assert done.stdout == ("Posted task 2. Workers find it by themselves; watch it with `trainledger task show 2`.\n")
    error = commands.fail(2, "task", "create", str(file))
    assert error["problem"] == "You have posted this very task already: it is task 2, in round 0."
    assert commands.ask("task", "create", str(file), "--again")["task"] == 3


def test_task_create_refuses_before_anything_is_prepared(
    commands: TrainerCommands, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.posting.prepare_posting", lambda _: pytest.fail("it was prepared"))
    commands.client.balance = 7 * TOKEN
    error = commands.fail(3, "task", "create", str(file))
    assert error["problem"] == f"Account {ALICE} has 7 TLT and needs 7.5."
    for least, field in (((2 * TOKEN, 0, 0), "reward.bond"), ((0, 21, 0), "timing.challenge_window_seconds")):
        commands.client.least = least
        assert commands.fail(2, "task", "create", str(file))["problem"].startswith(f"{field} is ")
    assert "does not exist" in commands.fail(2, "task", "create", str(file.parent / "none.toml"))["problem"]
    assert "Missing argument 'FILE'" in commands.fail(2, "task", "create")["problem"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('source = "text.txt"', 'source = "none.txt"', "data.source 'none.txt' is no file, folder or pattern"),
        ('source = "text.txt"', 'sorce = "text.txt"', "data.source is missing."),
        ("width = 8", "width = 9.5", "program.model.width is 9.5 but must be a whole number."),
        ("context = 8", "context = 4000", "program.context is 4000 but the data set has only 510 held-out tokens."),
        ("target_loss = 2.0", "target_loss = 900", "reward.target_loss is 900.0, and the held-out loss before"),
        ("rounds = 3", "rounds = 4000000", "task.rounds times task.steps_per_round is 20000000; programs can count"),
        ("rounds = 3", "rounds = three", "The task file "),
    ],
)
def test_task_create_wrong_file_names_the_field(
    commands: TrainerCommands, file: Path, old: str, new: str, problem: str
) -> None:
    file.write_text(file.read_text().replace(old, new))
    commands.client.balance = 10**9 * TOKEN
    assert commands.fail(2, "task", "create", str(file))["problem"].startswith(problem)
    assert commands.client.task_count() == 1


def test_demo_task_file_that_cannot_be_played_is_refused_before_a_chain_starts(tmp_path: Path, file: Path) -> None:
    file.write_text(file.read_text().replace("rounds = 3", "rounds = 1"))
    command = [sys.executable, "-m", "trainer.cli", "demo", "--json", "--home", str(tmp_path / "d"), "--task-file"]
    for path, problem in (
        (file, "task.rounds is 1, and the demonstration has 2 workers to pay."),
        (tmp_path / "none.toml", f"The task file {tmp_path / 'none.toml'} does not exist."),
    ):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert json.loads(done.stderr)["problem"] == problem
        assert not (tmp_path / "d").exists()
