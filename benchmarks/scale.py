"""Ten to ten thousand workers, simulated: tokens a second, utilisation, bytes, and what the chain has to carry.

python benchmarks/scale.py --folder FOLDER
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reporting import RESULTS, write
from scale_model import Outcome, simulate
from scale_setting import Gas, Setting
from training_setting import SMALL

from trainer.commit.states import state_root
from trainer.data.dataset import Dataset, dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.differences import difference_path, load_difference, save_difference
from trainer.engine.segment import run_merge, run_segment
from trainer.engine.state import State, initial_state
from trainer.native.engine import choose_engine
from trainer.program.description import ProgramDescription
from trainer.program.tracing.tasks import trace_task
from trainer.store import BlobStore

SNAPSHOT = Path(__file__).parent.parent / "snapshots" / "gas.json"
HOUR, MEGABYTE = 3600.0, 1e6
SLOTS = 10
ROUNDS = 6  # of each task in the time simulated, more or less
LEAST_HORIZON = 3_600.0
WORKERS = (10, 100, 1_000, 10_000)
LATENCIES = (0.01, 0.1, 0.3, 1.0, 3.0)
ROUND_SECONDS = (60, 300, 900, 3_600, 14_400)
LAYOUTS = (2, 5, 10, 50, 250)
ASSUMED = {
    "seconds of training in a round": (HOUR, "chosen"),
    "seconds of the challenge window": (HOUR, "chosen; a task file sets it"),
    "tasks of a group": (2, "chosen: while one waits for its window, the other is trained"),
    "latency of a request, s": (0.1, "assumed, a wide-area network"),
    "bandwidth of a worker, MB a second": (12.5, "assumed, 100 Mbit/s either way"),
    "requests before a claim": (6, "assumed"),
    "seconds of a block": (12.0, "assumed, Ethereum's main chain"),
    "gas of a block": (60_000_000, "assumed, Ethereum's main chain"),
    "deviation of the logarithm of speeds": (0.2, "assumed"),
    "failures of a worker in an hour": (0.02, "assumed"),
    "seconds of a repair": (600, "assumed"),
    "lease, times the training": (2, "chosen"),
    "deadline of a round, times the lease": (1.0, "chosen"),
    "quorum, share of the slots": (0.8, "chosen"),
}

NOTE = (
    "Simulated, not run: `benchmarks/scale_model.py` plays the protocol of docs/rounds.md as discrete events "
    "(SimPy): claims, training, difference files, collecting, merges, submissions, challenge windows, "
    "finalisations, and blocks that take transactions in their order up to a gas limit. Nobody cheats, nothing is "
    "audited, and the store serves everybody at once.\n\n"
    "Workers are in groups of as many as a round has slots. Each group has two tasks of as many slots, so that "
    "one is trained while the other's window runs; tasks begin at times of their own. 10,000 workers are 1,000 "
    "groups of 10 with 2,000 tasks, unless a table says otherwise: they do not train one model. A task's next "
    "round waits for its merge's window, so one task alone leaves its workers idle for that long; with speeds "
    "apart, two tasks do not fill it either, and three do. Whoever submits a round's last slot merges at once, as "
    "workers do that are free to choose. A worker that dies goes on from its snapshot if it is back within its "
    "lease; a round goes on without slots that miss its deadline, if it has its quorum. A worker that keeps the "
    "base of a round before merges for itself where that is fewer bytes.\n\n"
    "Figures are of the last three quarters of the time simulated, which is six rounds and windows or an hour; "
    "one seed. The time of a step, gas and bytes are measured; network, failures and blocks are assumptions, to "
    'be changed in `ASSUMED`. "Of the most": tokens that were paid, over those of the same workers if all trained '
    "all the time. Gas a token is that of claims, submissions, collecting and finalisations over tokens of final "
    "rounds; posting a task, stakes and withdrawals are not in it, and disputes cost besides (`dispute_gas.md`). "
    "Where blocks are full, transactions wait, and what is not yet final has cost gas and no token is counted for "
    "it. Gas of a slot does not grow with rounds already done: in `gas.md` four rounds in a row cost the same but "
    "for the first credit and the last refund."
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of the machine that this runs on: bytes a parameter, and seconds a parameter and state of a merge."""

    difference_bytes: float
    state_bytes: float
    merge_seconds: float


def made_up_text() -> Dataset:
    tokens = np.random.default_rng(1).integers(256, size=40_000).astype(np.uint16)
    return dataset_of(ByteTokenizer(), tokens[:20_000], tokens[20_000:])


