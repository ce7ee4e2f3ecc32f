import json
import os
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, DataError, ResourceError, UsageError
from trainer import checkpoints
from trainer.checkpoints import export_checkpoint, load_state, save_state, state_path, write_state_file
from trainer.commit.states import state_root
from trainer.data.dataset import Dataset, dataset_of
from trainer.data.tokenizer import BPETokenizer, ByteTokenizer
from trainer.engine.segment import run_segment
from trainer.engine.state import State, heldout_loss_bits, initial_state
from trainer.program.description import ProgramDescription
from trainer.program.layout import StateLayout
from trainer.store import BlobStore

TEXT = "we hold these truths to be self-evident, that all states are committed equal. " * 60


def program_of(kind: str, *, vocabulary: int = 256, **model: Any) -> ProgramDescription:
    mapping = {
        "model": {"kind": kind, "layers": 1, "heads": 2, "width": 32, **model},
        "context": 16,
        "batch_size": 4,
        "evaluation_windows": 9,
        "evaluation_batch": 4,
    }
    return ProgramDescription.from_task_file(mapping, vocabulary=vocabulary, total_steps=20)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    tokens = ByteTokenizer().encode(TEXT)
    return dataset_of(ByteTokenizer(), tokens[:4000], tokens[4000:])


@pytest.fixture(scope="module")
def program() -> ProgramDescription:
    return program_of("transformer")


@pytest.fixture(scope="module")
def state(program: ProgramDescription, dataset: Dataset) -> State:
    return run_segment(program, dataset, initial_state(program), steps=5).state


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"), cache=tmp_path / "temporary")


def stored(store: BlobStore, root: bytes, tmp_path: Path) -> Path:
    return tmp_path / "store" / state_path(root)


def test_save_state_comes_back_with_the_same_root(
    program: ProgramDescription, state: State, store: BlobStore, tmp_path: Path
) -> None:
    layout = StateLayout.of(program)
    root = save_state(store, state, layout)
    assert root == state_root(state.values())
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        loaded = load_state(store, root, layout, cache)
        assert tuple(loaded) == layout.names
        assert state_root(loaded.values()) == root
    assert (tmp_path / "cache" / state_path(root)).exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_save_state_twice_gives_the_same_file(
    program: ProgramDescription, state: State, store: BlobStore, tmp_path: Path
) -> None:
    root = save_state(store, state, StateLayout.of(program))
    first = stored(store, root, tmp_path).read_bytes()
    assert save_state(store, state, StateLayout.of(program)) == root
    assert stored(store, root, tmp_path).read_bytes() == first
    header = json.loads(first[8 : 8 + struct.unpack("<Q", first[:8])[0]])
    assert header["__metadata__"] == {"format": "trainledger/state/1"}
    assert set(header) - {"__metadata__"} == set(StateLayout.of(program).names)


