"""On an NVIDIA GPU: what is compiled for it, and PyTorch there, have the bits of the reference on the processor.

Needs nothing but torch, numpy, pytest and hypothesis, and no conftest: tools/gpu_check.sh runs it on a bare machine.
"""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from compiled_programs import assert_equals_reference, same
from small_programs import TEXT, Runs, first_state, small, traced
from test_cuda_programs import WAYS, programs
from test_fast_training import Windows, training

from ledger.errors import MachineFault
from trainer.commit.hashing import Kind, python_tree
from trainer.commit.states import state_root
from trainer.engine.engines import Engine, ReferenceEngine
from trainer.engine.exact.backends import admitted_backends
from trainer.engine.exact.cuda import CudaProgram, write_cuda
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.selftest import run_selftest
from trainer.engine.segment import run_segment
from trainer.models import TransformerConfig
from trainer.native.cuda import CudaEngine, Driver, GpuKernels, build_units, find_nvrtc, open_cuda
from trainer.native.cuda import engine as cuda_engine
from trainer.native.cuda.driver import recorder
from trainer.native.cuda.hashing import open_gpu_hasher
from trainer.native.engine import choose_engine
from trainer.program.exact import Program

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1800)]

GPU = torch.device("cuda")
_TOGETHER = 20


def no_notice(text: str) -> None:
    raise AssertionError(f"the compiled engine is not used: {text}")


@functools.cache
def driver() -> Driver:
    return Driver(torch.cuda.current_device())


def on_gpu(program: Program, constants: list[torch.Tensor], folder: Path, *, keep: bool = False) -> CudaProgram:
    source = write_cuda(program, keep=keep)
    made = build_units(source.units, folder, find_nvrtc(torch.cuda.get_device_capability()))
    kernels = GpuKernels(source.units, made, driver(), recorder(GPU))
    return CudaProgram(program, constants, source, kernels, device=GPU)


def test_selftest_passes_on_a_gpu() -> None:
    test = run_selftest("cuda")
    assert test.passed, test


def test_choose_engine_of_a_gpu_is_the_compiled_one(tmp_path: Path) -> None:
    """Which has passed its trial."""
    assert isinstance(choose_engine("cuda", tmp_path, notice=no_notice), CudaEngine)


@pytest.mark.parametrize("way", list(WAYS))
def test_on_gpu_random_programs_are_the_reference_s(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 500 programs for each way to compute: 2,000 together."""
    WAYS[way](monkeypatch)
    first = 10_000 + 500 * list(WAYS).index(way)
    for at in range(first, first + 500, _TOGETHER):
        one, keep = programs(at, _TOGETHER), bool(at // _TOGETHER % 2)
        assert_equals_reference(one, on_gpu(one.program, one.constants, tmp_path, keep=keep), outputs=keep)


def test_on_gpu_training_steps_are_the_reference_s(tmp_path: Path) -> None:
    """More steps than are launched one by one, before they are recorded."""
    built, state = training(TransformerConfig(layers=2, heads=2, width=48))
    fast = on_gpu(built.program, list(built.constants), tmp_path)
    fast.load(state)
    for step in range(8):
        state = run_program(built.program, state, built.constants, Windows(step))
        fast.step(Windows(step))
        assert same(state, fast.state()), step


def engines(folder: Path) -> dict[str, Engine]:
    """Every way to run a program that the GPU has, and the reference on the processor."""
    slow = ReferenceEngine("cuda")
    several: dict[str, Engine] = {"reference": ReferenceEngine()}
    several["compiled, cuda"] = open_cuda("cuda", folder, slow=slow, notice=no_notice)
    for name, fault in admitted_backends(GPU).items():
        if not fault:
            several[f"reference, cuda, {name}"] = ReferenceEngine("cuda", backend=name)
    return several


@pytest.mark.parametrize("kind", ["transformer", "gru", "lstm"])
def test_run_segment_has_one_root_on_processor_and_gpu(kind: str, tmp_path: Path) -> None:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    runs = Runs(train=tokens[:9000], heldout=tokens[9000:])
    own = kind == "transformer"
    description = small(kind if own else "recurrent", model={} if own else {"cell": kind}, context=13, batch_size=5)
    program, first = traced(description, runs), first_state(description, runs)
    roots = {}
    for name, engine in engines(tmp_path).items():
        result = run_segment(program, runs, first, steps=5, engine=engine, slot=1, recheck=2)
        roots[name] = state_root(result.state.values()).hex()
    assert {"reference", "compiled, cuda"} < set(roots)
    assert len(set(roots.values())) == 1, roots


def test_run_segment_gone_on_with_on_the_other_has_one_root(tmp_path: Path) -> None:
    tokens = np.frombuffer(TEXT, dtype=np.uint8).astype(np.uint16)
    runs = Runs(train=tokens[:9000], heldout=tokens[9000:])
    program, first = traced(small(), runs), first_state(small(), runs)
    several = engines(tmp_path)
    here, there = several["reference"], several["compiled, cuda"]
    whole = run_segment(program, runs, first, steps=4, engine=there).state
    for one, other in ((here, there), (there, here)):
        part = run_segment(program, runs, first, steps=4, engine=one, report_every=2, should_stop=lambda: True)
        assert not part.completed
        ended = run_segment(program, runs, part.state, steps=4 - part.steps, engine=other).state
        assert state_root(ended.values()) == state_root(whole.values())


class Broken(CudaProgram):
    """A GPU with one wrong bit."""

    def state(self) -> list[torch.Tensor]:
        state = super().state()
        state[-1].view(torch.uint8).reshape(-1)[0] ^= 1
        return state


def test_open_cuda_gpu_that_computes_otherwise_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_engine, "CudaProgram", Broken)
    with pytest.raises(MachineFault, match=r"does not compute exactly: product\.of\.many of"):
        open_cuda("cuda", tmp_path, slow=ReferenceEngine("cuda"), notice=no_notice)


def test_cuda_program_follows_pytorch_s_stream(tmp_path: Path) -> None:
    """Steps on a stream of PyTorch's come after what is on it, and before what follows."""
    built, state = training(TransformerConfig(layers=1, heads=2, width=16))
    fast = on_gpu(built.program, list(built.constants), tmp_path)
    wanted = state
    for step in range(6):
        wanted = run_program(built.program, wanted, built.constants, Windows(step))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        fast.load(state)
        for step in range(6):
            torch.cuda._sleep(1_000_000)
            fast.step(Windows(step))
        found = fast.state()
    assert same(wanted, found)


def test_open_gpu_hasher_hashes_as_python_does(tmp_path: Path) -> None:
    hasher = open_gpu_hasher("cuda", tmp_path, rivals=[])
    assert hasher is not None  # it is admitted by its hashes alone, where it has no rival
    data = torch.arange(1_000_003, dtype=torch.int64).to(torch.uint8)
    leaves, root = hasher.tree(Kind.TENSOR, data.cuda())
    found = (leaves.cpu().numpy().tobytes(), root.cpu().numpy().tobytes())
    assert found == python_tree(Kind.TENSOR, memoryview(data.numpy()))
