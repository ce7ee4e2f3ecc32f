"""Which engine a machine gets, and what becomes of one that cannot be had; the folder of compiled programs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_bench import Notices, compiled_engine, counting, counting_state

from ledger.errors import ResourceError, SettingsError
from trainer.engine.engines import ReferenceRun
from trainer.engine.exact.fast import CompiledProgram, source, write_source
from trainer.native.compiler import Compiler, build_library, find_compiler
from trainer.native.engine import available_threads, choose_engine


def test_choose_engine_takes_the_compiler_where_there_is_one(tmp_path: Path) -> None:
    notices = Notices()
    chosen = choose_engine("cpu", tmp_path, notice=notices)
    assert (chosen.name, chosen.is_reference, notices) == ("compiled", False, [])
    assert isinstance(chosen.open(counting()), CompiledProgram)
    reference = choose_engine("cpu", tmp_path, reference=True, notice=notices)
    assert (reference.name, reference.is_reference, notices) == ("reference", True, [])
    assert isinstance(reference.open(counting()), ReferenceRun)


def test_choose_engine_without_a_compiler_takes_the_reference_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices = Notices()
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = choose_engine("cpu", tmp_path / "libraries", notice=notices)
    assert isinstance(chosen.open(counting()), ReferenceRun)
    assert len(notices) == 1
    assert notices[0].startswith("There is no C compiler gcc here")
    assert notices[0].endswith("That is slow: install gcc.")


def test_choose_engine_device_that_is_not_there_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="The device cuda:97 cannot be used"):
        choose_engine("cuda:97", tmp_path, notice=Notices())


def test_available_threads_are_those_of_the_process() -> None:
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    script += "from trainer.native.engine import available_threads; print(available_threads())"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert child.stdout.strip() == "1"
    assert 1 <= available_threads() <= 64


def broken_compiler(folder: Path, script: str) -> Compiler:
    path = folder / "broken-compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Compiler(str(path), "0" * 64)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'unit0.c: internal error' >&2; exit 1", "The C compiler failed: unit0.c: internal error"),
        # Makes a file that is no library.
        ('while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"', "cannot be loaded"),
    ],
)
def test_compiled_engine_broken_compiler_runs_on_the_reference_and_says_so_once(
    tmp_path: Path, script: str, says: str
) -> None:
    notices = Notices()
    chosen = compiled_engine(tmp_path / "libraries", compiler=broken_compiler(tmp_path, script), notice=notices)
    for _ in range(2):
        run = chosen.open(counting())
        assert isinstance(run, ReferenceRun)
        run.load(counting_state())
        run.step()
        assert int(run.tensor(0)) == 1
    assert len(notices) == 1
    assert says in notices[0]
    assert notices[0].endswith("The program runs on the reference interpreter, which is slow.")
    chosen.open(counting(2))
    assert len(notices) == 2  # another program, another notice


def test_compiled_engine_program_too_large_runs_on_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MOST_CHARACTERS", 10)
    notices = Notices()
    assert isinstance(compiled_engine(tmp_path, notice=notices).open(counting()), ReferenceRun)
    assert notices[0].startswith("The program has too many different operations to be compiled.")


def test_compiled_engine_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "libraries"
    with pytest.raises(ResourceError, match=f"Compiled programs cannot be kept in {folder}: Not a directory") as caught:
        compiled_engine(folder).open(counting())
    assert "TRAINLEDGER_LIBRARIES" in caught.value.remedy


# ---- The folder of libraries ----


def one_library(folder: Path) -> Path:
    (path,) = folder.iterdir()  # and nothing else is left there
    return path


def test_compiled_engine_keeps_one_library_for_its_own_user(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "libraries"
    for _ in range(2):
        compiled_engine(folder).open(counting())
    assert one_library(folder).suffix == ".so"
    assert folder.stat().st_mode & 0o777 == 0o700
    compiled_engine(folder).open(counting(2))
    assert len(list(folder.iterdir())) == 2


def test_compiled_engine_takes_a_library_that_is_there(tmp_path: Path) -> None:
    compiled_engine(tmp_path).open(counting())
    before = one_library(tmp_path).stat().st_mtime_ns
    found = find_compiler()
    gone = Compiler("/nowhere/gcc", found.identity, found.options)
    assert isinstance(compiled_engine(tmp_path, compiler=gone).open(counting()), CompiledProgram)
    assert one_library(tmp_path).stat().st_mtime_ns == before


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "text": lambda data: b"not a library",
    "head alone": lambda data: data[:64],
    "half": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one bit flipped": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
    "without its hash": lambda data: data[:-32],
    "zeros": lambda data: bytes(len(data)),
}
_OPEN = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from engine_bench import compiled_engine, counting, counting_state
for damage in sys.argv[4:]:
    print(damage, end=" ", flush=True)
    run = compiled_engine(Path(sys.argv[3]) / damage).open(counting())
    run.load(counting_state())
    run.step()
    print(int(run.tensor(0)), flush=True)
"""


def test_compiled_engine_damaged_library_is_built_again(tmp_path: Path) -> None:
    """A loader dies of a library that ends too early, so a process of its own looks; it says how far it came."""
    path = build_library(write_source(counting().program), tmp_path / "whole", find_compiler())
    whole = path.read_bytes()
    for name, damaged in DAMAGES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / path.name).write_bytes(damaged(whole))
    here = Path(__file__).parent
    child = subprocess.run(
        [sys.executable, "-c", _OPEN, str(here), str(here / "exact"), str(tmp_path), *DAMAGES],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (child.returncode, child.stdout.splitlines()) == (0, [f"{name} 1" for name in DAMAGES]), child.stderr
    for name in DAMAGES:
        assert one_library(tmp_path / name).name == path.name
        assert one_library(tmp_path / name).read_bytes() == whole, name
