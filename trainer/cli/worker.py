"""`trainledger worker run`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ledger.amounts import format_tokens, parse_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.errors import DataError, UsageError
from trainer.cli.parties import StakeOf, make_reporter

if TYPE_CHECKING:
    from ledger.disputes.client import DisputeClient
    from trainer.engine.engines import Engine
    from trainer.worker.policy import WorkerOptions
    from trainer.worker.progress import Reporter
    from trainer.worker.worker import Summary

__all__ = ["register"]

worker_app = CommandApp("worker", help="Train tasks for pay.")


def register(app: CommandApp) -> None:
    """Adds `worker run`."""
    worker_app.command("run")(run)
    app.add_typer(worker_app)


def run(
    context: CommandContext,
    task: Annotated[int | None, typer.Option("--task", min=1, metavar="TASK", help="Work on this task only.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Do one round, wait until it is paid, and leave.")] = False,
    max_rounds: Annotated[
        int | None, typer.Option("--max-rounds", min=1, metavar="N", help="Leave after so many rounds.")
    ] = None,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="Leave when no task has work left and all is paid.")
    ] = False,
    idle_exit: Annotated[
        float | None,
        typer.Option("--idle-exit", min=0.0, metavar="SECONDS", help="Leave after so long without anything to do."),
    ] = None,
    no_finalise: Annotated[
        bool, typer.Option("--no-finalise", help="Send no transactions that close rounds; somebody else will.")
    ] = False,
    minimum_pay: Annotated[
        str | None,
        typer.Option("--minimum-pay", metavar="TOKENS", help="Leave tasks alone whose rounds can pay less."),
    ] = None,
    minimum_pay_per_second: Annotated[
        str, typer.Option("--minimum-pay-per-second", metavar="TOKENS", help="The same for a second of this machine.")
    ] = "0",
    turn_seconds: Annotated[
        float | None,
        typer.Option(
            "--turn-seconds",
            min=0.0,
            metavar="SECONDS",
            help="After doing a task's last round, let others go first for so long (default: three polls).",
        ),
    ] = None,
    ticket_seconds: Annotated[
        float, typer.Option("--ticket-seconds", min=0.0, help="Most time to spend on one proof-of-work ticket.")
    ] = 60.0,
    allow_store: Annotated[
        list[str] | None,
        typer.Option("--allow-store", metavar="URL", help="Also use stores named by tasks if they begin with this."),
    ] = None,
    stake_of: StakeOf = None,
    memory_limit: Annotated[
        int | None, typer.Option("--memory-limit", min=1, metavar="MIB", help="Leave tasks alone that need more.")
    ] = None,
) -> None:
    """Look for tasks that pay enough, claim rounds, train, submit and finalise, until told to stop.

    It says why it leaves a task alone. Ctrl-C keeps the training done so far; the same command goes on from there,
    also after a crash. With --json, each line of standard output is one JSON object with an `event`. Where --task,
    --once or --max-rounds asked for rounds and none was done because data are missing, the exit code is 4.

    Started by torchrun, all its processes are one worker, whose ranks share each step of programs with shards.

    Examples: trainledger worker run --account alice

    trainledger worker run --task 3 --exit-when-done --json

    torchrun --standalone --nproc-per-node 2 --max-restarts 3 --no-python trainledger worker run --account alice
    """
    from trainer.worker.policy import WorkerOptions

    settings = context.settings
    options = WorkerOptions(
        minimum_pay=settings.minimum_pay if minimum_pay is None else parse_tokens(minimum_pay, what="--minimum-pay"),
        minimum_pay_per_second=parse_tokens(minimum_pay_per_second, what="--minimum-pay-per-second"),
        ticket_seconds=ticket_seconds,
        turn_seconds=3 * settings.poll_seconds if turn_seconds is None else turn_seconds,
        poll_seconds=settings.poll_seconds,
        snapshot_seconds=settings.snapshot_seconds,
        allowed_stores=tuple(allow_store or ()),
        memory_bytes=None if memory_limit is None else memory_limit * 2**20,
        only_task=task,
        maximum_rounds=1 if once else max_rounds,
        finalise=not no_finalise,
        exit_when_done=exit_when_done,
        idle_exit=idle_exit,
        device=settings.device,
    )
    if once and max_rounds is not None:
        raise UsageError("--once and --max-rounds contradict each other.", remedy="Give one of them.")
    _work(context, options, stake_of)


def _work(context: CommandContext, options: WorkerOptions, stake_of: str | None) -> None:
    from trainer.cli.engine import open_workers_engine
    from trainer.cli.launched import find_launch, serve_rank
    from trainer.cli.selftest import check_machine

    launch = find_launch(context)
    if launch is not None and launch.rank > 0:
        serve_rank(context, launch)
        return
    client = context.disputes(signing=True)
    with open_workers_engine(context, launch) as engine:
        check_machine(options.device if launch is None else launch.device(options.device))
        _work_with(context, client, engine, options, stake_of)


def _work_with(
    context: CommandContext, client: DisputeClient, engine: Engine, options: WorkerOptions, stake_of: str | None
) -> None:
    from trainer.worker.session import make_worker, worker_folder, worker_lock
    from trainer.worker.stop import stop_on_signals
    from trainer.worker.workshop import Identity

    signer, owner = client.address, context.address(stake_of) if stake_of else client.address
    home, reporter = context.settings.home, make_reporter(context)
    with worker_lock(worker_folder(home, signer), signer), stop_on_signals() as stop:
        if options.only_task is not None:
            client.task(options.only_task)  # a task that is not there is refused at once
        worker = make_worker(
            client,
            signer=signer,
            worker=owner,
            identity=Identity(
                chain_id=client.deployment.chain_id,
                ledger=client.deployment.ledger,
                deployment_block=client.deployment.block_hash,
            ),
            options=options,
            engine=engine,
            home=home,
            store_url=context.settings.store_url,
            reporter=reporter,
            stop=stop,
            games=client,
        )
        reporter.say(
            "started", f"Working as {signer}" + (f" on the stake of {owner}." if stake_of else "."), worker=owner
        )
        try:
            summary = worker.run()
        finally:
            reporter.round_over()
        _say_goodbye(reporter, summary, payout=client.stake_account(owner).payout)
        if summary.lost is not None:
            raise summary.lost
        if summary.missing is not None:
            raise DataError(
                f"No round was done. {summary.missing}",
                remedy="Name a store that has what is missing with --store, or ask the task's requester to publish it.",
            )


def _say_goodbye(reporter: Reporter, summary: Summary, *, payout: str) -> None:
    text = f"Submitted {_rounds(summary.rounds_submitted)}; {summary.rounds_paid} became final and earned "
    text += f"{format_tokens(summary.earned)} tokens."
    if summary.waiting:
        text += f" {_rounds(summary.waiting)} still in the challenge window."
    if summary.earned or summary.waiting:
        text += f" `trainledger withdraw` as {payout} collects what is earned."
    reporter.say(
        "finished",
        text,
        rounds_submitted=summary.rounds_submitted,
        rounds_paid=summary.rounds_paid,
        earned=str(summary.earned),
        waiting=summary.waiting,
        payout=payout,
    )


def _rounds(count: int) -> str:
    return f"{count} round" if count == 1 else f"{count} rounds"
