"""Compiled programs give the reference's bits: random programs over every operation, and what else can go wrong."""

from pathlib import Path

import pytest
import torch
from compiled_programs import assert_equals_reference, compiler, joined, same

from trainer.engine.exact.fast import CompiledProgram, write_source
from trainer.engine.exact.functions import Builder
from trainer.engine.exact.interpreter import run_program
from trainer.engine.exact.kernels import Kernel, Op
from trainer.native import Compiler, CompilerError, compiled_program, find_compiler
from trainer.program.exact import BuiltProgram, DType, ProgramBuilder, Role

_TOGETHER = 20


def compare(first: int, folder: Path, *, keep: bool, threads: int, options: tuple[str, ...] = ()) -> None:
    one = joined(range(first, first + _TOGETHER))
    using = compiler(*options)
    fast = compiled_program(one.program, one.constants, folder, compiler=using, threads=threads, keep=keep)
    assert_equals_reference(one, fast, outputs=keep)


def test_compiled_program_random_programs_every_output_is_the_reference_s(tmp_path: Path) -> None:
    compare(0, tmp_path, keep=True, threads=1)


@pytest.mark.parametrize("first", range(20, 200, _TOGETHER))
def test_compiled_program_random_programs_compiled_quickly_are_the_reference_s(first: int, tmp_path: Path) -> None:
    """Without the vectoriser, which takes most of a compiler's time; the text is the same."""
    keep = first % 40 == 0
    compare(first, tmp_path, keep=keep, threads=1 if keep else 2, options=("-O1",))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_compiled_program_two_thousand_random_programs_are_the_reference_s(tmp_path: Path) -> None:
    for first in range(1000, 3000, _TOGETHER):
        compare(first, tmp_path, keep=bool(first // _TOGETHER % 2), threads=1 + first // _TOGETHER % 3)


def unary(kernel: Kernel, length: int, dtype: DType = DType.FLOAT32) -> BuiltProgram:
    build = ProgramBuilder(Role.GENERATE)
    build.state("x", DType.FLOAT32, (length,))
    build.state("y", DType.FLOAT32 if dtype is DType.FLOAT32 else DType.INT64, (length,))
    build.store("y", build.pointwise(kernel, build.load("x"), dtype=dtype))
    return build.finish()


def test_compiled_program_to_integer_and_back_keeps_no_negative_zero(tmp_path: Path) -> None:
    """gcc 12 takes float(int(x)) for trunc(x) where it may: -0.25 must become +0."""
    build = Builder(1)
    built = unary(build.kernel(build.emit(Op.I2F, build.emit(Op.F2I, build.input(0)))), 40)
    fast = compiled_program(built.program, built.constants, tmp_path, compiler=compiler())
    state = [torch.linspace(-0.5, 0.5, 40), torch.zeros(40)]
    assert same(fast.run(state), run_program(built.program, state, built.constants))


def test_compiled_program_square_roots_and_quotients_are_correctly_rounded(tmp_path: Path) -> None:
    build = Builder(1)
    root = build.emit(Op.FSQRT, build.input(0))
    built = unary(build.kernel(build.emit(Op.FDIV, root, build.word(0x40400000))), 100_000)
    bits = torch.randint(0, 0x7F800000, (100_000,), generator=torch.Generator().manual_seed(3))
    state = [bits.to(torch.int32).view(torch.float32), torch.zeros(100_000)]
    fast = compiled_program(built.program, built.constants, tmp_path, compiler=compiler(), threads=2)
    assert same(fast.run(state), run_program(built.program, state, built.constants))


@pytest.mark.parametrize("bits", [(8, 8), (13, 13), (8, 13), (13, 8)])
def test_compiled_program_products_of_extremes_do_not_overflow(bits: tuple[int, int], tmp_path: Path) -> None:
    """All values at the greatest magnitude, over slices of K and past their end, odd sizes."""
    build = ProgramBuilder(Role.GENERATE)
    rows, columns, length = 7, 67, 300
    build.state("a", DType.FLOAT32, (rows, length))
    build.state("b", DType.FLOAT32, (columns, length))
    build.state("y", DType.FLOAT32, (rows, columns))
    build.store("y", build.matmul(build.load("a"), build.load("b"), bits))
    built = build.finish()
    largest = 1.0 - 2.0**-20
    state = [torch.full((rows, length), largest), torch.full((columns, length), -largest), torch.zeros(rows, columns)]
    state[0][1, ::2] *= -1
    fast = compiled_program(built.program, built.constants, tmp_path, compiler=compiler())
    assert same(fast.run(state), run_program(built.program, state, built.constants))


def counter() -> BuiltProgram:
    build = ProgramBuilder(Role.TRAIN)
    build.state("count", DType.INT64, (3,))
    build.state("kept", DType.FLOAT32, (2,))
    add = Builder(1)
    kernel = add.kernel(add.emit(Op.IADD, add.input(0), add.word(1)))
    build.store("count", build.pointwise(kernel, build.load("count"), dtype=DType.INT32))
    return build.finish()


def test_compiled_program_step_goes_on_from_the_state_it_left(tmp_path: Path) -> None:
    built = counter()
    fast = compiled_program(built.program, built.constants, tmp_path, compiler=compiler())
    fast.load([torch.tensor([0, -5, 2**31 - 2]), torch.tensor([1.5, 2.5])])
    for _ in range(3):
        fast.step()
    count, kept = fast.state()
    assert count.tolist() == [3, -2, -(2**31) + 1]
    assert kept.tolist() == [1.5, 2.5]


def test_compiled_program_wrong_state_refused(tmp_path: Path) -> None:
    built = counter()
    fast = compiled_program(built.program, built.constants, tmp_path, compiler=compiler())
    with pytest.raises(ValueError, match="the state tensors are"):
        fast.load([torch.zeros(3), torch.zeros(2)])


def test_compiled_program_too_many_threads_refused(tmp_path: Path) -> None:
    built = counter()
    with pytest.raises(ValueError, match="1 to 64 threads, not 65"):
        compiled_program(built.program, built.constants, tmp_path, compiler=compiler(), threads=65)


def test_compiled_program_second_time_comes_from_the_folder(tmp_path: Path) -> None:
    built = counter()
    compiled_program(built.program, built.constants, tmp_path, compiler=compiler())
    (library,) = tmp_path.iterdir()
    written = library.stat().st_mtime_ns
    broken = Compiler("/nonexistent/compiler", compiler().identity)
    again = compiled_program(built.program, built.constants, tmp_path, compiler=broken)
    assert isinstance(again, CompiledProgram)
    assert library.stat().st_mtime_ns == written


def test_compiled_program_another_compiler_or_processor_is_another_file(tmp_path: Path) -> None:
    built = counter()
    for identity in ("one", "two"):
        compiled_program(built.program, built.constants, tmp_path, compiler=Compiler(compiler().path, identity))
    assert len(list(tmp_path.iterdir())) == 2


def test_compiled_program_failing_compiler_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    built = counter()
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\necho no room >&2\nexit 1\n")
    script.chmod(0o755)
    folder = tmp_path / "kept"
    with pytest.raises(CompilerError, match="The C compiler failed: no room"):
        compiled_program(built.program, built.constants, folder, compiler=Compiler(str(script), "failing"))
    assert list(folder.iterdir()) == []


def test_compiled_program_out_of_time_is_an_error(tmp_path: Path) -> None:
    built = counter()
    with pytest.raises(CompilerError, match="took too long"):
        compiled_program(built.program, built.constants, tmp_path, compiler=compiler(), timeout=0.01)
    assert list(tmp_path.iterdir()) == []


def test_find_compiler_without_one_says_what_runs_instead() -> None:
    with pytest.raises(CompilerError, match="reference interpreter"):
        find_compiler("no-such-compiler")


def test_write_source_takes_no_name_from_the_program() -> None:
    build = ProgramBuilder(Role.GENERATE)
    name = 'x"*/#include</etc/passwd>'
    build.state(name, DType.FLOAT32, (3,))
    build.store(name, build.load(name))
    assert all("passwd" not in unit for unit in write_source(build.finish().program).units)


def test_native_code_compiles_without_vector_instructions(tmp_path: Path) -> None:
    """The parts for other processors: the whole library, for the oldest 64-bit machine of this kind."""
    one = joined(range(300, 305))
    using = compiler("-march=x86-64")
    plain = compiled_program(one.program, one.constants, tmp_path, compiler=using, keep=True)
    assert_equals_reference(one, plain, outputs=True)
