"""Text to tokens and back: bytes as they are, or a byte-level BPE trained on the spot."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from ledger.canonical import parse_json_strict
from ledger.errors import BlobCorrupt, SpecificationError
from trainer.engine.batches import Tokens

BYTE_FILE = b"byte"
MAXIMUM_VOCABULARY = 65_536
_PIECE = 1 << 20  # characters encoded at a time; bounds memory, and is part of how a BPE cuts text
# All of a BPE's file but its vocabulary and merges (formats §5).
_BYTE_LEVEL = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
_FILE: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {**_BYTE_LEVEL, "add_prefix_space": False},
    "post_processor": None,
    "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
}
_MODEL: dict[str, Any] = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


class Tokenizer(Protocol):
    """Encodes any text, and decodes what it encoded to the same text."""

    @property
    def name(self) -> str:
        """`byte` or `bpe`, as in a data set's header."""

    @property
    def vocabulary(self) -> int:
        """Number of token values."""

    def encode(self, text: str) -> Tokens:
        """Text to uint16 tokens."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens to text; bytes that are not UTF-8 (half a character) become U+FFFD."""

    def to_bytes(self) -> bytes:
        """The tokenizer part of a data set."""


class ByteTokenizer:
    """A token is a byte of the text's UTF-8."""

    name = "byte"
    vocabulary = 256

    def encode(self, text: str) -> Tokens:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", errors="replace")

    def to_bytes(self) -> bytes:
        return BYTE_FILE


class BPETokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016): every byte is a token, so every text can be encoded."""

    name = "bpe"

    def __init__(self, inner: HuggingFaceTokenizer) -> None:
        self._inner = inner

    @classmethod
    def train(cls, text: str, *, vocabulary: int) -> BPETokenizer:
        """Learn at most `vocabulary` tokens from `text` (fewer where it has too few pairs that repeat)."""
        if not 257 <= vocabulary <= MAXIMUM_VOCABULARY:
            raise SpecificationError(
                f"data.vocabulary is {vocabulary} but must be from 257 to {MAXIMUM_VOCABULARY} for a BPE.",
                field="data.vocabulary",
            )
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns in every later fork
        inner = HuggingFaceTokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[],
            show_progress=False,
        )
        inner.train_from_iterator(_pieces(text), trainer=trainer)
        return cls(inner)

    @property
    def vocabulary(self) -> int:
        return int(self._inner.get_vocab_size())

    def encode(self, text: str) -> Tokens:
        parts = [np.array(self._inner.encode(piece).ids, dtype=np.uint16) for piece in _pieces(text)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._inner.decode(list(tokens), skip_special_tokens=False))

    def to_bytes(self) -> bytes:
        return str(self._inner.to_str()).encode()


def tokenizer_from_bytes(name: str, data: bytes) -> Tokenizer:
    """Read a data set's tokenizer part. Raises BlobCorrupt where it is not what its header says."""
    if name == ByteTokenizer.name:
        if data != BYTE_FILE:
            raise BlobCorrupt("tokenizer.json", "a byte tokenizer's file holds the word byte alone")
        return ByteTokenizer()
    if name != BPETokenizer.name:
        raise BlobCorrupt("tokenizer.json", f"the tokenizer {name!r} is not known")
    _check_file(data)
    try:
        inner = HuggingFaceTokenizer.from_str(data.decode())
    except Exception as error:  # the package raises plain Exception for every fault of the file
        raise BlobCorrupt("tokenizer.json", f"it cannot be read ({error})") from error
    return BPETokenizer(inner)


def _check_file(data: bytes) -> None:
    """Raises BlobCorrupt for a file of any other kind than `BPETokenizer.to_bytes` writes.

    The package reads many kinds, and some of a stranger's would end this process (a panic of its native code), drop
    text, or give tokens outside the vocabulary.
    """
    try:
        document = parse_json_strict(data, "the file")
    except SpecificationError as error:
        raise BlobCorrupt("tokenizer.json", f"it cannot be read ({error.problem.rstrip('.')})") from error
    if not isinstance(document, Mapping) or not isinstance(document.get("model"), Mapping):
        raise BlobCorrupt("tokenizer.json", "it cannot be read (it is no object with a model)")
    model = dict(document["model"])
    vocabulary = model.pop("vocab", None)
    model.pop("merges", None)  # compared with the vocabulary by the package
    for given, known in (({**document, "model": None}, {**_FILE, "model": None}), (model, _MODEL)):
        for name in sorted(given.keys() | known.keys()):
            if name not in given or name not in known or given[name] != known[name]:
                raise BlobCorrupt("tokenizer.json", f"its {name} is not that of a byte-level BPE")
    if not isinstance(vocabulary, Mapping) or not all(type(number) is int for number in vocabulary.values()):
        raise BlobCorrupt("tokenizer.json", "its vocab is no table of numbers")
    if sorted(vocabulary.values()) != list(range(len(vocabulary))) or len(vocabulary) > MAXIMUM_VOCABULARY:
        raise BlobCorrupt("tokenizer.json", f"its tokens are not numbered from 0 to at most {MAXIMUM_VOCABULARY - 1}")
    if not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        raise BlobCorrupt("tokenizer.json", "some bytes have no token")


def _pieces(text: str) -> Iterator[str]:
    """Cut after line ends, so that words stay whole; a line longer than a piece is cut where the piece ends."""
    start = 0
    while start < len(text):
        end = min(start + _PIECE, len(text))
        if end < len(text):
            newline = text.rfind("\n", start, end)
            end = newline + 1 if newline >= start else end
        yield text[start:end]
        start = end
