"""A tiny task for the demonstrations, and how their tests wait for what they show."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

TASK = """
[task]
title = "A tiny demonstration"
rounds = 2
steps_per_round = 60
[reward]
slot_reward = "25"
bond = "10"
lease_fee = "1"
target_loss = 2.0
[timing]
lease_seconds = 120
challenge_window_seconds = 120
[data]
source = "python-standard-library"
limit_bytes = 200000
[program]
context = 32
batch_size = 8
evaluation_windows = 32
evaluation_batch = 16
[program.model]
kind = "transformer"
layers = 1
heads = 2
width = 32
[program.schedule]
learning_rate = 0.003
"""


def wait_for(file: Path, words: str, process: subprocess.Popen[bytes], *, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while words not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, f"{words!r} did not appear in: {file.read_text()}"
        time.sleep(0.2)
