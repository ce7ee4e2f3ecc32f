"""Kills, lost leases, lost blocks, full disks: the loop goes on, and nothing is submitted or paid twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from worker_bench import Recorder, TinyTask, bench
from worker_fakes import ALICE, BOB, TOKEN, FakeLedger, kinds, submitted

from ledger.errors import ResourceError
from trainer.commit.states import state_root
from trainer.worker.progress import RoundProgress


@pytest.mark.parametrize("again", [0, 7])
def test_run_killed_in_training_submits_the_same_roots(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path, again: int
) -> None:
    class Killed(BaseException):
        """Stands for kill -9: nothing in the worker may catch it."""

    recorder = Recorder()

    def die(progress: RoundProgress) -> None:
        if progress.step > again and (made.home / "workers").rglob("*.safetensors"):
            raise Killed

    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder, snapshot_seconds=0.0)
    recorder.on_progress = die
    with pytest.raises(Killed):
        made.worker.run()
    assert kinds(ledger) == ["claim"]
    resumed = bench(ledger, tmp_path, task, ALICE)
    resumed.worker.run()
    honest = [state_root(state.values()) for state in task.states(3)]
    assert submitted(ledger) == honest[1:]
    assert kinds(ledger) == ["claim", "submit", "finalise"] * 3
    assert "resumed" in resumed.recorder.events


@pytest.mark.parametrize("where", ["published", "submitted"])
def test_run_killed_around_the_submission_submits_once(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path, where: str
) -> None:
    class Killed(BaseException):
        """Stands for kill -9."""

    def die(event: str) -> None:
        if event == where:
            raise Killed

    recorder = Recorder(on_say=die)
    with pytest.raises(Killed):
        bench(ledger, tmp_path, task, ALICE, recorder=recorder).worker.run()
    resumed = bench(ledger, tmp_path, task, ALICE)
    resumed.worker.run()
    assert kinds(ledger) == ["claim", "submit", "finalise"] * 3
    # The trained state was taken from the snapshot: round 0 was not trained again.
    assert {progress.round for progress in resumed.recorder.steps} == {1, 2}


def test_run_interrupted_keeps_the_step_and_says_how_to_go_on(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    recorder = Recorder()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder)
    recorder.on_progress = lambda progress: made.stop.request() if progress.step == 5 else None
    with pytest.raises(Exception, match="Step 5 of 12 is kept") as caught:
        made.worker.run()
    assert caught.value.exit_code == 130  # type: ignore[attr-defined]  # Interrupted has it; pytest types Exception
    resumed = bench(ledger, tmp_path, task, ALICE)
    resumed.worker.run()
    assert resumed.recorder.steps[0].step == 6
    assert submitted(ledger)[0] == state_root(task.states(1)[1].values())


def test_run_lease_over_in_training_claims_again_and_goes_on(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    recorder = Recorder()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder, poll_seconds=0.01)

    def lose(progress: RoundProgress) -> None:
        if progress.round == 0 and progress.step == 4 and not recorder.texts("lease-lost"):
            ledger.advance(1000)
            wait_until_watch_sees_it()

    def wait_until_watch_sees_it() -> None:
        import time

        time.sleep(0.3)

    recorder.on_progress = lose
    made.worker.run()
    assert "ran out" in recorder.texts("lease-lost")[0]
    assert "Step 4 of 12 is kept" in recorder.texts("lease-lost")[0]
    assert kinds(ledger) == ["claim", "claim", "submit", "finalise", *["claim", "submit", "finalise"] * 2]
    steps = [progress.step for progress in recorder.steps if progress.round == 0]
    assert steps == sorted(set(steps))  # no step was done twice
    assert ledger.books.burned == TOKEN
    assert submitted(ledger)[0] == state_root(task.states(1)[1].values())


def test_run_slot_taken_after_the_lease_leaves_the_other_alone(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    recorder = Recorder()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder, idle_exit=50.0, exit_when_done=False)
    other = bench(ledger, tmp_path, task, BOB)

    def take(progress: RoundProgress) -> None:
        if progress.step == 12 and progress.round == 0:
            ledger.advance(1000)
            other.chain.claim(
                ledger.books.tasks[1], 0, base_root=task.parameters.initial_state_root, attempt=1, worker=BOB
            )

    recorder.on_progress = take
    made.worker.run()
    assert BOB in recorder.texts("lease-lost")[0]
    assert kinds(ledger) == ["claim", "claim"]
    assert ledger.books.slots[(1, 0)].worker == BOB


def test_run_claim_lost_by_the_chain_is_made_again(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    recorder = Recorder()
    before = ledger.save()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder)

    def roll_back(progress: RoundProgress) -> None:
        if progress.step == 12 and progress.round == 0 and kinds(ledger) == ["claim"]:
            ledger.restore(before)

    recorder.on_progress = roll_back
    made.worker.run()
    assert "no longer on the chain" in recorder.texts("lease-lost")[0]
    assert kinds(ledger) == ["claim", "claim", "submit", "finalise", *["claim", "submit", "finalise"] * 2]
    assert [progress.step for progress in recorder.steps if progress.round == 0] == list(range(1, 13))


def test_run_round_that_another_did_after_a_reorganisation_is_not_said_to_be_paid(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    made, other = bench(ledger, tmp_path, task, ALICE), bench(ledger, tmp_path, task, BOB, maximum_rounds=1)
    before = ledger.save()

    def another_branch() -> None:
        if kinds(ledger) == ["claim", "submit"]:
            ledger.restore(before)
            other.worker.run()

    made.stop.while_waiting = another_branch
    summary = made.worker.run()
    assert ledger.books.lineage[(1, 0)].worker == BOB
    assert "submission-gone" in made.recorder.events
    assert [fields["round"] for event, _, fields in made.recorder.said if event == "paid"] == [1, 2]
    assert summary.earned == ledger.books.credit[ALICE] == 20 * TOKEN


def test_run_submission_lost_by_the_chain_is_made_again(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    recorder = Recorder()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder)
    kept = []

    def note(event: str) -> None:
        if event == "published" and not kept:
            kept.append(ledger.save())
        if event == "submitted" and len(kept) == 1:
            kept.append(kept[0])
            ledger.restore(kept[0])

    recorder.on_say = note
    made.worker.run()
    assert "submission-gone" in recorder.events
    roots = submitted(ledger)
    assert roots[0] == roots[1] == state_root(task.states(1)[1].values())
    assert ledger.books.tasks[1].complete


def test_run_chain_down_in_training_trains_on_and_submits_later(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    recorder = Recorder()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder)

    def break_chain(progress: RoundProgress) -> None:
        ledger.down = ledger.down or (progress.round == 0 and progress.step == 3)

    def mend() -> None:
        ledger.down = ledger.down and len(recorder.texts("chain-lost")) == 0

    recorder.on_progress = break_chain
    made.stop.while_waiting = mend
    made.worker.run()
    # On a slow machine the watcher of the lease may have missed the chain before.
    assert "trained state is kept" in recorder.texts("chain-lost")[-1]
    assert submitted(ledger)[0] == state_root(task.states(1)[1].values())
    assert kinds(ledger) == ["claim", "submit", "finalise"] * 3


def test_run_submission_that_landed_without_an_answer_is_success(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    made = bench(ledger, tmp_path, task, ALICE)
    real, failed = made.chain.submit, []

    def submit(*arguments: object, **named: object) -> None:
        real(*arguments, **named)  # type: ignore[arg-type]  # passed through as they came
        if not failed:
            failed.append(1)
            ledger.down = True
            ledger.read()

    made.chain.submit = submit  # type: ignore[method-assign,assignment]  # the fault under test
    made.stop.while_waiting = lambda: setattr(ledger, "down", False)
    made.worker.run()
    assert kinds(ledger) == ["claim", "submit", "finalise"] * 3


def test_run_disk_full_while_keeping_a_snapshot_raises_resource_error(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    from typing import IO

    from trainer.worker import snapshots

    made = bench(ledger, tmp_path, task, ALICE, snapshot_seconds=0.0)
    whole, calls = snapshots.write_tensors, []

    def full(file: IO[bytes], *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            file.write(b"half of a")
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(file, *arguments)  # type: ignore[arg-type]  # passed through as they came

    monkeypatch.setattr(snapshots, "write_tensors", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        made.worker.run()
    assert not list(made.home.rglob("*.partial"))
    monkeypatch.undo()
    bench(ledger, tmp_path, task, ALICE).worker.run()
    assert submitted(ledger) == [state_root(state.values()) for state in task.states(3)[1:]]


def test_run_out_of_memory_raises_resource_error_and_goes_on_later(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    recorder = Recorder()

    def exhaust(progress: RoundProgress) -> None:
        if progress.step == 8:
            raise MemoryError

    recorder.on_progress = exhaust
    with pytest.raises(ResourceError, match="Out of memory"):
        bench(ledger, tmp_path, task, ALICE, recorder=recorder, snapshot_seconds=0.0).worker.run()
    resumed = bench(ledger, tmp_path, task, ALICE)
    resumed.worker.run()
    assert resumed.recorder.steps[0].step > 1
    assert submitted(ledger) == [state_root(state.values()) for state in task.states(3)[1:]]


def test_run_a_damaged_snapshot_is_not_trained_on(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    recorder = Recorder()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder)
    recorder.on_progress = lambda progress: made.stop.request() if progress.step == 5 else None
    with pytest.raises(Exception, match="is kept"):
        made.worker.run()
    (path,) = (made.home / "workers").rglob("snapshots/**/*.safetensors")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    resumed = bench(ledger, tmp_path, task, ALICE)
    resumed.worker.run()
    assert resumed.recorder.steps[0].step == 1
    assert submitted(ledger)[0] == state_root(task.states(1)[1].values())


def test_run_earned_follows_a_chain_that_goes_back(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    recorder = Recorder()
    made = bench(ledger, tmp_path, task, ALICE, recorder=recorder)
    kept = []

    def note(event: str) -> None:
        if event == "submitted" and not kept:
            kept.append(ledger.save())
        if event == "paid" and len(kept) == 1:
            kept.append(kept[0])
            ledger.restore(kept[0])  # the first round's finalisation is gone

    recorder.on_say = note
    summary = made.worker.run()
    assert kinds(ledger)[:4] == ["claim", "submit", "finalise", "finalise"]
    assert summary.earned == ledger.books.credit[ALICE] == 30 * TOKEN
    assert summary.rounds_paid == 3


def test_run_a_node_that_refuses_for_a_moment_is_asked_again(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    from ledger.errors import ChainError

    made = bench(ledger, tmp_path, task, ALICE)
    real, calls = made.chain.block_number, []

    def refuse() -> int:
        calls.append(1)
        if len(calls) == 2:
            raise ChainError("The node is behind.")
        return real()

    made.chain.block_number = refuse  # type: ignore[method-assign]  # the fault under test
    made.worker.run()
    assert made.recorder.texts("chain-lost") == ["The node is behind. Asking again until it answers."]
    assert ledger.books.tasks[1].complete


def test_run_a_store_that_is_down_is_waited_for_with_the_trained_state(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ledger.errors import DataError
    from trainer.worker import round as round_module

    whole, tries = round_module.save_state, []

    def down(*arguments: object) -> bytes:
        tries.append(1)
        if len(tries) <= 3:
            raise DataError("The store s3://x does not serve states.")
        return whole(*arguments)  # type: ignore[arg-type]  # passed through as they came

    monkeypatch.setattr(round_module, "save_state", down)
    made = bench(ledger, tmp_path, task, ALICE)
    made.worker.run()
    assert len(made.recorder.texts("store-lost")) == 1
    assert [progress.step for progress in made.recorder.steps if progress.round == 0] == list(range(1, 13))
    assert kinds(ledger) == ["claim", "submit", "finalise"] * 3


def test_run_a_store_that_stays_down_costs_the_lease_and_not_the_work(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ledger.errors import DataError
    from trainer.worker import round as round_module

    def down(*arguments: object) -> bytes:
        if ledger.books.now < 1_000_000 + 150:  # a lease lasts 100 s
            raise DataError("The store s3://x does not serve states.")
        return whole(*arguments)  # type: ignore[arg-type]  # passed through as they came

    whole = round_module.save_state
    monkeypatch.setattr(round_module, "save_state", down)
    made = bench(ledger, tmp_path, task, ALICE)
    made.worker.run()
    assert "ran out" in made.recorder.texts("lease-lost")[0]
    assert kinds(ledger)[:3] == ["claim", "claim", "submit"]
    assert [progress.step for progress in made.recorder.steps if progress.round == 0] == list(range(1, 13))


def test_run_a_download_ends_when_asked_and_goes_on_later(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made = bench(ledger, tmp_path, task, ALICE)
    made.recorder.on_say = lambda event: None
    original, calls = made.chain.store_url, []

    def stop_then(number: int, /) -> str:
        calls.append(number)
        made.stop.request()  # Ctrl-C while the data set is on its way
        return original(number)

    made.chain.store_url = stop_then  # type: ignore[method-assign]  # the moment under test
    with pytest.raises(Exception, match="Interrupted"):
        made.worker.run()
    assert ledger.writes == []
    bench(ledger, tmp_path, task, ALICE).worker.run()
    assert ledger.books.tasks[1].complete
