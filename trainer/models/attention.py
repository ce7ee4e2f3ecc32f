"""Causal multi-head self-attention."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class CausalAttention(nn.Module):
    """Scaled dot-product attention of each position over itself and those before it (Vaswani et al. 2017)."""

    def __init__(self, *, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, width] to [B, T, width]."""
        batch, length, width = inputs.shape
        split = self.queries_keys_values(inputs).view(batch, length, 3, self.heads, width // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each [B, heads, T, width / heads]
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        joined: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        return joined
