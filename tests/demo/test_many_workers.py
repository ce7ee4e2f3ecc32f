"""The demonstration of many workers: when its clock moves, what its report accepts, and all of it after a kill."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from demo_play import TASK, wait_for
from rich.console import Console
from worker_fakes import ALICE, BOB, TOKEN

from ledger.errors import SpecificationError, TrainledgerError
from ledger.performance import float_bits
from ledger.types import Checkpoint, Slot, SlotStatus, TaskParameters, VaultTotals
from trainer.demo.many import ManyWorkers, names_of, seconds_to_pass, task_texts
from trainer.demo.many_report import Killed, ManyReport, Party, Trained, check, print_report
from trainer.demo.runs import open_run

OPEN, LEASED, SUBMITTED, FINALISED = SlotStatus
PARAMETERS = TaskParameters(
    specification_hash=b"s" * 32,
    program_root=b"p" * 32,
    dataset_root=b"d" * 32,
    initial_state_root=b"\x00" * 31 + b"\x01",
    state_tensors=5,
    rounds=1,
    slots_per_round=2,
    steps_per_round=100,
    minimum_steps=100,
    slot_reward=5 * TOKEN,
    bond=10 * TOKEN,
    lease_fee=TOKEN,
    lease_seconds=60,
    challenge_window=60,
    has_target=True,
    base_loss=float_bits(4.0),
    target_loss=float_bits(2.0),
    quorum=2,
    round_seconds=120,
    merge_reward=2 * TOKEN,
)


def slot_of(number: int, status: SlotStatus, *, deadline: int = 0, worker: str = ALICE, loss: float = 2.0) -> Slot:
    return Slot(
        task=1,
        round=0,
        slot=number,
        worker=worker,
        attempt=0,
        deadline=deadline,
        status=status,
        open_games=0,
        payout=worker,
        steps=100,
        heldout_loss=float_bits(loss),
        state_root=bytes([number + 1]) * 32,
    )


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        # The merge, too, is submitted: past the latest window, and not a second further.
        ([(SUBMITTED, 110, ALICE), (FINALISED, 90, ALICE), (SUBMITTED, 130, ALICE)], 31),
        ([(SUBMITTED, 100, ALICE), (FINALISED, 90, ALICE), (SUBMITTED, 90, ALICE)], 1),
        ([(SUBMITTED, 99, ALICE), (SUBMITTED, 90, ALICE), (SUBMITTED, 80, ALICE)], None),
        # Somebody still works, or may claim.
        ([(SUBMITTED, 110, ALICE), (LEASED, 150, ALICE), (OPEN, 0, ALICE)], None),
        ([(SUBMITTED, 110, ALICE), (OPEN, 0, ALICE), (OPEN, 0, ALICE)], None),
        ([(SUBMITTED, 110, ALICE), (SUBMITTED, 110, ALICE), (OPEN, 0, ALICE)], None),
        ([(SUBMITTED, 110, ALICE), (SUBMITTED, 110, ALICE), (LEASED, 150, ALICE)], None),
        # Bob is dead: past his lease as soon as the others have submitted, once.
        ([(SUBMITTED, 110, ALICE), (LEASED, 150, BOB), (OPEN, 0, ALICE)], 51),
        ([(LEASED, 150, ALICE), (LEASED, 150, BOB), (OPEN, 0, ALICE)], None),
        ([(OPEN, 0, ALICE), (LEASED, 150, BOB), (OPEN, 0, ALICE)], None),
        ([(SUBMITTED, 110, ALICE), (LEASED, 99, BOB), (OPEN, 0, ALICE)], None),
    ],
)
def test_seconds_to_pass_moves_only_when_nobody_can_do_anything(
    statuses: list[tuple[SlotStatus, int, str]], expected: int | None
) -> None:
    slots = [slot_of(number, *one[:1], deadline=one[1], worker=one[2]) for number, one in enumerate(statuses)]
    assert seconds_to_pass(PARAMETERS, slots, now=100, dead=BOB) == expected


def test_seconds_to_pass_of_a_round_with_one_slot() -> None:
    parameters = dataclasses.replace(PARAMETERS, slots_per_round=1, quorum=0, round_seconds=0, merge_reward=0)
    assert seconds_to_pass(parameters, [slot_of(0, SUBMITTED, deadline=160)], now=100, dead=None) == 61
    assert seconds_to_pass(parameters, [slot_of(0, LEASED, deadline=160)], now=100, dead=None) is None


def test_task_texts_are_of_as_many_tokens() -> None:
    texts = {name: tomllib.loads(text) for name, text in task_texts(TASK, workers=3, steps=60).items()}
    together, alone = texts["together.toml"], texts["alone.toml"]
    assert together["round"]["slots"] * together["task"]["steps_per_round"] == alone["task"]["steps_per_round"] == 180
    assert together["merge"]["kind"] == "diloco"
    assert "round" not in alone
    for section in ("data", "program", "timing", "reward"):
        assert together[section] == alone[section] == tomllib.loads(TASK)[section]


def test_names_of_those_at_the_start_and_of_two_who_join() -> None:
    assert names_of(2) == ("worker-1", "worker-2", "worker-3", "worker-4")


def test_task_file_with_rounds_of_slots_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text(task_texts(TASK, workers=3, steps=60)["together.toml"])
    with pytest.raises(SpecificationError, match="has rounds of 3 slots"):
        ManyWorkers(tmp_path / "home", Console(file=io.StringIO()), 4, task_file=path)
    assert not (tmp_path / "home").exists()


def test_runs_of_another_kind_are_left_alone(tmp_path: Path) -> None:
    open_run(tmp_path)
    (tmp_path / "task.toml").write_text(TASK)
    stage = ManyWorkers(tmp_path, Console(file=io.StringIO()), 4, task_file=tmp_path / "task.toml")
    assert (stage.run.folder.name, stage.run.resumed) == ("workers-4-run-1", False)
    again = ManyWorkers(tmp_path, Console(file=io.StringIO()), 4, task_file=tmp_path / "task.toml")
    assert (again.run.folder, again.run.resumed) == (stage.run.folder, True)
    assert open_run(tmp_path).folder.name == "run-1"


def trained(task: int, *, loss: float) -> Trained:
    """A task of one round: its slots reached a loss of 3, and alice did them all but the second one, bob's."""
    parameters = PARAMETERS
    if task == 2:
        parameters = dataclasses.replace(PARAMETERS, slots_per_round=1, quorum=0, round_seconds=0, merge_reward=0)
    slots = tuple(
        slot_of(number, FINALISED, worker=BOB if number == 1 else ALICE, loss=3.0)
        for number in range(parameters.last_slot + 1)
    )
    point = Checkpoint(
        task=task,
        round=0,
        parent=b"\x01" * 32,
        state_root=slots[-1].state_root,
        worker=ALICE,
        steps=100,
        heldout_loss=float_bits(loss),
    )
    half = 25 * TOKEN // 10
    paid = (half, half, 2 * TOKEN) if task == 1 else (half,)
    return Trained(task=task, parameters=parameters, slots=slots, paid=paid, lineage=(point,), tokens=(9600,), left=0)


