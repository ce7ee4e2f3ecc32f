"""Manifests of a task's programs: bytes and root once more from docs/programs.md, and every refusal."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.canonical import canonical_json
from ledger.errors import SpecificationError
from trainer.program.task import (
    MAXIMUM_MANIFEST_BYTES,
    MAXIMUM_SEED,
    Manifest,
)

ROOTS = [bytes([number]) * 32 for number in (0x11, 0x22, 0x33, 0x44)]
PLAIN = Manifest(seed=7, training=ROOTS[0], evaluation=ROOTS[1], generation=None, description={"format": "x/1"})
FULL = dataclasses.replace(
    PLAIN, generation=ROOTS[2], merge=ROOTS[3], seed=MAXIMUM_SEED, description={"b": [1, 0.5, None], "a": "é"}
)
roots = st.binary(min_size=32, max_size=32).filter(any)
# Whole floats from 2^53 on are written as integers that no reader takes (`publish_program` refuses them).
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not 2**53 <= abs(x) < 1e21)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | floats,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
manifests = st.builds(
    Manifest,
    seed=st.integers(0, MAXIMUM_SEED),
    training=roots,
    evaluation=roots,
    generation=st.none() | roots,
    merge=st.none() | roots,
    description=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), values, max_size=4),
)


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def root_from_the_page(manifest: Manifest) -> bytes:
    """The program root of a task from docs/formats.md §1 and docs/programs.md, "A task's programs"."""
    kind = b"\x04"
    described = canonical_json(dict(manifest.description))
    chunks = [described[at : at + 1024].ljust(1024, b"\0") for at in range(0, len(described), 1024)]
    records = [
        b"TLXT" + b"\0\2" + b"\0\0" + manifest.seed.to_bytes(8, "big"),
        manifest.training,
        manifest.evaluation,
        manifest.generation if manifest.generation is not None else bytes(32),
        sha(b"\x03", kind, b"\0", len(described).to_bytes(8, "big"), merkle(kind, chunks)),
        manifest.merge if manifest.merge is not None else bytes(32),
    ]
    return sha(b"\x03", kind, b"\x02", (6).to_bytes(8, "big"), merkle(kind, records))


def merkle(kind: bytes, payloads: Sequence[bytes]) -> bytes:
    level = [sha(b"\0", kind, payload) for payload in payloads]
    while len(level) & (len(level) - 1):
        level.append(sha(b"\2", kind))
    while len(level) > 1:
        level = [sha(b"\1", kind, *level[at : at + 2]) for at in range(0, len(level), 2)]
    return level[0]


@settings(max_examples=100)
@given(manifest=manifests)
def test_root_is_that_of_the_page(manifest: Manifest) -> None:
    assert manifest.root == root_from_the_page(manifest)


def test_root_known_answers() -> None:
    assert PLAIN.root.hex() == "b22d4347b482b2125928e7005a3481ec3d96bce9d8e9d06973037303c5f9141c"
    assert FULL.root.hex() == "33e9479743c33395f94001da75363ebdc1de0f6c47b0b5412b1876ebfe6c718b"
    long = dataclasses.replace(PLAIN, description={"notes": "x" * 5000})  # several chunks
    assert long.root == root_from_the_page(long)


def test_root_changes_with_every_field() -> None:
    others = [
        PLAIN,
        FULL,
        dataclasses.replace(PLAIN, seed=8),
        dataclasses.replace(PLAIN, training=ROOTS[2]),
        dataclasses.replace(PLAIN, evaluation=ROOTS[2]),
        dataclasses.replace(PLAIN, training=ROOTS[1], evaluation=ROOTS[0]),
        dataclasses.replace(PLAIN, generation=ROOTS[2]),
        dataclasses.replace(PLAIN, merge=ROOTS[2]),
        dataclasses.replace(PLAIN, description={}),
        dataclasses.replace(PLAIN, description={"format": "x/2"}),
    ]
    assert len({one.root for one in others}) == len({one.to_bytes() for one in others}) == len(others)


def test_to_bytes_known_answer() -> None:
    assert PLAIN.to_bytes().decode() == (
        '{"description":{"format":"x/1"},"evaluation":"0x' + "22" * 32 + '","format":"trainledger/program/3",'
        '"generation":null,"merge":null,"seed":7,"training":"0x' + "11" * 32 + '"}'
    )
    assert json.loads(FULL.to_bytes()) == {
        "format": "trainledger/program/3",
        "seed": MAXIMUM_SEED,
        "training": "0x" + "11" * 32,
        "evaluation": "0x" + "22" * 32,
        "generation": "0x" + "33" * 32,
        "merge": "0x" + "44" * 32,
        "description": {"a": "é", "b": [1, 0.5, None]},
    }


@settings(max_examples=100)
@given(manifest=manifests)
def test_from_bytes_reads_back_what_to_bytes_wrote(manifest: Manifest) -> None:
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert again.to_bytes() == manifest.to_bytes()
    assert again.root == manifest.root


def changed(**fields: Any) -> bytes:
    """PLAIN's file with fields changed; a field that is Ellipsis is left out."""
    table = {**json.loads(PLAIN.to_bytes()), **fields}
    return canonical_json({name: value for name, value in table.items() if value is not ...})


