"""The `[data]` section of a task file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ledger.errors import SpecificationError
from trainer.data.tokenizer import MAXIMUM_VOCABULARY, BPETokenizer, ByteTokenizer
from trainer.program.fields import Fields

SMOLLM2, SMOLLM2_VOCABULARY = "smollm2", 49_152


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How to make a data set. `vocabulary` is read for a BPE only; `limit_bytes` None takes all text.

    `tokenizer` is "byte", "bpe" (trained on the text) or "smollm2" (the one of that public model, a BPE too).
    """

    source: tuple[str, ...]
    tokenizer: str = ByteTokenizer.name
    vocabulary: int = 256
    heldout_fraction: float = 0.1
    limit_bytes: int | None = None

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> DataConfig:
        """Read the section; all but `source` has a default. Raises SpecificationError with fields `data.…`."""
        defaults = {"tokenizer": "byte", "heldout_fraction": 0.1}
        given = dict(mapping)
        default_vocabulary = {BPETokenizer.name: 1024, SMOLLM2: SMOLLM2_VOCABULARY}.get(
            str(given.get("tokenizer")), 256
        )
        fields = Fields({**defaults, "vocabulary": default_vocabulary, **given}, "data")
        config = cls(
            source=_source(fields),
            tokenizer=fields.take_choice("tokenizer", [ByteTokenizer.name, BPETokenizer.name, SMOLLM2]),
            vocabulary=fields.take_int("vocabulary", 256, MAXIMUM_VOCABULARY),
            heldout_fraction=fields.take_float("heldout_fraction", 0.0, 0.5, above=True),
            limit_bytes=fields.take_int("limit_bytes", 1, 2**40) if fields.has("limit_bytes") else None,
        )
        fields.done()
        if config.tokenizer == ByteTokenizer.name and config.vocabulary != ByteTokenizer.vocabulary:
            raise SpecificationError(
                f"data.vocabulary is {config.vocabulary} but a byte tokenizer has 256 tokens.",
                field="data.vocabulary",
                remedy='Leave it out, or set data.tokenizer = "bpe".',
            )
        if config.tokenizer == SMOLLM2 and config.vocabulary != SMOLLM2_VOCABULARY:
            raise SpecificationError(
                f"data.vocabulary is {config.vocabulary} but SmolLM2's tokenizer has {SMOLLM2_VOCABULARY} tokens.",
                field="data.vocabulary",
                remedy="Leave it out.",
            )
        return config


def _source(fields: Fields) -> tuple[str, ...]:
    value = fields.take("source")
    sources = [value] if isinstance(value, str) else value
    if not isinstance(sources, list | tuple) or not sources or not all(isinstance(s, str) and s for s in sources):
        raise SpecificationError(
            f"data.source is {value!r} but must be a path or a list of paths.", field="data.source"
        )
    return tuple(sources)
