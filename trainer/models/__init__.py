"""Models. This package needs torch alone and imports nothing but itself: an exported checkpoint carries a copy."""

from __future__ import annotations

from .config import ModelConfig, OwnConfig, PublicConfig, RecurrentConfig, TransformerConfig
from .language_model import LanguageModel
from .recurrent import RecurrentModel
from .transformer import Transformer

__all__ = [
    "LanguageModel",
    "ModelConfig",
    "OwnConfig",
    "PublicConfig",
    "RecurrentConfig",
    "RecurrentModel",
    "Transformer",
    "TransformerConfig",
    "build_model",
]


def build_model(config: ModelConfig, *, vocabulary: int, context: int) -> LanguageModel:
    """A model with the shapes of `config`; its values are not initialised (see `initial.initialise`).

    Raises:
        ValueError: a public model, which is not defined here.
    """
    if isinstance(config, PublicConfig):
        raise ValueError(f"{config.kind} is a public model, and not one of trainledger's own")
    if isinstance(config, TransformerConfig):
        return Transformer(config, vocabulary=vocabulary, context=context)
    return RecurrentModel(config, vocabulary=vocabulary, context=context)
