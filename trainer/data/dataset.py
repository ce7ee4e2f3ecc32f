"""Data sets: prepared, committed, published, and fetched with every chunk checked (formats §5)."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ledger.canonical import canonical_json, parse_json_strict, root_hex
from ledger.errors import BlobCorrupt, SpecificationError
from trainer.commit.hashing import CHUNK, Buffer, Kind, chunk_leaves, leaf, merkle_root, seal
from trainer.data.config import DataConfig
from trainer.data.corpus import read_corpus
from trainer.data.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer, tokenizer_from_bytes
from trainer.engine.batches import Tokens
from trainer.program.description import ProgramDescription
from trainer.program.exact import Part
from trainer.program.fields import Fields
from trainer.program.task import TaskProgram, batches_of
from trainer.store import BlobStore

FORMAT = "trainledger/dataset/1"
PARTS = ("header.json", "tokenizer.json", "train.bin", "heldout.bin")
CHUNKS_FILE = "chunks.bin"
_PART_TYPES = (0, 0, 6, 6)  # files, and uint16 tokens
_MAXIMUM_BYTES = (4096, 64 * 2**20, 2**37, 2**33)  # of each part; a stranger's store may send anything


@dataclass(frozen=True)
class PartDigest:
    """Size and chunk hashes of one part: enough for its root, and to say which chunk of a copy is wrong."""

    size: int
    leaves: list[bytes] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A verified data set. `train` and `heldout` are uint16 tokens, memory-mapped where they come from files."""

    root: bytes
    tokenizer: Tokenizer
    train: Tokens
    heldout: Tokens
    header: bytes
    tokenizer_file: bytes
    digests: tuple[PartDigest, ...]

    @property
    def vocabulary(self) -> int:
        return self.tokenizer.vocabulary

    @property
    def parts(self) -> tuple[Buffer, ...]:
        """The four parts' bytes in the order of `PARTS`."""
        return (
            self.header,
            self.tokenizer.to_bytes(),
            self.train.view(np.uint8).data,
            self.heldout.view(np.uint8).data,
        )


def digest_root(digests: tuple[PartDigest, ...]) -> bytes:
    """Data set root from the parts' digests."""
    leaves = [
        leaf(Kind.DATASET, seal(Kind.DATASET, number, digest.size, merkle_root(Kind.DATASET, digest.leaves)))
        for number, digest in zip(_PART_TYPES, digests, strict=True)
    ]
    return seal(Kind.DATASET, 0, len(leaves), merkle_root(Kind.DATASET, leaves))


def dataset_of(tokenizer: Tokenizer, train: Tokens, heldout: Tokens) -> Dataset:
    """A data set over tokens in memory."""
    header = canonical_json(
        {
            "format": FORMAT,
            "tokenizer": tokenizer.name,
            "vocabulary": tokenizer.vocabulary,
            "train_tokens": len(train),
            "heldout_tokens": len(heldout),
        }
    )
    tokenizer_file = tokenizer.to_bytes()
    parts = (header, tokenizer_file, train.view(np.uint8).data, heldout.view(np.uint8).data)
    digests = tuple(PartDigest(memoryview(part).nbytes, chunk_leaves(Kind.DATASET, part)) for part in parts)
    return Dataset(
        root=digest_root(digests),
        tokenizer=tokenizer,
        train=train,
        heldout=heldout,
        header=header,
        tokenizer_file=tokenizer_file,
        digests=digests,
    )


def prepare_dataset(config: DataConfig, *, folder: Path | None = None, tokenizer: Tokenizer | None = None) -> Dataset:
    """Read, clean, tokenise, split and commit.

    Args:
        folder: what relative paths in `config.source` are relative to; the current folder without.
        tokenizer: a pretrained model's own, in place of what the config says.

    Raises:
        SpecificationError: see `read_corpus`; or the text is too short to split, or holds a character that the
            tokenizer has no token for.
    """
    text = read_corpus(config.source, limit_bytes=config.limit_bytes, folder=folder)
    return dataset_of_text(text, config, tokenizer=tokenizer)


