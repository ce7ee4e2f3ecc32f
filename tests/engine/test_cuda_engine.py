"""What finds NVRTC, compiles, keeps, loads and launches, against a driver and an NVRTC that are none."""

import ctypes
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from emulated_gpu import emulated_library
from engine_bench import Notices, bits, counting, counting_state

from ledger.errors import MachineFault, ResourceError, SpecificationError
from trainer.engine.engines import ReferenceEngine, ReferenceRun
from trainer.engine.exact.cuda import CudaProgram, Run, Unit, write_cuda
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.native import CompilerError
from trainer.native import engine as choice
from trainer.native.cuda import CudaCompiler, CudaEngine, Driver, DriverError, build_units, compiler, find_nvrtc
from trainer.native.cuda import engine as cuda_engine
from trainer.native.engine import choose_engine
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role

_STREAM = 77
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fake") / "libnvrtc.so.12"
    text = Path(__file__).parent / "exact" / "fake_cuda.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", str(text), "-o", str(path)], check=True, timeout=60)
    return str(path)


def nvrtc(fake: str, architecture: int = 90) -> CudaCompiler:
    return CudaCompiler(fake, (12, 8), architecture)


def unit(text: str = "kernels") -> Unit:
    return Unit(f"{hash(text):x}", text, ("tl_f0",))


# ---- The compiler ----


@pytest.mark.parametrize(
    ("capability", "architecture", "kind"),
    [((9, 0), 90, "cubin"), ((8, 0), 80, "cubin"), ((8, 9), 80, "ptx"), ((12, 0), 90, "ptx"), ((7, 5), 75, "cubin")],
)
def test_find_nvrtc_takes_the_machine_code_or_the_newest_text_for_a_gpu(
    capability: tuple[int, int], architecture: int, kind: str, fake: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(compiler, "_libraries", lambda: iter([fake]))
    found = find_nvrtc(capability)
    assert (found.library, found.version, found.architecture, found.kind) == (fake, (12, 8), architecture, kind)


def test_find_nvrtc_of_a_gpu_too_old_refused(fake: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(compiler, "_libraries", lambda: iter([fake]))
    with pytest.raises(CompilerError, match=r"compiles for no GPU as old as this one, \(6, 1\)"):
        find_nvrtc((6, 1))


def test_find_nvrtc_without_one_says_so(monkeypatch: Patch) -> None:
    monkeypatch.setattr(compiler, "_libraries", lambda: iter([]))
    with pytest.raises(CompilerError, match="There is no NVRTC here"):
        find_nvrtc((9, 0))


def test_find_nvrtc_that_is_no_library_says_so(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "libnvrtc.so.12").write_text("nothing")
    monkeypatch.setattr(compiler, "_libraries", lambda: iter([str(tmp_path / "libnvrtc.so.12")]))
    with pytest.raises(CompilerError, match="NVRTC, which compiles programs for NVIDIA GPUs, failed"):
        find_nvrtc((9, 0))


def test_build_units_gives_the_compiler_all_options_and_keeps_what_it_made(fake: str, tmp_path: Path) -> None:
    made = build_units([unit()], tmp_path / "kept", nvrtc(fake))
    options = "--gpu-architecture=sm_90 --std=c++17 --fmad=false --ftz=false --prec-div=true --prec-sqrt=true"
    assert made[0].decode().startswith(options)
    assert made[0].endswith(b" kernels")
    (path,) = (tmp_path / "kept").iterdir()
    assert path.suffix == ".cubin"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    gone = CudaCompiler("/nowhere", (12, 8), 90)
    assert build_units([unit()], tmp_path / "kept", gone) == made
    build_units([unit()], tmp_path / "kept", nvrtc(fake, 80))
    build_units([unit("others")], tmp_path / "kept", nvrtc(fake))
    assert len(list((tmp_path / "kept").iterdir())) == 3


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "one byte short": lambda data: data[:-1],
    "one bit flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "without its hash": lambda data: data[:-32],
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_build_units_damaged_file_is_made_again(damage: str, fake: str, tmp_path: Path) -> None:
    made = build_units([unit()], tmp_path, nvrtc(fake))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(DAMAGES[damage](whole))
    assert build_units([unit()], tmp_path, nvrtc(fake)) == made
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "timeout", "says"),
    [
        ("WRONG", 60.0, r"failed: program.cu\(1\): error: WRONG is undefined"),
        ("CRASH", 60.0, "failed: exit status -6"),
        ("SLOW", 1.0, "took too long"),
        ("kernels", -1.0, "took too long"),
    ],
)
def test_build_units_compiler_that_fails_leaves_nothing(
    text: str, timeout: float, says: str, fake: str, tmp_path: Path
) -> None:
    with pytest.raises(CompilerError, match=says):
        build_units([unit(text)], tmp_path, nvrtc(fake), timeout=timeout)
    assert list(tmp_path.iterdir()) == []