@pytest.mark.parametrize("field", ["format", "seed", "training", "evaluation", "generation", "merge", "description"])
def test_from_bytes_missing_field_named(field: str) -> None:
    with pytest.raises(SpecificationError, match=f"^{field} is missing") as caught:
        Manifest.from_bytes(changed(**{field: ...}))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("format", "trainledger/program/2", "must be one of trainledger/program/3"),
        ("format", 2, "must be one of"),
        ("seed", -1, "is -1 but must be from 0 to 9007199254740991"),
        ("seed", True, "must be a whole number"),
        ("seed", "7", "must be a whole number"),
        ("seed", 0.5, "must be a whole number"),
        ("seed", None, "must be a whole number"),
        ("training", None, "is not a root"),
        ("training", "11" * 32, "is not a root"),
        ("training", "0x" + "11" * 31, "is not a root"),
        ("training", "0x" + "AA" * 32, "is not a root"),
        ("training", "0x" + "00" * 32, "is the zero root"),
        ("evaluation", 5, "is not a root"),
        ("evaluation", "0x" + "00" * 32, "is the zero root"),
        ("generation", "", "is not a root"),
        ("generation", False, "is not a root"),
        ("generation", "0x" + "00" * 32, "is the zero root"),
        ("merge", "", "is not a root"),
        ("merge", "0x" + "00" * 32, "is the zero root"),
        ("description", None, "must be a table of fields"),
        ("description", [], "must be a table of fields"),
        ("description", "x" * 5000, "must be a table of fields"),
        ("surplus", 1, "is not a known field"),
    ],
)
def test_from_bytes_wrong_field_named(field: str, value: Any, says: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        Manifest.from_bytes(changed(**{field: value}))
    assert caught.value.field == field
    assert caught.value.problem.startswith(field)
    assert says in caught.value.problem
    assert len(str(caught.value)) < 500


def test_from_bytes_seed_beyond_json_refused() -> None:
    data = PLAIN.to_bytes().replace(b'"seed":7', b'"seed":9007199254740992')
    with pytest.raises(SpecificationError, match="seed is 9007199254740992 but must be from 0"):
        Manifest.from_bytes(data)


def test_from_bytes_other_spellings_of_the_same_manifest_refused() -> None:
    canonical = FULL.to_bytes()
    for data in (
        json.dumps(json.loads(canonical)).encode(),
        canonical + b"\n",
        b" " + canonical,
        canonical.replace(b"0.5", b"0.50"),
        canonical.replace(b"0.5", b"5e-1"),
        canonical.replace("é".encode(), b"\\u00e9"),
        canonical.replace(b'"seed"', b'"se\\u0065d"'),
    ):
        assert data != canonical
        with pytest.raises(SpecificationError, match="not in canonical form"):
            Manifest.from_bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not valid JSON"),
        (b"[]", "must be a table of fields"),
        (b"null", "must be a table of fields"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbf" + PLAIN.to_bytes(), "not valid JSON"),
        (PLAIN.to_bytes()[:-1], "not valid JSON"),
        (PLAIN.to_bytes() + PLAIN.to_bytes(), "not valid JSON"),
        (PLAIN.to_bytes().replace(b'"seed":7', b'"seed":7,"seed":7'), "stands twice"),
        (PLAIN.to_bytes().replace(b'"x/1"', b"NaN"), "NaN is not a JSON number"),
        (PLAIN.to_bytes().replace(b'"x/1"', b"1e999"), "out of range"),
        (PLAIN.to_bytes().replace(b'"x/1"', b"9" * 5000), "not valid JSON"),
        (PLAIN.to_bytes().replace(b'"x/1"', b"[" * 100 + b"]" * 100), "nested more than"),
        (PLAIN.to_bytes().replace(b'"x/1"', b"9007199254740993"), "cannot be written as canonical JSON"),
        (PLAIN.to_bytes().replace(b'"x/1"', b'"\\ud800"'), "cannot be written as canonical JSON"),
        (b" " * (MAXIMUM_MANIFEST_BYTES + 1), f"at most {MAXIMUM_MANIFEST_BYTES} are read"),
    ],
)
def test_from_bytes_broken_file_refused(data: bytes, says: str) -> None:
    with pytest.raises(SpecificationError, match=says):
        Manifest.from_bytes(data)


def test_from_bytes_longest_file_is_read() -> None:
    short = len(dataclasses.replace(PLAIN, description={"notes": ""}).to_bytes())
    longest = dataclasses.replace(PLAIN, description={"notes": "x" * (MAXIMUM_MANIFEST_BYTES - short)})
    assert len(longest.to_bytes()) == MAXIMUM_MANIFEST_BYTES
    assert Manifest.from_bytes(longest.to_bytes()) == longest
    longer = dataclasses.replace(PLAIN, description={"notes": "x" * (MAXIMUM_MANIFEST_BYTES - short + 1)})
    with pytest.raises(SpecificationError, match=f"has {MAXIMUM_MANIFEST_BYTES + 1} bytes"):
        Manifest.from_bytes(longer.to_bytes())


@settings(max_examples=200)
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_from_bytes_flipped_bit_is_another_manifest_or_refused(at: int, bit: int) -> None:
    data = bytearray(FULL.to_bytes())
    data[at % len(data)] ^= 1 << bit
    try:
        read = Manifest.from_bytes(bytes(data))
    except SpecificationError:
        return
    assert read.to_bytes() == bytes(data)
    assert read.root == root_from_the_page(read) != FULL.root


@settings(max_examples=200)
@given(data=st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode()))
def test_from_bytes_anything_is_a_specification_error(data: bytes) -> None:
    with pytest.raises(SpecificationError):
        Manifest.from_bytes(data)
