"""What the commands about open tasks are put together from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.cli.common import CommandContext

if TYPE_CHECKING:
    from ledger.disputes.client import DisputeClient
    from ledger.open.client import OpenClient
    from trainer.dispute.player import Player
    from trainer.engine.engines import Engine
    from trainer.open.held_out import SecretFolder
    from trainer.open.source import OpenSource
    from trainer.open.truths import OpenTruths
    from trainer.worker.progress import Reporter
    from trainer.worker.stop import Stop


@dataclass(frozen=True)
class OpenParts:
    """Open tasks and the games about their scores, with one sender for both; and what checks them."""

    chain: OpenClient
    games: DisputeClient
    source: OpenSource
    truths: OpenTruths


def open_clients(context: CommandContext, *, signing: bool) -> tuple[OpenClient, DisputeClient]:
    """Clients of open tasks and of their games; with `signing` they send as the context's account, in one order."""
    from ledger.cli.connection import make_sender
    from ledger.disputes.client import DisputeClient
    from ledger.open.client import OpenClient

    # The key first: a wrong password should not have to wait for a chain.
    wallet = context.wallet if signing else None
    confirmations = context.settings.confirmations
    sender = None if wallet is None else make_sender(context.web3, wallet, confirmations=confirmations)
    return (
        OpenClient(context.web3, context.deployment, sender),
        DisputeClient(context.web3, context.deployment, sender, open_tasks=True),
    )


def open_parts(
    context: CommandContext, clients: tuple[OpenClient, DisputeClient], engine: Engine, stop: Stop
) -> OpenParts:
    """All parts of a loop over open tasks."""
    from trainer.open.source import OpenSource
    from trainer.open.truths import OpenTruths
    from trainer.worker.session import stop_between

    chain, games = clients
    settings = context.settings
    source = OpenSource(chain, store_of=lambda task: settings.store_url, cache=settings.home / "cache", engine=engine)
    return OpenParts(chain, games, source, OpenTruths(chain, source, between=partial(stop_between, stop)))


def open_player(parts: OpenParts, *, owner: str, reporter: Reporter, poll_seconds: float) -> Player:
    """Who plays the games of a stake about scores of open tasks."""
    from ledger.disputes.positions import Matter
    from trainer.dispute.player import Player

    def found(matter: Matter) -> bool:
        return parts.chain.slot(matter.task, matter.round, matter.slot).stage.settled

    return Player(
        parts.games,
        parts.truths,
        owner=owner,
        reporter=reporter,
        clock=time.monotonic,
        poll_seconds=poll_seconds,
        found=found,
    )


def secret_folder(home: Path) -> SecretFolder:
    """Where a home keeps what is held out of its open tasks."""
    from trainer.open.held_out import SecretFolder

    return SecretFolder(home / "held-out")
