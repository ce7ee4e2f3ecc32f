import subprocess
import sys

import pytest

MEASURE = """
import sys
from types import SimpleNamespace
import numpy as np
from trainer.engine.segment import run_segment
from trainer.engine.state import initial_state
from trainer.program.description import ProgramDescription
from trainer.program.estimate import estimate
tokens = np.random.default_rng(0).integers(0, 256, 9000).astype(np.uint16)
data = SimpleNamespace(train=tokens, heldout=tokens)
mapping = {
    "model": {"kind": sys.argv[1], "layers": int(sys.argv[2]), "width": int(sys.argv[3])},
    "batch_size": int(sys.argv[4]), "context": int(sys.argv[5]), "evaluation_windows": 16, "evaluation_batch": 16,
}
program = ProgramDescription.from_task_file(mapping, vocabulary=int(sys.argv[6]), total_steps=20)
def peak():  # not ru_maxrss, which a child takes over from the process that started it
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
run_segment(program, data, initial_state(program), steps=2)
print(estimate(program).memory_bytes, peak() - before)
"""


@pytest.mark.parametrize(
    "sizes",
    ["transformer 2 128 16 64 8192", "recurrent 2 256 8 128 256"],
)
def test_estimate_memory_is_above_what_training_takes_and_not_far(sizes: str) -> None:
    child = subprocess.run(
        [sys.executable, "-c", MEASURE, *sizes.split()], capture_output=True, text=True, check=True, timeout=120
    )
    guess, measured = (int(word) for word in child.stdout.split())
    assert measured <= guess <= 4 * measured + 2**27
