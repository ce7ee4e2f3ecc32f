"""Tokens for BATCH: positions that anybody can compute, from a data set in memory (docs/programs.md, "BATCH")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.engine.batches import TokenData, batch_positions
from trainer.program.exact.operations import Part


@dataclass(frozen=True, kw_only=True)
class DatasetBatches:
    """The batches of one run of a program.

    Attributes:
        data: the tokens.
        seed, slot, step: what decides the positions in the train part (formats.md §5).
        run: which run this is over the held-out part, from 0.
    """

    data: TokenData
    seed: int
    slot: int = 0
    step: int = 0
    run: int = 0

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        """int32 [samples, length]: tokens from `shift` places after each position; 0 past the part's end."""
        held = self.data.train if part is Part.TRAIN else self.data.heldout
        at = self.positions(part, samples, length)[:, None] + shift + np.arange(length)
        inside = at < len(held)
        found = np.zeros(at.shape, dtype=np.int32)
        found[inside] = held[at[inside]]
        return torch.from_numpy(found)

    def positions(self, part: Part, samples: int, length: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Where each sample begins, [samples]."""
        if part is Part.HELDOUT:
            return (self.run * samples + np.arange(samples, dtype=np.int64)) * length
        if len(self.data.train) <= length:
            return np.zeros(samples, dtype=np.int64)
        return batch_positions(
            seed=self.seed,
            slot=self.slot,
            step=self.step & 0xFFFFFFFFFFFFFFFF,  # a counter below zero counts as a u64 does
            batch_size=samples,
            train_tokens=len(self.data.train),
            context=length,
        )
