"""Small programs over a small text that has something to learn."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.engine.batches import TokenData, Tokens
from trainer.engine.engines import Engine
from trainer.engine.sampling import sample
from trainer.engine.segment import measured
from trainer.engine.state import State, initial_state
from trainer.native.compiler import find_compiler
from trainer.native.engine import CompiledEngine, choose_engine
from trainer.program.description import ProgramDescription
from trainer.program.task import TaskProgram
from trainer.program.tracing.tasks import trace_task

LIBRARIES = Path(__file__).resolve().parents[2] / "build" / "libraries"
TEXT = ("the quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. " * 120).encode()


@dataclass(frozen=True)
class Runs:
    train: Tokens
    heldout: Tokens


def small(kind: str = "transformer", **changes: Any) -> ProgramDescription:
    model: dict[str, Any] = {"kind": kind, "layers": 2, "heads": 2, "width": 32, **changes.pop("model", {})}
    base: dict[str, Any] = {
        "model": model,
        "context": 16,
        "batch_size": 6,
        "evaluation_windows": 20,
        "evaluation_batch": 8,
        "schedule": {"learning_rate": 1e-2},
    }
    return ProgramDescription.from_task_file({**base, **changes}, vocabulary=256, total_steps=40)


def traced(description: ProgramDescription, data: TokenData) -> TaskProgram:
    """The description's programs for a data set."""
    return trace_task(description, windows=(len(data.heldout) - 1) // description.context)


def first_state(
    description: ProgramDescription, data: TokenData, *, measure: bool = False, on: Engine | None = None
) -> State:
    """The state before training; its held-out loss is NaN unless it is measured, on `engine()` if no other is named."""
    program = traced(description, data)
    state = initial_state(description, program.layout)
    return measured(program, data, state, engine=on or engine()) if measure else state


def text_of(
    program: TaskProgram, state: State, prompt: Sequence[int], *, on: Engine | None = None, **settings: Any
) -> list[int]:
    """What the generation program writes after a prompt, on `engine()` if no other is named."""
    assert program.generation is not None
    run = (on or engine()).open(program.generation)
    return sample(program.generation.program, run, state, prompt, **{"vocabulary": 256, **settings})


@functools.lru_cache(maxsize=4)
def users_engine(threads: int = 1) -> Engine:
    """The engine that users have, with libraries that all tests share."""
    return choose_engine("cpu", LIBRARIES, threads=threads, notice=_no_notice)


@functools.lru_cache(maxsize=4)
def engine(threads: int = 1) -> Engine:
    """The same compiled in a third of the time, for tests of something else: slower to run, and the same bits."""
    quick = find_compiler(options=("-O1",))
    return CompiledEngine(LIBRARIES, threads=threads, compiler=quick, notice=_no_notice)


def _no_notice(text: str) -> None:
    raise AssertionError(f"the compiled engine is not used: {text}")


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("transformer", {}),
    ("transformer", {"bias": True, "tied_embeddings": False}),
    ("recurrent", {"cell": "rnn"}),
    ("recurrent", {"cell": "gru", "tied_embeddings": False}),
    ("recurrent", {"cell": "lstm"}),
]
