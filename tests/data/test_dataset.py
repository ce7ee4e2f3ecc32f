import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, SpecificationError
from trainer.commit.hashing import Kind, bytes_root, leaf, merkle_root, seal
from trainer.data.config import DataConfig
from trainer.data.dataset import (
    PARTS,
    Dataset,
    check_description,
    check_programs,
    dataset_of,
    fetch_dataset,
    prepare_dataset,
    publish_dataset,
)
from trainer.data.tokenizer import ByteTokenizer
from trainer.program.description import ProgramDescription
from trainer.program.tracing.tasks import trace_task
from trainer.store import BlobStore

TEXT = "".join(f"{n * n}: To be, or not to be, that is {n}: naïve — 你好 🙂 {n**3 % 997}\n" for n in range(400))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


@pytest.fixture(params=["byte", "bpe"])
def dataset(request: pytest.FixtureRequest, corpus: Path) -> Dataset:
    vocabulary = {"byte": 256, "bpe": 300}[request.param]
    return prepare_dataset(DataConfig(source=(str(corpus),), tokenizer=request.param, vocabulary=vocabulary))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"))


def folder_of(dataset: Dataset, tmp_path: Path) -> Path:
    return tmp_path / "store" / "datasets" / root_hex(dataset.root)


def test_prepare_dataset_splits_contiguously(dataset: Dataset) -> None:
    tokens = np.concatenate([dataset.train, dataset.heldout]).tolist()
    assert dataset.tokenizer.decode(tokens) == TEXT
    assert len(dataset.heldout) == int(len(tokens) * 0.1)
    assert dataset.train.dtype == dataset.heldout.dtype == np.uint16


def test_prepare_dataset_root_follows_the_formats(dataset: Dataset) -> None:
    parts = [bytes(part) for part in dataset.parts]
    assert json.loads(parts[0]) == {
        "format": "trainledger/dataset/1",
        "tokenizer": dataset.tokenizer.name,
        "vocabulary": dataset.vocabulary,
        "train_tokens": len(dataset.train),
        "heldout_tokens": len(dataset.heldout),
    }
    assert parts[2] == struct.pack(f"<{len(dataset.train)}H", *dataset.train.tolist())
    roots = [bytes_root(Kind.DATASET, number, part) for number, part in zip((0, 0, 6, 6), parts, strict=True)]
    merkle = merkle_root(Kind.DATASET, [leaf(Kind.DATASET, root) for root in roots])
    assert dataset.root == seal(Kind.DATASET, 0, 4, merkle)


def test_prepare_dataset_is_deterministic(dataset: Dataset, corpus: Path) -> None:
    config = DataConfig(
        source=(str(corpus),), tokenizer=dataset.tokenizer.name, vocabulary=max(dataset.vocabulary, 256)
    )
    again = prepare_dataset(config)
    if dataset.tokenizer.name == "byte":
        assert dataset.parts[1] == b"byte"
    assert again.root == dataset.root


def test_prepare_dataset_too_little_text_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("short")
    with pytest.raises(SpecificationError, match="gives 6 tokens, 0 of them held out") as caught:
        prepare_dataset(DataConfig(source=("t",)), folder=tmp_path)
    assert caught.value.field == "data.source"


def test_fetch_dataset_brings_back_what_was_published(dataset: Dataset, store: BlobStore, tmp_path: Path) -> None:
    assert publish_dataset(dataset, store) == dataset.root
    publish_dataset(dataset, store)
    seen: set[str] = set()
    fetched = fetch_dataset(dataset.root, store, tmp_path / "cache", progress=lambda part, *_: seen.add(part))
    assert seen == set(PARTS)
    assert fetched.root == dataset.root
    assert isinstance(fetched.train, np.memmap)
    assert np.array_equal(fetched.train, dataset.train)
    assert np.array_equal(fetched.heldout, dataset.heldout)
    assert fetched.tokenizer.decode(fetched.heldout.tolist()) == dataset.tokenizer.decode(dataset.heldout.tolist())
    assert [bytes(p) for p in fetched.parts] == [bytes(p) for p in dataset.parts]
    elsewhere = BlobStore(str(tmp_path / "other"))
    assert publish_dataset(fetched, elsewhere) == dataset.root
    assert fetch_dataset(dataset.root, elsewhere, tmp_path / "cache2").root == dataset.root


