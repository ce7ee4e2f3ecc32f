"""`trainledger program`: tracing a task file, and reading what was traced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import PROJECT
from typer.testing import CliRunner, Result

from trainer.cli import app
from trainer.program.exact.encoding import program_root
from trainer.program.exact.validate import load_program

EXAMPLE = str(PROJECT / "examples" / "quick.toml")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["program", *words])


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "step.program"
    result = run("trace", EXAMPLE, "--to", str(file), "--json")
    assert result.exit_code == 0, result.output
    return file


def test_trace_and_show_agree_about_the_same_program(traced: Path) -> None:
    again = json.loads(run("trace", EXAMPLE, "--json").stdout)
    shown = json.loads(run("show", str(traced), "--json").stdout)
    program = load_program(traced.read_bytes())
    assert again == shown
    assert shown["root"] == "0x" + program_root(program).hex()
    assert shown["bytes"] == traced.stat().st_size
    # metric, counter, and parameters with two moments each
    assert (shown["state_tensors"] - 2) % 3 == 0
    assert shown["flops"] == 2 * shown["multiply_adds"] + shown["instructions"] + shown["folded"]
    assert shown["operations"]["MATMUL"] > 0
    assert sum(shown["operations"].values()) == len(program.operations)


def test_show_list_has_a_line_for_every_operation(traced: Path) -> None:
    result = run("show", str(traced), "--list")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) >= len(load_program(traced.read_bytes()).operations)
    assert "MATMUL" in result.stdout


def test_show_damaged_program_is_refused_in_words(traced: Path, tmp_path: Path) -> None:
    data = bytearray(traced.read_bytes())
    data[0:4] = b"\xff\xff\xff\xff"
    (tmp_path / "bad").write_bytes(data)
    result = run("show", str(tmp_path / "bad"))
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output


def test_show_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    result = run("show", str(tmp_path / "nothing"))
    assert result.exit_code == 2
    assert f"The program file {tmp_path / 'nothing'} cannot be read: No such file or directory." in result.stderr


def test_trace_task_file_with_a_wrong_model_names_the_field(tmp_path: Path) -> None:
    text = Path(EXAMPLE).read_text().replace("width = 64", "width = 66")
    (tmp_path / "wrong.toml").write_text(text)
    result = run("trace", str(tmp_path / "wrong.toml"))
    assert result.exit_code == 2
    assert "program.model.width is 66, which 4 heads do not divide." in result.stderr
