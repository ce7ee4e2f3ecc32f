"""Tasks on public models: from a task file's fields to programs, a first state, training and an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_programs import TEXT, engine

from ledger.errors import SpecificationError
from trainer.authoring import author
from trainer.checkpoints import export_checkpoint
from trainer.data.dataset import Dataset, dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.engine.segment import measured, run_segment
from trainer.program.description import ProgramDescription


def describe(model: dict[str, Any]) -> ProgramDescription:
    fields = {
        "model": model,
        "context": 8,
        "batch_size": 2,
        "evaluation_windows": 4,
        "evaluation_batch": 4,
        "schedule": {"learning_rate": 1e-2},
    }
    return ProgramDescription.from_task_file(fields, vocabulary=256, total_steps=20)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    return dataset_of(ByteTokenizer(), tokens[:9000], tokens[9000:])


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "gpt2", "layers": 1, "heads": 2, "width": 16},
        {"kind": "llama", "layers": 1, "heads": 4, "key_heads": 2, "width": 16},
    ],
    ids=lambda model: str(model["kind"]),
)
def test_author_public_model_trains_and_exports(model: dict[str, Any], dataset: Dataset, tmp_path: Path) -> None:
    description = describe(model)
    assert ProgramDescription.from_bytes(description.to_bytes()) == description
    authored = author(description, windows=4)
    first = measured(authored.program, dataset, authored.initial, engine=engine())
    trained = run_segment(authored.program, dataset, first, steps=20, engine=engine(), recheck=7)
    assert trained.heldout_loss < float(first["metric.heldout_loss"]) - 0.5
    folder = export_checkpoint(authored.program, dataset, trained.state, tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(one, trained.state[f"parameter.{name}"]) for name, one in weights.items())
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == model
    assert config["heldout_loss"] == trained.heldout_loss
    assert {path.name for path in folder.iterdir()} == {
        "README",
        "config.json",
        "heldout.bin",
        "model.safetensors",
        "tokenizer.json",
    }


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ({"kind": "gpt2", "width": "wide"}, "program.model.width"),
        ({"kind": "gpt2", "widht": 16}, "program.model.widht"),
        ({"kind": "llama", "heads": 3, "width": 16}, "program.model.width"),
        ({"kind": "smollm2", "layers": 3}, "program.model.layers"),
    ],
)
def test_author_public_model_wrong_field_named(model: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        author(describe(model), windows=4)
    assert caught.value.field == field
