"""Data sets under arbitrary text and arbitrary damage, held to a second implementation of formats §5."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import struct
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.canonical import canonical_json, root_hex
from ledger.errors import BlobCorrupt, SpecificationError
from trainer.data.config import DataConfig
from trainer.data.corpus import clean_text, read_corpus
from trainer.data.dataset import PARTS, Dataset, dataset_of, fetch_dataset, prepare_dataset, publish_dataset
from trainer.data.tokenizer import BPETokenizer, ByteTokenizer, tokenizer_from_bytes
from trainer.engine.batches import batch
from trainer.program.description import ProgramDescription
from trainer.store import BlobStore

SAMPLE = "".join(f"row {n}: naïve — 你好 🙂 {n * n % 89}\n" for n in range(250))
BPE = BPETokenizer.train(SAMPLE, vocabulary=310)
# Text as hypothesis likes it, with more of what cleaning is about.
awkward = st.lists(st.text(max_size=4) | st.sampled_from(["\r", "\n", "\r\n", "\ufeff", "\0", "e\u0301", "\x85"])).map(
    "".join
)


@settings(max_examples=300)
@given(text=awkward)
def test_clean_text_equals_its_rules_one_character_at_a_time(text: str) -> None:
    kept: list[str] = []
    for at, character in enumerate(text):
        if character == "\r":
            if text[at + 1 : at + 2] != "\n":
                kept.append("\n")
        elif character in "\n\t" or unicodedata.category(character) != "Cc":
            kept.append(character)
    while kept and kept[0] == "\ufeff":
        kept.pop(0)
    assert clean_text(text) == unicodedata.normalize("NFC", "".join(kept))
    assert clean_text(clean_text(text)) == clean_text(text)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(awkward, min_size=1, max_size=4), limit=st.none() | st.integers(1, 60))
def test_read_corpus_is_the_cleaned_files_one_after_the_other(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], limit: int | None
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_bytes(text.encode())
    lines = [clean_text(text) for text in texts]
    whole = "".join(text if text.endswith("\n") else text + "\n" for text in lines if text)
    expected = whole.encode()[:limit].decode(errors="ignore")
    if not expected:
        with pytest.raises(SpecificationError, match="holds no text"):
            read_corpus(".", limit_bytes=limit, folder=folder)
        return
    assert read_corpus(".", limit_bytes=limit, folder=folder) == expected


@pytest.mark.parametrize(
    ("source", "says"),
    [("~no-such-user-here/x", "cannot be looked up"), ("x" * 5000, "File name too long"), ("a\0b", "no file, folder")],
)
def test_read_corpus_path_that_cannot_be_looked_up_named(tmp_path: Path, source: str, says: str) -> None:
    with pytest.raises(SpecificationError, match=says) as caught:
        read_corpus(source, folder=tmp_path)
    assert caught.value.field == "data.source"


@settings(max_examples=150, deadline=None)
@given(text=awkward)
def test_tokenizers_round_trip_after_a_trip_through_their_file(text: str) -> None:
    for tokenizer in (ByteTokenizer(), BPE):
        again = tokenizer_from_bytes(tokenizer.name, tokenizer.to_bytes())
        tokens = again.encode(text).tolist()
        assert tokens == tokenizer.encode(text).tolist()
        assert again.decode(tokens) == text
        assert again.to_bytes() == tokenizer.to_bytes()
    assert ByteTokenizer().encode(text).tolist() == list(text.encode())


@settings(max_examples=100, deadline=None)
@given(tokens=st.lists(st.integers(0, 255), max_size=30))
def test_tokenizers_decode_any_tokens(tokens: list[int]) -> None:
    assert ByteTokenizer().decode(tokens) == bytes(tokens).decode(errors="replace")
    assert isinstance(BPE.decode(tokens), str)


def file_with(**changes: Any) -> bytes:
    """The BPE's file with fields replaced: `model__vocab` is the model's."""
    document = copy.deepcopy(json.loads(BPE.to_bytes()))
    for name, value in changes.items():
        table, key = (document["model"], name[7:]) if name.startswith("model__") else (document, name)
        table[key] = value(table[key]) if callable(value) else value
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        # These three end the process in the package's native code where they are let in.
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "its normalizer is not"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "its pre_tokenizer is not"),
        ({"post_processor": {"type": "TemplateProcessing", "single": []}}, "its post_processor is not"),
        ({"normalizer": {"type": "Lowercase"}}, "its normalizer is not"),
        ({"added_tokens": [{"id": 900, "content": "x"}]}, "its added_tokens is not"),
        ({"truncation": {"max_length": 1}}, "its truncation is not"),
        ({"decoder": None}, "its decoder is not"),
        ({"surplus": 1}, "its surplus is not"),
        ({"model": {"type": "Unigram", "vocab": []}}, "its byte_fallback is not"),
        ({"model": []}, "no object with a model"),
        ({"model__type": "WordLevel"}, "its type is not"),
        ({"model__dropout": 0.5}, "its dropout is not"),
        ({"model__vocab": [["a", 1]]}, "its vocab is no table"),
        ({"model__vocab": lambda vocab: {**vocab, "zz": 1.5}}, "its vocab is no table"),
        ({"model__vocab": lambda vocab: {**vocab, "zz": 70_000}}, "not numbered from 0"),
        ({"model__vocab": lambda vocab: {**vocab, "zz": 5}}, "not numbered from 0"),
        ({"model__vocab": {"a": 0, "b": 1}}, "some bytes have no token"),
        ({"model__merges": [["zz", "yy"]]}, "it cannot be read"),
        ({"model__merges": [["a"]]}, "it cannot be read"),
        ({"model__merges": 3}, "it cannot be read"),
    ],
)
def test_tokenizer_from_bytes_other_kinds_of_file_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BlobCorrupt, match=says) as caught:
        tokenizer_from_bytes("bpe", file_with(**changes))
    assert caught.value.path == "tokenizer.json"


@pytest.mark.parametrize("data", [b"", b"byte", b"[]", b"\xff", b'{"model": {}, "model": {}}', b"[" * 100_000])
def test_tokenizer_from_bytes_no_json_refused(data: bytes) -> None:
    with pytest.raises(BlobCorrupt, match="it cannot be read"):
        tokenizer_from_bytes("bpe", data)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_tokenizer_from_bytes_damaged_file_is_refused_or_still_encodes(data: st.DataObject) -> None:
    whole = bytearray(BPE.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.sampled_from(list(b'a0"]},: \xff')))
    try:
        tokenizer = tokenizer_from_bytes("bpe", bytes(whole))
    except BlobCorrupt:
        return
    tokens = tokenizer.encode(SAMPLE[:200]).tolist()
    assert max(tokens) < tokenizer.vocabulary
    assert tokenizer.decode(tokens) == SAMPLE[:200]


def plain_root(parts: list[bytes]) -> bytes:
    """A data set's root from formats §1 and §5, with nothing but SHA-256."""

    def sha(*pieces: bytes) -> bytes:
        return hashlib.sha256(b"".join(pieces)).digest()

    def merkle(leaves: list[bytes]) -> bytes:
        while len(leaves) & (len(leaves) - 1):
            leaves = [*leaves, sha(b"\x02\x05")]
        while len(leaves) > 1:
            leaves = [sha(b"\x01\x05", *leaves[at : at + 2]) for at in range(0, len(leaves), 2)]
        return leaves[0]

    roots = []
    for number, part in zip((0, 0, 6, 6), parts, strict=True):
        chunks = [part[at : at + 1024].ljust(1024, b"\0") for at in range(0, len(part), 1024)]
        inner = merkle([sha(b"\x00\x05", chunk) for chunk in chunks])
        roots.append(sha(b"\x03\x05", bytes([number]), len(part).to_bytes(8, "big"), inner))
    return sha(b"\x03\x05\x00", (4).to_bytes(8, "big"), merkle([sha(b"\x00\x05", root) for root in roots]))


