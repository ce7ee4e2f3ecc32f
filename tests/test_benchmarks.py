"""Benchmarks are run by hand, so nothing else would tell that a change has broken one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_every_benchmark_can_be_imported() -> None:
    names = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))
    assert "training_speed" in names
    subprocess.run([sys.executable, "-c", IMPORT_ALL, *names], cwd=ROOT / "benchmarks", check=True)


def test_every_benchmark_that_runs_on_a_processor_is_run_by_make() -> None:
    made = (ROOT / "Makefile").read_text()
    scripts = [path for path in (ROOT / "benchmarks").glob("*.py") if "def main(" in path.read_text()]
    assert [path.name for path in scripts if f"benchmarks/{path.name}" not in made] == ["gpu_speed.py"]
