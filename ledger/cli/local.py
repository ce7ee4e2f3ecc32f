"""`up`: a local chain with the contracts on it, for as long as the command runs."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ledger.amounts import parse_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.deployment import MinimumClock, MinimumMove, deployment_document, print_deployment, with_clocks
from ledger.errors import ChainError, ChainUnreachable, SettingsError, StaleDeployment
from ledger.settings import load_settings

if TYPE_CHECKING:
    from ledger.anvil import LocalChain
    from ledger.deploy import Deployment

__all__ = ["adopt_or_deploy", "register"]

_STATUS_SECONDS = 1.0


def register(app: CommandApp) -> None:
    """Adds the command."""
    app.command("up")(up)


def up(
    context: CommandContext,
    chain_port: Annotated[
        int | None, typer.Option(help="Port of the chain; 8545 if not set.", min=1, max=65535)
    ] = None,
    fund: Annotated[
        list[str] | None, typer.Option(help="Account to give ether and tokens; may be repeated.", metavar="NAME")
    ] = None,
    ether: Annotated[str, typer.Option(help="Ether that --fund tops up to.", metavar="AMOUNT")] = "10",
    tokens: Annotated[str, typer.Option(help="Tokens that --fund tops up to.", metavar="AMOUNT")] = "1000",
    minimum_clock: MinimumClock = None,
    minimum_move: MinimumMove = None,
) -> None:
    """Start the local chain, deploy the contracts unless they are there, and run until Ctrl-C.

    The chain's state is kept in the home folder: the next `up` goes on where this one stopped, also after a kill or
    a power cut. A second `up` in the same home only says where the chain is.

    JSON: `rpc_url`, `started` (false where it ran already), and what `trainledger deploy` reports.

    Example: `trainledger up --fund alice --fund bob`
    """
    from ledger.anvil import LocalChain

    settings = context.settings
    if settings.rpc_url is not None:
        raise SettingsError(
            "`up` starts a chain of its own, but --rpc-url names one.",
            remedy="Leave --rpc-url and TRAINLEDGER_RPC_URL out.",
        )
    amounts = parse_tokens(ether, what="--ether"), parse_tokens(tokens, what="--tokens")
    addresses = [context.address(name) for name in fund or []]
    chain = LocalChain(settings.home, chain_port or settings.chain_port)
    with _interrupted_by_signals() as stop:
        try:
            chain.start()
            here = replace(context, settings=replace(settings, rpc_url=chain.rpc_url))
            deployment, directory = adopt_or_deploy(here, chain, minimum_clock=minimum_clock, minimum_move=minimum_move)
            _remark_on_clocks(here, deployment, minimum_clock, minimum_move)
            _report(here, chain, deployment_document(deployment, directory))
            _fund(here, addresses, *amounts)
            if chain.owned:
                _watch(here, chain, stop)
        finally:
            if chain.owned:
                context.say("Saving the chain …")
            chain.stop()


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, so that the chain is saved whichever way the command is ended.

    A second signal interrupts whatever hangs.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    # Only the main thread may set handlers; elsewhere (a test's thread) the caller has other means.
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def adopt_or_deploy(
    context: CommandContext, chain: LocalChain, *, minimum_clock: int | None = None, minimum_move: int | None = None
) -> tuple[Deployment, Path]:
    """The recorded deployment where it is on this chain, else a new one by the development account.

    Args:
        minimum_clock, minimum_move: of disputes, seconds, for a new one; else as the settings say.
    """
    from ledger.cli.connection import deployment_directory, make_sender
    from ledger.cli.development import developer_wallet
    from ledger.deploy import LOCAL_PARAMETERS, Deployment, deploy, publish

    directory = deployment_directory(context.settings, context.web3)
    if (directory / "deployment.json").exists():
        try:
            record = Deployment.load(directory)
            record.check(context.web3)
            return record, directory
        except StaleDeployment as problem:
            context.say(f"The recorded deployment is gone ({problem.problem}) Deploying anew.")
    elif not chain.owned:
        raise ChainError(
            f"Another `trainledger up` of {context.settings.home} is still deploying.", remedy="Wait for it."
        )
    context.say("Compiling and deploying the contracts …")
    sender = make_sender(context.web3, developer_wallet())
    parameters = with_clocks(context, LOCAL_PARAMETERS, minimum_clock=minimum_clock, minimum_move=minimum_move)
    deployment = deploy(context.web3, sender, parameters=parameters)
    if chain.owned:
        # Saved before it is recorded: a record must never outlive the contracts it names.
        chain.save()
    publish(deployment, directory)
    return deployment, directory


def _remark_on_clocks(context: CommandContext, deployment: Deployment, clock: int | None, move: int | None) -> None:
    """Clocks are fixed at deployment: flags that name others change nothing on a chain that goes on."""
    fixed = deployment.parameters
    if clock not in (None, fixed.minimum_clock) or move not in (None, fixed.minimum_move):
        context.say(
            f"The contracts are there already: a side has {fixed.minimum_clock} seconds in a dispute, and "
            f"{fixed.minimum_move} for each move."
        )


def _report(context: CommandContext, chain: LocalChain, document: dict[str, Any]) -> None:
    everything = {"rpc_url": chain.rpc_url, "started": chain.owned, **document}
    context.emit(everything, lambda console: _print(console, everything, context.settings.home))


def _print(console: Console, document: dict[str, Any], home: Path) -> None:
    if document["started"]:
        console.print(f"The local chain runs at {document['rpc_url']} (state kept in {home / 'chain'}).")
    else:
        console.print(f"The local chain of {home} is already running at {document['rpc_url']}; nothing to start.")
    print_deployment(console, {name: document[name] for name in document if name not in ("rpc_url", "started")})
    elsewhere = (
        "" if load_settings({}, os.environ).home == home else f"  export TRAINLEDGER_HOME={shlex.quote(str(home))}\n"
    )
    console.print(
        "Next, in another terminal:\n"
        f"{elsewhere}"
        "  trainledger account new alice\n"
        "  trainledger account fund alice\n"
        "  trainledger task create examples/quick.toml --account alice\n"
        "and to earn with it, `trainledger account new`, `fund` and `stake` for another account, and\n"
        "  trainledger worker run --account bob"
    )
    sys.stdout.flush()


def _fund(context: CommandContext, addresses: list[str], ether: int, tokens: int) -> None:
    from ledger.cli.development import top_up

    for address in addresses:
        top_up(context, address, ether=ether, tokens=tokens)
        context.say(f"Funded {address}.")


def _watch(context: CommandContext, chain: LocalChain, stop: threading.Event) -> None:
    """Shows the newest block and the number of tasks until `stop`; restarts the chain if it dies."""
    client = context.client()
    notices = context.notices
    quiet = context.json or not notices.is_terminal
    status = contextlib.nullcontext(None) if quiet else notices.status("The chain runs. Ctrl-C saves and stops it.")
    with status as line:
        while not stop.wait(_STATUS_SECONDS):
            try:
                block, tasks = context.web3.eth.block_number, client.task_count()
            except ChainUnreachable:
                context.say("The chain does not answer; starting it again from its last saved state.")
                chain.start()
                continue
            if line is not None:
                line.update(
                    f"Block {block} · {tasks} task{'' if tasks == 1 else 's'} · Ctrl-C saves and stops the chain."
                )
