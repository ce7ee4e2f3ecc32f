"""What every command shares: common options, one context object, output, and the one place that prints errors.

A command is a function whose first parameter is a `CommandContext`; `CommandApp.command` adds the common options to
it, so that users can write them before or after the command's name::

    app = CommandApp("task", help="…")

    @app.command("show")
    def show(context: CommandContext, number: Annotated[int, typer.Argument(help="…")]) -> None:
        '''Help text.'''
        task = context.client().task(number)
        context.emit({"number": task.number}, lambda console: console.print(…))
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ledger.cli.guard import GuardedGroup
from ledger.cli.output import Output
from ledger.errors import SettingsError
from ledger.settings import Settings, load_settings

if TYPE_CHECKING:
    from web3 import Web3

    from ledger.audits.client import CommitteeClient
    from ledger.client import LedgerClient
    from ledger.deploy import Deployment
    from ledger.disputes.client import DisputeClient
    from ledger.keys import KeyStore, Wallet
    from ledger.open.client import OpenClient
    from ledger.types import Event

__all__ = ["CommandApp", "CommandContext", "common_option_names", "local_chain_url", "root_app"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PANEL = "Common options"


@dataclass
class CommandContext(Output):
    """What a command gets: settings, output, and lazily made connections. `command` is the command's full name."""

    settings: Settings
    command: str
    json: bool = False
    verbose: bool = False

    @cached_property
    def web3(self) -> Web3:
        """The chain at the settings' URL.

        Raises:
            ChainUnreachable: nothing answers there.
        """
        from ledger.rpc import connect  # web3 takes half a second to import

        return connect(self.chain_url, timeout=self.settings.rpc_timeout)

    @property
    def chain_url(self) -> str:
        """The endpoint to use: the one that is named, else the local chain's, on whichever port it runs."""
        return self.settings.rpc_url or local_chain_url(self.settings.home) or self.settings.chain_url

    @cached_property
    def deployment(self) -> Deployment:
        """The deployment record, compared with the chain.

        Raises:
            SettingsError: there is no record. WrongChain, StaleDeployment: it is another chain's or an older one.
        """
        from ledger.cli.connection import load_deployment

        return load_deployment(self.settings, self.web3)

    @cached_property
    def keystore(self) -> KeyStore:
        """The folder of encrypted keys."""
        from ledger.keys import KeyStore

        return KeyStore(self.settings.keystore)

    @cached_property
    def wallet(self) -> Wallet:
        """The account to act as, unlocked.

        Raises:
            WalletError: none is named, there is none of that name, or the password is missing or wrong.
        """
        from ledger.cli.passwords import unlock_account

        return unlock_account(self.settings, self.keystore)

    def client(self, *, signing: bool = False) -> LedgerClient:
        """A client over the deployment; with `signing`, one that can send transactions of the account."""
        from ledger.cli.connection import make_client

        return make_client(self, signing=signing)

    def disputes(self, *, signing: bool = False, open_tasks: bool = False) -> DisputeClient:
        """As `client`, with the games; with `open_tasks` those about scores of open tasks."""
        from ledger.cli.connection import make_disputes

        return make_disputes(self, signing=signing, open_tasks=open_tasks)

    def committee(self, *, signing: bool = False) -> CommitteeClient:
        """As `disputes`, with the audits."""
        from ledger.cli.connection import make_committee

        return make_committee(self, signing=signing)

    def open_tasks(self, *, signing: bool = False) -> OpenClient:
        """As `client`, for open tasks."""
        from ledger.cli.connection import make_open_tasks

        return make_open_tasks(self, signing=signing)

    def events(self, names: Sequence[str], *, open_tasks: bool = False) -> Iterator[Event]:
        """All events of these names since the deployment, oldest first; `open_tasks` as `fetch_events` has it."""
        from ledger.events import fetch_events

        first = self.deployment.block_number
        return fetch_events(self.web3, self.deployment, from_block=first, names=names, open_tasks=open_tasks)

    def address(self, name_or_address: str | None = None) -> str:
        """An account's checksummed address, by name, by address or of the settings' account; needs no password.

        Raises:
            WalletError: no account is named, or there is no key of that name.
        """
        from ledger.cli.passwords import find_address

        return find_address(self.settings, self.keystore, name_or_address)


