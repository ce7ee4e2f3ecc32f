from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
from types import ModuleType

import pytest
from command_line import PROJECT
from typer.main import get_command

from trainer.cli import app


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_reference", PROJECT / "tools" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()
COMMANDS = {" ".join(path): command for path, command in TOOL.commands(get_command(app))}
WANTED = """up, deploy, account new, account list, account import, account fund, account show, account authorise,
account payout, account stake, account unbond, account send, task create, task list, task show, task close, task settle,
open create, open work, open serve, open audit,
open list, open show, open close, open finalise, open question, open acknowledge,
auditor enrol, auditor resign, auditor status, auditor fund, auditor budget, auditor refund,
dispute list, dispute show, dispute settle, dispute release, dispute play, audit,
rewards, rewards explain, why-not-paid, withdraw, checkpoint list, checkpoint export,
worker run, fleet up, verify, generate, program trace, program show, program cost, selftest, demo"""


def test_commands_are_all_there() -> None:
    assert set(COMMANDS) == {" ".join(name.split()) for name in WANTED.split(",")}


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_an_example_and_helpful_options(name: str) -> None:
    command = COMMANDS[name]
    text = inspect.cleandoc(command.help or "")
    assert text.split("\n")[0].endswith((".", ":"))
    assert f"trainledger {name}" in text
    for parameter in command.params:
        assert parameter.name == "help" or parameter.help, parameter.name


def test_reference_names_every_command_and_option() -> None:
    text = (PROJECT / "docs" / "cli.md").read_text()
    for name, command in COMMANDS.items():
        assert f"## trainledger {name}\n" in text
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else ():
                assert option in text, (name, option)


def test_reference_is_current() -> None:
    tool = [sys.executable, str(PROJECT / "tools" / "cli_reference.py"), "--check"]
    result = subprocess.run(tool, capture_output=True, text=True, check=False, timeout=60)
    assert result.stderr == ""
    assert result.returncode == 0
