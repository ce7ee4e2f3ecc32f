"""A wheel works on a machine with no Node and no clone of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ledger.compile import compile_contracts, export_artifacts

ROOT = Path(__file__).resolve().parent.parent


def build(source: Path, folder: Path) -> Path:
    """Builds a wheel of the project as it stands in `source`, and unpacks it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with only the unpacked wheel and no Node on PATH."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "PATH": "/nowhere"}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=installed.parent, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the build reads, copied, so that a test can leave something out."""
    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    for package in ("ledger", "trainer"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "_artifacts.json"))
    return copy


def test_wheel_carries_the_compiled_contracts(source: Path, tmp_path: Path) -> None:
    shutil.copy(export_artifacts(), source / "ledger/_artifacts.json")
    program = (
        "import json, ledger.compile as c\n"
        "print(json.dumps([c.__file__, {name: one.code_hash() for name, one in c.compile_contracts().items()}]))"
    )
    done = run(build(source, tmp_path / "wheel"), program)
    assert done.returncode == 0, done.stderr
    place, hashes = json.loads(done.stdout)
    assert str(tmp_path) in place
    assert hashes == {name: one.code_hash() for name, one in compile_contracts().items()}
    assert "TrainingLedger" in hashes


def test_wheel_carries_every_file_of_its_packages(source: Path, tmp_path: Path) -> None:
    """Among them the C that programs are compiled with and states are hashed by."""
    installed = build(source, tmp_path / "wheel")
    files = {path.relative_to(source) for name in ("ledger", "trainer") for path in (source / name).rglob("*.*")}
    assert {Path("trainer/engine/exact/native/steps.c"), Path("trainer/native/sha256/tree.c")} <= files
    assert {path for path in files if not (installed / path).is_file()} == set()


def test_wheel_without_compiled_contracts_says_what_to_install(source: Path, tmp_path: Path) -> None:
    program = "from ledger.compile import compile_contracts\ncompile_contracts()"
    done = run(build(source, tmp_path / "wheel"), program)
    assert done.returncode == 1
    assert "has neither the contracts' sources nor compiled contracts" in done.stderr
    assert "make wheel" in done.stderr


def test_wheel_runs_its_command_line_from_anywhere(source: Path, tmp_path: Path) -> None:
    shutil.copy(export_artifacts(), source / "ledger/_artifacts.json")
    done = run(
        build(source, tmp_path / "wheel"),
        "import sys; sys.argv[1:] = ['worker', 'run', '--help']\nfrom trainer.cli import main; main()",
    )
    assert done.returncode == 0, done.stderr
    assert "--exit-when-done" in done.stdout
    assert (tmp_path / "wheel/installed/trainer/demo/task.toml").exists()
