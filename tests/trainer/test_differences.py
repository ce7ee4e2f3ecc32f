"""Difference files: what a slot sends, rebuilt to its root; and files that somebody made up."""

import dataclasses
import io
import math
import os
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import TEXT, Runs, engine, first_state, small, traced

from ledger.errors import BlobCorrupt, BlobMissing, ResourceError
from trainer.commit.states import state_root
from trainer.differences import (
    difference_of,
    difference_path,
    largest_difference,
    load_difference,
    rebuilt,
    save_difference,
)
from trainer.engine.exact.reference import quantise_rows
from trainer.engine.segment import run_merge, run_segment
from trainer.engine.state import State
from trainer.program.description import DilocoConfig, MeanConfig, MergeConfig
from trainer.program.layout import ANCHOR, PARAMETER, STEP, StateLayout, TensorSpec
from trainer.store import BlobStore

ROOT = b"\x07" * 32
HEAD = 44
LAYOUT = StateLayout(
    (
        TensorSpec("metric.heldout_loss", torch.float32, (1,)),
        TensorSpec(STEP, torch.int64, (1,)),
        TensorSpec("parameter.w", torch.float32, (3, 8)),
        TensorSpec("parameter.b", torch.float32, (7,)),
        TensorSpec("parameter.thin", torch.float32, (5, 1)),
        TensorSpec("parameter.frozen", torch.float32, (4,)),
        TensorSpec("moment1.w", torch.float32, (3, 8)),
        TensorSpec("anchor.w", torch.float32, (3, 8)),
        TensorSpec("anchor.b", torch.float32, (7,)),
        TensorSpec("anchor.thin", torch.float32, (5, 1)),
    )
)


def drawn(seed: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    state: State = OrderedDict()
    for one in LAYOUT.tensors:
        state[one.name] = torch.randn(one.shape, generator=generator)
    state[STEP] = torch.tensor([seed])
    return state


def packed(base: State, seed: int, size: float = 1e-2) -> State:
    """A slot's state: parameters packed, moments zero, everything else the base's."""
    other = drawn(seed)
    state = OrderedDict((name, tensor.clone()) for name, tensor in base.items())
    for name in ("w", "b", "thin"):
        anchor = base[ANCHOR + name]
        codes, scales = quantise_rows(other[PARAMETER + name].reshape(-1, anchor.shape[-1]) * size, 8)
        state[PARAMETER + name] = anchor + (codes.float() * scales).view(anchor.shape)
    state["moment1.w"] = torch.zeros(3, 8)
    state[STEP] = other[STEP]
    return state


BASE, STATE = drawn(1), packed(drawn(1), 2)


def file_of(state: State, base: State = BASE) -> bytes:
    return b"".join(difference_of(state, base, base_root=ROOT))


def read(data: bytes, base: State = BASE) -> State:
    return rebuilt(io.BytesIO(data), base, LAYOUT, base_root=ROOT)


def same(a: State, b: State) -> bool:
    return state_root(a.values()) == state_root(b.values())


def test_difference_file_has_the_documented_bytes() -> None:
    data = file_of(STATE)
    assert data[:HEAD] == b"TLXD\0\1\0\0" + ROOT + struct.pack(">I", 10)
    at = HEAD
    assert data[at : at + 2] == b"\0\3"  # the loss is the base's, the counter raw
    assert data[at + 2 : at + 10] == struct.pack("<q", 2)
    assert data[at + 10] == 2
    scales = np.frombuffer(data, "<f4", 3, at + 11)
    codes = np.frombuffer(data, "i1", 24, at + 23).reshape(3, 8)
    expected = BASE["anchor.w"] + torch.from_numpy(codes * scales[:, None])
    assert torch.equal(expected, STATE["parameter.w"])
    at += 11 + 12 + 24
    assert data[at] == 2
    at += 1 + 4 + 7
    assert data[at] == 3  # rows of one number: a scale and a code are longer than it
    assert data[at + 1 + 20 :] == b"\0\1\0\0\0"  # frozen, moments of zeros, anchors
    assert same(read(data), STATE)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e-3, 1.0, 1e3, 1e30])
