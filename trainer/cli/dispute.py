"""`trainledger dispute play`, and what the programs add to `dispute show`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.cli import dispute_app
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.disputes import GameNumber, use_explainer
from ledger.errors import DataError, SpecificationError, UsageError
from trainer.cli.parties import StakeOf, make_reporter, owner_of

if TYPE_CHECKING:
    from ledger.disputes.positions import GameView

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds `dispute play`."""
    dispute_app.command("play")(play)
    use_explainer(_explained)


def play(context: CommandContext, number: GameNumber, stake_of: StakeOf = None) -> None:
    """Play one dispute to its end, for either side.

    Workers and audits play their own disputes; this is for one that nobody plays any more, on whichever machine has
    the data. Values are computed when a move is due. Where this machine finds the other side right, no move is made,
    and the dispute is lost by the clock. Exits with 4 where it is lost.

    With --json each line of standard output is one JSON object with an `event`.

    Example: `trainledger dispute play 3 --account carol`
    """
    from trainer.cli.engine import open_engine
    from trainer.cli.selftest import check_machine
    from trainer.dispute.player import Player
    from trainer.dispute.segments import SegmentSource
    from trainer.worker.session import stop_between, worker_lock
    from trainer.worker.stop import stop_on_signals

    client = context.disputes(signing=True)
    owner = owner_of(context, client, stake_of)
    matter = client.view(number).position.matter
    if owner not in (matter.defender, matter.challenger):
        raise UsageError(
            f"{owner} is no party of game {number}, which {matter.challenger} plays against {matter.defender}.",
            remedy="Name the account with --account, or with --stake-of the one that yours is an operator of.",
        )
    engine, settings, reporter = open_engine(context), context.settings, make_reporter(context)
    check_machine(settings.device)
    folder: Path = settings.home / "players" / client.address.lower()
    with worker_lock(folder, client.address, what="player"), stop_on_signals() as stop:
        source = SegmentSource(
            client,
            store_of=lambda task: settings.store_url,
            cache=settings.home / "cache",
            journals=folder / "disputes",
            engine=engine,
            between=partial(stop_between, stop),
        )
        player = Player(client, source, owner=owner, reporter=reporter, clock=time.monotonic, only=number)
        while True:
            stop_between(stop)
            acted = player.turn()
            if not player.running:
                break
            if not acted:
                stop.wait(settings.poll_seconds)
    _check_won(client.view(number), owner)


def _check_won(view: GameView, owner: str) -> None:
    if view.winner is not None and view.winner != owner:
        raise DataError(
            f"Game {view.number} is lost.",
            remedy=f"`trainledger dispute show {view.number}` says how it ended.",
        )


def _explained(context: CommandContext, view: GameView) -> dict[str, Any] | None:
    """What the task's programs say of the tensor in question; None where they are not at hand or there is none yet."""
    from ledger.disputes.positions import Phase
    from trainer.dispute.explain import explain, program_of
    from trainer.materials import fetch_description
    from trainer.store import BlobStore

    position, settings = view.position, context.settings
    if position.phase is Phase.RUNS:
        return None
    task = context.client().task(position.matter.task)
    try:
        programs = fetch_description(task, BlobStore(settings.store_url, cache=settings.home / "cache")).program
    except (DataError, SpecificationError) as error:
        context.say(f"Its operation cannot be named: {error.problem} Name a store that has the programs with --store.")
        return None
    found = explain(program_of(programs, position).program, position)
    return None if found is None else {**found.as_json(), "text": str(found)}
