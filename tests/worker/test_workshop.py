"""What a round will take, said before it is claimed: programs of any cost, tried or left alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from time import perf_counter

import pytest
from small_programs import traced, users_engine
from worker_bench import TinyTask, bench, publish_tiny_task, tiny_dataset, tiny_program
from worker_fakes import ALICE, TOKEN, FakeLedger, kinds
from wrong_engines import WatchedEngine

from ledger.amounts import format_tokens
from trainer.engine.engines import ReferenceEngine
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.program.estimate import estimate
from trainer.program.exact import BuiltProgram, DType, Operand, Operation, Part, cost_of, program_root
from trainer.program.exact.operations import Batch, Load, Pointwise, StateTensor, View
from trainer.program.task import TaskProgram
from trainer.worker.machine import SpeedRecord, measure_flops, probe
from trainer.worker.session import worker_folder

GREATER = (4096, 4096)  # 64 MiB: a program of such outputs needs little memory, one at a time


def posted(task: TinyTask) -> FakeLedger:
    ledger = FakeLedger()
    ledger.post(task.parameters)
    ledger.stake(ALICE, 20 * TOKEN)
    return ledger


def with_operations(count: int, kind: str) -> TaskProgram:
    """The tiny task's programs with as many operations more in each training step, which nobody reads."""
    tiny = traced(tiny_program(), tiny_dataset())
    training = tiny.training.program
    loads = (number for number, one in enumerate(training.operations) if isinstance(one.attributes, Load))
    spread = Operand(next(at for at in loads if training.operations[at].dtype is DType.FLOAT32), 0, (0, 0))
    long = Kernel(1, (Instruction(Op.INPUT), *(Instruction(Op.FADD, n, 0) for n in range(511))))
    one = {
        "arithmetic": Operation(Pointwise(long), DType.FLOAT32, GREATER, (spread,)),
        "copies": Operation(View(), DType.FLOAT32, GREATER, (spread,)),
        "batches": Operation(Batch(Part.TRAIN, 0), DType.INT32, (2**22, 1)),
    }[kind]
    longer = dataclasses.replace(training, operations=(*training.operations, *[one] * count))
    return dataclasses.replace(tiny, training=BuiltProgram(longer, tiny.training.constants))


@pytest.mark.parametrize("kind", ["arithmetic", "copies", "batches"])
def test_run_a_program_that_would_take_years_is_left_alone_untried(tmp_path: Path, kind: str) -> None:
    task = publish_tiny_task(tmp_path / "store", steps=10**7, other=with_operations(2000, kind))
    ledger, watched = posted(task), WatchedEngine(users_engine())
    made = bench(ledger, tmp_path, task, ALICE, idle_exit=30.0, runs_on=watched)
    made.worker.run()
    assert ledger.writes == []
    assert [event for event in made.recorder.events if event != "waiting"] == []
    (words,) = made.recorder.texts("waiting")
    assert words.startswith("Task 1: a round takes ")
    assert " s on this machine by its general speed, and the lease lasts 100 s." in words
    seconds = int(words.partition(" GFLOP, about ")[2].partition(" s on")[0].replace(",", ""))
    assert seconds > 5e5  # by a machine's general speed, which no real program reaches
    assert set(watched.opened) == {program_root(probe().program)}


def test_run_a_single_run_of_days_is_left_alone_whatever_the_lease(tmp_path: Path) -> None:
    year = 365 * 86_400
    other = with_operations(4000, "arithmetic")
    task = publish_tiny_task(tmp_path / "store", steps=1, other=other, lease_seconds=year, challenge_window=year)
    ledger, watched = posted(task), WatchedEngine(users_engine())
    made = bench(ledger, tmp_path, task, ALICE, idle_exit=30.0, runs_on=watched)
    folder = worker_folder(made.home, ALICE)
    folder.mkdir(parents=True)
    (folder / "speeds.json").write_text(f'{{"{watched.setting} flops": 4e9}}')
    made.worker.run()
    assert ledger.writes == watched.opened == []
    (words,) = made.recorder.texts("waiting")
    assert words.startswith("Task 1: a single run of its programs takes about ")
    assert words.endswith("nothing could interrupt it; 86,400 s are the most.")


def test_estimate_counts_work_that_is_no_operation_on_numbers() -> None:
    tiny = traced(tiny_program(), tiny_dataset())
    plain = estimate(tiny)
    copies, batches = (estimate(with_operations(10, kind)) for kind in ("copies", "batches"))
    assert copies.flops_per_step == batches.flops_per_step == plain.flops_per_step
    assert copies.work_per_step - plain.work_per_step == 10 * 8 * 2**24
    assert batches.work_per_step - plain.work_per_step == 10 * (8 + 2**15) * 2**22
    # A batch is read through 8-byte places and several copies of its tokens.
    assert batches.memory_bytes - plain.memory_bytes > 24 * 2**22


