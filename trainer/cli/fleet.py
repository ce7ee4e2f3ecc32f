"""`trainledger fleet up`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from ledger.amounts import format_tokens, parse_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import shorten
from ledger.errors import UsageError

if TYPE_CHECKING:
    from ledger.keys import StoredKey
    from trainer.fleet.cluster import Cluster, Fleet
    from trainer.fleet.show import FleetReporter
    from trainer.worker.stop import Stop

__all__ = ["register"]

fleet_app = CommandApp("fleet", help="Run many workers, on one machine or a Ray cluster.")
# Seconds that workers may take to end with a snapshot before the cluster ends them.
_LEAVE = 60.0
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_ETHER = 10 * 10**18


def register(app: CommandApp) -> None:
    """Adds `fleet up`."""
    # One command would else be the group's own name.
    fleet_app.callback()(lambda: None)
    fleet_app.command("up")(up)
    app.add_typer(fleet_app)


def up(
    context: CommandContext,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- OPTIONS]", help="Options of `worker run` for every worker, after two dashes."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=1000, metavar="N", help="How many workers.")] = 1,
    tasks: Annotated[
        list[int] | None,
        typer.Option("--task", min=1, metavar="TASK", help="Work on this task only; of several, each in turn."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="DIR", help="Folder of keystores to take accounts from, all of one password."),
    ] = None,
    name: Annotated[
        str,
        typer.Option("--name", metavar="NAME", help="Without --keys: accounts are NAME-1, NAME-2 …, made if need be."),
    ] = "fleet",
    stake: Annotated[
        str | None,
        typer.Option(
            "--stake",
            metavar="TOKENS",
            help="Have each account stake so much, if it has less; on the local chain it is given what it lacks.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", metavar="ADDRESS", help="Ray cluster (host:port, or auto); one here if not given."
        ),
    ] = None,
    cpus: Annotated[
        float | None,
        typer.Option("--cpus", min=0.0, help="Processors of each worker (default: 1; here, its share of the machine)."),
    ] = None,
    gpus: Annotated[float, typer.Option("--gpus", min=0.0, help="GPUs of each worker.")] = 0.0,
    ranks: Annotated[
        int | None,
        typer.Option(
            "--ranks", min=1, max=64, help="Processes of each worker, by torchrun (default: one for each GPU)."
        ),
    ] = None,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="Each worker leaves when no task has work left and all is paid.")
    ] = False,
    restarts: Annotated[
        int, typer.Option("--restarts", min=0, help="Starts of a worker that fails, without a round between them.")
    ] = 5,
) -> None:
    """Run many workers over a Ray cluster, each with an account of its own; start again those that die.

    One machine is a cluster of one. Ctrl-C ends all workers between two steps, with snapshots; the same command goes on
    from there. With --json, each line of standard output is one JSON object: what a worker said, with its name as
    `member`, and every few seconds an event `fleet` with all of them. Exit codes: 0 when all workers have left by
    themselves, 1 when some failed for good, 3 when accounts lack ether or stake, 6 without Ray, 130 after Ctrl-C.

    Examples: trainledger fleet up --workers 4 --task 1 --stake 50 --exit-when-done

    trainledger fleet up --workers 16 --gpus 1 --ray-address head:6379 --store s3://bucket -- --minimum-pay 2
    """
    from ledger.cli.connection import deployment_directory
    from ledger.cli.passwords import read_password
    from trainer.fleet.cluster import Cluster, FleetFailed
    from trainer.fleet.orders import Order
    from trainer.worker.stop import stop_on_signals

    options = (*(["--exit-when-done"] if exit_when_done else []), *(words or []))
    password = read_password(context.settings, "the fleet's accounts")
    accounts = _accounts(context, workers, keys, name, password)
    _fund(context, accounts, tasks or [], stake, password)
    reporter = _reporter(context)
    reporter.say("placing", f"Starting Ray{'' if ray_address is None else f' at {ray_address}'}.")
    # Ray has remarks of its own, and standard output is for ours.
    with redirect_stdout(sys.stderr), Cluster(ray_address) as cluster, stop_on_signals() as stop:
        _check_reach(context, cluster)
        share = cpus if cpus is not None else 1.0 if ray_address else cluster.cpus / workers
        made = ranks or max(1, int(gpus))
        common = Order(
            password=password,
            deployment=(deployment_directory(context.settings, context.web3) / "deployment.json").read_bytes(),
            home=str(context.settings.home),
            settings=_settings(context, cpus=share, gpus=gpus, ranks=made),
            ranks=made,
            restarts=restarts,
        )
        orders = [
            replace(
                common,
                name=key.name,
                address=key.address,
                key=key.path.read_bytes(),
                words=(*(("--task", str(tasks[number % len(tasks)])) if tasks else ()), *options),
            )
            for number, key in enumerate(accounts)
        ]
        fleet = cluster.place(orders, cpus=share, gpus=gpus)
        _watch(fleet, reporter, stop, pause=min(1.0, context.settings.poll_seconds))
    if stop.requested:
        raise stop.error(remedy="Run the same command again: all workers go on where they stopped.")
    failed = [report for report in fleet.reports if report.state == "failed"]
    if failed:
        raise FleetFailed(failed)


def _accounts(context: CommandContext, workers: int, keys: Path | None, name: str, password: str) -> list[StoredKey]:
    from ledger.keys import KeyStore
    from trainer.fleet.accounts import given_keys, own_keys

    if keys is not None:
        return given_keys(KeyStore(keys), workers)
    return own_keys(context.keystore, name, workers, password)


def _fund(
    context: CommandContext, accounts: list[StoredKey], tasks: list[int], stake: str | None, password: str
) -> None:
    """Has accounts stake what they shall, then refuses those that cannot work."""
    from trainer.fleet.accounts import Unfunded, needed_stake, shortfalls

    client = context.client()
    if stake is not None:
        wei = parse_tokens(stake, what="--stake")
        for lacking in shortfalls(client, accounts, stake=wei):
            _stake(context, lacking.key, lacking.stake, password)
    missing = shortfalls(client, accounts, stake=needed_stake(client, tasks))
    if missing:
        raise Unfunded(missing)


def _stake(context: CommandContext, key: StoredKey, wei: int, password: str) -> None:
    from ledger.cli.connection import make_sender
    from ledger.cli.development import DEVELOPMENT_CHAIN, top_up
    from ledger.client import LedgerClient
    from ledger.keys import KeyStore
    from ledger.rpc import chain_id

    if chain_id(context.web3) == DEVELOPMENT_CHAIN:
        top_up(context, key.address, ether=_ETHER, tokens=wei)
    if wei:
        wallet = KeyStore(key.path.parent).unlock(key.name, password)
        LedgerClient(context.web3, context.deployment, make_sender(context.web3, wallet)).stake(wei)
        context.say(f"{key.name} ({shorten(key.address)}) staked {format_tokens(wei)} tokens.")


def _check_reach(context: CommandContext, cluster: Cluster) -> None:
    """Refuses to send workers to other machines which would look for chain or store on their own."""
    if cluster.machines < 2:
        return
    settings = context.settings
    if urlsplit(context.chain_url).hostname in _LOCAL_HOSTS:
        raise UsageError(
            f"The Ray cluster has {cluster.machines} machines, and {context.chain_url} is another chain on each.",
            remedy="Name the chain with --rpc-url by an address that all of them reach.",
        )
    if settings.store_url.startswith("file:"):
        context.say(f"The store is {settings.store_url}: that has to be one folder, shared by all machines.")


def _settings(context: CommandContext, *, cpus: float, gpus: float, ranks: int) -> dict[str, str]:
    """What the workers are told by their environment."""
    settings = context.settings
    return {
        "TRAINLEDGER_RPC_URL": context.chain_url,
        "TRAINLEDGER_STORE": settings.store_url,
        "TRAINLEDGER_POLL_SECONDS": str(settings.poll_seconds),
        "TRAINLEDGER_CONFIRMATIONS": str(settings.confirmations),
        "TRAINLEDGER_RPC_TIMEOUT": str(settings.rpc_timeout),
        "TRAINLEDGER_SNAPSHOT_SECONDS": str(settings.snapshot_seconds),
        "TRAINLEDGER_MINIMUM_PAY": format_tokens(settings.minimum_pay),
        "TRAINLEDGER_DEVICE": "cuda" if gpus else settings.device,
        "TRAINLEDGER_THREADS": str(settings.threads or max(1, int(cpus / ranks))),
        "TRAINLEDGER_RANKS": "1" if ranks > 1 else str(settings.ranks),
        "TRAINLEDGER_ENGINE": settings.engine,
        "TRAINLEDGER_LIBRARIES": str(settings.library_folder),
    }


def _watch(fleet: Fleet, reporter: FleetReporter, stop: Stop, *, pause: float) -> None:
    """Shows the fleet until all workers have ended, or have had time to after a stop was asked for."""
    import time

    end = None
    while not fleet.ended and (end is None or time.monotonic() < end):
        if stop.requested and end is None:
            end = time.monotonic() + _LEAVE
            reporter.say("stopping", "Stopping: all workers end between two steps, with snapshots.")
            fleet.stop()
        fleet.look()
        reporter.show(fleet.reports)
        if end is None:
            stop.wait(pause)
        else:
            time.sleep(pause)
    reporter.over(fleet.reports)


def _reporter(context: CommandContext) -> FleetReporter:
    from rich.console import Console

    from trainer.fleet.show import JsonFleet, TextFleet

    # A pipe or file has no width to fold the table at.
    width = None if sys.stdout.isatty() else 200
    return JsonFleet(sys.stdout) if context.json else TextFleet(Console(file=sys.stdout, highlight=False, width=width))
