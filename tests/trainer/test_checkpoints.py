import dataclasses
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
from small_programs import engine, first_state, traced

from ledger.canonical import root_hex
from ledger.errors import BlobCorrupt, BlobMissing, DataError, ResourceError, SpecificationError, UsageError
from trainer import checkpoints
from trainer.checkpoints import export_checkpoint, load_state, save_state, state_path, write_state_file
from trainer.commit.states import state_root
from trainer.data.dataset import Dataset, dataset_of
from trainer.data.tokenizer import BPETokenizer, ByteTokenizer
from trainer.engine.segment import measured, run_segment
from trainer.engine.state import State, heldout_loss_bits, heldout_loss_of
from trainer.exported_measure import MOST_APART, apart
from trainer.program.description import ProgramDescription
from trainer.program.layout import StateLayout
from trainer.program.task import TaskProgram
from trainer.store import BlobStore

TEXT = "we hold these truths to be self-evident, that all states are committed equal. " * 60


def described(kind: str, *, vocabulary: int = 256, **model: Any) -> ProgramDescription:
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


def trained(description: ProgramDescription, dataset: Dataset, *, steps: int = 5) -> State:
    """The state after a few steps of a description's program."""
    first = first_state(description, dataset)
    return run_segment(traced(description, dataset), dataset, first, steps=steps, engine=engine()).state


@pytest.fixture(scope="module")
def program(dataset: Dataset) -> TaskProgram:
    return traced(described("transformer"), dataset)


@pytest.fixture(scope="module")
def layout(program: TaskProgram) -> StateLayout:
    return program.layout


@pytest.fixture(scope="module")
def state(dataset: Dataset) -> State:
    return trained(described("transformer"), dataset)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"), cache=tmp_path / "temporary")


def stored(store: BlobStore, root: bytes, tmp_path: Path) -> Path:
    return tmp_path / "store" / state_path(root)


def test_save_state_comes_back_with_the_same_root(
    layout: StateLayout, state: State, store: BlobStore, tmp_path: Path
) -> None:
    root = save_state(store, state, layout)
    assert root == state_root(state.values())
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        loaded = load_state(store, root, layout, cache)
        assert tuple(loaded) == layout.names
        assert state_root(loaded.values()) == root
    assert (tmp_path / "cache" / state_path(root)).exists()
    assert list((tmp_path / "temporary").iterdir()) == []


def test_save_state_twice_gives_the_same_file(
    layout: StateLayout, state: State, store: BlobStore, tmp_path: Path
) -> None:
    root = save_state(store, state, layout)
    first = stored(store, root, tmp_path).read_bytes()
    assert save_state(store, state, layout) == root
    assert stored(store, root, tmp_path).read_bytes() == first
    header = json.loads(first[8 : 8 + struct.unpack("<Q", first[:8])[0]])
    assert header["__metadata__"] == {"format": "trainledger/state/1"}
    assert set(header) - {"__metadata__"} == set(layout.names)


def test_save_state_of_another_layout_refused(state: State, dataset: Dataset, store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout"):
        save_state(store, state, traced(described("transformer", bias=True), dataset).layout)
    assert not (tmp_path / "store").exists()


def test_load_state_missing_named(layout: StateLayout, store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing, match="states/0x0101"):
        load_state(store, b"\1" * 32, layout, tmp_path / "cache")


@pytest.mark.parametrize("place", [0, 7, 8, 60, -1, -5000, None], ids=str)
def test_load_state_any_damage_refused_and_a_repaired_store_goes_on(
    layout: StateLayout, state: State, store: BlobStore, tmp_path: Path, place: int | None
) -> None:
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
    layout: StateLayout, state: State, store: BlobStore, tmp_path: Path
) -> None:
    root = save_state(store, state, layout)
    load_state(store, root, layout, tmp_path / "cache")
    cached = tmp_path / "cache" / state_path(root)
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(bytes(data))
    assert state_root(load_state(store, root, layout, tmp_path / "cache").values()) == root


def test_load_state_other_tensors_metadata_or_shapes_refused(
    layout: StateLayout, state: State, store: BlobStore, tmp_path: Path
) -> None:
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
    layout: StateLayout, store: BlobStore, tmp_path: Path
) -> None:
    path = stored(store, b"\2" * 32, tmp_path)
    path.parent.mkdir(parents=True)
    with open(path, "wb") as stream:
        stream.truncate(10**12)  # a sparse file
    with pytest.raises(BlobCorrupt, match="1000000000000 bytes and at most"):
        load_state(store, b"\2" * 32, layout, tmp_path / "cache")


def test_save_state_full_disk_leaves_nothing_half_written(
    layout: StateLayout, state: State, store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="disk is full"):
        save_state(store, state, layout)
    monkeypatch.undo()
    assert [p for p in (tmp_path / "store").rglob("*") if p.is_file()] == []
    save_state(store, state, layout)


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


