"""Transactions and gas of whole disputes, from the opening to the settled bond, on Anvil with the real contracts.

python benchmarks/dispute_gas.py --folder FOLDER
"""

from __future__ import annotations

import argparse
import copy
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dispute_court import Case, Court, Dispute, court
from dispute_parties import FaultyTruth, parties, result_of, transactions
from reporting import RESULTS, write
from training_setting import TEN_MILLION

from trainer.commit.tensors import tensor_root
from trainer.data.config import DataConfig
from trainer.data.dataset import Dataset, dataset_of, prepare_dataset
from trainer.data.tokenizer import ByteTokenizer
from trainer.dispute.truth import SegmentTruth
from trainer.engine.state import initial_state
from trainer.native.engine import choose_engine
from trainer.native.hashing import hash_natively
from trainer.program.description import ProgramDescription
from trainer.program.exact.operations import Code, Program
from trainer.program.task import TaskProgram
from trainer.program.tracing.tasks import trace_task

DEMO = Path(__file__).parent.parent / "trainer/demo/task.toml"
GPT2: dict[str, Any] = {
    **copy.deepcopy(TEN_MILLION),
    "model": {"kind": "transformer", "layers": 12, "heads": 12, "width": 768, "bias": True, "tied_embeddings": True},
    "context": 1024,
    "batch_size": 1,
    "evaluation_windows": 1,
    "evaluation_batch": 1,
}
STEPS = 1000
CACHE_BYTES = 2**33  # of outputs that evidence is made of
MOST_TRANSACTIONS, MOST_GAS = 16, 2_500_000
DEMO_NAME = "demo"
LONG = (("10.8 million", TEN_MILLION, 256), ("GPT-2 124M", GPT2, 50_257))  # name, task, vocabulary
MODELS = [DEMO_NAME, *(name for name, _, _ in LONG)]
EVERY = "Every dispute measured"
NOTE = """\
Gas and calldata are of whole transactions on Anvil. Counted is all that a dispute takes, from `open` to the settled
bond. A submission that fell is worked on again, as any open slot is: that claim, submit and finalise are not counted.
The goal is at most 16 transactions and 2,500,000 gas for GPT-2 in a segment of 1,000 steps.

A move in the same second as the last one leaves the stored deadline as it is, which saves 2,800 gas; this chain is
that fast. Where blocks take longer, a dispute may cost up to some 25,000 gas more than measured.

**Real everywhere:** the chain, the contracts and the referee's verdict; the programs, traced from the models, with
their records and proofs; the trees of the disputed step, its evidence, and that the honest side wins.

**demo:** nothing is made up. A machine has one integer product of one step wrong, in one element, and computes all
later steps from there. Both sides are the code with which workers and auditors play, and replay the segment of 200
steps, from memory in place of stores. That code sends no proof against itself: where the submission is wrong the last
move would be the liar's, and the clock decides.

**10.8 million, GPT-2 124M:** of 1,000 steps one is computed, the whole trace of it, with fresh weights and random
tokens; GPT-2 is 12 layers, 12 heads, 768 wide, context 1,024, vocabulary 50,257, batch 1. Made up are the state roots
of all other steps and the last state's tensor roots but its loss (32 bytes each, whatever they stand for), and the
lie: one bit of one element of one output, a false state after the step, for a long fold the accumulators from one
block on. The lie has no consequences in other outputs; no move would show them. The liar also sends the proof that
loses it the game, so that the proof is measured whoever's turn it is. It is about each kind of operation that
computes: the largest tensor, the one that reads the most, of 16 elements the one with the longest evidence.
Operations that only copy and lies in the state itself or in padding, which take no more transactions, are not played.

**Larger batches, computed and not measured:** GPT-2's largest tensor, the logits, has 201,028 chunks, a tree of 18
levels, which is three views. From 2 samples to 83 it takes a fourth: one more transaction of about 165,000 gas.

**Others, as reported and not measured here:** a dispute on Optimism takes about 30 to 40 transactions. opML takes two
for each halving: 1,001 runs, 4,678 leaves of the trace, 201,028 chunks and 256 elements would be 10 + 13 + 18 + 8
halvings, 98 transactions."""


@dataclass(frozen=True)
class Measured:
    """One dispute: about which operation, and who was wrong."""

    model: str
    about: str
    wrong: str
    dispute: Dispute

    def row(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "one element of": self.about,
            "wrong": self.wrong,
            "ends": "by the clock" if self.dispute.late else "by a proof",
            "transactions": len(self.dispute.sent),
            "gas": self.dispute.gas,
            "calldata, bytes": self.dispute.calldata,
        }


