"""Token and position embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TokenEmbedding(nn.Embedding):
    """[B, T] int64 tokens to [B, T, width] float32."""


class PositionEmbedding(nn.Module):
    """One learned vector for each position, added to the token's."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(context, width))

    def forward(self, embedded: Tensor) -> Tensor:
        """Add positions to [B, T, width], T ≤ context."""
        return embedded + self.weight[: embedded.shape[1]]
