from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine
from typer.testing import CliRunner

from ledger.cli.common import CommandApp, CommandContext, local_chain_url, root_app
from ledger.cli.guard import guarded
from ledger.cli.output import amount, loss_value
from ledger.errors import BlobMissing, ChainUnreachable, LeaseLost, ResourceError, ToolMissing, TrainledgerError


def app_that(act: Callable[[CommandContext], None]) -> CommandApp:
    app = root_app(name="trainledger", help="Test.")

    @app.command("act")
    def command(context: CommandContext) -> None:
        """Acts."""
        act(context)

    @app.command("other")
    def other(context: CommandContext) -> None:
        """Keeps the app a group."""

    return app


def run(act: Callable[[CommandContext], None], *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app_that(act), list(arguments) or ["act"])
    return result.exit_code, result.stdout, result.stderr


def failing(error: BaseException) -> Callable[[CommandContext], None]:
    def act(context: CommandContext) -> None:
        raise error

    return act


@pytest.mark.parametrize("position", ["before", "after"])
def test_common_options_are_accepted_on_both_sides(position: str, tmp_path: Path) -> None:
    seen: list[CommandContext] = []
    options = [
        "--home", str(tmp_path), "--rpc-url", "http://x:1", "--deployment", str(tmp_path / "d"), "--account", "a",
        "--password-file", str(tmp_path / "p"), "--store", "memory://s", "--json", "-v",
    ]  # fmt: skip
    arguments = [*options, "act"] if position == "before" else ["act", *options]
    assert run(seen.append, *arguments)[0] == 0
    (context,) = seen
    settings = context.settings
    assert (settings.home, settings.rpc_url, settings.account) == (tmp_path, "http://x:1", "a")
    assert (settings.deployment, settings.password_file) == (tmp_path / "d", tmp_path / "p")
    assert (settings.store_url, context.json, context.verbose) == ("memory://s", True, True)
    assert context.command == "root act" or context.command.endswith("act")


def test_common_options_after_the_command_win() -> None:
    seen: list[CommandContext] = []
    assert run(seen.append, "--account", "a", "act", "--account", "b")[0] == 0
    assert seen[0].settings.account == "b"


@pytest.mark.parametrize(
    ("error", "code", "problem"),
    [
        (ChainUnreachable("http://x", "refused"), 3, "No answer from the chain at http://x: refused."),
        (BlobMissing("a/b", "file:///s"), 4, "a/b is not in the store file:///s."),
        (ResourceError("Full."), 5, "Full."),
        (ToolMissing("No anvil."), 6, "No anvil."),
        (LeaseLost("Lost."), 7, "Lost."),
        (MemoryError(), 5, "The machine ran out of memory."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 5, "The machine ran out of memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 5, "The machine ran out of memory."),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 5, "The machine ran out of memory."),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 5, "The machine ran out of memory."),
        (RuntimeError("shapes differ"), 1, "Unexpected RuntimeError: shapes differ."),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 5, "The disk is full (/x/y)."),
        (OSError(errno.EDQUOT, "Quota"), 5, "The disk is full."),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "Permission denied (/x)."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (ZeroDivisionError("division\nby zero"), 1, "Unexpected ZeroDivisionError: division by zero."),
    ],
)
def test_errors_become_one_sentence_and_an_exit_code(error: BaseException, code: int, problem: str) -> None:
    status, out, err = run(failing(error))
    assert (status, out) == (code, "")
    assert err.splitlines()[0] == f"Error: {problem}"
    assert all(line.startswith("Try: ") for line in err.splitlines()[1:])
    status, out, err = run(failing(error), "act", "--json")
    assert (status, out) == (code, "")
    document = json.loads(err)
    assert (document["problem"], document["exit_code"]) == (problem, code)


def test_errors_verbose_adds_the_traceback() -> None:
    for error in (ResourceError("Full."), ZeroDivisionError("bug")):
        assert "Traceback" not in run(failing(error))[2]
        _, _, err = run(failing(error), "act", "--verbose")
        assert "Traceback" in err
        assert "Error: " in err


def test_error_remedy_does_not_stutter() -> None:
    _, _, err = run(failing(TrainledgerError("No.", remedy="Try again later.")))
    assert err == "Error: No.\nTry: again later.\n"