@settings(max_examples=60, deadline=None)
@given(
    train=st.lists(st.integers(0, 255), min_size=1, max_size=3000),
    heldout=st.lists(st.integers(0, 255), min_size=1, max_size=1200),
)
def test_dataset_root_equals_a_second_implementation(train: list[int], heldout: list[int]) -> None:
    dataset = dataset_of(ByteTokenizer(), np.array(train, dtype=np.uint16), np.array(heldout, dtype=np.uint16))
    sizes = {"train_tokens": len(train), "heldout_tokens": len(heldout)}
    header = {"format": "trainledger/dataset/1", "tokenizer": "byte", "vocabulary": 256, **sizes}
    parts = [canonical_json(header), b"byte"]
    parts += [struct.pack(f"<{len(tokens)}H", *tokens) for tokens in (train, heldout)]
    assert dataset.root == plain_root(parts)
    assert [bytes(part) for part in dataset.parts] == parts


@settings(max_examples=40, deadline=None)
@given(characters=st.integers(5, 400), fraction=st.floats(0.001, 0.5))
def test_prepare_dataset_split_is_exact(
    tmp_path_factory: pytest.TempPathFactory, characters: int, fraction: float
) -> None:
    folder = tmp_path_factory.mktemp("split")
    (folder / "t").write_text(SAMPLE[:characters], encoding="utf-8")
    tokens = list(clean_text(SAMPLE[:characters]).encode())
    tokens += [] if tokens[-1] == 10 else [10]
    held = int(len(tokens) * fraction)
    config = DataConfig(source=("t",), heldout_fraction=fraction)
    if held < 2 or len(tokens) - held < 2:
        with pytest.raises(SpecificationError, match=f"gives {len(tokens)} tokens, {held} of them held out: too few"):
            prepare_dataset(config, folder=folder)
        return
    dataset = prepare_dataset(config, folder=folder)
    assert dataset.train.tolist() == tokens[: len(tokens) - held]
    assert dataset.heldout.tolist() == tokens[len(tokens) - held :]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, BlobStore, Path]:
    folder = tmp_path_factory.mktemp("published")
    tokens = BPE.encode(SAMPLE)
    dataset = dataset_of(BPE, tokens[:-700], tokens[-700:])
    store = BlobStore(str(folder / "store"))
    publish_dataset(dataset, store)
    return dataset, store, folder / "store" / "datasets" / root_hex(dataset.root)