def demo(at: Court, folder: Path) -> Iterator[Measured]:
    """The demo's model: a machine that multiplies wrongly once, and players that replay whole segments."""
    described = tomllib.loads(DEMO.read_text())
    data = prepare_dataset(DataConfig.from_mapping(described["data"]))
    description, task = traced(described["program"], vocabulary=data.vocabulary)
    steps = described["task"]["steps_per_round"]
    engine = choose_engine("cpu", folder, threads=1, notice=print)
    true = SegmentTruth(task, data, initial_state(description, task.layout), steps=steps, engine=engine)
    program = task.training.program
    operation = max(
        (number for number, one in enumerate(program.operations) if one.code is Code.MATMUL),
        key=lambda number: program.operations[number].elements,
    )
    false = FaultyTruth(true, data, engine, at=steps * 2 // 3, operation=operation)
    results = [
        result_of([tensor_root(one) for one in who.state(steps + 1)], who.state(steps + 1)[0]) for who in (true, false)
    ]
    case = Case(task.root, data.root, len(program.states), steps, *results)
    for wrong in ("false", "true"):
        dispute = at.play(case, true, false, submitted=wrong, players=True)
        print(DEMO_NAME, wrong, len(dispute.sent), f"{dispute.gas:,}", flush=True)
        yield Measured(DEMO_NAME, about(program, operation), who_is_wrong(wrong), dispute)


def long_segment(at: Court, name: str, fields: dict[str, Any], *, vocabulary: int) -> Iterator[Measured]:
    """One computed step of a longer segment, about each of the operations whose dispute may be the dearest."""
    data = random_tokens(vocabulary)
    description, task = traced(fields, vocabulary=vocabulary)
    program = task.training.program
    base = initial_state(description, task.layout)
    for number, true, false in parties(task, data, base, steps=STEPS, cache_bytes=CACHE_BYTES):
        case = Case(task.root, data.root, len(program.states), STEPS, true.result, false.result)
        for submitted in ("false", "true"):
            dispute = at.play(case, true, false, submitted=submitted)
            expected = transactions(program, number, runs=STEPS + 1) + (submitted == "false")
            assert len(dispute.sent) == expected, (number, expected, dispute.sent)
            yield Measured(name, about(program, number), who_is_wrong(submitted), dispute)
            print(name, about(program, number), submitted, len(dispute.sent), f"{dispute.gas:,}", flush=True)


def traced(fields: dict[str, Any], *, vocabulary: int) -> tuple[ProgramDescription, TaskProgram]:
    description = ProgramDescription.from_task_file(fields, vocabulary=vocabulary, total_steps=2000)
    return description, trace_task(description, windows=description.evaluation_windows)


def about(program: Program, number: int) -> str:
    one = program.operations[number]
    fold = f", folds {one.fold:,}" if one.fold > 1 else ""
    return f"{one.code.name} {' by '.join(f'{extent:,}' for extent in one.shape)}{fold}"


def who_is_wrong(submitted: str) -> str:
    return "the submission" if submitted == "false" else "the challenge"


def random_tokens(vocabulary: int) -> Dataset:
    """Tokens for a shape whose values do not matter."""
    tokens = np.random.default_rng(1).integers(0, vocabulary, 200_000).astype(np.uint16)
    return dataset_of(ByteTokenizer(), tokens[:180_000].copy(), tokens[180_000:].copy())


def phases_of(one: Measured) -> list[dict[str, Any]]:
    rows = [
        {
            "phase": phase,
            "transactions": len(sent),
            "gas": sum(entry.gas for entry in sent),
            "calldata, bytes": sum(entry.calldata for entry in sent),
        }
        for phase, sent in one.dispute.phases().items()
    ]
    total = one.row()
    return [*rows, {"phase": "in all", **{key: total[key] for key in ("transactions", "gas", "calldata, bytes")}}]


def tables_of(measured: list[Measured]) -> dict[str, list[dict[str, Any]]]:
    """All disputes, and of each model the dearest by phase."""
    tables = {EVERY: [one.row() for one in measured]}
    for model in dict.fromkeys(one.model for one in measured):
        dearest = max((one for one in measured if one.model == model), key=lambda one: one.dispute.gas)
        tables[f"{model}: the dearest dispute"] = phases_of(dearest)
    return tables


def with_earlier(tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The tables, and what the last run found for models that this one has left out."""
    path = RESULTS / "dispute_gas.json"
    earlier = json.loads(path.read_text())["tables"] if path.exists() else {EVERY: []}
    models = {row["model"] for row in tables[EVERY]}
    rows = [*tables[EVERY], *(row for row in earlier[EVERY] if row["model"] not in models)]
    rows.sort(key=lambda row: MODELS.index(row["model"]))
    found = {**earlier, **tables}
    return {
        EVERY: rows,
        **{one: found[one] for one in (f"{model}: the dearest dispute" for model in MODELS) if one in found},
    }


def figures_of(rows: list[dict[str, Any]]) -> dict[str, object]:
    figures: dict[str, object] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        count, gas = (max(row[key] for row in rows if row["model"] == model) for key in ("transactions", "gas"))
        met = count <= MOST_TRANSACTIONS and gas <= MOST_GAS
        figures[f"{model}: most transactions"] = count
        figures[f"{model}: most gas"] = f"{gas:,}"
        figures[f"{model}: within {MOST_TRANSACTIONS} transactions and {MOST_GAS:,} gas"] = "yes" if met else "NO"
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where compiled programs are kept")
    parser.add_argument(
        "--only", choices=MODELS, help="measure one model again, and keep what was found for the others"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hash_natively(arguments.folder, threads=1)
    measured: list[Measured] = []
    with court() as at:
        if arguments.only in (None, DEMO_NAME):
            measured += demo(at, arguments.folder)
        for name, fields, vocabulary in LONG:
            if arguments.only in (None, name):
                measured += long_segment(at, name, fields, vocabulary=vocabulary)
    tables = with_earlier(tables_of(measured))
    write(
        "dispute_gas",
        title="Transactions and gas of whole disputes",
        command="python benchmarks/dispute_gas.py --folder FOLDER",
        figures=figures_of(tables[EVERY]),
        tables=tables,
        note=NOTE,
    )


if __name__ == "__main__":
    main()
