import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_programs import LIBRARIES

from trainer.engine.exact.fast import write_source
from trainer.materials import publish_program
from trainer.native.compiler import build_library, find_compiler
from trainer.program.description import ProgramDescription
from trainer.program.estimate import estimate
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role
from trainer.program.layout import HELDOUT_LOSS, STEP
from trainer.program.task import TaskProgram
from trainer.program.tracing.tasks import trace_task
from trainer.store import BlobStore

WINDOWS = 16


def traced(model: dict[str, Any], *, vocabulary: int = 256, **sizes: int) -> tuple[ProgramDescription, TaskProgram]:
    table = {"model": model, "evaluation_windows": WINDOWS, "evaluation_batch": WINDOWS, **sizes}
    description = ProgramDescription.from_task_file(table, vocabulary=vocabulary, total_steps=20)
    return description, trace_task(description, windows=WINDOWS)


def test_estimate_counts_parameters_bytes_and_products() -> None:
    width, context, batch, layers, vocabulary = 64, 16, 4, 2, 256
    _, program = traced(
        {"kind": "transformer", "layers": layers, "heads": 4, "width": width}, context=context, batch_size=batch
    )
    guess = estimate(program)
    parameters = vocabulary * width + context * width + layers * (12 * width**2 + 2 * width) + width
    assert guess.parameters == parameters
    assert guess.state_bytes == 12 + 12 * parameters
    # A product of matrices in the forward pass is two more in the backward pass; a multiply-add is two operations.
    weights = layers * 12 * width**2 + vocabulary * width
    scores = layers * 2 * context * width
    products, measuring = (2 * tokens * (weights + scores) for tokens in (3 * batch * context, WINDOWS * context))
    # Everything else (quantising, norms, softmax, AdamW) is what is left; at this width it is less than the products.
    assert products < guess.flops_per_step < 2 * products
    assert measuring < guess.flops_to_measure < 2 * measuring
    # 8 operations for each element that is written, and 2^15 for each sample that is looked up.
    assert guess.work_per_step > guess.flops_per_step + 8 * 3 * parameters + 2 * batch * 2**15
    assert guess.work_to_measure > guess.flops_to_measure


def test_estimate_of_huge_programs_needs_no_memory() -> None:
    """From the records alone: a stranger may write any size into them."""

    def huge(role: Role, *, training: bool) -> BuiltProgram:
        build = ProgramBuilder(role)
        build.state(HELDOUT_LOSS, DType.FLOAT32, (1,))
        build.state(STEP, DType.INT64, (1,))
        build.state("parameter.w", DType.FLOAT32, (2**15, 2**16))
        if training:
            w = build.load("parameter.w")
            build.store("parameter.w", build.view(w.slice(0, 0, 1).expand((2**15, 2**16))))
        return build.finish()

    state = 12 + 2**33
    task = TaskProgram.__new__(TaskProgram)  # the rules of a whole task are no matter here
    for name, value in {
        "training": huge(Role.TRAIN, training=True),
        "evaluation": huge(Role.EVALUATE, training=False),
        "generation": None,
    }.items():
        object.__setattr__(task, name, value)
    guess = estimate(task)
    assert (guess.parameters, guess.state_bytes) == (2**31, state)
    assert guess.memory_bytes >= 5 * state + 2 * 2**33
    assert guess.work_per_step >= 8 * 2**31


MEASURE = """
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from trainer.engine.engines import ReferenceEngine
from trainer.engine.segment import run_segment
from trainer.engine.state import initial_state
from trainer.materials import fetch_program
from trainer.native.compiler import find_compiler
from trainer.native.engine import CompiledEngine
from trainer.program.description import ProgramDescription
from trainer.program.estimate import estimate
from trainer.store import BlobStore

root, store, libraries, engine = sys.argv[1:]
tokens = np.random.default_rng(0).integers(0, 256, 9000).astype(np.uint16)
data = SimpleNamespace(train=tokens, heldout=tokens)
program = fetch_program(bytes.fromhex(root), BlobStore(store))
if engine == "reference":
    chosen = ReferenceEngine(threads=2)
else:
    quick = find_compiler(options=("-O1",))
    chosen = CompiledEngine(Path(libraries), threads=2, compiler=quick, notice=sys.exit)

def kilobytes(name):  # not ru_maxrss, which a child takes over from the process that started it
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":"))

before = kilobytes("VmHWM")
state = initial_state(ProgramDescription.from_mapping(program.description), program.layout)
recheck = 0 if engine == "rechecked" else None
run_segment(program, data, state, steps=2, engine=chosen, recheck=recheck)
print(estimate(program).memory_bytes, 1024 * (kilobytes("VmHWM") - before))
"""


MODELS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "transformer": (
        {"kind": "transformer", "layers": 2, "width": 128},
        {"batch_size": 16, "context": 64, "vocabulary": 8192},
    ),
    "recurrent": (
        {"kind": "recurrent", "cell": "gru", "layers": 1, "width": 512},
        {"batch_size": 32, "context": 8},
    ),
}


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ("transformer", "rechecked"),
        ("recurrent", "rechecked"),
        ("recurrent", "reference"),
        # Ten seconds of interpreter, which the rechecked one runs for a step, too.
        pytest.param("transformer", "reference", marks=pytest.mark.full),
        pytest.param("transformer", "compiled", marks=pytest.mark.full),
        pytest.param("recurrent", "compiled", marks=pytest.mark.full),
    ],
)
def test_estimate_memory_is_above_what_training_takes_and_not_far(model: str, engine: str, tmp_path: Path) -> None:
    """In a process of its own, which fetches the programs as a worker does and finds them compiled.

    A worker's segment is the rechecked one: a run of it is repeated on the reference beside the compiled programs.
    """
    kind, sizes = MODELS[model]
    _, program = traced(kind, **sizes)
    store = BlobStore(str(tmp_path / "store"))
    publish_program(program, store)
    if engine != "reference":
        quick = find_compiler(options=("-O1",))
        for built in (program.training, program.evaluation):
            build_library(write_source(built.program), LIBRARIES, quick)
    child = subprocess.run(
        [sys.executable, "-c", MEASURE, program.root.hex(), str(tmp_path / "store"), str(LIBRARIES), engine],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    guess, measured = (int(word) for word in child.stdout.split())
    assert measured <= guess <= 4 * measured + 2**27