def dataset_of_text(text: str, config: DataConfig, *, tokenizer: Tokenizer | None = None) -> Dataset:
    """Tokenise, split and commit a cleaned text. See `prepare_dataset`."""
    if tokenizer is None:
        tokenizer = ByteTokenizer()
        if config.tokenizer == BPETokenizer.name:
            tokenizer = BPETokenizer.train(text, vocabulary=config.vocabulary)
    tokens = tokenizer.encode(text)
    held = int(len(tokens) * config.heldout_fraction)
    if held < 2 or len(tokens) - held < 2:
        raise SpecificationError(
            f"data.source gives {len(tokens)} tokens, {held} of them held out: too few.",
            field="data.source",
            remedy="Use more text, or another data.heldout_fraction.",
        )
    return dataset_of(tokenizer, tokens[: len(tokens) - held], tokens[len(tokens) - held :])


def check_programs(program: TaskProgram, dataset: Dataset) -> None:
    """Raises SpecificationError where the windows that a task's programs read are longer than the data set."""
    lengths = {Part.TRAIN: len(dataset.train), Part.HELDOUT: len(dataset.heldout)}
    for built in program.programs:
        for part, samples, length, shift in batches_of(built.program):
            needed = (samples if part is Part.HELDOUT else 1) * length + shift
            if lengths[part] < needed:
                raise SpecificationError(
                    f"The programs read {needed} tokens of the {part.name.lower()} part, and the data set has "
                    f"{lengths[part]}.",
                    field="dataset",
                    remedy="Nothing sensible would come of it: leave the task alone.",
                )


def check_description(program: ProgramDescription, dataset: Dataset) -> None:
    """Raises SpecificationError where a description and a data set do not fit together."""
    if program.vocabulary != dataset.vocabulary:
        raise SpecificationError(
            f"program.vocabulary is {program.vocabulary} but the data set has {dataset.vocabulary} tokens.",
            field="program.vocabulary",
        )
    for split, tokens in (("training", dataset.train), ("held-out", dataset.heldout)):
        if len(tokens) <= program.context:
            raise SpecificationError(
                f"program.context is {program.context} but the data set has only {len(tokens)} {split} tokens.",
                field="program.context",
                remedy="Use a shorter context, more text, or another data.heldout_fraction.",
            )


def publish_dataset(dataset: Dataset, store: BlobStore) -> bytes:
    """Store the parts, then the chunk hashes; gives the root. Safe to repeat."""
    folder = f"datasets/{root_hex(dataset.root)}"
    for name, part in zip(PARTS, dataset.parts, strict=True):
        store.put_bytes(f"{folder}/{name}", bytes(part))
    table = b"".join(d.size.to_bytes(8, "big") + b"".join(d.leaves) for d in dataset.digests)
    # Last: a reader looks for this file first, so a half-published data set is missing, not corrupt.
    store.put_bytes(f"{folder}/{CHUNKS_FILE}", table)
    return dataset.root


