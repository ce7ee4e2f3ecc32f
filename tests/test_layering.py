"""The house's walls: who may import whom, and what may touch files, networks and the chain."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STANDARD = set(sys.stdlib_module_names)
# What computes does no input or output. Paths are relative to the repository.
PURE = [
    "trainer/commit",
    "trainer/engine",
    "trainer/program",
    "trainer/models",
    "trainer/dispute/committed.py",
    "trainer/dispute/evidence.py",
    "trainer/dispute/explain.py",
    "trainer/dispute/folding.py",
    "trainer/dispute/judge.py",
    "trainer/dispute/proving.py",
    "trainer/dispute/rules.py",
    "trainer/dispute/runs.py",
    "trainer/dispute/solver.py",
    "trainer/dispute/sources.py",
    "trainer/dispute/subjects.py",
    "trainer/dispute/truth.py",
    "trainer/dispute/values.py",
    "trainer/open/policy.py",
    "trainer/open/scoring.py",
    "ledger/attempts.py",
    "ledger/performance.py",
    "ledger/rounds.py",
    "ledger/unpaid.py",
    "ledger/canonical.py",
    "ledger/types.py",
    "ledger/errors.py",
    "ledger/audits/records.py",
    "ledger/open/records.py",
    "ledger/open/words.py",
    "ledger/disputes/abi.py",
    "ledger/disputes/moves.py",
    "ledger/disputes/positions.py",
    "ledger/disputes/words.py",
]
IMPURE_MODULES = {
    "socket",
    "urllib",
    "http",
    "requests",
    "fsspec",
    "web3",
    "subprocess",
    "shutil",
    "tempfile",
    "sqlite3",
}
IMPURE_CALLS = {"open", "input", "print", "exec", "eval"}
LINE_LIMIT = 450


def python_files(*places: str) -> list[Path]:
    files: list[Path] = []
    for place in places:
        path = ROOT / place
        files += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return files


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, at any depth of nesting."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def test_ledger_imports_neither_torch_nor_trainer() -> None:
    files = python_files("ledger")
    assert files
    for path in files:
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & {"torch", "trainer", "numpy"}, path


def test_engine_imports_only_torch_numpy_and_itself() -> None:
    files = python_files("trainer/engine")
    assert len(files) >= 3
    for path in files:
        for name in imports_of(path):
            top = name.split(".")[0]
            allowed = top in STANDARD or top in {"torch", "numpy"}
            inside = name.startswith(("trainer.engine", "trainer.models", "trainer.program", "trainer.commit"))
            assert allowed or inside or name.startswith("ledger.errors"), f"{path} imports {name}"


@pytest.mark.parametrize("place", PURE)
def test_what_computes_does_no_io(place: str) -> None:
    files = python_files(place)
    assert files, place
    for path in files:
        tops = {name.split(".")[0] for name in imports_of(path)}
        assert not tops & IMPURE_MODULES, f"{path} imports {tops & IMPURE_MODULES}"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in IMPURE_CALLS, f"{path}:{node.lineno} calls {node.func.id}"


def test_contracts_interfaces_do_not_import_implementations() -> None:
    files = sorted((ROOT / "contracts/interfaces").glob("*.sol"))
    assert len(files) >= 3
    for path in files:
        for line in path.read_text().splitlines():
            if line.startswith("import"):
                assert "../types/" in line or '"./' in line, f"{path}: {line}"


def test_no_file_outgrows_its_room() -> None:
    files = python_files("ledger", "trainer", "tests", "tools", "benchmarks", "examples")
    files += sorted((ROOT / "contracts").rglob("*.sol"))
    too_long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    too_long = {name: lines for name, lines in too_long.items() if lines > LINE_LIMIT}
    assert not too_long
