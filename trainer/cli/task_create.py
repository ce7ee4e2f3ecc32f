"""`trainledger task create`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.cli import task_app
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount
from ledger.errors import InsufficientFunds, UsageError

if TYPE_CHECKING:
    from ledger.client import LedgerClient
    from ledger.spec import TaskFile
    from ledger.types import TaskParameters
    from trainer.posting import Posting

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
    from trainer.cli.engine import open_engine
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
    balance = _check_balance(client, task_file)
    context.say("Preparing the data set, the programs and the first state …")
    posting = prepare_posting(task_file, engine=open_engine(context))
    if not again:
        _refuse_running(client, posting.parameters.specification_hash)
    store = BlobStore(context.settings.store_url, cache=context.settings.home / "cache")
    document = _document(posting, store.url)
    reward = posting.parameters
    context.say(
        f"Data set: {len(posting.dataset.train):,} tokens to train on, {len(posting.dataset.heldout):,} held out. "
        f"Model: {posting.program.layout.parameter_count:,} parameters, held-out loss {posting.base_loss:.4f} "
        "untrained.\n"
        f"Escrow: {format_tokens(reward.total_reward)} {client.token_symbol} ({reward.rounds} rounds of "
        f"{_round_reward(reward)}), out of {format_tokens(balance)}."
    )
    if dry_run:
        context.emit(document, lambda console: console.print("Dry run: nothing was published or posted."))
        return
    publish_posting(posting, store)
    number = client.post_task(posting.parameters, store.url)
    context.emit(
        document | {"task": number},
        lambda console: console.print(
            f"Posted task {number}. Workers find it by themselves; watch it with `trainledger task show {number}`."
        ),
    )


def _round_reward(parameters: TaskParameters) -> str:
    """What a round can cost, in tokens: its slots and, where there are several, their merge."""
    each = format_tokens(parameters.slot_reward)
    if not parameters.merges:
        return each
    return f"{parameters.slots_per_round} slots for {each} and a merge for {format_tokens(parameters.merge_reward)}"


def _check_balance(client: LedgerClient, file: TaskFile) -> int:
    """The requester's tokens, wei; refuses before anything is prepared where they do not cover the reward."""
    balance = client.token_balance(client.address)
    if balance < file.total_reward:
        raise InsufficientFunds(
            client.address,
            client.token_symbol,
            balance,
            file.total_reward,
            remedy="Get more tokens (on the local chain `trainledger account fund` gives some), or lower the reward.",
        )
    return balance


def _refuse_running(client: LedgerClient, specification_hash: bytes) -> None:
    """The chain itself is the journal of what was posted: a command that was killed after posting finds its task."""
    number = client.find_task(specification_hash, client.address)
    task = None if number is None else client.task(number)
    if task is not None and not (task.complete or task.closed):
        raise UsageError(
            f"You have posted this very task already: it is task {task.number}, in round {task.current_round}.",
            remedy=f"See `trainledger task show {task.number}`, or post it once more with --again.",
        )


def _document(posting: Posting, store_url: str) -> dict[str, Any]:
    parameters = posting.parameters
    return {
        "task": None,
        "specification_hash": root_hex(parameters.specification_hash),
        "program_root": root_hex(parameters.program_root),
        "dataset_root": root_hex(parameters.dataset_root),
        "initial_state_root": root_hex(parameters.initial_state_root),
        "parameters": posting.program.layout.parameter_count,
        "base_loss": posting.base_loss if math.isfinite(posting.base_loss) else None,
        "slots_per_round": parameters.slots_per_round,
        "slot_reward": amount(parameters.slot_reward),
        "merge_reward": amount(parameters.merge_reward) if parameters.merges else None,
        "escrow": amount(parameters.total_reward),
        "store": store_url,
    }
