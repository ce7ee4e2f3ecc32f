"""Small programs over a small text that has something to learn."""

from dataclasses import dataclass
from typing import Any

from trainer.engine.batches import Tokens
from trainer.program.description import ProgramDescription

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


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("transformer", {}),
    ("transformer", {"bias": True, "tied_embeddings": False}),
    ("recurrent", {"cell": "rnn"}),
    ("recurrent", {"cell": "gru", "tied_embeddings": False}),
    ("recurrent", {"cell": "lstm"}),
]
