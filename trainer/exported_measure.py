"""Measure an exported checkpoint's held-out loss: `python measure.py` in its folder. Needs torch and safetensors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

# An export has a copy of trainer.models, called `model`, and this file with the name put in.
from trainer.models import LanguageModel, RecurrentConfig, TransformerConfig, build_model
from trainer.models.heldout import heldout_loss


def load_model(folder: Path) -> LanguageModel:
    """The exported model with its weights, on the CPU."""
    config = json.loads((folder / "config.json").read_text())
    sizes = dict(config["model"])
    kind = TransformerConfig if sizes.pop("kind") == TransformerConfig.kind else RecurrentConfig
    model = build_model(kind(**sizes), vocabulary=config["vocabulary"], context=config["context"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def measure(folder: Path) -> float:
    """Held-out loss in nats per token, in float32: that of the state, `heldout_loss` in config.json, up to rounding."""
    config = json.loads((folder / "config.json").read_text())
    # bytearray: frombuffer wants memory that it could write to.
    tokens = torch.frombuffer(bytearray((folder / "heldout.bin").read_bytes()), dtype=torch.uint16).to(torch.int64)
    context = config["context"]
    count = min(config["evaluation_windows"], (len(tokens) - 1) // context)
    windows = torch.stack([tokens[j * context : (j + 1) * context + 1] for j in range(count)])
    return heldout_loss(load_model(folder), windows, batch=config["evaluation_batch"])


if __name__ == "__main__":
    print(repr(measure(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)))
