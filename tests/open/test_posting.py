from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_programs import engine

from ledger.errors import BlobCorrupt, SpecificationError
from ledger.open.records import OpenPhase, OpenTask
from ledger.openfile import OpenTaskFile, load_open_file
from ledger.performance import float_bits
from trainer.data.tokenizer import ByteTokenizer
from trainer.materials import specification_path
from trainer.open.held_out import RANDOM_TOKENS, SecretFolder, rebuild, tokens_read
from trainer.open.posting import OpenPosting, prepare_open_posting, publish_open_posting
from trainer.open.source import fetch_open_materials
from trainer.store import BlobStore

TEXT = "".join(f"{n}: the {'quick' if n % 3 else 'lazy'} fox, {n * n % 97} dogs.\n" for n in range(1200))
FILE = """
[task]
title = "Open"
rounds = 3
steps_per_round = 4
[reward]
slot_reward = "10"
bond = "5"
[open]
slots = 2
full_gain = 0.75
floor_reward = "0.5"
score_reward = "1"
fee = "0.25"
commit_seconds = 10
reveal_seconds = 11
held_out_seconds = 12
lease_seconds = 13
challenge_window_seconds = 14
held_out = {held_out}
[data]
source = "text.txt"
[program]
context = 16
batch_size = 2
evaluation_windows = 6
evaluation_batch = 4
[program.model]
kind = "transformer"
layers = 1
heads = 2
width = 16
"""


def open_file(folder: Path, *, held_out: str = "0.2", **changes: str) -> OpenTaskFile:
    (folder / "text.txt").write_text(TEXT)
    (folder / "secret.txt").write_text("Nothing like the other text at all. " * 60)
    text = FILE.format(held_out=held_out)
    for name, value in changes.items():
        before = next(line for line in text.splitlines() if line.startswith(f"{name} ="))
        text = text.replace(before, f"{name} = {value}")
    path = folder / "open.toml"
    path.write_text(text)
    return load_open_file(path)


@pytest.fixture(scope="module")
def posting(tmp_path_factory: pytest.TempPathFactory) -> OpenPosting:
    return prepare_open_posting(open_file(tmp_path_factory.mktemp("open")), engine=engine())


def text_of(tokens: Any) -> str:
    return ByteTokenizer().decode(tokens.tolist())


def test_rounds_are_scored_on_text_that_is_not_in_the_public_data(posting: OpenPosting) -> None:
    read = tokens_read(posting.program)
    assert read == 6 * 16 + 1
    assert len(posting.rounds) == 3
    public = text_of(posting.dataset.train) + text_of(posting.dataset.heldout)
    assert TEXT.startswith(text_of(posting.dataset.train))
    for data in posting.rounds:
        assert len(data.heldout) == len(posting.dataset.heldout) == read + RANDOM_TOKENS
        secret = text_of(data.heldout[:read])
        assert secret in TEXT
        assert secret not in public
        assert rebuild(posting.dataset, data.heldout.tobytes(), data.root).root == data.root
    assert len({data.root for data in posting.rounds}) == 3


def test_secret_text_of_its_own(tmp_path: Path) -> None:
    made = prepare_open_posting(open_file(tmp_path, held_out='"secret.txt"'), engine=engine())
    assert all(text_of(data.heldout[:97]) in "Nothing like the other text at all. " * 60 for data in made.rounds)


def test_what_is_published_can_be_fetched_and_what_is_secret_is_not_there(posting: OpenPosting, tmp_path: Path) -> None:
    store, secrets = BlobStore(str(tmp_path / "store")), SecretFolder(tmp_path / "secret")
    publish_open_posting(posting, store, secrets)
    publish_open_posting(posting, store, secrets)  # a command that was killed is run again
    task = OpenTask(
        number=1, parameters=posting.parameters, requester="0x", rounds=3, current_round=0, phase=OpenPhase.RUNNING
    )
    materials = fetch_open_materials(task, store, tmp_path / "cache")
    assert materials.program.root == posting.parameters.program_root
    assert materials.dataset.root == posting.dataset.root
    assert materials.specification.slots_per_round == posting.parameters.slots_per_round == 2
    assert posting.parameters.total_reward(3) == 3 * (2 * 10 + 1) * 10**18
    assert posting.parameters.full_gain == float_bits(0.75)
    files = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    for data in posting.rounds:
        kept = secrets.find(data.root)
        assert kept == data.heldout.tobytes()
        assert not any(part in file for part in (kept[:-64], kept[-64:]) for file in files)
    other = replace(task, rounds=4)
    with pytest.raises(SpecificationError, match="rounds"):
        fetch_open_materials(other, store, tmp_path / "cache")
    # What of a round's data is hidden is its held-out part alone: else nobody could prove a score.
    for name, value in (("train_leaf", bytes(32)), ("public_node", bytes(32)), ("held_out_bytes", 2)):
        changed = replace(task, parameters=replace(task.parameters, **{name: value}))
        with pytest.raises(SpecificationError, match="held-out" if name == "held_out_bytes" else "public one"):
            fetch_open_materials(changed, store, tmp_path / "cache")
    path = tmp_path / "store" / specification_path(posting.specification.hash())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BlobCorrupt):
        fetch_open_materials(task, BlobStore(str(tmp_path / "store")), tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"held_out": "0.6"}, "open.held_out"),
        ({"held_out": "3"}, "open.held_out"),
        ({"floor_reward": '"11"'}, "open.floor_reward"),
        ({"fee": '"6"'}, "open.fee"),
        ({"challenge_window_seconds": "12"}, "open.challenge_window_seconds"),
        ({"full_gain": "0"}, "open.full_gain"),
        ({"rounds": "257"}, "task.rounds"),
        ({"slots": "0"}, "open.slots"),
    ],
)
def test_file_that_is_wrong(tmp_path: Path, changes: dict[str, str], field: str) -> None:
    with pytest.raises(SpecificationError) as caught:
        open_file(tmp_path, **changes)
    assert caught.value.field == field


def test_too_little_secret_text(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError) as caught:
        prepare_open_posting(open_file(tmp_path, held_out='"secret.txt"', rounds="200"))
    assert caught.value.field == "open.held_out"