def test_run_a_state_of_a_thousand_million_elements_is_left_alone_unfetched(tmp_path: Path) -> None:
    tiny = traced(tiny_program(), tiny_dataset())
    more = StateTensor("parameter.more", DType.FLOAT32, (10**9,), None)
    training, evaluation = (
        BuiltProgram(dataclasses.replace(one.program, states=(*one.program.states, more)), one.constants)
        for one in (tiny.training, tiny.evaluation)
    )
    huge = dataclasses.replace(tiny, training=training, evaluation=evaluation, generation=None)
    task = publish_tiny_task(tmp_path / "store", other=huge)
    ledger = posted(task)
    made = bench(ledger, tmp_path, task, ALICE, idle_exit=30.0, memory_bytes=8 * 2**30)
    made.worker.run()
    assert ledger.writes == []
    (words,) = made.recorder.texts("waiting")
    assert words.startswith("Task 1: it needs about ")
    assert " MiB of memory and " in words
    assert not (made.home / "cache" / "datasets").exists()


def test_run_says_what_a_round_takes_and_pays(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made = bench(ledger, tmp_path, task, ALICE, maximum_rounds=1)
    made.worker.run()
    events = [event for event in made.recorder.events if event in ("preparing", "measured", "claimed")]
    assert events == ["preparing", "measured", "claimed"]
    ((_, words, fields),) = [one for one in made.recorder.said if one[0] == "measured"]
    training, evaluation = (cost_of(one.program) for one in (task.program.training, task.program.evaluation))
    flops, memory = 12 * training.flops + evaluation.flops, estimate(task.program).memory_bytes
    assert (fields["flops"], fields["memory_bytes"]) == (flops, memory)
    seconds, hourly = float(str(fields["seconds"])), int(str(fields["reward_per_hour"]))
    assert hourly == pytest.approx(10 * TOKEN * 3600 / seconds, rel=0.51e-3 / seconds)  # seconds are shown rounded
    assert words == (
        f"A round of task 1 will take about {seconds:.0f} s on this machine: {flops / 1e9:,.1f} GFLOP, "
        f"{memory / 2**20:,.0f} MiB of memory, at most {format_tokens(hourly - hourly % 10**16)} tokens an hour."
    )


def test_run_knows_a_programs_speed_from_the_round_before(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    made = bench(ledger, tmp_path, task, ALICE)
    made.worker.run()
    assert kinds(ledger).count("claim") == 3
    assert len(made.recorder.texts("measured")) == 1
    speeds = SpeedRecord(worker_folder(made.home, ALICE) / "speeds.json")
    known = speeds.seconds_per_step(task.program.root, users_engine().setting)
    assert known is not None
    assert 0 < known < 8  # of a lease of 100 s for 12 steps


def test_run_a_trial_counts_the_run_that_is_repeated(task: TinyTask, ledger: FakeLedger, tmp_path: Path) -> None:
    """One run of each round is repeated on the reference, which takes as long as many steps."""
    made = bench(ledger, tmp_path, task, ALICE, maximum_rounds=1, finalise=False)
    made.worker.run()
    ((_, _, fields),) = [one for one in made.recorder.said if one[0] == "measured"]
    run = ReferenceEngine().open(task.program.training)
    run.load(list(task.initial.values()))
    times = []
    for _ in range(3):
        began = perf_counter()
        run.step(DatasetBatches(data=task.dataset, seed=task.program.seed))
        times.append(perf_counter() - began)
    assert float(str(fields["seconds"])) > min(times) / 2


def test_speed_record_measures_an_engines_general_speed_once(tmp_path: Path) -> None:
    path = tmp_path / "speeds.json"
    record, watched = SpeedRecord(path), WatchedEngine(users_engine())
    first = record.flops_per_second(watched)
    assert first > 1e7
    assert record.flops_per_second(watched) == SpeedRecord(path).flops_per_second(watched) == first
    assert len(watched.opened) == 1
    record.note(b"p" * 32, watched.setting, seconds=6.0, steps=3)
    assert record.flops_per_second(watched) == first
    path.write_text('{"' + watched.setting + ' flops": "fast"}')
    assert record.flops_per_second(watched) != "fast"
    assert len(watched.opened) == 2


def test_speed_record_keeps_engines_apart(tmp_path: Path) -> None:
    record = SpeedRecord(tmp_path / "speeds.json")
    settings = [
        users_engine(1).setting,
        users_engine(2).setting,
        *(ReferenceEngine(device, threads=threads).setting for device in ("cpu", "cuda") for threads in (None, 1)),
    ]
    assert len(set(settings)) == len(settings)
    for number, setting in enumerate(settings):
        record.note(b"p" * 32, setting, seconds=1.0 + number, steps=1)
    assert [record.seconds_per_step(b"p" * 32, setting) for setting in settings] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_measure_flops_is_the_probes_cost_over_its_time() -> None:
    fast, slow = measure_flops(users_engine()), measure_flops(ReferenceEngine())
    assert fast > slow > 1e6
