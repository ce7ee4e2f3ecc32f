"""A tiny real task over a store folder, and workers over the in-memory ledger. Nothing sleeps: waiting moves time."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from small_programs import first_state, traced, users_engine
from worker_fakes import TOKEN, FakeChain, FakeLedger

from ledger.performance import float_bits
from ledger.spec import TaskSpecification
from ledger.types import TaskParameters
from trainer.checkpoints import save_state
from trainer.data.dataset import Dataset, dataset_of, publish_dataset
from trainer.data.tokenizer import ByteTokenizer
from trainer.engine.engines import Engine
from trainer.engine.segment import run_segment
from trainer.engine.state import State, heldout_loss_of
from trainer.materials import publish_program, specification_path
from trainer.program.description import ProgramDescription
from trainer.program.task import TaskProgram
from trainer.store import BlobStore
from trainer.worker.machine import measure_flops
from trainer.worker.policy import WorkerOptions
from trainer.worker.progress import RoundProgress
from trainer.worker.session import make_worker, worker_folder
from trainer.worker.stop import Stop
from trainer.worker.worker import Worker
from trainer.worker.workshop import Identity

TEXT = ("she sells sea shells on the sea shore; the shells she sells are sea shells for sure. " * 60).encode()
IDENTITY = Identity(chain_id=31337, ledger="0x" + "1E" * 20, deployment_block="0x" + "ab" * 32)


TASK_FILE = """
[task]
title = "t"
rounds = {rounds}
steps_per_round = 5
[reward]
slot_reward = "2.5"
bond = "1"
lease_fee = "0"
{losses}
[timing]
lease_seconds = 10
challenge_window_seconds = 20
[data]
source = "text.txt"
[program]
context = 8
batch_size = 2
evaluation_windows = 4
evaluation_batch = 4
[program.model]
kind = "{kind}"
layers = 1
heads = 1
width = 8
"""


def write_task_file(folder: Path, *, rounds: int = 2, losses: str = "", kind: str = "transformer") -> Path:
    """A file that `task create` takes, beside its text."""
    (folder / "text.txt").write_bytes(TEXT)
    path = folder / "task.toml"
    path.write_text(TASK_FILE.format(rounds=rounds, losses=losses, kind=kind))
    return path


def tiny_program(**changes: Any) -> ProgramDescription:
    fields: dict[str, Any] = {
        "model": {"kind": "transformer", "layers": 1, "heads": 2, "width": 16},
        "context": 8,
        "batch_size": 4,
        "evaluation_windows": 8,
        "evaluation_batch": 8,
        "schedule": {"learning_rate": 1e-2},
        **changes,
    }
    return ProgramDescription.from_task_file(fields, vocabulary=256, total_steps=60)


def tiny_dataset() -> Dataset:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    return dataset_of(ByteTokenizer(), tokens[:4500], tokens[4500:])


@dataclass
class TinyTask:
    """A published task: what its requester made of it, and its parameters for the chain."""

    program: TaskProgram
    dataset: Dataset
    initial: State
    specification: TaskSpecification
    parameters: TaskParameters
    store: BlobStore

    def states(self, count: int) -> list[State]:
        """The honest states after 0, 1, … count rounds, trained here and now without any worker."""
        states = [self.initial]
        for _ in range(count):
            steps = self.parameters.steps_per_round
            states.append(run_segment(self.program, self.dataset, states[-1], steps=steps, engine=users_engine()).state)
        return states


def publish_tiny_task(
    folder: Path,
    *,
    rounds: int = 3,
    steps: int = 12,
    target: float | None = None,
    other: TaskProgram | None = None,
    **changes: Any,
) -> TinyTask:
    """A task over `other`'s programs, or the tiny ones; the first state is the tiny ones' in any case."""
    store = BlobStore(str(folder), cache=folder.parent / "requester-cache")
    description, dataset = tiny_program(), tiny_dataset()
    tiny = traced(description, dataset)
    program = other or tiny
    initial = first_state(description, dataset, measure=True, on=users_engine())
    publish_dataset(dataset, store)
    publish_program(program, store)
    specification = TaskSpecification(
        title="tiny",
        description="",
        program=program.root,
        dataset=dataset.root,
        initial_state=save_state(store, initial, tiny.layout),
        rounds=rounds,
        slots_per_round=program.slots,
        steps_per_round=steps,
    )
    store.put_bytes(specification_path(specification.hash()), specification.to_bytes())
    values: dict[str, Any] = {
        "specification_hash": specification.hash(),
        "program_root": program.root,
        "dataset_root": dataset.root,
        "initial_state_root": specification.initial_state,
        "state_tensors": len(program.layout),
        "rounds": rounds,
        "slots_per_round": program.slots,
        "steps_per_round": steps,
        "minimum_steps": steps,
        "slot_reward": 10 * TOKEN,
        "bond": 5 * TOKEN,
        "lease_fee": TOKEN,
        "lease_seconds": 100,
        "challenge_window": 100,
        "has_target": target is not None,
        "base_loss": 0 if target is None else float_bits(heldout_loss_of(initial)),
        "target_loss": 0 if target is None else float_bits(target),
        **changes,
    }
    return TinyTask(program, dataset, initial, specification, TaskParameters(**values), store)


@dataclass
class Recorder:
    """Keeps what a worker said, and lets a test act in the middle of training."""

    said: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)
    steps: list[RoundProgress] = field(default_factory=list)
    on_progress: Callable[[RoundProgress], None] = lambda progress: None
    on_say: Callable[[str], None] = lambda event: None

    def say(self, event: str, text: str, **fields: object) -> None:
        self.said.append((event, text, fields))
        self.on_say(event)

    def progress(self, progress: RoundProgress) -> None:
        self.steps.append(progress)
        self.on_progress(progress)

    def round_over(self) -> None:
        return

    def texts(self, event: str) -> list[str]:
        return [text for name, text, _ in self.said if name == event]

    @property
    def events(self) -> list[str]:
        return [event for event, _, _ in self.said]


class LedgerStop(Stop):
    """Waiting moves the shared ledger's clock. `limit` waits without an end fail the test instead of hanging it."""

    def __init__(
        self, ledger: FakeLedger, *, limit: int = 3000, while_waiting: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.seconds = 0.0
        self.left = limit
        self.while_waiting = while_waiting

    def wait(self, seconds: float) -> None:
        self.left -= 1
        assert self.left > 0, "the worker waits for something that never comes"
        self.seconds += max(seconds, 1.0)
        self.ledger.advance(max(seconds, 1.0))
        self.while_waiting()


@functools.lru_cache
def general_speed(engine: Engine) -> float:
    return measure_flops(engine)


def note_general_speed(home: Path, address: str, engine: Engine) -> None:
    """What a worker on this engine would measure in its first moments, measured once for all tests."""
    speeds = worker_folder(home, address) / "speeds.json"
    if not speeds.exists():
        speeds.parent.mkdir(parents=True, exist_ok=True)
        speeds.write_text(json.dumps({f"{engine.setting} flops": general_speed(engine)}))


@dataclass
class Bench:
    """One worker and everything a test wants to look at."""

    worker: Worker
    recorder: Recorder
    stop: LedgerStop
    chain: FakeChain
    home: Path


def bench(
    ledger: FakeLedger,
    folder: Path,
    task: TinyTask,
    address: str,
    *,
    open_store: Callable[[str], BlobStore] | None = None,
    recorder: Recorder | None = None,
    staked_by: str | None = None,
    runs_on: Engine | None = None,
    games: Any = None,
    **options: Any,
) -> Bench:
    """A worker in `folder`/<address>. Made again for the same folder it is the same worker, started again."""
    recorder = recorder or Recorder()
    stop = LedgerStop(ledger)
    chain = FakeChain(ledger, address)
    home = folder / address[2:6]
    if runs_on is None:
        note_general_speed(home, address, users_engine())
    values: dict[str, Any] = {
        "exit_when_done": True,
        "snapshot_seconds": 1000.0,
        "poll_seconds": 1.0,
        "attention_seconds": 0.0,
        **options,
    }
    worker = make_worker(
        chain,
        signer=address,
        worker=staked_by or address,
        identity=IDENTITY,
        options=WorkerOptions(**values),
        engine=runs_on or users_engine(),
        home=home,
        store_url=str(folder / "store"),
        reporter=recorder,
        stop=stop,
        games=games,
        open_store=open_store or (lambda url: BlobStore(url, cache=home / "cache", pause=0.01)),
        clock=lambda: stop.seconds,
    )
    return Bench(worker, recorder, stop, chain, home)
