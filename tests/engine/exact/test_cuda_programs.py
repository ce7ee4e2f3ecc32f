"""Programs as CUDA give the reference's bits: their very text, compiled by g++ and run by an emulator of a GPU."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compiled_programs import Joined, assert_equals_reference, join, same
from emulated_gpu import Emulated, emulated_program
from random_programs import random_program
from row_programs import row_program
from test_fast_training import Windows, training

from ledger.errors import SpecificationError
from trainer.engine.exact.cuda import CudaProgram, CudaSource, bodies, folds, groups, rows, source, write_cuda
from trainer.engine.exact.functions import Builder
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.kernels import Op
from trainer.engine.exact.trial import fault_of, trial_program
from trainer.models import TransformerConfig
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role

_TOGETHER = 20
Patch = pytest.MonkeyPatch


def by_one(patch: Patch) -> None:
    """Small shapes, small kernels; rows go together however few there are."""
    patch.setattr(groups, "LEAST_LENGTH", 2)
    patch.setattr(groups, "LEAST_ROWS", 1)


def by_warps(patch: Patch) -> None:
    by_one(patch)
    patch.setattr(folds, "_ALONE", 0)
    patch.setattr(bodies, "_warps", lambda *_: (2, 2))


def by_blocks(patch: Patch) -> None:
    by_warps(patch)
    patch.setattr(rows, "_BY_WARPS", 0)
    patch.setattr(folds, "_WARPS", 0)
    patch.setattr(folds, "_SCATTER_BYTES", 64)
    patch.setattr(bodies, "_warps", lambda *_: (4, 2))


def in_parts(patch: Patch) -> None:
    """And no rows go together."""
    for name in ("_ALONE", "_WARPS", "_LONG"):
        patch.setattr(folds, name, 0)
    patch.setattr(folds, "_PART", 2)
    patch.setattr(folds, "_SCATTER_BYTES", 200)
    patch.setattr(bodies, "_slice", lambda *_: 32)


WAYS: dict[str, Callable[[Patch], None]] = {one.__name__: one for one in (by_one, by_warps, by_blocks, in_parts)}


def programs(first: int, count: int) -> Joined:
    """Half of them over every operation, half of maps and folds of rows."""
    seeds = range(first, first + count)
    return join([row_program(seed) if seed % 2 else random_program(seed) for seed in seeds])


def compare(first: int, folder: Path, *, tensor: bool, keep: bool, count: int = _TOGETHER) -> None:
    one = programs(first, count)
    fast = emulated_program(one.program, one.constants, folder, keep=keep, tensor=tensor)
    assert_equals_reference(one, fast, outputs=keep)


@pytest.mark.parametrize(
    ("first", "way", "tensor"), [(0, "by_one", False), (8, "in_parts", True), (16, "by_blocks", False)]
)
def test_cuda_program_random_programs_are_the_reference_s(
    first: int, way: str, tensor: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    WAYS[way](monkeypatch)
    compare(first, tmp_path, tensor=tensor, keep=way == "in_parts", count=8)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("way", list(WAYS))
def test_cuda_program_two_thousand_random_programs_are_the_reference_s(
    way: str, tensor: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    """Together over all parameters."""
    WAYS[way](monkeypatch)
    first = 4000 + 260 * (2 * list(WAYS).index(way) + tensor)
    for at in range(first, first + 260, _TOGETHER):
        compare(at, tmp_path, tensor=tensor, keep=bool(at // _TOGETHER % 2))


@pytest.mark.parametrize("way", ["by_warps", pytest.param("by_blocks", marks=pytest.mark.full)])
def test_cuda_program_training_steps_are_the_reference_s(way: str, tmp_path: Path, monkeypatch: Patch) -> None:
    WAYS[way](monkeypatch)
    monkeypatch.setattr(bodies, "_warps", lambda *_: (1, 1))
    built, state = training(TransformerConfig(layers=1, heads=2, width=16))
    fast = emulated_program(built.program, built.constants, tmp_path, tensor=True)
    fast.load(state)
    for step in range(2):
        state = run_program(built.program, state, built.constants, Windows(step))
        fast.step(Windows(step))
        assert same(state, fast.state()), step


class EmulatedEngine:
    name, setting, is_reference = "emulated", "emulated", False

    def __init__(self, folder: Path, *, tensor: bool) -> None:
        self.folder, self.tensor = folder, tensor

    def open(self, built: BuiltProgram) -> CudaProgram:
        return emulated_program(built.program, built.constants, self.folder, tensor=self.tensor, quickly=False)


@pytest.mark.full
@pytest.mark.parametrize("tensor", [False, True])
def test_fault_of_emulated_gpu_is_none(tensor: bool, tmp_path: Path) -> None:
    """The trial that a GPU must pass, with its large shapes."""
    assert fault_of(EmulatedEngine(tmp_path, tensor=tensor), runs=2) == ""


def test_trial_program_reaches_every_kernel() -> None:
    """Every operation of the format, every size of a tile, and folds by each number of threads."""
    text = "\n".join(
        unit.text.partition("__launch_bounds__")[2] for unit in write_cuda(trial_program()[0].program).units
    )
    for planes in ("1, 1", "2, 2", "1, 2", "2, 1"):
        assert f"tl_tile<{planes}, 1, 1, 2, 2>" in text
        assert f"tl_tile<{planes}, 0, 0, 2, 2>" in text
    assert "tl_tile<2, 2, 1, 1, 4, 2>" in text
    for kernel in ("tl_total(", "sum_run(", "tl_warp_sum", "tl_block_sum", "tl_warp_greatest", "tl_block_greatest"):
        assert kernel in text
    for kernel in ("greatest_value(", "atomicMax", "tl_mark", "tile[x][s]", "powers[x]"):
        assert kernel in text


@pytest.mark.parametrize("bits", [(8, 8), (13, 13), (8, 13)])
@pytest.mark.parametrize("tensor", [False, True])
def test_cuda_program_products_of_extremes_do_not_overflow(
    bits: tuple[int, int], tensor: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    """All values at the greatest magnitude and of both signs, over parts of K and past their end, odd sizes."""
    monkeypatch.setattr(bodies, "_slice", lambda *_: 96)
    build = ProgramBuilder(Role.GENERATE)
    rows, columns, length = 35, 67, 203
    build.state("a", DType.FLOAT32, (rows, length))
    build.state("b", DType.FLOAT32, (columns, length))
    build.state("y", DType.FLOAT32, (rows, columns))
    build.store("y", build.matmul(build.load("a"), build.load("b"), bits))
    built = build.finish()
    largest = 1.0 - 2.0**-20
    state = [torch.full((rows, length), largest), torch.full((columns, length), -largest), torch.zeros(rows, columns)]
    state[0][1, ::2] *= -1
    fast = emulated_program(built.program, built.constants, tmp_path, tensor=tensor)
    assert same(fast.run(state), run_program(built.program, state, built.constants))


def test_cuda_program_to_integer_and_back_keeps_no_negative_zero(tmp_path: Path) -> None:
    write = Builder(1)
    kernel = write.kernel(write.emit(Op.I2F, write.emit(Op.F2I, write.input(0))))
    build = ProgramBuilder(Role.GENERATE)
    for name in ("x", "y"):
        build.state(name, DType.FLOAT32, (40,))
    build.store("y", build.pointwise(kernel, build.load("x"), dtype=DType.FLOAT32))
    built = build.finish()
    state = [torch.linspace(-0.5, 0.5, 40), torch.zeros(40)]
    fast = emulated_program(built.program, built.constants, tmp_path)
    assert same(fast.run(state), run_program(built.program, state, built.constants))


def launches(program: CudaSource) -> Counter[str]:
    return Counter(one.kernel for one in program.launches)


def test_write_cuda_equal_operations_share_a_kernel() -> None:
    built, _ = training(TransformerConfig(layers=3, heads=2, width=16))
    written = write_cuda(built.program)
    kernels = [name for unit in written.units for name in unit.kernels]
    assert len(kernels) == len(set(kernels))
    assert set(kernels) == set(launches(written))
    assert len(kernels) < len(written.launches) / 2


def test_write_cuda_takes_no_name_from_the_program() -> None:
    build = ProgramBuilder(Role.GENERATE)
    name = 'x"*/#include</etc/passwd>'
    build.state(name, DType.FLOAT32, (3,))
    build.store(name, build.load(name))
    assert all("passwd" not in unit.text for unit in write_cuda(build.finish().program).units)


def test_write_cuda_says_the_rounding_of_every_float_operation() -> None:
    """No operator between floats: what a compiler may contract or approximate is not in the text."""
    write = Builder(2)
    a, b = write.input(0), write.input(1)
    whole = write.emit(Op.I2F, write.emit(Op.F2I, write.div(write.mul(a, b), write.sub(write.add(a, b), b))))
    build = ProgramBuilder(Role.GENERATE)
    build.state("x", DType.FLOAT32, (5,))
    x = build.load("x")
    kernel = write.kernel(write.emit(Op.FSQRT, whole))
    build.store("x", build.pointwise(kernel, x, x, dtype=DType.FLOAT32))
    (unit,) = write_cuda(build.finish().program).units
    body = unit.text.rpartition("tl_f0")[2]
    for operation in ("__fadd_rn", "__fsub_rn", "__fmul_rn", "__fdiv_rn", "__fsqrt_rn", "__int2float_rn"):
        assert operation in body
    made = [line for line in map(str.strip, body.splitlines()) if line.startswith("float x")]
    assert len(made) >= 6
    assert not [line for line in made if re.search(r"x\d+ [-+*/] ", line)]


def test_write_cuda_fold_too_long_refused(monkeypatch: Patch) -> None:
    monkeypatch.setattr(bodies, "_MOST_LENGTH", 39_999)
    with pytest.raises(SpecificationError, match="folds 40000 elements at once; 39999 is the most on CUDA"):
        write_cuda(trial_program()[0].program)


def test_write_cuda_too_large_refused(monkeypatch: Patch) -> None:
    built, _ = trial_program()
    monkeypatch.setattr(source, "MOST_CHARACTERS", 1000)
    with pytest.raises(SpecificationError, match="too many different operations"):
        write_cuda(built.program)
    monkeypatch.setattr(source, "MOST_SCRATCH", 1000)
    with pytest.raises(SpecificationError, match=r"folds need \d+ bytes; 1000 is the most"):
        write_cuda(built.program)


# ---- What the emulator finds ----

DAMAGES = {
    "barrier before a tile is read": (
        "__syncthreads();\n        for (uint32_t s = threadIdx.x / 32; s < 32",
        "for (uint32_t s = threadIdx.x / 32; s < 32",
    ),
    "barrier after a turn of a product": (
        "now = next, next = other;\n        __syncthreads();",
        "now = next, next = other;",
    ),
    "rows of a fragment": ("area->row + 16 * i", "area->row + 8 * i"),
    "a plane's weight": ("(1 << 7 * s)", "(1 << 6 * s)"),
    "the first lane": ("TL_WARP / 2; far; far /= 2", "TL_WARP / 4; far; far /= 2"),
}


def computed(change: Callable[[str], str], folder: Path) -> bool:
    """Whether a changed text gives the reference's bits of sums, a transposition and a product."""
    build = ProgramBuilder(Role.GENERATE)
    for name, shape in (("x", (70, 40)), ("sums", (70,)), ("turned", (40, 70)), ("products", (70, 70))):
        build.state(name, DType.FLOAT32, shape)
    x = build.load("x")
    build.store("sums", build.sum_last(x))
    build.store("turned", build.view(x.transpose()))
    build.store("products", build.matmul(x, x, (13, 13)))
    built = build.finish()
    state = [torch.randn(one.shape, generator=torch.Generator().manual_seed(2)) for one in built.program.states]
    whole = write_cuda(built.program)
    units = tuple(dataclasses.replace(unit, text=change(unit.text)) for unit in whole.units)
    kernels = Emulated(dataclasses.replace(whole, units=units), folder, tensor=True, quickly=True)
    found = CudaProgram(built.program, built.constants, whole, kernels, device="cpu").run(state)
    return same(found, run_program(built.program, state, built.constants))


def test_emulator_finds_no_damage_where_there_is_none(tmp_path: Path) -> None:
    assert computed(str, tmp_path)


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_emulator_finds_damage(damage: str, tmp_path: Path) -> None:
    """Texts with one thing wrong give other bits, so the comparisons above say something."""
    assert not computed(lambda text: text.replace(*DAMAGES[damage]), tmp_path)
