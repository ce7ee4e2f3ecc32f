"""The held-out loss (formats §5): one definition for training, verification and exported checkpoints."""

from __future__ import annotations

import math
import struct

import torch
from torch import Tensor

from .language_model import LanguageModel

NAN_BITS = 0x7FC00000  # the one NaN that is ever stored


@torch.no_grad()
def heldout_loss(model: LanguageModel, windows: Tensor, *, batch: int) -> float:
    """Mean cross-entropy in nats per token over `windows`, [E, T + 1] tokens, `batch` windows at a time.

    Summed in float32 within a batch by the model's own loss and in float64 over batches, divided once, rounded to
    float32 (ties to even). NaN comes back as the canonical NaN.
    """
    device = next(model.parameters()).device
    model.eval()
    total = 0.0
    for start in range(0, windows.shape[0], batch):
        chosen = windows[start : start + batch].to(device=device, dtype=torch.int64)
        total += model(chosen[:, :-1].contiguous(), chosen[:, 1:].contiguous(), "sum").item()
    return round_to_float32(total / (windows.shape[0] * (windows.shape[1] - 1)))


def round_to_float32(value: float) -> float:
    """The nearest float32; too large becomes infinite, NaN becomes the canonical one."""
    if math.isnan(value):
        return float(struct.unpack("<f", struct.pack("<I", NAN_BITS))[0])
    return torch.tensor(value, dtype=torch.float64).to(torch.float32).item()
