"""`trainledger open create`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.cli.common import CommandContext
from ledger.cli.output import amount
from ledger.errors import InsufficientFunds, SpecificationError, UsageError
from trainer.cli.open_parts import open_clients, secret_folder

if TYPE_CHECKING:
    from ledger.open.client import OpenClient
    from ledger.openfile import OpenTaskFile
    from trainer.open.posting import OpenPosting

__all__ = ["create"]


def create(
    context: CommandContext,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The task file (TOML); examples/open.toml is one.")],
    again: Annotated[
        bool, typer.Option("--again", help="Post it although you have an open task of this title running already.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Prepare everything and show it, but publish and post nothing.")
    ] = False,
) -> None:
    """Prepare an open task, publish what workers need, put its reward in escrow and post it.

    Each round is scored on text that stays secret until its states are revealed. It is kept in this home, under
    `held-out`, and is not published: `trainledger open serve` shows it when its time has come. Without it, the rounds
    are paid in full.

    Example: trainledger open create examples/open.toml --account requester
    """
    from ledger.openfile import load_open_file
    from trainer.cli.engine import open_engine
    from trainer.open.posting import prepare_open_posting, publish_open_posting
    from trainer.store import BlobStore

    task_file = load_open_file(file)
    client, _ = open_clients(context, signing=True)
    _check_limits(client, task_file)
    balance = client.token_balance(client.address)
    if balance < task_file.total_reward:
        raise InsufficientFunds(
            client.address,
            client.token_symbol,
            balance,
            task_file.total_reward,
            remedy="Get more tokens (on the local chain `trainledger account fund` gives some), or lower the reward.",
        )
    context.say("Preparing the data sets, the programs and the first state …")
    posting = prepare_open_posting(task_file, engine=open_engine(context))
    if not again:
        _refuse_running(client, posting.specification.hash())
    store = BlobStore(context.settings.store_url, cache=context.settings.home / "cache")
    document = _document(posting, task_file, store.url)
    context.say(
        f"Public data set: {len(posting.dataset.train):,} tokens to train on, {len(posting.dataset.heldout):,} to look "
        f"at. Held out of each of {task_file.rounds} rounds: as many others. Model: "
        f"{posting.program.layout.parameter_count:,} parameters, loss {posting.base_loss:.4f} untrained.\n"
        f"Escrow: {format_tokens(task_file.total_reward)} {client.token_symbol} ({task_file.rounds} rounds of "
        f"{task_file.slots} states for {format_tokens(task_file.slot_reward)} and a baseline for "
        f"{format_tokens(task_file.score_reward)}), out of {format_tokens(balance)}."
    )
    if dry_run:
        context.emit(document, lambda console: console.print("Dry run: nothing was published or posted."))
        return
    publish_open_posting(posting, store, secret_folder(context.settings.home))
    number = client.post_task(posting.parameters, posting.held_out_roots, store.url)
    context.emit(
        document | {"task": number},
        lambda console: console.print(
            f"Posted open task {number}. Now run `trainledger open serve {number}`: a round whose held-out data is not "
            "shown in time is paid in full."
        ),
    )


def _check_limits(client: OpenClient, file: OpenTaskFile) -> None:
    """Compares a file with the deployment's limits before anything is prepared."""
    lease, window = client.minimum_lease(), client.minimum_window()
    for field, value, least, unit in (
        ("reward.bond", file.bond, client.minimum_bond(), "wei"),
        ("open.commit_seconds", file.commit_seconds, lease, "s"),
        ("open.reveal_seconds", file.reveal_seconds, lease, "s"),
        ("open.held_out_seconds", file.held_out_seconds, lease, "s"),
        ("open.lease_seconds", file.lease_seconds, lease, "s"),
        ("open.challenge_window_seconds", file.challenge_window, window, "s"),
    ):
        if value < least:
            raise SpecificationError(
                f"{field} is {value} {unit}; this deployment asks for at least {least} {unit}.",
                field=field,
                remedy=f"Raise {field}.",
            )


def _refuse_running(client: OpenClient, specification_hash: bytes) -> None:
    """The chain itself is the journal of what was posted: a command that was killed after posting finds its task."""
    number = client.find_task(specification_hash, client.address)
    task = None if number is None else client.task(number)
    if task is not None and not (task.complete or task.closed):
        raise UsageError(
            f"You have posted this very task already: it is open task {task.number}, in round {task.current_round}.",
            remedy=f"Serve it with `trainledger open serve {task.number}`, or post it once more with --again.",
        )


def _document(posting: OpenPosting, file: OpenTaskFile, store_url: str) -> dict[str, Any]:
    return {
        "task": None,
        "specification_hash": root_hex(posting.specification.hash()),
        "program_root": root_hex(posting.specification.program),
        "dataset_root": root_hex(posting.specification.dataset),
        "initial_state_root": root_hex(posting.specification.initial_state),
        "held_out_roots": [root_hex(root) for root in posting.held_out_roots],
        "parameters": posting.program.layout.parameter_count,
        "base_loss": posting.base_loss if math.isfinite(posting.base_loss) else None,
        "slots_per_round": file.slots,
        "slot_reward": amount(file.slot_reward),
        "score_reward": amount(file.score_reward),
        "escrow": amount(file.total_reward),
        "store": store_url,
    }
