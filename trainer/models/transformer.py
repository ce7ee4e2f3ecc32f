"""Decoder-only transformer with pre-norm blocks (Radford et al. 2019)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .attention import CausalAttention
from .config import TransformerConfig
from .embedding import PositionEmbedding, TokenEmbedding
from .language_model import LanguageModel
from .output import OutputLayer


class FeedForward(nn.Module):
    """Two linear layers with the exact (erf) GELU between: width → 4 × width → width."""

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 4 * width, bias=bias)
        self.output = nn.Linear(4 * width, width, bias=bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, width] to [B, T, width]."""
        outputs: Tensor = self.output(functional.gelu(self.widen(inputs)))
        return outputs


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and added to its input."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.attention = CausalAttention(width=config.width, heads=config.heads, bias=config.bias)
        self.feed_forward_norm = nn.LayerNorm(config.width, bias=config.bias)
        self.feed_forward = FeedForward(config.width, bias=config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, width] to [B, T, width]."""
        hidden = hidden + self.attention(self.attention_norm(hidden))
        added: Tensor = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return added


class Transformer(LanguageModel):
    """Embedding, positions, blocks, output layer."""

    def __init__(self, config: TransformerConfig, *, vocabulary: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = TokenEmbedding(vocabulary, config.width)
        self.positions = PositionEmbedding(context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.output = OutputLayer(
            width=config.width, vocabulary=vocabulary, bias=config.bias, tied=config.tied_embeddings
        )

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, T] tokens, T ≤ context, to [B, T, V]."""
        hidden = self.positions(self.embedding(inputs))
        for block in self.blocks:
            hidden = block(hidden)
        logits: Tensor = self.output(hidden, self.embedding)
        return logits