def test_build_units_folder_that_cannot_be_written_is_named(fake: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"Compiled programs cannot be kept in .*: Not a directory"):
        build_units([unit()], tmp_path / "file" / "libraries", nvrtc(fake))


def test_libraries_prefer_those_of_pytorch_s_cuda(tmp_path: Path, monkeypatch: Patch) -> None:
    for name in (
        "cu13/lib/libnvrtc.so.13",
        "cuda_nvrtc/lib/libnvrtc.so.12",
        "cuda_nvrtc/lib/libnvrtc-builtins.so.12.8",
    ):
        path = tmp_path / "nvidia" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for version, first in (("12.8", ".12"), ("13.0", ".13"), (None, ".13")):
        monkeypatch.setattr(torch.version, "cuda", version)
        names = [name for name in compiler._libraries() if str(tmp_path) in name]
        assert len(names) == 2
        assert names[0].endswith(first)


# ---- The driver and the engine ----


def again_and_again(launch: Callable[[int], None]) -> Run:
    return lambda: launch(_STREAM)


def emulated(units: Sequence[Unit], folder: Path, _: CudaCompiler) -> list[bytes]:
    """Paths of emulators' libraries, which the fake driver loads."""
    return [str(emulated_library(one, folder)).encode() + b"\0" for one in units]


def cuda(folder: Path, fake: str, notices: Notices | None = None) -> CudaEngine:
    return CudaEngine(
        "cpu",  # where the emulator's memory is
        folder,
        compiler=nvrtc(fake),
        driver=Driver(library=fake),
        recorder=again_and_again,
        slow=ReferenceEngine(),
        notice=Notices() if notices is None else notices,
    )