def test_difference_file_gives_packed_states_back(size: float) -> None:
    for anchors in (0.0, 1e-3, 1.0, 1e6):
        for seed in range(2, 12):
            base = OrderedDict(BASE)
            for name in ("w", "b", "thin"):
                base[ANCHOR + name] = BASE[ANCHOR + name] * anchors
            state = packed(base, seed, size)
            data = file_of(state, base)
            assert same(read(data, base), state)
            assert len(data) <= HEAD + 10 + 8 + (12 + 24) + (4 + 7) + 20


def test_difference_file_of_sums_that_round_to_a_finer_scale() -> None:
    base, state = OrderedDict(BASE), OrderedDict(BASE)
    base["anchor.b"] = torch.full((7,), 2.0**-24)
    state["anchor.b"] = base["anchor.b"]
    state["parameter.b"] = base["anchor.b"] + torch.tensor([64.0, 3, -7, 1, 0, 5, -9]) * 2.0**-6
    data = file_of(state, base)
    assert len(data) == HEAD + 10 + 4 + 7
    assert same(read(data, base), state)


@settings(max_examples=100)
@given(data=st.data())
def test_difference_file_gives_any_state_back(data: st.DataObject) -> None:
    state = packed(BASE, 3)
    for name in data.draw(st.lists(st.sampled_from(LAYOUT.names[2:]), max_size=4)):
        words = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5))
        flat = state[name].clone().reshape(-1).view(torch.int32)
        flat[: len(words)] = torch.tensor(words, dtype=torch.int32)[: len(flat)]
        state[name] = flat.view(torch.float32).reshape(state[name].shape)
    assert same(read(file_of(state)), state)


def test_difference_file_of_rows_that_are_not_finite() -> None:
    state = packed(BASE, 4)
    state["parameter.w"][1] = math.nan
    data = file_of(state)
    assert len(data) == len(file_of(STATE))
    assert same(read(data), state)
    state["parameter.w"][1, 3] = math.inf
    assert len(file_of(state)) == len(data) - 36 + 96
    assert same(read(file_of(state)), state)


def test_rebuilt_tensors_of_the_base_are_the_base_s_own() -> None:
    state = read(file_of(STATE))
    own = {name for name in state if state[name] is BASE[name]}
    assert own == {"metric.heldout_loss", "parameter.frozen", "anchor.w", "anchor.b", "anchor.thin"}


GOOD = file_of(STATE)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is cut short: 44 bytes are missing"),
        (GOOD[:20], "is cut short: 24 bytes are missing"),
        (GOOD[:-1], "is cut short: 1 bytes are missing"),
        (GOOD[: HEAD + 5], "is cut short"),
        (GOOD + b"\0", "bytes left over"),
        (b"TLXD\0\2" + GOOD[6:], "no difference file of version 1"),
        (b"TLXP" + GOOD[4:], "no difference file of version 1"),
        (GOOD[:8] + b"\x08" * 32 + GOOD[40:], f"a difference to the state 0x{'08' * 32}, and not to 0x{'07' * 32}"),
        (GOOD[:40] + struct.pack(">I", 2**32 - 1) + GOOD[44:], "has 4294967295 tensors, and the program 10"),
        (GOOD[:HEAD] + b"\4" + GOOD[HEAD + 1 :], "metric.heldout_loss stands in the form 4"),
        (GOOD[:HEAD] + b"\2" + GOOD[HEAD + 1 :], "metric.heldout_loss stands in the form 2"),
        (GOOD[:-5] + b"\2" + GOOD[-4:], "parameter.frozen stands in the form 2"),
    ],
)
def test_rebuilt_broken_file_refused(data: bytes, says: str) -> None:
    with pytest.raises(BlobCorrupt, match=says):
        read(data)


