"""Writes docs/cli.md, the reference of all commands, from their own help.

python tools/cli_reference.py            writes the file
python tools/cli_reference.py --check    exits 1 where the file is not what would be written
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from typer.main import get_command  # noqa: E402  # the path must be set first

from ledger.cli.common import common_option_names  # noqa: E402  # as above
from ledger.settings import SETTINGS  # noqa: E402  # as above
from trainer.cli import app  # noqa: E402  # as above

TARGET = ROOT / "docs" / "cli.md"
_EXIT_CODES = (
    (0, "done"),
    (1, "a bug; run again with `--verbose` and report it"),
    (2, "a flag, a setting, a key or a file that you wrote is wrong"),
    (3, "the chain cannot be used as asked: unreachable, another one, no funds, a refused call"),
    (4, "stored data are missing or corrupt, or a replay gave another result"),
    (5, "the disk or the memory is full"),
    (6, "a program that trainledger needs is not installed"),
    (7, "the lease that a worker trained under is no longer its own"),
    (130, "interrupted"),
)
_HEAD = """# Command line

<!-- Written by tools/cli_reference.py from the commands' own help. Change that, then run it again. -->

`trainledger COMMAND --help` prints the same for one command. Amounts are tokens, exact decimals like `1.5`.
Results go to standard output, remarks and errors to standard error. An error is one sentence and, on a second line,
what to try; with `--json` it is one JSON object with `error`, `problem`, `remedy` and `exit_code`. In JSON an amount is
`{"wei": "…", "tokens": "…"}`, both exact decimal strings.
"""


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands that do something, with their full names, in the order of the help."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield (*path, name), command
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def parameter_rows(parameters: list[Any]) -> list[tuple[str, str]]:
    """(how to write it, what it means) for each parameter."""
    rows = []
    for parameter in parameters:
        argument = parameter.param_type_name == "argument"
        if argument:
            usage = parameter.metavar or parameter.name.upper()
            usage = usage if parameter.required else f"[{usage}]"
        else:
            usage = ", ".join(parameter.opts)
            if not parameter.is_flag:
                usage += " " + (parameter.metavar or "VALUE")
        text = parameter.help or ""
        default = parameter.default
        if not argument and default not in (None, False, ()) and not callable(default):
            text += f" Default: {default if str(default).isprintable() else repr(default)}."
        rows.append((usage, text))
    return rows


def section(path: tuple[str, ...], command: Any) -> str:
    """The text about one command."""
    own = [item for item in command.params if item.name not in common_option_names() and item.name != "help"]
    lines = [f"## trainledger {' '.join(path)}", "", inspect.cleandoc(command.help or ""), ""]
    if own:
        lines += _table(parameter_rows(own), "option")
    return "\n".join(lines)


def _table(rows: list[tuple[str, str]], first: str) -> list[str]:
    lines = [f"| {first} | meaning |", "| --- | --- |"]
    lines += [f"| `{usage}` | {text.replace('|', chr(92) + '|')} |" for usage, text in rows]
    return [*lines, ""]


def reference() -> str:
    """The whole document."""
    # The help is the same on every terminal and in every home.
    os.environ["COLUMNS"] = "100"
    root = get_command(app)
    found = list(commands(root))
    parts = [_HEAD, "| command | what it does |\n| --- | --- |"]
    for path, command in found:
        anchor = "-".join(("trainledger", *path))
        first = inspect.cleandoc(command.help or "").split("\n\n")[0].replace("\n", " ")
        parts[-1] += f"\n| [{' '.join(path)}](#{anchor}) | {first} |"
    common = [item for item in root.params if item.name in common_option_names()]
    parts += [
        "\n## Common options\n\nBefore or after every command:\n",
        "\n".join(_table(parameter_rows(common), "option")),
    ]
    parts += [_settings(), _codes(), *(section(path, command) for path, command in found)]
    return "\n".join(parts).rstrip() + "\n"


def _settings() -> str:
    head = (
        "## Settings\n\nA flag wins over the environment, which wins over the TOML file (`config.toml` in the home\n"
        "folder, or the file that `TRAINLEDGER_CONFIG` names). Secrets come from the environment only:\n"
        "`TRAINLEDGER_PASSWORD` opens keys, `TRAINLEDGER_PRIVATE_KEY` is an account by itself.\n\n"
        "| in the file | in the environment | meaning |\n| --- | --- | --- |\n"
    )
    rows = (f"| `{item.name}` | `{item.environment}` | {item.help} |" for item in SETTINGS.values())
    return head + "\n".join(rows) + "\n"


def _codes() -> str:
    rows = "\n".join(f"| {code} | {meaning} |" for code, meaning in _EXIT_CODES)
    return f"## Exit codes\n\n| code | meaning |\n| --- | --- |\n{rows}\n"


def main() -> int:
    """Writes or checks the file."""
    parser = argparse.ArgumentParser(description="Write docs/cli.md from the commands' help.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where the file is out of date")
    wanted = reference()
    if not parser.parse_args().check:
        TARGET.write_text(wanted, encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == wanted:
        return 0
    print("docs/cli.md is out of date; run `python tools/cli_reference.py`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
