"""nanoGPT's small CPU setting as a program, over bytes of a text file."""

from __future__ import annotations

from pathlib import Path

from trainer.data.config import DataConfig
from trainer.data.dataset import Dataset, prepare_dataset
from trainer.program.description import ProgramDescription

TASK_FILE = {
    "model": {"kind": "transformer", "layers": 4, "heads": 4, "width": 128, "bias": False, "tied_embeddings": True},
    "context": 64,
    "batch_size": 12,
    "optimizer": {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "gradient_clip": 1.0},
    "schedule": {
        "learning_rate": 1e-3,
        "minimum_learning_rate": 1e-4,
        "warmup_steps": 100,
        "total_steps": 2000,
    },
    "evaluation_windows": 240,  # nanoGPT measures 20 batches of 12
    "evaluation_batch": 12,
}


def setting(text: Path, *, threads: int, seed: int = 1, windows: int = 240) -> tuple[ProgramDescription, Dataset]:
    dataset = prepare_dataset(DataConfig(source=(str(text.resolve()),), heldout_fraction=0.1))
    fields = {**TASK_FILE, "threads": threads, "seed": seed, "evaluation_windows": windows}
    return ProgramDescription.from_task_file(fields, vocabulary=dataset.vocabulary, total_steps=2000), dataset
