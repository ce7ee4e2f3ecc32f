"""Whole lives of a task through the worker's loop, over an in-memory ledger and a real tiny model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from worker_bench import Bench, Recorder, TinyTask, bench, publish_tiny_task
from worker_fakes import ALICE, BOB, TOKEN, FakeLedger

from ledger.errors import LeaseLost, ResourceError
from ledger.performance import pay_for
from ledger.types import Admission, SlotStatus
from trainer.commit.states import state_root
from trainer.worker.progress import RoundProgress


@pytest.fixture
def task(tmp_path: Path) -> TinyTask:
    return publish_tiny_task(tmp_path / "store")


@pytest.fixture
def ledger(task: TinyTask) -> FakeLedger:
    ledger = FakeLedger()
    ledger.post(task.parameters)
    for owner in (ALICE, BOB):
        ledger.stake(owner, 20 * TOKEN)
    return ledger


def submitted(ledger: FakeLedger) -> list[bytes]:
    return [write[4] for write in ledger.writes if write[0] == "submit"]  # type: ignore[misc]  # roots, by construction


def kinds(ledger: FakeLedger) -> list[str]:
    return [str(write[0]) for write in ledger.writes]


def test_run_one_worker_takes_a_task_to_its_end(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made = bench(ledger, tmp_path, task, ALICE)
    summary = made.worker.run()
    honest = [state_root(state.values()) for state in task.states(3)]
    assert [ledger.books.lineage[(1, at)].state_root for at in range(3)] == honest[1:]
    assert kinds(ledger) == ["claim", "submit", "finalise"] * 3
    assert (summary.rounds_submitted, summary.rounds_paid, summary.waiting) == (3, 3, 0)
    assert summary.earned == ledger.books.credit[ALICE] == 30 * TOKEN
    assert ledger.books.locked[ALICE] == 0


def test_run_pays_by_the_formula_when_the_task_has_a_target(tmp_path: Path) -> None:
    task = publish_tiny_task(tmp_path / "store", target=0.5)
    ledger = FakeLedger()
    ledger.post(task.parameters)
    ledger.stake(ALICE, 20 * TOKEN)
    summary = bench(ledger, tmp_path, task, ALICE).worker.run()
    paid = [
        pay_for(task.parameters, round_number=at, steps=12, loss_bits=ledger.books.lineage[(1, at)].heldout_loss)
        for at in range(3)
    ]
    assert summary.earned == sum(paid) == ledger.books.credit[ALICE]
    assert 0 < sum(paid) < 30 * TOKEN


def test_run_two_workers_take_turns(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    first, second = bench(ledger, tmp_path, task, ALICE), bench(ledger, tmp_path, task, BOB)
    # Each is driven while the other waits: one thread, no races, the same order every time.
    first.stop.while_waiting = lambda: None
    turns: list[Bench] = [first, second]
    for _ in range(400):
        for one in turns:
            acted, _ = one.worker._turn()
            if not acted:
                one.stop.wait(1.0)
        if ledger.books.tasks[1].complete:
            break
    workers = [ledger.books.lineage[(1, at)].worker for at in range(3)]
    assert workers in ([ALICE, BOB, ALICE], [BOB, ALICE, BOB])
    assert kinds(ledger).count("submit") == 3


def test_run_alone_waits_its_turn_and_says_so(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made = bench(ledger, tmp_path, task, ALICE, turn_seconds=5.0)
    made.worker.run()
    turns = [fields for event, _, fields in made.recorder.said if event == "waiting" and fields["reason"] == "turn"]
    assert len(turns) == 2  # before the second and third round, each said once


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
    assert "trained state is kept" in recorder.texts("chain-lost")[0]
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


def test_run_corrupt_dataset_is_named_and_nothing_is_claimed(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    (part,) = (tmp_path / "store").rglob("train.bin")
    data = bytearray(part.read_bytes())
    data[3000] ^= 1
    part.write_bytes(data)
    made = bench(ledger, tmp_path, task, ALICE, idle_exit=30.0)
    made.worker.run()
    assert ledger.writes == []
    (words,) = made.recorder.texts("waiting")
    assert "train.bin" in words
    assert "chunk 2" in words


def test_run_missing_base_state_is_named_and_taken_up_when_it_comes(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    (state,) = (tmp_path / "store" / "states").iterdir()
    aside = state.rename(tmp_path / "aside")
    made = bench(ledger, tmp_path, task, ALICE, exit_when_done=False, maximum_rounds=1)
    made.stop.while_waiting = lambda: aside.rename(state) and None if made.stop.seconds == 4 else None
    made.worker.run()
    assert state.name in made.recorder.texts("waiting")[0]
    assert kinds(ledger) == ["claim", "submit", "finalise"]


def test_run_max_rounds_waits_for_its_pay_and_leaves(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    summary = bench(ledger, tmp_path, task, ALICE, maximum_rounds=2).worker.run()
    assert (summary.rounds_submitted, summary.rounds_paid) == (2, 2)
    assert kinds(ledger) == ["claim", "submit", "finalise"] * 2


def test_run_no_finalise_leaves_the_window_to_others(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    summary = bench(ledger, tmp_path, task, ALICE, maximum_rounds=1, finalise=False).worker.run()
    assert (summary.rounds_submitted, summary.rounds_paid, summary.waiting) == (1, 0, 1)
    assert ledger.books.slots[(1, 0)].status is SlotStatus.SUBMITTED


def test_run_finalises_what_others_left_behind(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    bench(ledger, tmp_path, task, ALICE, maximum_rounds=1, finalise=False).worker.run()
    bench(ledger, tmp_path, task, BOB).worker.run()
    assert [ledger.books.lineage[(1, at)].worker for at in range(3)] == [ALICE, BOB, BOB]
    assert ledger.books.credit[ALICE] == 10 * TOKEN


def test_run_claims_for_an_owner_only_as_its_operator(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    refused = bench(ledger, tmp_path, task, BOB, staked_by=ALICE, idle_exit=5.0)
    refused.worker.run()
    assert [fields["reason"] for _, _, fields in refused.recorder.said] == ["operator"]
    assert ledger.writes == []


def test_run_without_stake_says_what_is_missing_once(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    ledger.books.staked[ALICE] = 2 * TOKEN
    made = bench(ledger, tmp_path, task, ALICE, idle_exit=30.0)
    made.worker.run()
    (words,) = made.recorder.texts("waiting")
    assert "bond of 5 tokens" in words
    assert "2 of the 2 staked" in words


def test_run_ticket_not_found_gives_up_in_time(tmp_path: Path) -> None:
    task = publish_tiny_task(tmp_path / "store", admission=Admission.TICKET, ticket_target=1)
    ledger = FakeLedger()
    ledger.post(task.parameters)
    ledger.stake(ALICE, 20 * TOKEN)
    made = bench(ledger, tmp_path, task, ALICE, ticket_seconds=50.0, exit_when_done=False, idle_exit=100.0)

    def mine(*_: object, seconds: float, **__: object) -> None:
        made.chain.tickets.append(seconds)
        made.stop.seconds += seconds

    made.chain.mine_ticket = mine  # type: ignore[method-assign,assignment]  # time passes while it searches
    made.worker.run()
    assert made.chain.tickets[:3] == [20.0, 20.0, 10.0]
    assert "no proof-of-work ticket was found in 50 s" in made.recorder.texts("waiting")[0]
    assert ledger.writes == []


def test_run_a_task_that_is_not_there_is_an_error(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="UnknownTask"):
        bench(ledger, tmp_path, task, ALICE, only_task=7).worker.run()


def test_run_a_closed_task_is_left(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    ledger.books.tasks[1] = dataclasses.replace(ledger.books.tasks[1], closed=True)
    summary = bench(ledger, tmp_path, task, ALICE).worker.run()
    assert summary.rounds_submitted == 0
    assert ledger.writes == []


def test_lease_lost_names_its_exit_code() -> None:
    assert LeaseLost("x").exit_code == 7


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


def test_run_keeps_only_the_newest_base_states(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made = bench(ledger, tmp_path, task, ALICE)
    made.worker.run()
    assert len(list((made.home / "workers").rglob("bases/**/*.safetensors"))) == 2
    # Snapshots of rounds that are final are gone.
    assert not list((made.home / "workers").rglob("snapshots/**/*.safetensors"))


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
