"""What every model here is: logits for the next token at each position, and the loss over them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class LanguageModel(nn.Module):
    """Base of the models. Shapes: B windows, T tokens of context, V token values."""

    def logits(self, inputs: Tensor) -> Tensor:
        """[B, T] int64 tokens to [B, T, V] float32 logits; position t sees tokens 0 … t only."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats over all B × T targets: their mean, or their sum."""
        logits = self.logits(inputs)
        return functional.cross_entropy(logits.flatten(0, 1), targets.reshape(-1), reduction=reduction)
