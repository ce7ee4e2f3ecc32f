from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import DataError, SpecificationError
from trainer.commit.hashing import Kind, bytes_root, leaf, node, seal
from trainer.data.dataset import Dataset, dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.open.held_out import (
    MAXIMUM_BYTES,
    RANDOM_TOKENS,
    SecretFolder,
    most_windows,
    rebuild,
    secret_parts,
    siblings,
    with_held_out,
)

SECRET = np.arange(1000, dtype="<u2") % 251


@pytest.fixture
def public() -> Dataset:
    return dataset_of(ByteTokenizer(), np.arange(3000, dtype="<u2") % 256, np.zeros(132, dtype="<u2"))


def test_secret_parts_are_of_places_that_no_two_rounds_share() -> None:
    parts = secret_parts(SECRET, rounds=10, tokens=100, vocabulary=256)
    assert all(len(part) == 100 + RANDOM_TOKENS and part.max() < 256 for part in parts)
    starts = {part[:100].tobytes() for part in parts}
    assert starts == {SECRET[at : at + 100].tobytes() for at in range(0, 1000, 100)}
    assert len({part[100:].tobytes() for part in parts}) == 10


def test_secret_parts_draw_their_places_and_their_last_tokens() -> None:
    first = secret_parts(SECRET, rounds=2, tokens=100, vocabulary=7, below=lambda most: most - 1)
    assert [part[0] for part in first] == [SECRET[900], SECRET[800]]
    assert all((part[100:] == 6).all() for part in first)


def test_secret_parts_refuse_too_little_text() -> None:
    with pytest.raises(SpecificationError) as caught:
        secret_parts(SECRET, rounds=11, tokens=100, vocabulary=256)
    assert caught.value.field == "open.held_out"


@pytest.mark.parametrize(
    ("public", "secret", "rounds", "windows"),
    [(1000, 10**6, 4, 60), (10**6, 68, 4, 1), (10**6, 67, 4, 0), (10**6, 10**6, 1, 2045)],
)
def test_most_windows(public: int, secret: int, rounds: int, windows: int) -> None:
    assert most_windows(16, public=public, secret=secret, rounds=rounds) == windows
    assert 2 * (windows * 16 + 1 + RANDOM_TOKENS) <= MAXIMUM_BYTES


def test_siblings_lead_to_the_root_of_a_round(public: Dataset) -> None:
    data = with_held_out(public, secret_parts(SECRET, rounds=1, tokens=100, vocabulary=256)[0])
    train, above = siblings(public)
    held = leaf(Kind.DATASET, bytes_root(Kind.DATASET, 6, data.heldout.tobytes()))
    top = node(Kind.DATASET, above, node(Kind.DATASET, train, held))
    assert data.root == seal(Kind.DATASET, 0, 4, top)
    whole = dataset_of(ByteTokenizer(), public.train, data.heldout)  # as many tokens, so the header is the same
    assert whole.root == data.root


def test_rebuild_gives_the_same_data_set_or_none(public: Dataset) -> None:
    data = with_held_out(public, secret_parts(SECRET, rounds=1, tokens=100, vocabulary=256)[0])
    shown = data.heldout.tobytes()
    again = rebuild(public, shown, data.root)
    assert (again.root, again.heldout.tolist()) == (data.root, data.heldout.tolist())
    for wrong in (shown[:-2], shown + b"\0", b"\1" + shown[1:], b""):
        with pytest.raises(DataError):
            rebuild(public, wrong, data.root)


def test_secrets_are_the_users_alone(tmp_path: Path, public: Dataset) -> None:
    folder = SecretFolder(tmp_path / "secrets")
    assert folder.find(public.root) is None
    folder.keep(public)
    assert folder.find(public.root) == public.heldout.tobytes()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets", *(tmp_path / "secrets").iterdir())]
    assert modes == [0o700, 0o600]
