"""Models. This package needs torch alone and imports nothing but itself: an exported checkpoint carries a copy."""

from __future__ import annotations

from .config import ModelConfig, RecurrentConfig, TransformerConfig
from .language_model import LanguageModel
from .recurrent import RecurrentModel
from .transformer import Transformer

__all__ = [
    "LanguageModel",
    "ModelConfig",
    "RecurrentConfig",
    "RecurrentModel",
    "Transformer",
    "TransformerConfig",
    "build_model",
]


def build_model(config: ModelConfig, *, vocabulary: int, context: int) -> LanguageModel:
    """A model with the shapes of `config`; its values are not initialised (see `initial.initialise`)."""
    if isinstance(config, TransformerConfig):
        return Transformer(config, vocabulary=vocabulary, context=context)
    return RecurrentModel(config, vocabulary=vocabulary, context=context)
