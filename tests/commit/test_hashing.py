import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.commit.hashing import (
    Kind,
    bytes_root,
    chunk_leaves,
    depth,
    leaf,
    merkle_proof,
    merkle_root,
    node,
    pad,
    seal,
    verify_proof,
)

VECTORS = Path(__file__).parents[1] / "vectors"
GOLDEN = json.loads((VECTORS / "commitments.json").read_text())


def leaves_of(count: int, kind: Kind = Kind.STATE) -> list[bytes]:
    return [leaf(kind, n.to_bytes(32, "big")) for n in range(count)]


@pytest.mark.parametrize("count", range(1, 41))
def test_merkle_proof_every_index_verifies(count: int) -> None:
    leaves = leaves_of(count)
    root = merkle_root(Kind.STATE, leaves)
    for index in range(count):
        proof = merkle_proof(Kind.STATE, leaves, index)
        assert len(proof) == depth(count)
        assert verify_proof(Kind.STATE, leaves[index], index, count, proof, root)


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13, 33, 40])
def test_verify_proof_wrong_index_refused(count: int) -> None:
    leaves = leaves_of(count)
    root = merkle_root(Kind.STATE, leaves)
    for index in range(count):
        proof = merkle_proof(Kind.STATE, leaves, index)
        for other in range(-1, count + 2):
            assert verify_proof(Kind.STATE, leaves[index], other, count, proof, root) == (other == index)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_verify_proof_wrong_length_kind_or_root_refused(count: int) -> None:
    leaves = leaves_of(count)
    root = merkle_root(Kind.STATE, leaves)
    proof = merkle_proof(Kind.STATE, leaves, 0)
    assert not verify_proof(Kind.STATE, leaves[0], 0, count, [*proof, pad(Kind.STATE)], root)
    assert not verify_proof(Kind.STATE, leaves[0], 0, 2 * count, proof, root)
    assert not verify_proof(Kind.STATE, leaves[0], 0, 0, proof, root)
    assert not verify_proof(Kind.STATE, leaves[0][:31], 0, count, proof, root)
    assert not verify_proof(Kind.STATE, leaves[0], 0, count, proof, bytes(32))
    if proof:
        assert not verify_proof(Kind.STATE, leaves[0], 0, count, proof[:-1], root)
        assert not verify_proof(Kind.TENSOR, leaves[0], 0, count, proof, root)
        assert not verify_proof(Kind.STATE, leaves[0], 0, count, [b"", *proof[1:]], root)


def test_merkle_proof_index_outside_refused() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError, match=f"leaf {index} of a tree with 3 leaves"):
            merkle_proof(Kind.STATE, leaves_of(3), index)


def test_merkle_root_pads_stand_in_the_unused_leaves() -> None:
    a, b, c, d, e = leaves_of(5)
    p = pad(Kind.STATE)

    def inner(left: bytes, right: bytes) -> bytes:
        return node(Kind.STATE, left, right)

    expected = inner(inner(inner(a, b), inner(c, d)), inner(inner(e, p), inner(p, p)))
    assert merkle_root(Kind.STATE, [a, b, c, d, e]) == expected
    assert merkle_root(Kind.STATE, [a]) == a
    assert merkle_root(Kind.STATE, [a, b, c]) == merkle_root(Kind.STATE, [a, b, c, p])  # the seal tells them apart
    assert seal(Kind.STATE, 0, 3, expected) != seal(Kind.STATE, 0, 4, expected)


def test_merkle_root_no_leaves_refused() -> None:
    with pytest.raises(ValueError, match="at least one leaf"):
        merkle_root(Kind.BLOB, [])
    with pytest.raises(ValueError, match="no bytes"):
        bytes_root(Kind.BLOB, 0, b"")


def test_leaf_and_node_prefixes_are_those_of_the_formats() -> None:
    assert leaf(Kind.TENSOR, b"x") == hashlib.sha256(b"\x00\x01x").digest()
    assert node(Kind.STATE, b"l" * 32, b"r" * 32) == hashlib.sha256(b"\x01\x02" + b"l" * 32 + b"r" * 32).digest()
    assert pad(Kind.TRACE) == hashlib.sha256(b"\x02\x03").digest()
    header = b"\x03\x04\x00" + (1025).to_bytes(8, "big")
    assert seal(Kind.PROGRAM, 0, 1025, b"m" * 32) == hashlib.sha256(header + b"m" * 32).digest()


def test_bytes_root_trailing_zeros_change_the_root() -> None:
    assert bytes_root(Kind.BLOB, 0, b"a") != bytes_root(Kind.BLOB, 0, b"a\0")
    assert chunk_leaves(Kind.BLOB, b"a") == chunk_leaves(Kind.BLOB, b"a\0")


def test_bytes_root_kind_and_type_change_the_root() -> None:
    roots = {bytes_root(kind, number, b"same") for kind in Kind for number in range(9)}
    assert len(roots) == len(Kind) * 9


@pytest.mark.parametrize(
    "case", GOLDEN["bytes"], ids=lambda c: f"kind{c['kind']}-type{c['type']}-{len(c['data']) // 2}"
)
def test_bytes_root_equals_golden(case: dict[str, object]) -> None:
    data = bytes.fromhex(str(case["data"]))
    root = bytes_root(Kind(int(str(case["kind"]))), int(str(case["type"])), data)
    assert root.hex() == case["root"]
    kind, number = Kind(int(str(case["kind"]))), int(str(case["type"]))
    assert bytes_root(kind, number, memoryview(bytearray(data))).hex() == case["root"]


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=6000), st.integers(0, 5999), st.integers(1, 255))
def test_bytes_root_any_changed_byte_changes_it(data: bytes, at: int, change: int) -> None:
    other = bytearray(data)
    other[at % len(data)] ^= change
    assert bytes_root(Kind.TENSOR, 5, bytes(other)) != bytes_root(Kind.TENSOR, 5, data)


def test_commitments_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    script = tmp_path / "generate_commitments.py"
    script.write_text((VECTORS / "generate_commitments.py").read_text())
    subprocess.run([sys.executable, "-I", str(script)], check=True, timeout=60)
    assert (tmp_path / "commitments.json").read_text() == (VECTORS / "commitments.json").read_text()