def local_chain_url(home: Path) -> str | None:
    """Where the local chain of `home` runs, as its keeper wrote it down; None where nothing is written."""
    try:
        port = json.loads((home / "chain" / "node.json").read_text())["port"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"http://127.0.0.1:{port}" if type(port) is int else None


def _common_options() -> dict[str, tuple[Any, object]]:
    """Parameter name -> (annotation, default). Names are those of Settings' fields, but for json and verbose."""

    def option(kind: Any, *names: str, text: str, metavar: str | None = None) -> Any:
        return Annotated[kind, typer.Option(*names, help=text, metavar=metavar, rich_help_panel=_PANEL)]

    return {
        "rpc_url": (
            option(str | None, "--rpc-url", text="Chain endpoint; the local chain if not given.", metavar="URL"),
            None,
        ),
        "home": (
            option(Path | None, "--home", text="Folder of keys, local chain, records and store.", metavar="DIR"),
            None,
        ),
        "deployment": (
            option(Path | None, "--deployment", text="Folder of the deployment record.", metavar="DIR"),
            None,
        ),
        "account": (option(str | None, "--account", text="Account to act as: name or address.", metavar="NAME"), None),
        "password_file": (
            option(
                Path | None, "--password-file", text="File whose first line is the account's password.", metavar="FILE"
            ),
            None,
        ),
        "store_url": (option(str | None, "--store", text="URL or folder of the blob store.", metavar="URL"), None),
        "json": (option(bool, "--json", text="Print one JSON document instead of text."), False),
        "verbose": (option(bool, "--verbose", "-v", text="Show details, and tracebacks of errors."), False),
    }


def common_option_names() -> frozenset[str]:
    """Parameter names of the options that every command has."""
    return frozenset(_common_options())


class CommandApp(typer.Typer):
    """A group of commands to which every command is added with the common options."""

    def __init__(self, name: str | None = None, *, help: str, **options: Any) -> None:
        options.setdefault("no_args_is_help", True)
        options.setdefault("rich_markup_mode", None)
        super().__init__(name=name, help=help, add_completion=False, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        """Registers a function whose first parameter is a CommandContext; the function itself stays as it is."""
        register = super().command(name, **options)

        def decorate(function: _Function) -> _Function:
            register(_with_common_options(function))
            return function

        return decorate

    def default(self, function: _Function) -> _Function:
        """Makes a command of the group's own name, which runs where none of the group's is named.

        Its only parameter is the context; common options before a command of the group are that command's too.
        """
        run = _with_common_options(function)

        def callback(ctx: typer.Context, **values: Any) -> None:
            if ctx.invoked_subcommand is None:
                run(ctx, **values)
            else:
                ctx.obj = _merge_flags(ctx.obj or {}, values)

        _describe(callback, list(inspect.signature(run).parameters.values()))
        text = inspect.getdoc(function)
        self.callback(invoke_without_command=True, no_args_is_help=False, help=text)(callback)
        return function


def _with_common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function, eval_str=True)
    _, *own = signature.parameters
    common = _common_options()
    clash = common.keys() & set(own)
    if clash:
        raise TypeError(f"{function.__name__} redefines the common options {sorted(clash)}")

    def command(ctx: typer.Context, **values: Any) -> Any:
        flags = _merge_flags(ctx.obj or {}, {name: values.pop(name) for name in common})
        return function(_make_context(flags, ctx.command_path), **values)

    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [signature.parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in own]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in common.items()
    ]
    _describe(command, parameters)
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    command.__module__, command.__qualname__ = function.__module__, function.__qualname__
    return command


def _describe(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    """Gives a function the signature that typer is to read."""
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # how inspect is overridden
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}


def _merge_flags(outer: Mapping[str, object], inner: Mapping[str, object]) -> dict[str, object]:
    """Options after the command win over those before it."""
    return {name: outer.get(name) if value in (None, False) else value for name, value in inner.items()}


def _make_context(flags: dict[str, object], command: str) -> CommandContext:
    as_json, verbose = bool(flags.pop("json")), bool(flags.pop("verbose"))
    settings = load_settings(flags, os.environ)
    return CommandContext(settings=settings, command=command, json=as_json, verbose=verbose)


def root_app(*, name: str, help: str) -> CommandApp:
    """The outermost group: common options before the command, --version, and errors printed in one place."""
    app = CommandApp(name, help=help, cls=GuardedGroup)
    common = _common_options()

    def root(ctx: typer.Context, **values: Any) -> None:
        values.pop("version")
        ctx.obj = values

    version = Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ]
    parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    parameters += [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for key, (annotation, default) in {"version": (version, False), **common}.items()
    ]
    _describe(root, parameters)
    root.__doc__ = help
    app.callback(invoke_without_command=False)(root)
    return app


def _print_version(wanted: bool) -> None:
    from importlib.metadata import PackageNotFoundError, version

    if not wanted:
        return
    try:
        typer.echo(f"trainledger {version('trainledger')}")
    except PackageNotFoundError:
        raise SettingsError("trainledger is not installed.", remedy="Install it with `pip install -e .`.") from None
    raise typer.Exit
