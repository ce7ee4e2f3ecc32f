"""Recurrent language model with attention: embedding, recurrence, attention over the past, output layer."""

from __future__ import annotations

from torch import Tensor, nn

from .attention import CausalAttention
from .config import RecurrentConfig
from .embedding import TokenEmbedding
from .language_model import LanguageModel
from .output import OutputLayer
from .recurrence import Recurrence


class RecurrentModel(LanguageModel):
    """The recurrence carries order, so there are no position embeddings; attention adds to what it carries."""

    def __init__(self, config: RecurrentConfig, *, vocabulary: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = TokenEmbedding(vocabulary, config.width)
        self.recurrence = Recurrence(cell=config.cell, layers=config.layers, width=config.width)
        self.norm = nn.LayerNorm(config.width)
        self.attention = CausalAttention(width=config.width, heads=config.heads, bias=True)
        self.output = OutputLayer(width=config.width, vocabulary=vocabulary, bias=True, tied=config.tied_embeddings)

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, T] tokens to [B, T, V]."""
        hidden = self.recurrence(self.embedding(inputs))
        hidden = hidden + self.attention(self.norm(hidden))
        logits: Tensor = self.output(hidden, self.embedding)
        return logits
