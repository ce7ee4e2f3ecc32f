import subprocess
import sys
from pathlib import Path

SCRIPT = """
import importlib.abc, sys
class OnlyTorchAndNumpy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("rfc8785", "safetensors", "tokenizers", "fsspec", "web3", "typer", "eth_account"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, OnlyTorchAndNumpy())
sys.path.insert(0, sys.argv[1])
import numpy as np
from small_programs import TEXT, Runs, users_engine, first_state, small, text_of, traced
from trainer.engine import devices, sampling, schedule, segment, state
from trainer.commit.states import state_root
tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
runs = Runs(train=tokens[:9000], heldout=tokens[9000:])
program = traced(small(), runs)
first = first_state(small(), runs)
roots = set()
for chosen in (None, users_engine()):
    result = segment.run_segment(program, runs, first, steps=1, engine=chosen)
    roots.add(state_root(result.state.values()).hex())
print(len(text_of(program, result.state, b"a", tokens=3)), *roots)
"""


def test_engine_trains_with_torch_and_numpy_alone() -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert child.returncode == 0, child.stderr
    count, root = child.stdout.split()
    assert (count, len(root)) == ("3", 64)