def report_of(**changes: Any) -> ManyReport:
    alice = Party(
        name="worker-1", address=ALICE, slots=2, merges=1, expected=7 * TOKEN, received=7 * TOKEN, fees=0, lost=0
    )
    paid = 25 * TOKEN // 10
    bob = Party(name="worker-2", address=BOB, slots=1, merges=0, expected=paid, received=paid, fees=TOKEN, lost=TOKEN)
    values: dict[str, Any] = {
        "together": trained(1, loss=3.0),
        "alone": trained(2, loss=2.5),
        "parties": (alice, bob),
        "spent": 95 * TOKEN // 10,
        "killed": Killed("worker-1", 0, 1),
        "totals": VaultTotals(held=199 * TOKEN, staked=199 * TOKEN, owed=0),
    }
    return ManyReport(**values | changes)


def test_check_accepts_what_adds_up() -> None:
    report = report_of()
    check(report)
    assert (report.together.refund, report.alone.refund) == (5 * TOKEN, 25 * TOKEN // 10)
    assert report.taken_over() == "worker-2"
    assert report_of(killed=None).taken_over() is None


def changed(which: str, **values: Any) -> Callable[[ManyReport], ManyReport]:
    return lambda report: dataclasses.replace(report, **{which: dataclasses.replace(getattr(report, which), **values)})


def one_party(**values: Any) -> Callable[[ManyReport], ManyReport]:
    return lambda report: dataclasses.replace(
        report, parties=(dataclasses.replace(report.parties[0], **values), report.parties[1])
    )


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (one_party(received=7 * TOKEN - 1), "worker-1 received"),
        (one_party(lost=1), "lost 1 of its stake"),
        (one_party(fees=1), "by the log 1"),
        # Both by as much, so that only the sum is wrong.
        (one_party(received=7 * TOKEN + 1, expected=7 * TOKEN + 1), "are due, spent"),
        (lambda report: dataclasses.replace(report, spent=report.spent + 1), "are due, spent"),
        (changed("together", left=1), "1 wei are left in the escrow of task 1"),
        (changed("together", slots=()), "0 of the 3 slots of task 1 are final"),
        (changed("alone", lineage=trained(2, loss=4.0).lineage), "task 2 did not fall"),
        (changed("totals", owed=1), "The vault holds"),
        (changed("totals", held=200 * TOKEN), "The vault holds"),
    ],
)
def test_check_refuses_a_wei_too_many_or_few(spoil: Callable[[ManyReport], ManyReport], problem: str) -> None:
    with pytest.raises(TrainledgerError, match=problem):
        check(spoil(report_of()))


