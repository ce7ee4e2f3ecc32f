"""Batches that anybody can compute (formats §5). Needs numpy and torch only."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_DOMAIN = b"trainledger/batch/1\0"

Tokens = npt.NDArray[np.uint16]


class TokenData(Protocol):
    """What training needs of a data set: two runs of uint16 tokens."""

    @property
    def train(self) -> Tokens: ...

    @property
    def heldout(self) -> Tokens: ...


class BatchShape(Protocol):
    """What batches need of a program."""

    @property
    def seed(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def context(self) -> int: ...


def batch_positions(
    *, seed: int, slot: int, step: int, batch_size: int, train_tokens: int, context: int
) -> npt.NDArray[np.int64]:
    """Start of each sample of a step's batch, [B] int64. Raises ValueError where no window fits."""
    choices = train_tokens - context
    if choices < 1:
        raise ValueError(f"{train_tokens} training tokens hold no window of {context} tokens and its next token")
    prefix = hashlib.sha256(_DOMAIN + seed.to_bytes(8, "big") + slot.to_bytes(4, "big") + step.to_bytes(8, "big"))
    positions = np.empty(batch_size, dtype=np.int64)
    for sample in range(batch_size):
        digest = prefix.copy()
        digest.update(sample.to_bytes(4, "big"))
        positions[sample] = int.from_bytes(digest.digest()[:8], "big") % choices
    return positions


def batch(data: TokenData, program: BatchShape, *, step: int, slot: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a step, each [B, T] int64 on the CPU; targets are the inputs' next tokens."""
    positions = batch_positions(
        seed=program.seed,
        slot=slot,
        step=step,
        batch_size=program.batch_size,
        train_tokens=len(data.train),
        context=program.context,
    )
    windows = data.train[positions[:, None] + np.arange(program.context + 1)]
    return _split(windows)


def heldout_windows(data: TokenData, *, windows: int, context: int) -> Tokens:
    """The held-out windows that are measured, [E, T + 1] uint16: each window's tokens and the one after.

    E is `windows` or as many as fit. Raises ValueError where none fits.
    """
    fitting = min(windows, (len(data.heldout) - 1) // context)
    if fitting < 1:
        raise ValueError(f"{len(data.heldout)} held-out tokens hold no window of {context} tokens and its next token")
    chosen: Tokens = data.heldout[np.arange(fitting)[:, None] * context + np.arange(context + 1)]
    return chosen


def _split(windows: Tokens) -> tuple[Tensor, Tensor]:
    wide = windows.astype(np.int64)
    # Contiguous copies, so that no kernel sees strides that depend on how the batch was cut.
    return (
        torch.from_numpy(np.ascontiguousarray(wide[:, :-1])),
        torch.from_numpy(np.ascontiguousarray(wide[:, 1:])),
    )
