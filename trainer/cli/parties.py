"""Who acts on whose stake, and where long-running commands say what they do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.cli.common import CommandContext
from ledger.errors import WalletError

if TYPE_CHECKING:
    from ledger.accounts import AccountClient
    from trainer.worker.progress import Reporter

__all__ = ["StakeOf", "make_reporter", "owner_of"]

StakeOf = Annotated[
    str | None,
    typer.Option(
        "--stake-of",
        metavar="NAME",
        help="Account whose stake is used, if not the key's own; it must have authorised the key.",
    ),
]


def owner_of(context: CommandContext, client: AccountClient, stake_of: str | None) -> str:
    """Whose stake the account acts on: its own, or that of somebody who made it an operator.

    Raises:
        WalletError: nobody has.
    """
    signer = client.address
    owner = context.address(stake_of) if stake_of else signer
    if owner != signer and not client.is_operator(owner, signer):
        raise WalletError(
            f"{signer} may not act on the stake of {owner}.",
            remedy="Its owner can allow it with `trainledger account authorise`.",
        )
    return owner


def make_reporter(context: CommandContext) -> Reporter:
    """Sentences, or with --json a line of JSON for each event."""
    from rich.console import Console

    from trainer.worker.progress import JsonReporter, TextReporter

    return JsonReporter(sys.stdout) if context.json else TextReporter(Console(file=sys.stdout, highlight=False))