def measured(folder: Path, threads: int) -> Measured:
    """Runs a merge of the small setting by DiLoCo, of slots that have done a few steps."""
    dataset = made_up_text()
    description = ProgramDescription.from_task_file(
        {**SMALL, "evaluation_windows": 12},
        vocabulary=dataset.vocabulary,
        total_steps=100,
        merge={"kind": "diloco", "slots": SLOTS},
    )
    program = trace_task(description, windows=12)
    engine = choose_engine("cpu", folder, threads=threads, notice=print)
    base = initial_state(description, program.layout)
    slot = run_segment(program, dataset, base, steps=2, engine=engine).state
    with tempfile.TemporaryDirectory() as place:
        store, base_root = BlobStore(place), state_root(base.values())
        root = save_difference(store, slot, base, program.layout, base_root=base_root)
        size = (Path(place) / difference_path(root)).stat().st_size

        def merge() -> State:
            slots = [load_difference(store, root, base, program.layout, base_root=base_root) for _ in range(SLOTS)]
            merged = run_merge(program, dataset, base, slots, engine=engine).state
            state_root(merged.values())
            return merged

        merge()  # compiles
        seconds = min(timed(merge) for _ in range(3))
    parameters = program.layout.parameter_count
    return Measured(
        difference_bytes=size / parameters,
        state_bytes=program.layout.total_bytes / parameters,
        merge_seconds=seconds / parameters / (SLOTS + 1),
    )


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def committed_gas() -> Gas:
    """Of snapshots/gas.json, with what `collect` takes for each slot from its figures of 8 and 128."""
    gas = json.loads(SNAPSHOT.read_text())
    few, many = (gas[f"rounds, collect, slots {slots}"] for slots in (8, 128))
    each = round((many - few) / (128 - 8))
    return Gas(
        claim=gas["rounds, claim, slots 128"],
        submit=gas["rounds, submit, slots 128"],
        finalise=gas["rounds, finalise, slots 128"],
        collect=few - 8 * each,
        collect_slot=each,
        lapsed=gas["expireLease"],
    )


def base_setting(here: Measured) -> tuple[Setting, dict[str, tuple[Any, str]]]:
    """The setting that the tables change, and where its numbers are from."""
    speed = json.loads((RESULTS / "training_speed.json").read_text())["figures"]
    step = speed["ten million, 2 threads: exact, 13 bits, ms a step (median)"] / 1000
    parameters, tokens = speed["ten million: parameters"], 1024
    gas = committed_gas()
    assumed = {name: value for name, (value, _) in ASSUMED.items()}
    train, window = assumed["seconds of training in a round"], assumed["seconds of the challenge window"]
    lease = assumed["lease, times the training"] * train
    setting = Setting(
        workers=1_000,
        slots=SLOTS,
        tasks=int(assumed["tasks of a group"]),
        steps=round(train / step),
        step_seconds=step,
        tokens_per_step=tokens,
        spread=assumed["deviation of the logarithm of speeds"],
        failures_per_hour=assumed["failures of a worker in an hour"],
        repair_seconds=assumed["seconds of a repair"],
        lease_seconds=lease,
        deadline_seconds=assumed["deadline of a round, times the lease"] * lease,
        quorum=assumed["quorum, share of the slots"],
        window_seconds=window,
        difference_bytes=here.difference_bytes * parameters,
        state_bytes=here.state_bytes * parameters,
        merge_seconds=here.merge_seconds * parameters * (SLOTS + 1),
        latency=assumed["latency of a request, s"],
        requests=int(assumed["requests before a claim"]),
        bandwidth=assumed["bandwidth of a worker, MB a second"] * MEGABYTE,
        poll_seconds=1.0,
        block_seconds=assumed["seconds of a block"],
        block_gas=int(assumed["gas of a block"]),
        gas=gas,
        horizon=ROUNDS * (train + window),
    )
    speeds, snapshot, here_now = "training_speed.json, ten million", "snapshots/gas.json", "measured at the start"
    sources: dict[str, tuple[Any, str]] = {
        "parameters": (parameters, speeds),
        "seconds of a step": (step, f"{speeds}, 2 threads"),
        "tokens of a step": (tokens, f"{speeds}: batch 4, context 256"),
        "gas of a claim, a submission, a finalisation": ([gas.claim, gas.submit, gas.finalise], snapshot),
        "gas of collecting, and for each slot": ([gas.collect, gas.collect_slot], f"{snapshot}, of 8 and of 128 slots"),
        "gas of a lapsed lease": (gas.lapsed, snapshot),
        "bytes a parameter, difference file": (here.difference_bytes, here_now),
        "bytes a parameter, state": (here.state_bytes, here_now),
        "microseconds a parameter and state, merge": (here.merge_seconds * 1e6, f"{here_now}, hashing in it"),
        **ASSUMED,
    }
    return setting, sources


def with_rounds_of(setting: Setting, seconds: float) -> Setting:
    """Other lengths of rounds; lease and deadline go with them, the window and the blocks do not."""
    times = seconds / (setting.steps * setting.step_seconds)
    return replace(
        setting,
        steps=round(seconds / setting.step_seconds),
        lease_seconds=max(setting.lease_seconds * times, 600),
        deadline_seconds=max(setting.deadline_seconds * times, 600),
        horizon=max(LEAST_HORIZON, ROUNDS * (seconds + setting.window_seconds)),
    )


def with_slots(setting: Setting, slots: int) -> Setting:
    """Other numbers of slots, and of workers in a group."""
    times = (slots + 1) / (setting.slots + 1)
    return replace(setting, slots=slots, merge_seconds=setting.merge_seconds * times)