def test_save_state_of_another_layout_refused(state: State, store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout"):
        save_state(store, state, StateLayout.of(program_of("recurrent")))
    assert not (tmp_path / "store").exists()


def test_load_state_missing_named(program: ProgramDescription, store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing, match="states/0x0101"):
        load_state(store, b"\1" * 32, StateLayout.of(program), tmp_path / "cache")


@pytest.mark.parametrize("place", [0, 7, 8, 60, -1, -5000, None], ids=str)
def test_load_state_any_damage_refused_and_a_repaired_store_goes_on(
    program: ProgramDescription, state: State, store: BlobStore, tmp_path: Path, place: int | None
) -> None:
    layout = StateLayout.of(program)
    root = save_state(store, state, layout)
    path = stored(store, root, tmp_path)
    data = bytearray(path.read_bytes())
    if place is None:
        data = data[: len(data) // 2]
    else:
        data[place] ^= 0x21
    path.write_bytes(bytes(data))
    with pytest.raises(BlobCorrupt, match=root_hex(root)):
        load_state(store, root, layout, tmp_path / "cache")
    save_state(store, state, layout)
    assert state_root(load_state(store, root, layout, tmp_path / "cache").values()) == root


def test_load_state_damaged_cache_fetched_again(
    program: ProgramDescription, state: State, store: BlobStore, tmp_path: Path
) -> None:
    layout = StateLayout.of(program)
    root = save_state(store, state, layout)
    load_state(store, root, layout, tmp_path / "cache")
    cached = tmp_path / "cache" / state_path(root)
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(bytes(data))
    assert state_root(load_state(store, root, layout, tmp_path / "cache").values()) == root


def test_load_state_other_tensors_metadata_or_shapes_refused(
    program: ProgramDescription, state: State, store: BlobStore, tmp_path: Path
) -> None:
    layout = StateLayout.of(program)
    root = save_state(store, state, layout)
    path = stored(store, root, tmp_path)
    name = "parameter.embedding.weight"
    format_ = {"format": "trainledger/state/1"}
    cases: list[tuple[dict[str, torch.Tensor], dict[str, str], str]] = [
        ({n: t for n, t in state.items() if n != name}, format_, "missing or not the program's"),
        ({**state, "surplus": torch.zeros(1)}, format_, "surplus"),
        ({**state, name: state[name].reshape(32, 256)}, format_, r"the program has torch\.float32 \(256, 32\)"),
        ({**state, name: state[name].to(torch.float16)}, format_, r"is torch\.float16"),
        (dict(state), {"format": "other"}, "metadata"),
        (dict(state), {**format_, "more": "x"}, "metadata"),
        ({**state, name: state[name] + 1}, format_, "its tensors have the root 0x"),
    ]
    for tensors, metadata, says in cases:
        save_file({n: t.contiguous() for n, t in tensors.items()}, path, metadata=metadata)
        with pytest.raises(BlobCorrupt, match=says):
            load_state(store, root, layout, tmp_path / "cache")


def test_load_state_huge_file_refused_before_it_is_downloaded(
    program: ProgramDescription, store: BlobStore, tmp_path: Path
) -> None:
    path = stored(store, b"\2" * 32, tmp_path)
    path.parent.mkdir(parents=True)
    with open(path, "wb") as stream:
        stream.truncate(10**12)  # a sparse file
    with pytest.raises(BlobCorrupt, match="1000000000000 bytes and at most"):
        load_state(store, b"\2" * 32, StateLayout.of(program), tmp_path / "cache")


def test_save_state_full_disk_leaves_nothing_half_written(
    program: ProgramDescription, state: State, store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="disk is full"):
        save_state(store, state, StateLayout.of(program))
    monkeypatch.undo()
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == []
    save_state(store, state, StateLayout.of(program))


@pytest.mark.parametrize("code", [28, 122])
def test_write_state_file_full_disk_named(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*_: object, **__: object) -> None:
        # What safetensors 0.8 raises on a full tmpfs.
        raise SafetensorError(f'Error while serializing: I/O error: No space (os error {code}) at path "/x"')

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(ResourceError, match=r"The disk is full: .*state cannot be written"):
        write_state_file(state, tmp_path / "state")


def test_write_state_file_missing_folder_is_no_full_disk(state: State, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="os error 2") as caught:
        write_state_file(state, tmp_path / "none" / "state")
    assert type(caught.value) is DataError


WITHOUT_TRAINLEDGER = """
import importlib.abc, runpy, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("trainer", "ledger", "tokenizers", "fsspec"):
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
sys.argv = [sys.argv[1] + "/measure.py"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("transformer", {}),
        ("transformer", {"tied_embeddings": False, "bias": True}),
        ("recurrent", {"cell": "lstm"}),
        ("recurrent", {"cell": "rnn", "tied_embeddings": False}),
    ],
)
def test_export_checkpoint_measures_the_same_bits_without_trainledger(
    dataset: Dataset, tmp_path: Path, kind: str, model: dict[str, Any]
) -> None:
    program = program_of(kind, **model)
    state = run_segment(program, dataset, initial_state(program), steps=5).state
    folder = export_checkpoint(program, dataset, state, tmp_path / "out")
    child = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_TRAINLEDGER, str(folder)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    bits = struct.unpack("<I", struct.pack("<f", float(child.stdout)))[0]
    assert bits == heldout_loss_bits(state)
    config = json.loads((folder / "config.json").read_text())
    assert config["heldout_loss_bits"] == bits
    assert config["state_root"] == root_hex(state_root(state.values()))


def test_export_checkpoint_weights_have_plain_names_and_values(
    program: ProgramDescription, dataset: Dataset, state: State, tmp_path: Path
) -> None:
    folder = export_checkpoint(program, dataset, state, tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == {n.removeprefix("parameter.") for n in state if n.startswith("parameter.")}
    assert all(torch.equal(weights[n], state[f"parameter.{n}"]) for n in weights)
    assert (folder / "tokenizer.json").read_bytes() == b"byte"
    kept = np.frombuffer((folder / "heldout.bin").read_bytes(), dtype="<u2")
    assert np.array_equal(kept, dataset.heldout[: 9 * 16 + 1])
    assert not list(folder.glob(".*"))


def test_export_checkpoint_bpe_tokenizer_opens_with_tokenizers(tmp_path: Path) -> None:
    tokenizer = BPETokenizer.train(TEXT, vocabulary=280)
    tokens = tokenizer.encode(TEXT * 3)
    dataset = dataset_of(tokenizer, tokens[:-400], tokens[-400:])
    program = program_of("transformer", vocabulary=tokenizer.vocabulary)
    folder = export_checkpoint(program, dataset, initial_state(program, dataset=dataset), tmp_path / "out")
    script = textwrap.dedent(
        """
        import sys
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(sys.argv[1])
        print(tokenizer.decode(tokenizer.encode("all states").ids))
        """
    )
    command = [sys.executable, "-I", "-c", script, str(folder / "tokenizer.json")]
    child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert child.stdout == "all states\n"


def test_export_checkpoint_again_replaces_and_spares_other_folders(
    program: ProgramDescription, dataset: Dataset, state: State, tmp_path: Path
) -> None:
    first = initial_state(program, dataset=dataset)
    export_checkpoint(program, dataset, first, tmp_path / "out")
    export_checkpoint(program, dataset, state, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["step"] == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds no export"):
        export_checkpoint(program, dataset, state, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
