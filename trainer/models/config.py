"""Architectures as plain records. Their values are checked in `trainer.program.description`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Decoder-only transformer: pre-norm blocks, learned positions, GELU, a feed-forward layer of 4 × width.

    `bias` decides whether linear layers and layer norms have biases.
    """

    kind: ClassVar[Literal["transformer"]] = "transformer"
    layers: int
    heads: int
    width: int
    tied_embeddings: bool = True
    bias: bool = False


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """Recurrent layers with causal attention over their outputs.

    `cell` is "rnn" (tanh), "gru" or "lstm"; `layers` counts recurrent layers; there is one attention layer of `heads`.
    """

    kind: ClassVar[Literal["recurrent"]] = "recurrent"
    cell: str
    layers: int
    heads: int
    width: int
    tied_embeddings: bool = True


PUBLIC_KINDS = ("gpt2", "llama", "smollm2")


@dataclass(frozen=True, kw_only=True)
class PublicConfig:
    """A model that others wrote: its kind, and such sizes of it as a task file gives (docs/public-models.md).

    `sizes` are (field, value), sorted; `trainer.foreign` checks them when it builds the model.
    """

    kind: str
    sizes: tuple[tuple[str, int], ...] = ()


OwnConfig = TransformerConfig | RecurrentConfig
ModelConfig = OwnConfig | PublicConfig
