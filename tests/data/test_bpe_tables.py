"""BPEs that others trained: their tables as a data set's tokenizer, and which are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import BlobCorrupt, SpecificationError
from trainer.data.config import DataConfig
from trainer.data.corpus import clean_text
from trainer.data.dataset import prepare_dataset
from trainer.data.tokenizer import _LETTERS, BPETokenizer, tokenizer_from_bytes

# A mark that no text gives, all bytes but those that others leave out too, and a few merges.
LEFT_OUT = (0x04, 0x1D, 0xC0, 0xF1, 0xFF)
MERGES = [("i", "n"), ("Ġ", "Ġ"), ("1", "9"), ("Ġ", "in")]
TOKENS = ["<|mark|>", *(x for byte, x in enumerate(_LETTERS) if byte not in LEFT_OUT), "in", "ĠĠ", "19", "Ġin"]
TABLE = {token: number for number, token in enumerate(TOKENS)}
APART = BPETokenizer.of_tables(TABLE, MERGES, digits_apart=True)
TOGETHER = BPETokenizer.of_tables(TABLE, MERGES, digits_apart=False)


def words(tokenizer: BPETokenizer, text: str) -> list[str]:
    return [tokenizer.decode([int(token)]) for token in tokenizer.encode(text)]


def test_letters_are_those_of_the_package() -> None:
    from tokenizers import pre_tokenizers

    assert sorted(_LETTERS) == sorted(pre_tokenizers.ByteLevel.alphabet())
    spoken = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for byte in (0x00, 0x20, 0x41, 0x7E, 0x7F):
        assert spoken.pre_tokenize_str(chr(byte))[0][0] == _LETTERS[byte]
    assert spoken.pre_tokenize_str("é\u00a0")[0][0] == "".join(_LETTERS[byte] for byte in "é\u00a0".encode())


def test_of_tables_merges_within_words_and_cuts_digits_if_asked() -> None:
    assert words(TOGETHER, "in  in 19") == ["in", " ", " in", " ", "19"]
    assert words(APART, "in  in 19") == ["in", " ", " in", " ", "1", "9"]
    # The cut comes first, so spaces before a digit stay together.
    assert words(APART, "  1") == ["  ", "1"]
    assert words(TOGETHER, "  1") == [" ", " ", "1"]


def test_of_tables_never_gives_a_mark() -> None:
    assert 0 not in APART.encode("<|mark|>").tolist()
    assert APART.decode(APART.encode("<|mark|>").tolist()) == "<|mark|>"


@settings(deadline=None)
@given(st.text().map(clean_text))
def test_encode_decodes_to_the_same_text_or_is_refused(text: str) -> None:
    empty = any(0x40000 <= ord(character) < 0x80000 for character in text)
    for tokenizer in (APART, TOGETHER):
        if empty:
            with pytest.raises(SpecificationError, match="has no token in this vocabulary"):
                tokenizer.encode(text)
        else:
            assert tokenizer.decode(tokenizer.encode(text).tolist()) == text


def test_encode_names_the_character_without_a_token() -> None:
    with pytest.raises(SpecificationError, match=r"U\+40001 at place 3") as caught:
        APART.encode("né \U00040001\U00040002")
    assert caught.value.field == "data.source"
    with pytest.raises(SpecificationError, match=r"U\+0004 at place 1"):
        APART.encode("a\x04")


@pytest.mark.parametrize("tokenizer", [APART, TOGETHER])
def test_tokenizer_from_bytes_reads_what_of_tables_made(tokenizer: BPETokenizer) -> None:
    again = tokenizer_from_bytes("bpe", tokenizer.to_bytes())
    assert again.to_bytes() == tokenizer.to_bytes()
    assert again.encode("in  19 né").tolist() == tokenizer.encode("in  19 né").tolist()
    assert again.vocabulary == len(TOKENS)


@pytest.mark.parametrize("byte", [0x09, 0x0A, 0x20, 0x41, 0x80, 0xC2, 0xF0, 0xF4])
def test_of_tables_refuses_tables_without_a_byte_of_text(byte: int) -> None:
    rest = [token for token in TOKENS if token != _LETTERS[byte]]
    with pytest.raises(BlobCorrupt, match="some bytes have no token"):
        BPETokenizer.of_tables({token: number for number, token in enumerate(rest)}, [], digits_apart=True)


def test_of_tables_refuses_merges_of_tokens_that_are_not_there() -> None:
    with pytest.raises(BlobCorrupt, match="cannot be read"):
        BPETokenizer.of_tables(TABLE, [("in", "g")], digits_apart=True)


def test_prepare_dataset_takes_a_tokenizer_that_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("in 19 " * 50)
    dataset = prepare_dataset(DataConfig(source=("text",)), folder=tmp_path, tokenizer=APART)
    assert dataset.vocabulary == len(TOKENS)
    assert APART.decode(dataset.train.tolist() + dataset.heldout.tolist()) == "in 19 " * 50 + "\n"
    assert (
        tokenizer_from_bytes("bpe", dataset.tokenizer_file).encode("in 19").tolist() == APART.encode("in 19").tolist()
    )


def without_digits(document: dict[str, Any]) -> None:
    document["pre_tokenizer"]["pretokenizers"].pop(0)


def with_whole_numbers(document: dict[str, Any]) -> None:
    document["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False


def turned_round(document: dict[str, Any]) -> None:
    document["pre_tokenizer"]["pretokenizers"].reverse()


def with_another(document: dict[str, Any]) -> None:
    document["pre_tokenizer"]["pretokenizers"].append({"type": "Whitespace"})


@pytest.mark.parametrize("change", [without_digits, with_whole_numbers, turned_round, with_another])
def test_tokenizer_from_bytes_refuses_other_cuts(change: Any) -> None:
    document = json.loads(APART.to_bytes())
    change(document)
    with pytest.raises(BlobCorrupt, match="its pre_tokenizer is not that of a byte-level BPE"):
        tokenizer_from_bytes("bpe", json.dumps(document).encode())
