"""`trainledger open audit`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.amounts import format_tokens
from ledger.cli.common import CommandContext
from ledger.errors import DataError, UsageError
from trainer.cli.open_parts import open_clients, open_parts, open_player
from trainer.cli.parties import StakeOf, make_reporter, owner_of

if TYPE_CHECKING:
    from trainer.open.audit import OpenAuditSummary
    from trainer.worker.progress import Reporter

__all__ = ["audit"]


def audit(
    context: CommandContext,
    task: Annotated[
        int | None, typer.Argument(min=1, metavar="TASK", help="Audit this open task only; all of them if not given.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Score and report, but challenge nobody. Needs no account.")
    ] = False,
    question: Annotated[
        float | None,
        typer.Option(
            "--question",
            min=0.0,
            metavar="SECONDS",
            help="Ask for states that could not be fetched for so long; a question locks a deposit.",
        ),
    ] = None,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="Leave when no open task has work left and no dispute runs.")
    ] = False,
    no_finalise: Annotated[
        bool, typer.Option("--no-finalise", help="Send no transactions that close rounds; somebody else will.")
    ] = False,
    stake_of: StakeOf = None,
) -> None:
    """Score again what was scored, challenge what differs, and play the disputes to their end.

    A challenge locks the task's bond, which comes back with a won dispute. For an account with seats (`trainledger
    auditor enrol`) it also looks for states that somebody cannot fetch, and says under its seats' draw what it found.

    With --json each line of standard output is one JSON object with an `event`; `audited` has `task`, `round`, `slot`,
    `attempt`, `worker`, `finding` (agrees, differs or unchecked), `submitted_root`, `computed_root`, `problem` and
    `game`.

    Example: trainledger open audit 1 --account carol --exit-when-done
    """
    from trainer.cli.engine import open_engine
    from trainer.cli.selftest import check_machine
    from trainer.open.audit import OpenAuditOptions, OpenAuditor
    from trainer.open.witness import SaltedFindings, Witness
    from trainer.worker.session import worker_lock
    from trainer.worker.stop import stop_on_signals

    if dry_run and (stake_of or question is not None):
        raise UsageError(
            "--dry-run puts up no stake, so --stake-of and --question are no use.", remedy="Leave it or them out."
        )
    clients = open_clients(context, signing=not dry_run)
    chain, settings = clients[0], context.settings
    if task is not None:
        chain.task(task)  # a task that is not there is refused at once
    engine = open_engine(context)
    check_machine(settings.device)
    signer = "nobody" if dry_run else chain.address
    owner = "" if dry_run else owner_of(context, chain, stake_of)
    reporter = make_reporter(context)
    folder: Path = settings.home / "auditors" / signer.lower() / "open"
    with worker_lock(folder, signer, what="audit"), stop_on_signals() as stop:
        parts = open_parts(context, clients, engine, stop)
        player = witness = None
        if not dry_run:
            player = open_player(parts, owner=owner, reporter=reporter, poll_seconds=settings.poll_seconds)
            deployment = context.deployment
            findings = SaltedFindings(folder / f"{deployment.chain_id}-{deployment.open_ledger.lower()}")
            witness = Witness(
                chain, parts.source, owner=owner, findings=findings, reporter=reporter, clock=time.monotonic
            )
        auditor = OpenAuditor(
            chain,
            parts.games,
            parts.source,
            parts.truths,
            owner=owner,
            options=OpenAuditOptions(
                poll_seconds=settings.poll_seconds,
                task=task,
                challenge=not dry_run,
                question_seconds=question,
                upkeep=not (dry_run or no_finalise),
                exit_when_done=exit_when_done,
            ),
            reporter=reporter,
            stop=stop,
            clock=time.monotonic,
            player=player,
            witness=witness,
        )
        reporter.say("started", "Auditing open tasks." if task is None else f"Auditing open task {task}.")
        _report(auditor.run(), reporter, fees=0 if witness is None else witness.fees)


def _report(summary: OpenAuditSummary, reporter: Reporter, *, fees: int) -> None:
    """Says what came of it; `fees` are wei for states found. Raises what the exit code is for."""
    audited = list(summary.audited.values())
    counts = {kind: sum(one.finding == kind for one in audited) for kind in ("agrees", "differs", "unchecked")}
    text = f"Audited {len(audited)} scores: {counts['agrees']} right, {counts['differs']} wrong, "
    text += f"{counts['unchecked']} not checked. Disputes won: {len(summary.won)}, lost: {len(summary.lost)}."
    if fees:
        text += f" For states found: {format_tokens(fees)} tokens."
    reporter.say("finished", text, **counts, won=list(summary.won), lost=list(summary.lost), fees=str(fees))
    if summary.lost:
        raise DataError(
            f"Disputes {', '.join(map(str, summary.lost))} were lost, although each evaluation here differed.",
            remedy="Try `trainledger selftest` before you audit again, and report it: it should not be possible.",
        )
    for one in audited:
        if one.finding == "unchecked":
            raise DataError(
                f"A score of open task {one.slot.task} was not checked: {one.problem}",
                remedy="Name a store that has what is missing with --store.",
            )
