"""`trainledger open work` and `trainledger open serve`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.amounts import format_tokens
from ledger.cli.common import CommandContext
from ledger.errors import UsageError
from trainer.cli.open_parts import open_clients, open_parts, open_player, secret_folder
from trainer.cli.parties import StakeOf, make_reporter, owner_of

if TYPE_CHECKING:
    from trainer.engine.engines import Engine
    from trainer.open.training import Training

__all__ = ["serve", "work"]


def work(
    context: CommandContext,
    task: Annotated[int, typer.Argument(min=1, metavar="TASK", help="The open task to work on.")],
    recipe: Annotated[bool, typer.Option("--recipe", help="Train by the task's own program, in exact steps.")] = False,
    script: Annotated[
        Path | None, typer.Option("--script", metavar="FILE", help="Train by your Python file's train().")
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FILE", help="Hand in this safetensors file, for one round.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.0, help="For which a script may train each round, at most.")
    ] = 60.0,
    rounds: Annotated[
        int | None, typer.Option("--max-rounds", min=1, metavar="N", help="Leave after so many rounds.")
    ] = None,
    no_finalise: Annotated[
        bool, typer.Option("--no-finalise", help="Send no transactions that close rounds; somebody else will.")
    ] = False,
    stake_of: StakeOf = None,
) -> None:
    """Make a state for each round of an open task, commit, reveal, score, and defend the score, until it is over.

    A script defines train(state, data, seconds): it is given the round's base as tensors by name, the public data set
    and the time, and gives tensors by the same names. Any precision and any optimizer will do.

    State and salt are on disk before they are committed to: after a crash the same command goes on. With --json, each
    line of standard output is one JSON object with an `event`.

    Examples: trainledger open work 1 --recipe --account alice

    trainledger open work 1 --script examples/open_script.py --seconds 120 --account bob
    """
    from trainer.cli.engine import open_engine
    from trainer.cli.selftest import check_machine
    from trainer.open.kept import KeptStates
    from trainer.open.worker import OpenWorker, OpenWorkerOptions, find_task
    from trainer.worker.session import worker_folder, worker_lock
    from trainer.worker.stop import stop_on_signals
    from trainer.worker.workshop import Identity

    if [recipe, script is not None, state is not None].count(True) != 1:
        raise UsageError(
            "How to train is not said, or said twice.", remedy="Give one of --recipe, --script and --state."
        )
    clients = open_clients(context, signing=True)
    chain, settings, deployment = clients[0], context.settings, context.deployment
    find_task(chain, task)
    engine = open_engine(context)
    check_machine(settings.device)
    training = _training(engine, script=script, state=state, snapshot_seconds=settings.snapshot_seconds)
    owner, reporter = owner_of(context, chain, stake_of), make_reporter(context)
    folder = worker_folder(settings.home, chain.address) / "open"
    with worker_lock(folder, chain.address), stop_on_signals() as stop:
        parts = open_parts(context, clients, engine, stop)
        worker = OpenWorker(
            chain,
            parts.source,
            training,
            worker=owner,
            identity=Identity(
                chain_id=deployment.chain_id,
                ledger=deployment.open_ledger,
                deployment_block=deployment.block_hash,
            ),
            options=OpenWorkerOptions(
                task=task,
                train_seconds=seconds,
                poll_seconds=settings.poll_seconds,
                maximum_rounds=1 if state is not None else rounds,
                upkeep=not no_finalise,
            ),
            kept=KeptStates(folder / "states"),
            reporter=reporter,
            stop=stop,
            clock=time.monotonic,
            player=open_player(parts, owner=owner, reporter=reporter, poll_seconds=settings.poll_seconds),
        )
        reporter.say("started", f"Working on open task {task} as {chain.address}.", worker=owner, task=task)
        summary = worker.run()
    reporter.say(
        "finished",
        f"{summary.rounds} rounds with a state of yours are over and pay {format_tokens(summary.earned)} tokens; "
        "`trainledger withdraw` collects what is earned.",
        rounds=summary.rounds,
        earned=str(summary.earned),
    )


def serve(
    context: CommandContext,
    task: Annotated[int, typer.Argument(min=1, metavar="TASK", help="Your open task.")],
    no_finalise: Annotated[
        bool, typer.Option("--no-finalise", help="Send no transactions that close rounds; somebody else will.")
    ] = False,
) -> None:
    """Show each round's held-out data when its time has come, and answer questions about states, until it is over.

    Leave it running: a round whose data is not shown in time is paid in full and ends the task. A question is answered
    only after the state was fetched and its root compared.

    Example: trainledger open serve 1 --account requester
    """
    from trainer.cli.engine import open_engine
    from trainer.open.requester import OpenRequester
    from trainer.worker.session import worker_lock
    from trainer.worker.stop import stop_on_signals

    clients = open_clients(context, signing=True)
    chain, settings = clients[0], context.settings
    engine, reporter = open_engine(context), make_reporter(context)
    folder = settings.home / "requesters" / chain.address.lower() / f"open-{task}"
    with worker_lock(folder, chain.address, what="serve"), stop_on_signals() as stop:
        parts = open_parts(context, clients, engine, stop)
        requester = OpenRequester(
            chain,
            parts.source,
            secret_folder(settings.home),
            task=task,
            poll_seconds=settings.poll_seconds,
            reporter=reporter,
            stop=stop,
            upkeep=not no_finalise,
        )
        requester.check()
        reporter.say("started", f"Serving open task {task}.", task=task)
        summary = requester.run()
    reporter.say(
        "finished",
        f"The task is over. Showed the held-out data of {summary.shown} rounds, acknowledged {summary.acknowledged} "
        "states.",
        shown=summary.shown,
        acknowledged=summary.acknowledged,
    )


def _training(engine: Engine, *, script: Path | None, state: Path | None, snapshot_seconds: float) -> Training:
    from trainer.open.training import FileTraining, RecipeTraining, ScriptTraining

    if script is not None:
        return ScriptTraining(script)
    if state is not None:
        return FileTraining(state)
    return RecipeTraining(engine, snapshot_seconds=snapshot_seconds)
