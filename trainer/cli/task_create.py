"""`trainledger task create`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.cli import task_app
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount
from ledger.errors import InsufficientFunds, UsageError

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds the command to the group, which is part of `app` already."""
    task_app.command("create")(create)


def create(
    context: CommandContext,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The task file (TOML); examples/ has some.")],
    again: Annotated[
        bool, typer.Option("--again", help="Post it although you have the very same task running already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Prepare everything and show it, but publish and post nothing.")
    ] = False,
) -> None:
    """Prepare a training task, publish what workers need, put its reward in escrow and post it.

    Safe to repeat: what is published already is only published again, and a task that you have running already is
    not posted twice without --again.

    Example: trainledger task create examples/quick.toml --account requester
    """
    from ledger.spec import load_task_file
    from trainer.posting import check_limits, prepare_posting, publish_posting
    from trainer.store import BlobStore

    task_file = load_task_file(file)
    client = context.client(signing=True)
    check_limits(
        task_file,
        minimum_bond=client.minimum_bond(),
        minimum_window=client.minimum_window(),
        minimum_lease=client.minimum_lease(),
    )
    balance = client.token_balance(client.address)
    if balance < task_file.total_reward:
        raise InsufficientFunds(
            client.address,
            client.token_symbol,
            balance,
            task_file.total_reward,
            remedy="Get more tokens (on the local chain `trainledger account fund` gives some), or lower the reward.",
        )
    context.say("Preparing the data set and the first state …")
    posting = prepare_posting(task_file)
    parameters = posting.parameters
    running = None if again else client.find_task(parameters.specification_hash, client.address)
    if running is not None:
        there = client.task(running)
        if not (there.complete or there.closed):
            raise UsageError(
                f"You have posted this very task already: it is task {running}, in round {there.current_round}.",
                remedy=f"See `trainledger task show {running}`, or post it once more with --again.",
            )
    store = BlobStore(context.settings.store_url, cache=context.settings.home / "cache")
    symbol = client.token_symbol
    document = {
        "task": None,
        "specification_hash": root_hex(parameters.specification_hash),
        "program_root": root_hex(parameters.program_root),
        "dataset_root": root_hex(parameters.dataset_root),
        "initial_state_root": root_hex(parameters.initial_state_root),
        "parameters": posting.program_parameters,
        "base_loss": posting.base_loss if math.isfinite(posting.base_loss) else None,
        "escrow": amount(parameters.total_reward),
        "store": store.url,
    }
    context.say(
        f"Data set: {len(posting.dataset.train):,} tokens to train on, {len(posting.dataset.heldout):,} held out. "
        f"Model: {posting.program_parameters:,} parameters, held-out loss {posting.base_loss:.4f} before training.\n"
        f"Escrow: {format_tokens(parameters.total_reward)} {symbol} ({parameters.rounds} rounds of "
        f"{format_tokens(parameters.slot_reward)}), out of {format_tokens(balance)}."
    )
    if dry_run:
        context.emit(document, lambda console: console.print("Dry run: nothing was published or posted."))
        return
    publish_posting(posting, store)
    number = client.post_task(parameters, store.url)
    document["task"] = number
    context.emit(
        document,
        lambda console: console.print(
            f"Posted task {number}. Workers find it by themselves; watch it with `trainledger task show {number}`."
        ),
    )