def test_fetch_dataset_never_takes_away_what_another_worker_may_have_put_there(
    dataset: Dataset, store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    publish_dataset(dataset, store)
    fetch_dataset(dataset.root, store, cache)
    damaged = sorted(path for path in cache.rglob("*") if path.is_file())
    for path in damaged:
        path.write_bytes(b"damaged" + path.read_bytes()[7:])
    get, there = store.get_file, []

    def watched(path: str, local: Path, **given: Any) -> None:
        there.append(local.exists())
        get(path, local, **given)

    monkeypatch.setattr(store, "get_file", watched)
    assert fetch_dataset(dataset.root, store, cache).root == dataset.root
    assert there == [True] * len(damaged)


def test_fetch_dataset_uses_the_cache_and_downloads_nothing(dataset: Dataset, store: BlobStore, tmp_path: Path) -> None:
    publish_dataset(dataset, store)
    fetch_dataset(dataset.root, store, tmp_path / "cache")
    empty = BlobStore(str(tmp_path / "nothing"))
    assert fetch_dataset(dataset.root, empty, tmp_path / "cache").root == dataset.root


def test_fetch_dataset_damaged_cache_is_repaired(dataset: Dataset, store: BlobStore, tmp_path: Path) -> None:
    publish_dataset(dataset, store)
    fetch_dataset(dataset.root, store, tmp_path / "cache")
    for name in (*PARTS, "chunks.bin"):
        local = tmp_path / "cache" / root_hex(dataset.root) / name
        data = bytearray(local.read_bytes())
        data[len(data) // 2] ^= 1
        local.write_bytes(bytes(data))
        fetched = fetch_dataset(dataset.root, store, tmp_path / "cache")
        assert np.array_equal(fetched.train, dataset.train)


@pytest.mark.parametrize(("part", "chunk"), [("train.bin", 0), ("train.bin", 7), ("heldout.bin", 1)])
def test_fetch_dataset_corrupt_chunk_is_named(
    dataset: Dataset, store: BlobStore, tmp_path: Path, part: str, chunk: int
) -> None:
    publish_dataset(dataset, store)
    path = folder_of(dataset, tmp_path) / part
    data = bytearray(path.read_bytes())
    data[chunk * 1024 + 5] ^= 0x10
    path.write_bytes(bytes(data))
    with pytest.raises(
        BlobCorrupt, match=rf"{part} is corrupt: chunk {chunk} of \d+ \(bytes {chunk * 1024} to "
    ) as caught:
        fetch_dataset(dataset.root, store, tmp_path / "cache")
    assert root_hex(dataset.root) in str(caught.value)
    publish_dataset(dataset, store)  # the store is repaired, and the same call goes on
    assert fetch_dataset(dataset.root, store, tmp_path / "cache").root == dataset.root


@pytest.mark.parametrize("part", PARTS)
def test_fetch_dataset_cut_short_or_emptied_refused(
    dataset: Dataset, store: BlobStore, tmp_path: Path, part: str
) -> None:
    publish_dataset(dataset, store)
    path = folder_of(dataset, tmp_path) / part
    whole = path.read_bytes()
    for data in (whole[:-1], b""):
        path.write_bytes(data)
        with pytest.raises(BlobCorrupt, match=part):
            fetch_dataset(dataset.root, store, tmp_path / "cache")
    path.write_bytes(whole + b"more")
    with pytest.raises(BlobCorrupt, match="at most"):
        fetch_dataset(dataset.root, store, tmp_path / "cache")


@pytest.mark.parametrize("part", [*PARTS, "chunks.bin"])
def test_fetch_dataset_missing_part_named(dataset: Dataset, store: BlobStore, tmp_path: Path, part: str) -> None:
    publish_dataset(dataset, store)
    (folder_of(dataset, tmp_path) / part).unlink()
    with pytest.raises(BlobMissing, match=part):
        fetch_dataset(dataset.root, store, tmp_path / "cache")


def test_fetch_dataset_chunk_hashes_of_another_set_refused(dataset: Dataset, store: BlobStore, tmp_path: Path) -> None:
    publish_dataset(dataset, store)
    table = folder_of(dataset, tmp_path) / "chunks.bin"
    whole = table.read_bytes()
    for data in (whole[:-32], whole + bytes(32), bytes(len(whole)), whole[:8], b"x"):
        table.write_bytes(data)
        with pytest.raises(BlobCorrupt, match=r"chunks\.bin is corrupt: its chunk hashes do not give"):
            fetch_dataset(dataset.root, store, tmp_path / "cache")


def published_by_hand(store: BlobStore, tmp_path: Path, parts: list[bytes]) -> bytes:
    """A well committed data set with any content: what a careless or hostile requester could publish."""
    digests = [[leaf(Kind.DATASET, p[i : i + 1024].ljust(1024, b"\0")) for i in range(0, len(p), 1024)] for p in parts]
    roots = [
        seal(Kind.DATASET, number, len(p), merkle_root(Kind.DATASET, d))
        for number, p, d in zip((0, 0, 6, 6), parts, digests, strict=True)
    ]
    root = seal(Kind.DATASET, 0, 4, merkle_root(Kind.DATASET, [leaf(Kind.DATASET, r) for r in roots]))
    for name, part in zip(PARTS, parts, strict=True):
        store.put_bytes(f"datasets/{root_hex(root)}/{name}", part)
    table = b"".join(len(p).to_bytes(8, "big") + b"".join(d) for p, d in zip(parts, digests, strict=True))
    store.put_bytes(f"datasets/{root_hex(root)}/chunks.bin", table)
    return root


@pytest.mark.parametrize(
    ("header", "tokenizer", "says"),
    [
        ({"vocabulary": 300}, b"byte", "vocabulary is 300"),
        ({"train_tokens": 3}, b"byte", "says 3 tokens for train.bin"),
        ({"tokenizer": "words"}, b"byte", "tokenizer is 'words'"),
        ({"tokenizer": "bpe"}, b"byte", "cannot be read"),
        ({"surplus": 1}, b"byte", "surplus is not a known field"),
        ({"format": "x"}, b"byte", "format is 'x'"),
        ({}, b"bytes", "the word byte alone"),
    ],
)
def test_fetch_dataset_senseless_content_refused(
    store: BlobStore, tmp_path: Path, header: dict[str, object], tokenizer: bytes, says: str
) -> None:
    base = {"format": "trainledger/dataset/1", "tokenizer": "byte", "vocabulary": 256}
    full = {**base, "train_tokens": 2, "heldout_tokens": 2, **header}
    parts = [json.dumps(full).encode(), tokenizer, b"a\0b\0", b"a\0b\0"]
    with pytest.raises(BlobCorrupt, match=says):
        fetch_dataset(published_by_hand(store, tmp_path, parts), store, tmp_path / "cache")


def test_fetch_dataset_token_outside_the_vocabulary_refused(store: BlobStore, tmp_path: Path) -> None:
    header = {"format": "trainledger/dataset/1", "tokenizer": "byte", "vocabulary": 256}
    full = json.dumps({**header, "train_tokens": 2, "heldout_tokens": 2}).encode()
    root = published_by_hand(store, tmp_path, [full, b"byte", b"a\0b\0", b"a\0\0\1"])
    with pytest.raises(BlobCorrupt, match=r"heldout\.bin is corrupt: token 256 is outside"):
        fetch_dataset(root, store, tmp_path / "cache")


def test_check_description_names_what_does_not_fit() -> None:
    def description(vocabulary: int, context: int) -> ProgramDescription:
        mapping = {"model": {"kind": "transformer"}, "context": context}
        return ProgramDescription.from_task_file(mapping, vocabulary=vocabulary, total_steps=5)

    tokens = ByteTokenizer().encode("a" * 100)
    dataset = dataset_of(ByteTokenizer(), tokens[:80], tokens[80:])
    check_description(description(256, 19), dataset)
    with pytest.raises(SpecificationError, match="vocabulary is 300 but the data set has 256"):
        check_description(description(300, 19), dataset)
    with pytest.raises(SpecificationError, match="context is 20 but the data set has only 20 held-out tokens"):
        check_description(description(256, 20), dataset)


@pytest.mark.parametrize(
    ("train", "heldout", "says"),
    [
        (9, 33, None),  # a window of 8 tokens and the next one; 4 held-out windows and the next token
        (8, 33, "read 9 tokens of the train part, and the data set has 8"),
        (9, 32, "read 33 tokens of the heldout part, and the data set has 32"),
        (9, 3, "read 32 tokens of the heldout part, and the data set has 3"),
    ],
)
def test_check_programs_counts_the_tokens_that_programs_read(train: int, heldout: int, says: str | None) -> None:
    mapping = {
        "model": {"kind": "transformer", "layers": 1, "heads": 1, "width": 8},
        "context": 8,
        "batch_size": 2,
        "evaluation_windows": 4,
    }
    programs = trace_task(ProgramDescription.from_task_file(mapping, vocabulary=256, total_steps=5), windows=4)
    tokens = ByteTokenizer().encode("a" * 100)
    dataset = dataset_of(ByteTokenizer(), tokens[:train], tokens[:heldout])
    if says is None:
        check_programs(programs, dataset)
        return
    with pytest.raises(SpecificationError, match=says) as caught:
        check_programs(programs, dataset)
    assert caught.value.field == "dataset"