def test_guarded_other_broken_pipe_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    def act() -> None:
        raise BrokenPipeError("a worker went away")

    assert guarded(act, as_json=False, verbose=False) == 1
    assert "Error: Unexpected BrokenPipeError: a worker went away." in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nothing"], "No such command 'nothing'."),
        (["account", "shwo"], "No such command 'shwo'. Did you mean 'show'?"),
        (["rewards", "--acount", "x"], "No such option: --acount"),
        (["task", "show"], "Missing argument 'TASK'."),
        (["up", "--chain-port", "0"], "Invalid value for '--chain-port'"),
        (["--rpc-url"], "Option '--rpc-url' requires an argument."),
    ],
)
def test_usage_errors_exit_2_and_name_the_help(offline: CommandLine, arguments: list[str], problem: str) -> None:
    assert offline.fail(2, *arguments).startswith(problem)
    result = offline.run(*arguments, "--json")
    assert json.loads(result.stderr)["exit_code"] == 2 if arguments != ["--rpc-url"] else True
    assert "--help`" in offline.run(*arguments).stderr


def test_no_command_shows_the_help(offline: CommandLine) -> None:
    result = offline.run()
    assert result.exit_code == 2
    assert "Commands:" in result.output


def test_version_is_the_packages(offline: CommandLine) -> None:
    assert offline.run("--version").stdout.startswith("trainledger 0.")


def test_wrong_setting_is_one_sentence(offline: CommandLine) -> None:
    assert "TRAINLEDGER_CHAIN_PORT is 'x'" in offline.fail(2, "account", "list", TRAINLEDGER_CHAIN_PORT="x")
    offline.home.mkdir()
    (offline.home / "config.toml").write_text("acount = 'x'")
    assert "unknown key 'acount'" in offline.fail(2, "account", "list")


def test_process_chain_down_exits_3_without_traceback(offline: CommandLine) -> None:
    result = offline.process("task", "list")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith("Error: No answer from the chain at http://127.0.0.1:1")
    assert "Traceback" not in result.stderr
    verbose = offline.process("task", "list", "--verbose")
    assert verbose.returncode == 3
    assert "Traceback" in verbose.stderr


def test_process_full_disk_under_the_output_exits_5(offline: CommandLine) -> None:
    for arguments in (["account", "list", "--help"], ["--version"]):
        with Path("/dev/full").open("w") as full:
            process = offline.process(*arguments, output=full)
        assert process.returncode == 5
        assert process.stderr.startswith("Error: The disk is full")
        assert process.stderr.count("\n") == 2


def test_process_reader_gone_is_silent(offline: CommandLine) -> None:
    parent, child = os.pipe()
    os.close(parent)
    with os.fdopen(child, "w") as closed:
        process = offline.process("account", "list", "--json", output=closed)
    assert (process.returncode, process.stderr) == (0, "")


def test_process_account_list_is_quick_and_needs_no_torch(offline: CommandLine) -> None:
    code = (
        "import sys; from trainer.cli import app; from typer.testing import CliRunner; "
        "result = CliRunner().invoke(app, ['account', 'list']); "
        "print(result.exit_code, sorted({'torch', 'web3', 'eth_account', 'numpy'} & set(sys.modules)))"
    )
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **offline.environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert result.stdout == "0 []\n"
    assert time.monotonic() - started < 5  # 0.2 s on an idle machine


def test_local_chain_url_follows_the_recorded_port(tmp_path: Path) -> None:
    assert local_chain_url(tmp_path) is None
    (tmp_path / "chain").mkdir()
    record = tmp_path / "chain" / "node.json"
    for text, url in (('{"pid": 1, "port": 4242}', "http://127.0.0.1:4242"), ("{", None), ('{"port": "x"}', None)):
        record.write_text(text)
        assert local_chain_url(tmp_path) == url


def test_amount_and_loss_value_are_exact() -> None:
    assert amount(10**18 + 1) == {"wei": "1000000000000000001", "tokens": "1.000000000000000001"}
    assert loss_value(0x40400000) == 3.0
    assert [loss_value(bits) for bits in (0x7FC00000, 0x7F800000, 0xFF800000)] == [None, None, None]