def test_report_as_json_has_exact_amounts_and_roots() -> None:
    document = json.loads(json.dumps(report_of().as_json(), allow_nan=False))
    assert document["together"]["rounds"] == [
        {
            "round": 0,
            "tokens": 9600,
            "heldout_loss": 3.0,
            "state_root": "0x" + "03" * 32,
            "slots": [
                {"slot": 0, "merge": False, "worker": "worker-1", "attempt": 0, "steps": 100, "paid": "25" + "0" * 17},
                {"slot": 1, "merge": False, "worker": "worker-2", "attempt": 0, "steps": 100, "paid": "25" + "0" * 17},
                {"slot": 2, "merge": True, "worker": "worker-1", "attempt": 0, "steps": 100, "paid": "2" + "0" * 18},
            ],
        }
    ]
    assert [document["together"][name] for name in ("escrow", "paid", "refund")] == [
        str(amount * TOKEN) for amount in (12, 7, 5)
    ]
    assert document["killed"] == {"name": "worker-1", "round": 0, "slot": 1, "taken_over": "worker-2"}
    assert document["workers"][1]["fees"] == str(TOKEN)
    assert document["requester_spent"] == "95" + "0" * 17


def test_print_report_shows_both_losses_and_every_wei(tmp_path: Path) -> None:
    output = io.StringIO()
    stage: Any = SimpleNamespace(run=SimpleNamespace(folder=tmp_path))  # all that it asks of one
    print_report(Console(file=output, width=400), stage, report_of())
    cells = [line.split() for line in output.getvalue().splitlines()]
    assert ["0", "4.0000", "4.0000"] in cells
    assert ["0", "9,600", "3.0000", "2.5000"] in cells
    assert ["worker-1", "2", "1", "7", "0"] in cells
    assert ["worker-2", "1", "0", "2.5", "1"] in cells
    assert ["refund", "7.5"] in cells
    assert ["escrow", "17"] in cells
    assert "worker-1 was killed in slot 1 of round 0; worker-2 did it instead." in output.getvalue()


def start(home: Path, output: Any) -> subprocess.Popen[bytes]:
    words = ["demo", "--workers", "2", "--json", "--home", str(home), "--task-file", str(home.parent / "task.toml")]
    return subprocess.Popen(
        [sys.executable, "-m", "trainer.cli", *words], stdout=output, stderr=(home.parent / "progress").open("ab")
    )


@pytest.mark.full
@pytest.mark.chain
@pytest.mark.timeout(900)
def test_demo_of_many_workers_killed_goes_on_and_adds_up(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text(TASK.replace("steps_per_round = 60", "steps_per_round = 400"))
    progress, result = tmp_path / "progress", tmp_path / "result"
    with result.open("wb") as output:
        first = start(tmp_path / "demo", output)
        try:
            wait_for(progress, "is killed (kill -9)", first)
        finally:
            first.kill()
            first.wait()
        assert result.read_bytes() == b""
        second = start(tmp_path / "demo", output)
        assert second.wait(600) == 0, progress.read_text()
    report = json.loads(result.read_text())
    together, alone = report["together"], report["alone"]
    assert [one["tokens"] for one in together["rounds"]] == [one["tokens"] for one in alone["rounds"]]
    assert [len(one["slots"]) for one in together["rounds"]] == [3, 3]
    killed = report["killed"]
    taken = together["rounds"][killed["round"]]["slots"][killed["slot"]]
    assert killed["name"] == "worker-2"
    assert killed["taken_over"] == taken["worker"] != "worker-2"
    assert taken["attempt"] == 1
    received = sum(int(one["received"]) for one in report["workers"])
    escrow = int(together["escrow"]) + int(alone["escrow"])
    assert received + int(together["refund"]) + int(alone["refund"]) == escrow
    assert int(report["requester_spent"]) == received
    assert {one["name"]: one["fees"] for one in report["workers"]} == {
        name: str(TOKEN if name == "worker-2" else 0) for name in (*names_of(2), "alone")
    }
    listing = subprocess.run(["ps", "-ww", "-eo", "command"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listing