@settings(max_examples=200)
@given(at=st.integers(HEAD, len(GOOD) - 1), value=st.integers(0, 255))
def test_rebuilt_changed_byte_is_another_state_or_refused(at: int, value: int) -> None:
    data = bytearray(GOOD)
    data[at] = value
    try:
        state = read(bytes(data))
    except BlobCorrupt:
        return
    assert [(one.dtype, one.shape) for one in state.values()] == [(one.dtype, one.shape) for one in STATE.values()]


def stored(store: BlobStore, data: bytes) -> None:
    store.put_bytes(difference_path(state_root(STATE.values())), data)


def fetched(store: BlobStore) -> State:
    return load_difference(store, state_root(STATE.values()), BASE, LAYOUT, base_root=ROOT)


def test_load_difference_checks_the_root(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path / "store"), cache=tmp_path / "cache")
    with pytest.raises(BlobMissing):
        fetched(store)
    root = save_difference(store, STATE, BASE, LAYOUT, base_root=ROOT)
    assert root == state_root(STATE.values())
    assert save_difference(store, STATE, BASE, LAYOUT, base_root=ROOT) == root
    assert same(fetched(store), STATE)
    other = tmp_path / "other"
    changes: list[tuple[bytes, str]] = [
        (file_of(packed(BASE, 5)), "what it rebuilds has the root"),
        (GOOD[: HEAD + 23] + b"\x80" + GOOD[HEAD + 24 :], "what it rebuilds has the root"),
        (GOOD + bytes(largest_difference(LAYOUT)), "bytes"),
    ]
    for number, (data, says) in enumerate(changes):
        store = BlobStore(str(other / str(number)), cache=tmp_path / "cache")
        stored(store, data)
        with pytest.raises(BlobCorrupt, match=says):
            fetched(store)
    assert not list((tmp_path / "cache").iterdir())


def test_largest_difference_is_that_of_a_state_with_nothing_of_the_base() -> None:
    data = file_of(OrderedDict((name, tensor + 1) for name, tensor in drawn(9).items()))
    assert len(data) == largest_difference(LAYOUT)


def test_save_difference_of_another_layout_refused(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    short: State = OrderedDict(list(STATE.items())[:-1])
    for state, base in ((short, BASE), (STATE, short)):
        with pytest.raises(ValueError, match="do not follow the layout"):
            save_difference(store, state, base, LAYOUT, base_root=ROOT)


def test_save_difference_full_disk_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("trainer.differences.difference_of", full)
    with pytest.raises(ResourceError, match="disk is full"):
        save_difference(BlobStore(str(tmp_path)), STATE, BASE, LAYOUT, base_root=ROOT)


@pytest.fixture(scope="module")
def runs() -> Runs:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    return Runs(train=tokens[:9000], heldout=tokens[9000:])


@pytest.mark.parametrize("merge", [DilocoConfig(slots=2), MeanConfig(slots=2)])
def test_slots_of_a_round_are_sent_as_differences(merge: MergeConfig, runs: Runs) -> None:
    description = dataclasses.replace(small(model={"layers": 1}, context=8, batch_size=4), merge=merge)
    program = traced(description, runs)
    base = first_state(description, runs, measure=True, on=engine())
    sent: list[State | None] = []
    whole: list[State | None] = []
    for _ in range(2):
        for slot in range(2):
            state = run_segment(program, runs, base, steps=5, slot=slot, engine=engine()).state
            data = b"".join(difference_of(state, base, base_root=ROOT))
            if isinstance(merge, DilocoConfig):
                numbers = program.layout.parameter_count
                assert numbers < len(data) < 1.3 * numbers
                assert len(data) < program.layout.total_bytes / 12
            again = rebuilt(io.BytesIO(data), base, program.layout, base_root=ROOT)
            assert same(again, state)
            sent.append(again)
            whole.append(state)
        merged = [run_merge(program, runs, base, some[-2:], engine=engine()).state for some in (sent, whole)]
        assert same(*merged)
        base = merged[0]