def test_cuda_engine_runs_programs_through_the_driver(fake: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(cuda_engine, "build_units", emulated)
    built, state = counting(), counting_state()
    run = cuda(tmp_path, fake).open(built)
    assert isinstance(run, CudaProgram)
    run.load(state)
    for _ in range(3):
        run.step()
        state = run_program(built.program, state, built.constants)
        assert bits(run.state()) == bits(state)
    library = ctypes.CDLL(fake)
    launches = 3 * len(write_cuda(built.program).launches)
    assert ctypes.c_uint64.in_dll(library, "fake_launches").value == launches
    assert ctypes.c_uint64.in_dll(library, "fake_stream").value == _STREAM


def test_cuda_engine_compiles_a_program_once(fake: str, tmp_path: Path, monkeypatch: Patch) -> None:
    asked = []
    monkeypatch.setattr(cuda_engine, "build_units", lambda *given: asked.append(given) or emulated(*given))
    engine = cuda(tmp_path, fake)
    engine.open(counting())
    engine.open(counting())
    assert len(asked) == 1
    engine.open(counting(2))
    assert len(asked) == 2


@pytest.mark.parametrize("error", [CompilerError("No."), DriverError("No."), SpecificationError("No.")])
def test_cuda_engine_what_cannot_be_compiled_runs_on_the_reference_and_says_so_once(
    error: Exception, fake: str, tmp_path: Path, monkeypatch: Patch
) -> None:
    def refuse(*_: object) -> list[bytes]:
        raise error

    monkeypatch.setattr(cuda_engine, "build_units", refuse)
    notices = Notices()
    engine = cuda(tmp_path, fake, notices)
    for _ in range(2):
        assert isinstance(engine.open(counting()), ReferenceRun)
    assert notices == ["No. The program runs on the reference interpreter, which is slow."]


def test_driver_that_is_not_there_or_refuses_says_so(fake: str, tmp_path: Path) -> None:
    with pytest.raises(DriverError, match=r"The CUDA driver cannot be loaded: .*no-such-driver"):
        Driver(library="no-such-driver.so")
    Driver(1, library=fake)
    with pytest.raises(DriverError, match="The CUDA driver refuses cuDeviceGet: invalid device ordinal"):
        Driver(2, library=fake)
    with pytest.raises(DriverError, match="refuses cuModuleLoadData: fault"):
        cuda_engine.GpuKernels([unit()], [b"/nowhere\0"], Driver(library=fake), again_and_again)


# ---- Which engine a GPU gets ----


@pytest.fixture
def _a_gpu(monkeypatch: Patch) -> None:
    monkeypatch.setattr(choice, "check_device", lambda _: None)
    monkeypatch.setattr(choice, "admitted_backends", lambda _: {"int8": "", "float64": "", "float32": "no"})
    monkeypatch.setattr(choice, "fastest", lambda names, _: names[0])


@pytest.mark.usefixtures("_a_gpu")
def test_choose_engine_of_a_gpu_takes_the_compiled_one(tmp_path: Path, monkeypatch: Patch) -> None:
    opened = object()
    monkeypatch.setattr(choice, "open_cuda", lambda *_, **__: opened)
    notices = Notices()
    assert choose_engine("cuda", tmp_path, notice=notices) is opened
    assert notices == []


@pytest.mark.usefixtures("_a_gpu")
@pytest.mark.parametrize("error", [CompilerError("No."), DriverError("No."), MachineFault("No.")])
def test_choose_engine_of_a_gpu_without_what_it_needs_takes_the_reference_there_and_says_so(
    error: Exception, tmp_path: Path, monkeypatch: Patch
) -> None:
    def refuse(*_: object, **__: object) -> CudaEngine:
        raise error

    monkeypatch.setattr(choice, "open_cuda", refuse)
    notices = Notices()
    chosen = choose_engine("cuda:1", tmp_path, notice=notices)
    assert (chosen.name, chosen.setting) == ("reference", "reference cuda:1 all")
    assert notices == ["No. Programs run on the reference interpreter on cuda:1, which is slow."]


@pytest.mark.usefixtures("_a_gpu")
def test_choose_engine_of_a_gpu_gives_the_reference_where_it_is_asked_for(tmp_path: Path) -> None:
    assert choose_engine("cuda", tmp_path, reference=True, notice=Notices()).name == "reference"


def test_reference_engine_on_a_gpu_is_compared_with_the_one_on_the_processor() -> None:
    assert ReferenceEngine().is_reference
    assert not ReferenceEngine("cuda").is_reference


def reading() -> tuple[BuiltProgram, list[torch.Tensor]]:
    """A program that gives the same at every run, and a state for it."""
    build = ProgramBuilder(Role.GENERATE)
    build.state("kept", DType.FLOAT32, (6,))
    build.state("read", DType.INT64, (6,))
    same = Kernel(1, (Instruction(Op.INPUT),))
    build.store("read", build.pointwise(same, build.load("kept"), dtype=DType.INT32))
    return build.finish(), counting_state()[1:]


class Wrong(CudaProgram):
    def state(self) -> list[torch.Tensor]:
        return [*super().state()[:-1], super().state()[-1] + 1]


def test_open_cuda_gpu_that_computes_otherwise_refused(fake: str, tmp_path: Path, monkeypatch: Patch) -> None:
    """The trial is stood in for by a small program; the true one is in test_cuda_programs."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(cuda_engine, "find_nvrtc", lambda _: nvrtc(fake))
    monkeypatch.setattr(cuda_engine, "Driver", lambda _: Driver(library=fake))
    monkeypatch.setattr(cuda_engine, "recorder", lambda _: again_and_again)
    monkeypatch.setattr(cuda_engine, "build_units", emulated)
    monkeypatch.setattr("trainer.engine.exact.trial.trial_program", reading)
    opened = cuda_engine.open_cuda("cpu", tmp_path, slow=ReferenceEngine(), notice=Notices())
    assert opened.name == "compiled"
    monkeypatch.setattr(cuda_engine, "CudaProgram", Wrong)
    with pytest.raises(
        MachineFault, match="What is compiled for cpu does not compute exactly: read of 2 results differ"
    ):
        cuda_engine.open_cuda("cpu", tmp_path, slow=ReferenceEngine(), notice=Notices())
