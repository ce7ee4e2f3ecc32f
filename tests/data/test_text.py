import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import SpecificationError
from trainer.data.config import DataConfig
from trainer.data.corpus import STANDARD_LIBRARY, clean_text, read_corpus
from trainer.data.tokenizer import BPETokenizer, ByteTokenizer, tokenizer_from_bytes

SAMPLE = "def encode(text: str) -> bytes:\n\treturn text.encode()  # naïve — 你好 🙂\n" * 60
BPE = BPETokenizer.train(SAMPLE, vocabulary=320)


def test_clean_text_normalises() -> None:
    assert clean_text("a\r\nb\rc\n") == "a\nb\nc\n"
    assert clean_text("\ufeffa\x00\x07\x7f\x85\x9fb\tc") == "ab\tc"
    assert clean_text("e\u0301") == "\u00e9"


@given(st.text())
def test_clean_text_twice_is_once(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in once)


def test_read_corpus_standard_library_is_the_same_each_time() -> None:
    text = read_corpus(STANDARD_LIBRARY, limit_bytes=300_000)
    assert text == read_corpus([STANDARD_LIBRARY], limit_bytes=300_000)
    assert 299_990 <= len(text.encode()) <= 300_000
    assert "import" in text
    assert read_corpus(STANDARD_LIBRARY, limit_bytes=100_000) == text.encode()[:100_000].decode(errors="ignore")


def test_read_corpus_files_folders_and_patterns_in_order_of_path(tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name, text in {"d/b.txt": "b", "d/a.txt": "a\n", "d/sub/c.md": "c", "d/.hidden": "no", "d/e.txt": ""}.items():
        (tmp_path / name).write_text(text)
    assert read_corpus("d", folder=tmp_path) == "a\nb\nc\n"
    assert read_corpus("d/*.txt", folder=tmp_path) == "a\nb\n"
    assert read_corpus("d/**/*.md", folder=tmp_path) == "c\n"
    assert read_corpus(["d/sub/c.md", str(tmp_path / "d" / "a.txt")], folder=tmp_path) == "c\na\n"


def test_read_corpus_limit_cuts_at_a_whole_character(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("aé你🙂", encoding="utf-8")
    texts = [read_corpus("t", limit_bytes=limit, folder=tmp_path) for limit in range(1, 12)]
    assert texts == ["a", "a", "aé", "aé", "aé", "aé你", "aé你", "aé你", "aé你", "aé你🙂", "aé你🙂\n"]


def test_read_corpus_nothing_there_or_not_text_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"ok\xff")
    (tmp_path / "empty").write_text("\x00")
    for source, says in [
        ("none", "no file, folder"),
        ("*.x", "no file, folder"),
        ("binary", "byte 2"),
        ("empty", "no text"),
    ]:
        with pytest.raises(SpecificationError, match=says) as caught:
            read_corpus(source, folder=tmp_path)
        assert caught.value.field == "data.source"
        assert source in str(caught.value)


@settings(deadline=None)
@given(st.text())
def test_tokenizers_decode_what_they_encoded(text: str) -> None:
    for tokenizer in (ByteTokenizer(), BPE):
        tokens = tokenizer.encode(text)
        assert tokens.dtype == np.uint16
        assert tokenizer.decode(tokens.tolist()) == text
        assert all(token < tokenizer.vocabulary for token in tokens.tolist())


def test_bpe_text_longer_than_a_piece_decodes_exactly() -> None:
    for text in (SAMPLE * 300, "x" * (1 << 20) + "yy🙂", ("z" * 1023 + "\n") * 1030):
        assert BPE.decode(BPE.encode(text).tolist()) == text


def test_bpe_compresses_what_it_was_trained_on() -> None:
    assert len(BPE.encode(SAMPLE)) < 0.6 * len(SAMPLE.encode())
    assert 256 < BPE.vocabulary <= 320


def test_bpe_trained_in_another_process_is_the_same() -> None:
    script = (
        "import sys; from trainer.data.tokenizer import BPETokenizer; "
        "sys.stdout.buffer.write(BPETokenizer.train(sys.stdin.buffer.read().decode(), vocabulary=320).to_bytes())"
    )
    child = subprocess.run([sys.executable, "-c", script], input=SAMPLE.encode(), capture_output=True, check=True)
    assert child.stdout == BPE.to_bytes()


def test_tokenizer_from_bytes_reads_both() -> None:
    again = tokenizer_from_bytes("bpe", BPE.to_bytes())
    assert again.encode(SAMPLE).tolist() == BPE.encode(SAMPLE).tolist()
    assert tokenizer_from_bytes("byte", b"byte").vocabulary == 256


def test_byte_tokenizer_half_a_character_decodes_to_a_mark() -> None:
    assert ByteTokenizer().decode("é".encode()[:1]) == "\ufffd"


@pytest.mark.parametrize(
    ("mapping", "field", "says"),
    [
        ({}, "data.source", "missing"),
        ({"source": []}, "data.source", "is []"),
        ({"source": [1]}, "data.source", "is [1]"),
        ({"source": "x", "tokenizer": "bytes"}, "data.tokenizer", "Did you mean 'byte'?"),
        ({"source": "x", "vocabulary": 300}, "data.vocabulary", "a byte tokenizer has 256"),
        ({"source": "x", "tokenizer": "bpe", "vocabulary": 70_000}, "data.vocabulary", "from 256 to 65536"),
        ({"source": "x", "heldout_fraction": 0.9}, "data.heldout_fraction", "is 0.9"),
        ({"source": "x", "heldout_fraction": 0}, "data.heldout_fraction", "is 0"),
        ({"source": "x", "limit_bytes": 0}, "data.limit_bytes", "is 0"),
        ({"source": "x", "limit_byte": 5}, "data.limit_byte", "Did you mean data.limit_bytes?"),
    ],
)
def test_data_config_wrong_field_named(mapping: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        DataConfig.from_mapping(mapping)
    assert caught.value.field == field
    assert says in str(caught.value)


def test_data_config_reads_a_section() -> None:
    assert DataConfig.from_mapping({"source": "x"}) == DataConfig(source=("x",))
    given = {"source": ["a", "b"], "tokenizer": "bpe", "vocabulary": 512, "heldout_fraction": 0.2, "limit_bytes": 9}
    config = DataConfig.from_mapping(given)
    assert (config.source, config.vocabulary, config.limit_bytes) == (("a", "b"), 512, 9)
