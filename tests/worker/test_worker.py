"""Whole lives of a task through the worker's loop, over an in-memory ledger and a real tiny model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from small_programs import users_engine
from worker_bench import Bench, TinyTask, bench, publish_tiny_task
from worker_fakes import ALICE, BOB, TOKEN, FakeLedger, kinds

from ledger.performance import pay_for
from ledger.types import Admission, SlotStatus
from trainer.commit.states import state_root
from trainer.worker.machine import SpeedRecord
from trainer.worker.session import worker_folder


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


def test_run_keeps_only_the_newest_base_states(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made = bench(ledger, tmp_path, task, ALICE)
    made.worker.run()
    assert len(list((made.home / "workers").rglob("bases/**/*.safetensors"))) == 3  # two, and what it made last
    # Snapshots of rounds that are final are gone.
    assert not list((made.home / "workers").rglob("snapshots/**/*.safetensors"))


def test_run_losing_the_race_for_a_slot_is_nothing_unusual(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made, other = bench(ledger, tmp_path, task, ALICE), bench(ledger, tmp_path, task, BOB)

    def be_faster(method: str) -> None:
        if method == "claim" and not ledger.writes:
            ledger.before_write = lambda method: None
            base = task.parameters.initial_state_root
            other.chain.claim(ledger.books.tasks[1], 0, base_root=base, attempt=0, worker=BOB)

    ledger.before_write = be_faster
    made.worker.run()
    assert made.recorder.texts("waiting")[:2] == [
        "Task 1: another worker was faster with round 0.",
        f"Task 1: round 0 is leased to {BOB} for 97 s more.",
    ]
    # Bob never came back: his lease ran out, and alice did the round.
    assert [ledger.books.lineage[(1, at)].worker for at in range(3)] == [ALICE] * 3
    assert ledger.books.burned == TOKEN


def test_run_measures_again_after_a_moment_that_made_the_machine_look_slow(
    task: TinyTask, ledger: FakeLedger, tmp_path: Path
) -> None:
    made = bench(ledger, tmp_path, task, ALICE)
    # What a trial on a machine busy with something else leaves behind: 100 s a step, of a lease of 100 s.
    SpeedRecord(worker_folder(made.home, ALICE) / "speeds.json").note(
        task.program.root, users_engine().setting, seconds=1200.0, steps=12
    )
    summary = made.worker.run()
    assert [event for event in made.recorder.events if event in ("waiting", "measured", "claimed")][:3] == [
        "waiting",
        "measured",
        "claimed",
    ]
    assert "the lease lasts 100 s" in made.recorder.texts("waiting")[0]
    assert summary.rounds_paid == 3
