"""Output layer: a last norm, then logits through a matrix of its own or the token embedding's."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .embedding import TokenEmbedding


class OutputLayer(nn.Module):
    """[B, T, width] to [B, T, V]. With `tied_to`, the embedding's weight is used again (Press and Wolf 2017).

    The tied weight is handed in at each call and not registered here, so it stands once among the parameters.
    """

    def __init__(self, *, width: int, vocabulary: int, bias: bool, tied: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, bias=bias)
        self.projection = None if tied else nn.Linear(width, vocabulary, bias=False)

    def forward(self, hidden: Tensor, embedding: TokenEmbedding) -> Tensor:
        """Logits; `embedding` is read only where the weights are tied."""
        weight = embedding.weight if self.projection is None else self.projection.weight
        return functional.linear(self.norm(hidden), weight)