def fetch_dataset(
    root: bytes, store: BlobStore, cache_dir: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> Dataset:
    """Download what `cache_dir` does not have yet, check every chunk against the root, and map the tokens.

    `progress` is given (part, bytes so far, bytes in all). Files in the cache are checked again at every call.

    Raises:
        BlobMissing, ResourceError, DataError: see `BlobStore`.
        BlobCorrupt: bytes do not belong to the root; names the part and its first wrong chunk. The bad copy is
            removed from the cache, so that the same call fetches it again.
    """
    name = root_hex(root)
    cache = cache_dir / name
    digests = _fetch_digests(root, store, cache)
    for part, digest in zip(PARTS, digests, strict=True):
        report = None if progress is None else _named(progress, part)
        if (cache / part).exists() and _first_wrong_chunk(cache / part, digest) is None:
            continue
        # What lies there is replaced, never deleted first: another worker may have put a good one there just now.
        path = f"datasets/{name}/{part}"
        store.get_file(path, cache / part, max_bytes=digest.size, progress=report)
        problem = _first_wrong_chunk(cache / part, digest)
        if problem is not None:
            (cache / part).unlink(missing_ok=True)
            raise BlobCorrupt(path, problem)
    return _open(root, cache, digests)


def _named(progress: Callable[[str, int, int], None], part: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(part, done, total)


def _fetch_digests(root: bytes, store: BlobStore, cache: Path) -> tuple[PartDigest, ...]:
    local = cache / CHUNKS_FILE
    path = f"datasets/{root_hex(root)}/{CHUNKS_FILE}"
    if local.exists():
        digests = _parse_digests(local.read_bytes())
        if digests is not None and digest_root(digests) == root:
            return digests
    store.get_file(path, local, max_bytes=sum(_MAXIMUM_BYTES) // CHUNK * 32 + 4096)
    digests = _parse_digests(local.read_bytes())
    if digests is None or digest_root(digests) != root:
        local.unlink(missing_ok=True)
        raise BlobCorrupt(path, "its chunk hashes do not give the data set's root")
    return digests


def _parse_digests(table: bytes) -> tuple[PartDigest, ...] | None:
    """The parts' digests, or None where the table is malformed."""
    digests = []
    at = 0
    for limit in _MAXIMUM_BYTES:
        size = int.from_bytes(table[at : at + 8], "big")
        end = at + 8 + 32 * -(-size // CHUNK)
        if not 0 < size <= limit or end > len(table):
            return None
        digests.append(PartDigest(size, [table[i : i + 32] for i in range(at + 8, end, 32)]))
        at = end
    return tuple(digests) if at == len(table) else None


def _first_wrong_chunk(path: Path, digest: PartDigest) -> str | None:
    """What is wrong with a part's local copy, or None."""
    size = path.stat().st_size
    if size == 0:
        return f"it is empty and should have {digest.size} bytes"
    # What is there is compared first: a wrong chunk says more than a wrong length.
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        found = chunk_leaves(Kind.DATASET, view)
    for index, (expected, actual) in enumerate(zip(digest.leaves, found, strict=False)):
        if expected != actual and (size >= digest.size or index < size // CHUNK):
            end = min((index + 1) * CHUNK, digest.size)
            return (
                f"chunk {index} of {len(digest.leaves)} (bytes {index * CHUNK} to {end - 1}) "
                "does not match the data set's root"
            )
    return None if size == digest.size else f"it has {size} bytes and should have {digest.size}"


def _open(root: bytes, cache: Path, digests: tuple[PartDigest, ...]) -> Dataset:
    """A data set over verified files; what their author wrote in them may still make no sense."""
    header = (cache / PARTS[0]).read_bytes()
    path = f"datasets/{root_hex(root)}/{PARTS[0]}"
    try:
        fields = Fields(parse_json_strict(header, path), "")
        fields.take_choice("format", [FORMAT])
        kind = fields.take_choice("tokenizer", [ByteTokenizer.name, BPETokenizer.name])
        vocabulary = fields.take_int("vocabulary", 2, 65_536)
        counts = (fields.take_int("train_tokens", 1, 2**36), fields.take_int("heldout_tokens", 1, 2**32))
        fields.done()
    except SpecificationError as error:
        raise BlobCorrupt(path, f"{error}") from error
    tokenizer_file = (cache / PARTS[1]).read_bytes()
    tokenizer = tokenizer_from_bytes(kind, tokenizer_file)
    if tokenizer.vocabulary != vocabulary:
        raise BlobCorrupt(path, f"vocabulary is {vocabulary} but the tokenizer has {tokenizer.vocabulary} tokens")
    splits = []
    for part, count in zip(PARTS[2:], counts, strict=True):
        if (cache / part).stat().st_size != 2 * count:
            raise BlobCorrupt(path, f"it says {count} tokens for {part}, which has other than {2 * count} bytes")
        tokens = np.memmap(cache / part, dtype="<u2", mode="r")
        if int(tokens.max()) >= vocabulary:
            raise BlobCorrupt(part, f"token {int(tokens.max())} is outside the vocabulary of {vocabulary}")
        splits.append(tokens)
    return Dataset(
        root=root,
        tokenizer=tokenizer,
        train=splits[0],
        heldout=splits[1],
        header=header,
        tokenizer_file=tokenizer_file,
        digests=digests,
    )
