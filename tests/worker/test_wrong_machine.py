"""A machine that computes something else: found before a bond is locked, or before anything is submitted."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_programs import users_engine
from worker_bench import Recorder, TinyTask, bench
from worker_fakes import ALICE, FakeLedger, kinds, submitted
from wrong_engines import WatchedEngine

from ledger.errors import MachineFault
from trainer.cli.selftest import check_machine
from trainer.commit.states import state_root
from trainer.engine.exact import selftest
from trainer.engine.exact.selftest import SelfTest, run_selftest
from trainer.program.exact import Role
from trainer.worker import round as round_module
from trainer.worker.progress import RoundProgress

STEPS = 12  # of the tiny task's rounds


def snapshots(home: Path) -> list[Path]:
    return list((home / "workers").rglob("snapshots/**/*.safetensors"))


def test_run_a_wrong_engine_is_found_in_the_trial_before_anything_is_claimed(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    wrong = WatchedEngine(users_engine(), wrong=lambda role: role is Role.TRAIN)
    made = bench(ledger, tmp_path, task, ALICE, runs_on=wrong)
    with pytest.raises(
        MachineFault, match=r"Run 0 .* gave another metric\.heldout_loss on the compiled engine"
    ) as caught:
        made.worker.run()
    assert caught.value.exit_code == 8
    assert "trainledger selftest" in caught.value.remedy
    assert ledger.writes == []
    assert ledger.books.locked.get(ALICE, 0) == 0
    # Nor is its speed remembered, by which the next start would do without a trial.
    with pytest.raises(MachineFault):
        bench(ledger, tmp_path, task, ALICE, runs_on=wrong).worker.run()
    assert ledger.writes == []


@pytest.mark.parametrize(
    ("repeated", "role"), [(0, Role.TRAIN), (5, Role.TRAIN), (STEPS - 1, Role.TRAIN), (STEPS, Role.EVALUATE)]
)
def test_run_a_fault_in_training_submits_nothing_and_leaves_no_snapshot(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeated: int, role: Role
) -> None:
    runs: list[Role] = []
    recorder, faulty = Recorder(), WatchedEngine(users_engine())

    def at_the_repeated_run(of: Role) -> bool:
        runs.append(of)
        return len(runs) == repeated + 1

    def claimed(event: str) -> None:
        if event == "claimed":  # the machine was right until then
            faulty.wrong = at_the_repeated_run

    def choose(count: int) -> int:
        assert count == STEPS + 1  # every step, and the evaluation
        return repeated

    recorder.on_say = claimed
    monkeypatch.setattr(round_module.secrets, "randbelow", choose)
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder, runs_on=faulty, snapshot_seconds=0.0)
    seen: list[int] = []
    recorder.on_progress = lambda progress: seen.append(len(snapshots(made.home)))
    with pytest.raises(MachineFault, match=f"^Run {repeated} of the segment") as caught:
        made.worker.run()
    assert caught.value.exit_code == 8
    assert runs[-1] is role
    assert kinds(ledger) == ["claim"]
    assert repeated < 2 or max(seen) == 1  # there was a snapshot to lose
    assert snapshots(made.home) == []
    monkeypatch.undo()
    # Mended, the worker does the round again from its first step.
    mended = bench(ledger, tmp_path, task, ALICE)
    mended.worker.run()
    assert mended.recorder.steps[0].step == 1
    assert submitted(ledger) == [state_root(state.values()) for state in task.states(3)[1:]]


def test_run_resumed_repeats_a_run_of_what_is_left(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, counts = Recorder(), []

    def choose(count: int) -> int:
        counts.append(count)
        return count - 1

    monkeypatch.setattr(round_module.secrets, "randbelow", choose)
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder)

    def stop(progress: RoundProgress) -> None:
        if progress.step == 5:
            made.stop.request()

    recorder.on_progress = stop
    with pytest.raises(Exception, match="Step 5 of 12 is kept"):
        made.worker.run()
    bench(ledger, tmp_path, task, ALICE, maximum_rounds=1).worker.run()
    assert counts == [13, 8]
    assert submitted(ledger) == [state_root(task.states(1)[1].values())]


def test_check_machine_passes_here() -> None:
    check_machine("cpu")


def test_check_machine_of_a_gpu_tries_the_processor_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of each round is repeated there."""
    tried = []

    def passing(device: str, *, compare_speeds: bool) -> SelfTest:
        tried.append(device)
        return run_selftest("cpu", compare_speeds=compare_speeds)

    monkeypatch.setattr(selftest, "run_selftest", passing)
    check_machine("cuda:1")
    assert tried == ["cuda:1", "cpu"]


def test_check_machine_refuses_one_wrong_operation_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(selftest.KNOWN_ANSWERS, "divide", "22" * 32)
    monkeypatch.setitem(selftest.KNOWN_ANSWERS, "sum", "22" * 32)
    with pytest.raises(MachineFault) as caught:
        check_machine("cpu")
    assert caught.value.problem == "This machine does not compute exactly: divide, sum."
    assert caught.value.exit_code == 8
    assert "Do not stake on it" in caught.value.remedy


def test_check_machine_refuses_a_machine_without_exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "admitted_backends", lambda device: {"float64": "wrong", "float32": "wrong"})
    with pytest.raises(MachineFault):
        check_machine("cpu")
