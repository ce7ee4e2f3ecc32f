import hashlib
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_programs import Runs, small

from trainer.engine.batches import batch, batch_positions, heldout_windows


def position(seed: int, slot: int, step: int, sample: int, choices: int) -> int:
    """Once more from formats §5, as plainly as it is written there."""
    message = b"trainledger/batch/1\0" + struct.pack(">QIQI", seed, slot, step, sample)
    return int.from_bytes(hashlib.sha256(message).digest()[:8], "big") % choices


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**53 - 1),
    slot=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**24),
    context=st.integers(1, 64),
    extra=st.integers(1, 5000),
)
def test_batch_positions_follow_the_formats(seed: int, slot: int, step: int, context: int, extra: int) -> None:
    tokens = context + extra
    found = batch_positions(seed=seed, slot=slot, step=step, batch_size=3, train_tokens=tokens, context=context)
    assert found.tolist() == [position(seed, slot, step, b, extra) for b in range(3)]
    assert found.max() + context + 1 <= tokens


def test_batch_positions_known_answer() -> None:
    found = batch_positions(seed=1, slot=0, step=0, batch_size=4, train_tokens=1_003_854, context=64)
    assert found.tolist() == [position(1, 0, 0, b, 1_003_790) for b in range(4)]
    digest = hashlib.sha256(b"trainledger/batch/1\x00" + bytes(7) + b"\x01" + bytes(4) + bytes(8) + bytes(4)).digest()
    assert found[0] == int.from_bytes(digest[:8], "big") % 1_003_790


def test_batch_targets_are_the_next_tokens(runs: Runs) -> None:
    program = small()
    inputs, targets = batch(runs, program, step=5, slot=2)
    assert inputs.shape == targets.shape == (6, 16)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    starts = [position(program.seed, 2, 5, b, len(runs.train) - 16) for b in range(6)]
    for row, start in enumerate(starts):
        assert inputs[row].tolist() == runs.train[start : start + 16].tolist()
        assert int(targets[row, -1]) == int(runs.train[start + 16])


def test_batch_changes_with_step_slot_and_seed(runs: Runs) -> None:
    program = small()
    base = batch(runs, program, step=5)[0]
    assert not torch.equal(base, batch(runs, program, step=6)[0])
    assert not torch.equal(base, batch(runs, program, step=5, slot=1)[0])
    assert not torch.equal(base, batch(runs, replace(program, seed=9), step=5)[0])
    assert torch.equal(base, batch(runs, program, step=5)[0])


def test_batch_positions_no_window_fits_refused() -> None:
    with pytest.raises(ValueError, match="16 training tokens hold no window of 16"):
        batch_positions(seed=1, slot=0, step=0, batch_size=1, train_tokens=16, context=16)


def test_heldout_windows_as_many_as_fit() -> None:
    tokens = np.arange(50, dtype=np.uint16)
    windows = heldout_windows(Runs(train=tokens, heldout=tokens[:49]), windows=9, context=16)
    assert windows.shape == (3, 17)
    assert windows[2].tolist() == list(range(32, 49))
    assert heldout_windows(Runs(train=tokens, heldout=tokens[:48]), windows=9, context=16).shape == (2, 17)
    assert heldout_windows(Runs(train=tokens, heldout=tokens), windows=1, context=16).shape == (1, 17)
    with pytest.raises(ValueError, match="16 held-out tokens hold no window"):
        heldout_windows(Runs(train=tokens, heldout=tokens[:16]), windows=1, context=16)