def measured_elsewhere(folder: Path) -> subprocess.CompletedProcess[str]:
    """What an export's own script says in a process that cannot import trainledger."""
    return subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT_TRAINLEDGER, str(folder)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("transformer", {}),
        pytest.param("transformer", {"tied_embeddings": False, "bias": True}, marks=pytest.mark.full),
        ("recurrent", {"cell": "lstm"}),
        ("recurrent", {"cell": "rnn", "tied_embeddings": False}),
    ],
)
def test_export_checkpoint_measures_the_states_loss_without_trainledger(
    dataset: Dataset, tmp_path: Path, kind: str, model: dict[str, Any]
) -> None:
    description = described(kind, **model)
    state = trained(description, dataset)
    folder = export_checkpoint(traced(description, dataset), dataset, state, tmp_path / "out")
    child = measured_elsewhere(folder)
    assert child.returncode == 0, child.stderr
    # 13 bits of each factor: the state's loss is within 0.1 % of plain float32, a fifth of what measure.py allows.
    assert apart(float(child.stdout), heldout_loss_of(state)) < 1e-3
    assert struct.unpack("<f", struct.pack("<f", float(child.stdout)))[0] == float(child.stdout)
    assert f"from exact arithmetic: {heldout_loss_of(state)!r}; relative difference " in child.stderr
    config = json.loads((folder / "config.json").read_text())
    assert config["heldout_loss_bits"] == heldout_loss_bits(state)
    assert config["state_root"] == root_hex(state_root(state.values()))


def test_measure_of_other_weights_fails_and_says_by_how_much(
    program: TaskProgram, dataset: Dataset, state: State, tmp_path: Path
) -> None:
    folder = export_checkpoint(program, dataset, state, tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    save_file({name: 1.5 * tensor for name, tensor in weights.items()}, folder / "model.safetensors")
    child = measured_elsewhere(folder)
    assert child.returncode == 1
    difference = apart(float(child.stdout), heldout_loss_of(state))
    assert difference > MOST_APART
    assert f"relative difference {difference:.1e}" in child.stderr
    assert "They differ by more than 0.5%: a file of this export was changed." in child.stderr
    assert "and exits with 1\nwhere they differ by more than 0.5%." in (folder / "README").read_text()


def test_measure_of_a_state_that_is_not_finite_agrees_only_with_its_like(
    program: TaskProgram, dataset: Dataset, state: State, tmp_path: Path
) -> None:
    broken = type(state)((name, tensor.clone()) for name, tensor in state.items())
    broken["parameter.embedding.weight"][0, 0] = float("nan")
    broken = measured(program, dataset, broken, engine=engine())
    folder = export_checkpoint(program, dataset, broken, tmp_path / "out")
    child = measured_elsewhere(folder)
    assert (child.returncode, child.stdout) == (0, "nan\n")
    assert "not finite; relative difference 0.0e+00" in child.stderr
    whole = export_checkpoint(program, dataset, state, tmp_path / "whole")
    (folder / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes())
    assert measured_elsewhere(folder).returncode == 1


@pytest.mark.parametrize(
    ("measured_loss", "committed", "difference"),
    [
        (2.0, 2.0, 0.0),
        (2.0, 1.99, 0.005),
        (1.99, 2.0, 0.005),
        (0.0, 0.0, 0.0),
        (0.0, 1.0, 1.0),
        (float("nan"), None, 0.0),
        (float("inf"), None, 0.0),
        (2.0, None, float("inf")),
        (float("nan"), 2.0, float("inf")),
    ],
)
def test_apart_is_relative_and_infinite_where_one_is_not_finite(
    measured_loss: float, committed: float | None, difference: float
) -> None:
    assert apart(measured_loss, committed) == pytest.approx(difference, rel=1e-9)


def test_export_checkpoint_weights_have_plain_names_and_values(
    program: TaskProgram, dataset: Dataset, state: State, tmp_path: Path
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
    description = described("transformer", vocabulary=tokenizer.vocabulary)
    program, state = traced(description, dataset), first_state(description, dataset)
    folder = export_checkpoint(program, dataset, state, tmp_path / "out")
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
    program: TaskProgram, dataset: Dataset, state: State, tmp_path: Path
) -> None:
    first = first_state(described("transformer"), dataset)
    export_checkpoint(program, dataset, first, tmp_path / "out")
    export_checkpoint(program, dataset, state, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["step"] == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="holds no export"):
        export_checkpoint(program, dataset, state, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_export_checkpoint_of_a_program_without_a_model_to_export_refused(
    program: TaskProgram, dataset: Dataset, state: State, tmp_path: Path
) -> None:
    nameless = dataclasses.replace(program, description={"model": "a stranger's"})
    with pytest.raises(SpecificationError, match=r"description\.format"):
        export_checkpoint(nameless, dataset, state, tmp_path / "out")
    assert not (tmp_path / "out").exists()