@pytest.mark.parametrize("part", [*PARTS, "chunks.bin"])
def test_fetch_dataset_any_flipped_bit_is_detected_and_named(
    published: tuple[Dataset, BlobStore, Path], tmp_path: Path, part: str
) -> None:
    dataset, store, folder = published
    whole = (folder / part).read_bytes()
    chance = random.Random(part)
    places = {0, len(whole) - 1, *(chance.randrange(len(whole)) for _ in range(40))}
    try:
        for place in sorted(places):
            data = bytearray(whole)
            data[place] ^= 1 << chance.randrange(8)
            (folder / part).write_bytes(bytes(data))
            with pytest.raises(BlobCorrupt) as caught:
                fetch_dataset(dataset.root, store, tmp_path / "cache")
            assert caught.value.path == f"datasets/{root_hex(dataset.root)}/{part}"
            if part != "chunks.bin":
                end = min(place // 1024 * 1024 + 1024, len(whole)) - 1
                assert f"chunk {place // 1024} of " in caught.value.problem
                assert f"(bytes {place // 1024 * 1024} to {end})" in caught.value.problem
    finally:
        (folder / part).write_bytes(whole)
    assert fetch_dataset(dataset.root, store, tmp_path / "cache").root == dataset.root


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**53 - 1), step=st.integers(0, 2**24), slot=st.integers(0, 9), context=st.integers(1, 40))
def test_batch_of_a_data_set_equals_a_second_implementation(seed: int, step: int, slot: int, context: int) -> None:
    tokens = BPE.encode(SAMPLE)
    dataset = dataset_of(BPE, tokens[:-100], tokens[-100:])
    mapping = {"model": {"kind": "transformer"}, "context": context, "batch_size": 3, "seed": seed}
    program = ProgramDescription.from_task_file(mapping, vocabulary=BPE.vocabulary, total_steps=5)
    inputs, targets = batch(dataset, program, step=step, slot=slot)
    for row in range(3):
        digest = hashlib.sha256(b"trainledger/batch/1\0" + struct.pack(">QIQI", seed, slot, step, row)).digest()
        start = int.from_bytes(digest[:8], "big") % (len(tokens) - 100 - context)
        assert inputs[row].tolist() == tokens[start : start + context].tolist()
        assert targets[row].tolist() == tokens[start + 1 : start + context + 1].tolist()


@pytest.mark.parametrize(
    ("mapping", "field", "says"),
    [
        ({}, "data.source", "data.source is missing"),
        ({"source": 3}, "data.source", "must be a path or a list"),
        ({"source": []}, "data.source", "must be a path or a list"),
        ({"source": ["a", ""]}, "data.source", "must be a path or a list"),
        ({"source": "a", "tokenizer": "bpee"}, "data.tokenizer", "must be one of byte, bpe"),
        ({"source": "a", "vocabulary": 300}, "data.vocabulary", "a byte tokenizer has 256 tokens"),
        ({"source": "a", "tokenizer": "bpe", "vocabulary": 65_537}, "data.vocabulary", "must be from 256 to 65536"),
        ({"source": "a", "heldout_fraction": 0}, "data.heldout_fraction", "must be above 0 and up to 0.5"),
        ({"source": "a", "heldout_fraction": 0.51}, "data.heldout_fraction", "must be above 0"),
        ({"source": "a", "limit_bytes": 0}, "data.limit_bytes", "must be from 1"),
        ({"source": "a", "limit_byte": 9}, "data.limit_byte", "is not a known field"),
    ],
)
def test_data_config_wrong_field_named(mapping: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(SpecificationError, match=says) as caught:
        DataConfig.from_mapping(mapping)
    assert caught.value.field == field


def test_data_config_defaults_depend_on_the_tokenizer() -> None:
    assert DataConfig.from_mapping({"source": "a"}) == DataConfig(source=("a",))
    bpe = DataConfig.from_mapping({"source": ["a", "b"], "tokenizer": "bpe"})
    assert (bpe.source, bpe.vocabulary, bpe.limit_bytes) == (("a", "b"), 1024, None)
    with pytest.raises(SpecificationError, match=r"data\.vocabulary is 256 but must be from 257") as caught:
        BPETokenizer.train("abc", vocabulary=256)
    assert caught.value.field == "data.vocabulary"