def row(first: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
    """One simulation as a row."""
    outcome = simulate(setting)
    print(dict(first), f"{outcome.tokens_per_second:,.0f} tokens/s", flush=True)
    return {**first, **figures_of(outcome)}


def figures_of(outcome: Outcome) -> dict[str, Any]:
    setting, done, hours = outcome.setting, outcome.measured, outcome.seconds / HOUR
    tasks = setting.workers // setting.slots * setting.tasks
    each = setting.workers * hours * MEGABYTE
    return {
        "tokens a second": round(outcome.tokens_per_second),
        "of the most, %": 100 * outcome.tokens_per_second / outcome.most_tokens_per_second,
        "training, % of the time": 100 * outcome.busy,
        "rounds an hour, each task": done.rounds / tasks / hours,
        "sent, MB a worker and hour": done.sent / each,
        "received, MB a worker and hour": done.received / each,
        "gas a second": round(done.gas / outcome.seconds),
        "of the blocks, %": 100 * outcome.chain_load,
        "wait for a block, s": done.waited_seconds / max(1, done.transactions),
        "gas a token": done.gas / done.paid if done.paid else float("inf"),
    }


def faults(setting: Setting) -> list[dict[str, Any]]:
    """Stragglers and failures, with and without a quorum that is less than all."""
    rows = []
    for name, changes in (
        ("all alike, none fails", {"spread": 0.0, "failures_per_hour": 0.0}),
        ("as assumed", {}),
        ("all slots must come", {"quorum": 1.0}),
        ("speeds apart by 0.5", {"spread": 0.5}),
        ("speeds apart by 0.5, all must come", {"spread": 0.5, "quorum": 1.0}),
        ("ten times the failures", {"failures_per_hour": 0.2}),
        ("failures that outlast the lease", {"failures_per_hour": 0.2, "repair_seconds": 4 * HOUR}),
    ):
        changed: Any = changes
        outcome = simulate(replace(setting, **changed))
        wasted = 100 * outcome.measured.wasted_seconds / outcome.measured.busy_seconds
        rows.append({"": name, **figures_of(outcome), "for nothing, % of training": wasted})
    return rows


def gas_of_slots(setting: Setting) -> list[dict[str, Any]]:
    """What a round costs as it gets wider: nothing here is simulated."""
    tokens = setting.steps * setting.tokens_per_step
    return [
        {
            "slots": slots,
            "gas of a round": setting.gas.of_round(slots),
            "gas of a slot": round(setting.gas.of_round(slots) / slots),
            "gas a token": setting.gas.of_round(slots) / slots / tokens,
            "collecting, % of a block": 100
            * (setting.gas.collect + setting.gas.collect_slot * slots)
            / setting.block_gas,
        }
        for slots in (2, 8, 32, 128, 255)
    ]


def tables_of(base: Setting) -> dict[str, list[dict[str, Any]]]:
    many = replace(base, workers=10_000)
    return {
        "Workers": [row({"workers": count}, replace(base, workers=count)) for count in WORKERS],
        "Length of a round, 10,000 workers": [
            row({"training in a round, s": seconds}, with_rounds_of(many, seconds)) for seconds in ROUND_SECONDS
        ],
        "Length of a round, 10,000 workers, windows as long as rounds": [
            row(
                {"training in a round, s": seconds},
                with_rounds_of(replace(many, window_seconds=float(seconds)), seconds),
            )
            for seconds in ROUND_SECONDS
        ],
        "Latency, 1,000 workers": [row({"latency, s": one}, replace(base, latency=one)) for one in LATENCIES],
        "Slots of a round, 10,000 workers": [row({"slots": one}, with_slots(many, one)) for one in LAYOUTS],
        "Tasks that a group shares, 1,000 workers": [
            row({"tasks": tasks}, replace(base, tasks=tasks)) for tasks in (1, 2, 3)
        ],
        "Who merges, 1,000 workers": [
            row({"merges": name}, replace(base, last_merges=last))
            for name, last in (("who submits last, first of all", True), ("whoever is free", False))
        ],
        "Stragglers and failures, 1,000 workers": faults(base),
        "Gas as rounds get wider": gas_of_slots(base),
    }


def report(base: Setting, sources: Mapping[str, tuple[Any, str]]) -> None:
    tables = tables_of(base)
    largest = tables["Workers"][-1]
    write(
        "scale",
        title="Ten to ten thousand workers, simulated",
        command="python benchmarks/scale.py --folder FOLDER",
        figures={
            "workers": WORKERS[-1],
            "tokens_a_second": largest["tokens a second"],
            "of_the_most,_%": largest["of the most, %"],
            "of_the_blocks,_%": largest["of the blocks, %"],
            "gas_a_token": largest["gas a token"],
        },
        tables={
            **tables,
            "Where the numbers are from": [
                {"number": name, "value": value, "source": source} for name, (value, source) in sources.items()
            ],
        },
        note=NOTE,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report(*base_setting(measured(arguments.folder, arguments.threads)))


if __name__ == "__main__":
    main()
