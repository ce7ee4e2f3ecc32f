"""Measure an exported checkpoint's held-out loss: `python measure.py` in its folder. Needs torch and safetensors."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

# An export has a copy of trainer.models, called `model`, and this file with the name put in.
from trainer.models import LanguageModel, RecurrentConfig, TransformerConfig, build_model
from trainer.models.heldout import heldout_loss

# Largest relative difference between the float32 loss measured here and the state's own. Exact arithmetic rounds the
# operands of its products to 13 bits; that moves the loss by some 0.001 to 0.01 %, so more than this is another model,
# other text or a damaged file.
MOST_APART = 0.005


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


def apart(measured: float, committed: float | None) -> float:
    """Relative difference of two losses; `committed` is None where the state's is not finite: both have to be so."""
    if committed is None or not math.isfinite(measured):
        return 0.0 if committed is None and not math.isfinite(measured) else math.inf
    return abs(measured - committed) / max(abs(measured), abs(committed), sys.float_info.min)


def main(folder: Path) -> int:
    """Prints the loss, and to standard error how far the state's is from it. 1 where that is more than `MOST_APART`."""
    measured = measure(folder)
    print(repr(measured))
    committed = json.loads((folder / "config.json").read_text())["heldout_loss"]
    difference = apart(measured, committed)
    own = "not finite" if committed is None else repr(committed)
    print(f"The state's own, from exact arithmetic: {own}; relative difference {difference:.1e}.", file=sys.stderr)
    if difference <= MOST_APART:
        return 0
    print(
        f"They differ by more than {MOST_APART:.1%}: a file of this export was changed. Export the checkpoint again.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent))
