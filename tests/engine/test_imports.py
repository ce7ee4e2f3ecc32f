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
from small_programs import TEXT, Runs, small
from trainer.engine import determinism, evaluate, generate, schedule, segment, state
from trainer.commit.states import state_root
tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
runs = Runs(train=tokens[:9000], heldout=tokens[9000:])
result = segment.run_segment(small(), runs, state.initial_state(small()), steps=2)
print(len(generate.generate(small(), result.state, b"a", tokens=3)), state_root(result.state.values()).hex())
"""


def test_engine_trains_with_torch_and_numpy_alone() -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr
    count, root = child.stdout.split()
    assert (count, len(root)) == ("3", 64)
