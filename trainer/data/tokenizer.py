"""Text to tokens and back: bytes as they are, or a byte-level BPE trained on the spot."""

from __future__ import annotations

import json
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
# All of a BPE's file but its vocabulary, its merges and whether it cuts digits apart (formats §5).
_BYTE_LEVEL = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
_WORDS = {**_BYTE_LEVEL, "add_prefix_space": False}
_DIGITS = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _WORDS]}
_FILE: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": _WORDS,
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


# Bytes that a BPE may have no token for: those that no cleaned text holds (control characters; 0xc0, 0xc1 and 0xf5 to
# 0xff, which UTF-8 does not have), and 0xf1 and 0xf2, which begin the planes 4 to 11 of Unicode, where nothing is.
_SPARE = frozenset({*range(0x20), 0x7F, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)}) - frozenset(b"\t\n")


def _letters() -> list[str]:
    """The letter that stands for each byte 0 to 255 in a byte-level BPE's tokens (Radford et al. 2019)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in plain]
    return [chr(0x100 + moved.index(byte)) if byte in moved else chr(byte) for byte in range(256)]


_LETTERS = _letters()


class Tokenizer(Protocol):
    """Encodes text, and decodes what it encoded to the same text."""

    @property
    def name(self) -> str:
        """`byte` or `bpe`, as in a data set's header."""

    @property
    def vocabulary(self) -> int:
        """Number of token values."""

    def encode(self, text: str) -> Tokens:
        """Text to uint16 tokens. Raises SpecificationError for a character that has none."""

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
    """Byte-level byte-pair encoding (Sennrich et al. 2016): every byte is a token, so every text can be encoded.

    One that others have trained may lack the bytes of characters that nobody writes; those are refused.
    """

    name = "bpe"

    def __init__(self, inner: HuggingFaceTokenizer) -> None:
        self._inner = inner
        vocabulary = inner.get_vocab()
        self._missing = bytes(byte for byte, letter in enumerate(_LETTERS) if letter not in vocabulary)

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

    @classmethod
    def of_tables(
        cls, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]], *, digits_apart: bool
    ) -> BPETokenizer:
        """A tokenizer that was trained elsewhere.

        Args:
            vocabulary: each token, written in byte letters, with its number. Tokens that no merges lead to (the marks
                of a chat) may be among them: no text gives them.
            merges: pairs of tokens, the earliest first. digits_apart: every digit is a word of its own.

        Raises:
            BlobCorrupt: the tables are not those of a byte-level BPE (formats §5).
        """
        document = {
            **_FILE,
            "pre_tokenizer": _DIGITS if digits_apart else _WORDS,
            "model": {**_MODEL, "vocab": dict(vocabulary), "merges": [list(pair) for pair in merges]},
        }
        return _bpe_from_bytes(json.dumps(document, ensure_ascii=False).encode())

    @property
    def vocabulary(self) -> int:
        return int(self._inner.get_vocab_size())

    def encode(self, text: str) -> Tokens:
        self._refuse_missing(text)
        parts = [np.array(self._inner.encode(piece).ids, dtype=np.uint16) for piece in _pieces(text)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint16)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self._inner.decode(list(tokens), skip_special_tokens=False))

    def to_bytes(self) -> bytes:
        return str(self._inner.to_str()).encode()

    def _refuse_missing(self, text: str) -> None:
        """What has no token would be dropped in silence."""
        if not self._missing or not set(text.encode()) & set(self._missing):
            return
        place, found = next((i, c) for i, c in enumerate(text) if set(c.encode()) & set(self._missing))
        raise SpecificationError(
            f"The character U+{ord(found):04X} at place {place} of the text has no token in this vocabulary.",
            field="data.source",
            remedy="Leave it out, or use another tokenizer.",
        )


def tokenizer_from_bytes(name: str, data: bytes) -> Tokenizer:
    """Read a data set's tokenizer part. Raises BlobCorrupt where it is not what its header says."""
    if name == ByteTokenizer.name:
        if data != BYTE_FILE:
            raise BlobCorrupt("tokenizer.json", "a byte tokenizer's file holds the word byte alone")
        return ByteTokenizer()
    if name != BPETokenizer.name:
        raise BlobCorrupt("tokenizer.json", f"the tokenizer {name!r} is not known")
    return _bpe_from_bytes(data)


def _bpe_from_bytes(data: bytes) -> BPETokenizer:
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
    cut = _DIGITS if document.get("pre_tokenizer") == _DIGITS else _WORDS
    for given, known in (
        ({**document, "model": None}, {**_FILE, "pre_tokenizer": cut, "model": None}),
        (model, _MODEL),
    ):
        for name in sorted(given.keys() | known.keys()):
            if name not in given or name not in known or given[name] != known[name]:
                raise BlobCorrupt("tokenizer.json", f"its {name} is not that of a byte-level BPE")
    if not isinstance(vocabulary, Mapping) or not all(type(number) is int for number in vocabulary.values()):
        raise BlobCorrupt("tokenizer.json", "its vocab is no table of numbers")
    if sorted(vocabulary.values()) != list(range(len(vocabulary))) or len(vocabulary) > MAXIMUM_VOCABULARY:
        raise BlobCorrupt("tokenizer.json", f"its tokens are not numbered from 0 to at most {MAXIMUM_VOCABULARY - 1}")
    if not vocabulary.keys() >= {letter for byte, letter in enumerate(_LETTERS) if byte not in _SPARE}:
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
