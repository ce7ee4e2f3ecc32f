"""NVRTC takes the very text that the emulator runs, and makes of it no float operation that is not asked for."""

import re
from pathlib import Path

import pytest
from compiled_programs import joined
from test_fast_training import training

from trainer.engine.exact.cuda import Unit, write_cuda
from trainer.engine.exact.trial import trial_program
from trainer.models import TransformerConfig
from trainer.native.cuda import build_units, compiler, find_nvrtc
from trainer.program.exact import Program

pytestmark = [pytest.mark.nvrtc, pytest.mark.timeout(600)]

# An instruction on floats: name, rounding and whatever else is said of it.
_FLOATS = re.compile(r"\b(?:add|sub|mul|div|sqrt|fma|mad|cvt|rcp|rsqrt|ex2|lg2)\.[a-z0-9.]*f32[a-z0-9.]*")
_ALLOWED = {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "div.rn.f32", "sqrt.rn.f32"}
_ALLOWED |= {"cvt.rn.f32.s32", "cvt.rn.f32.s64", "cvt.rni.s32.f32"}
PROGRAMS = {
    "trial": lambda: trial_program()[0].program,
    "random": lambda: joined(range(12)).program,
    "training": lambda: training(TransformerConfig(layers=1, heads=2, width=64))[0].program,
}


def units(program: Program) -> tuple[Unit, ...]:
    return write_cuda(program).units


def ptx(program: Program, folder: Path, architecture: int = 80) -> str:
    using = find_nvrtc((architecture // 10, architecture % 10), ptx=True)
    return b"\n".join(build_units(units(program), folder, using)).replace(b"\0", b"").decode()


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_nvrtc_ptx_has_the_rounded_operations_and_no_other(name: str, tmp_path: Path) -> None:
    text = ptx(PROGRAMS[name](), tmp_path)
    found = set(_FLOATS.findall(text))
    assert found <= _ALLOWED
    assert found == _ALLOWED or name != "trial"
    assert not re.findall(r"fma\.|\.ftz|\.approx|\.full", text)
    assert "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32" in text
    assert "ldmatrix" in text
    assert ".local" not in text  # what does not fit the registers would


def test_nvrtc_contracts_nothing_even_where_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says the rounding of each operation, so the option that forbids contraction is not what holds it."""
    loose = tuple("--fmad=true" if one == "--fmad=false" else one for one in compiler.OPTIONS)
    monkeypatch.setattr(compiler, "OPTIONS", loose)
    text = ptx(PROGRAMS["random"](), tmp_path)
    assert "mul.rn.f32" in text
    assert "fma" not in text


def test_nvrtc_of_old_gpus_has_no_tensor_cores(tmp_path: Path) -> None:
    text = ptx(PROGRAMS["training"](), tmp_path, architecture=75)
    assert "dp4a" in text
    assert "mma.sync" not in text


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (9, 0)])
def test_nvrtc_makes_machine_code(capability: tuple[int, int], tmp_path: Path) -> None:
    using = find_nvrtc(capability)
    assert using.kind == "cubin"
    made = build_units(units(PROGRAMS["training"]()), tmp_path, using)
    assert all(data[:4] == b"\x7fELF" for data in made)
