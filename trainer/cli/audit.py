"""`trainledger audit`."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.errors import DataError, UsageError, VerificationFailed
from trainer.cli.parties import StakeOf, make_reporter, owner_of

if TYPE_CHECKING:
    from trainer.verify.audit import AuditOptions, AuditSummary
    from trainer.worker.progress import Reporter

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds `audit`."""
    app.command("audit")(audit)


def audit(
    context: CommandContext,
    task: Annotated[
        int | None, typer.Argument(min=1, metavar="TASK", help="Audit this task only; all tasks if not given.")
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Leave after one look, when the disputes that came of it are over.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Replay and report, but challenge nobody. Needs no account.")
    ] = False,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="Leave when no task has work left and no dispute runs.")
    ] = False,
    no_finalise: Annotated[
        bool, typer.Option("--no-finalise", help="Leave it to others to close rounds that were found right.")
    ] = False,
    stake_of: StakeOf = None,
) -> None:
    """Watch submissions, replay each on this machine, challenge the wrong ones, and play the disputes to their end.

    A challenge locks the task's bond, which comes back with a won dispute; half of the cheat's goes to the first
    challenger who named the true state. Nobody is challenged for a fault: not where data are missing, not where two
    replays disagree, and not from a machine that fails the self-test. A killed audit goes on when it is started again.

    For an account with seats (`trainledger auditor enrol`) it also takes part in the audits that tasks pay for: it asks
    for them, and commits, reveals and collects where it is drawn; not with --once.

    Exits with 4 where a submission could not be checked, or with --dry-run is wrong, and with 3 where stake is missing.
    With --json each line of standard output is one JSON object with an `event`; `audited` has `task`, `round`,
    `slot`, `attempt`, `worker`, `finding` (agrees, differs or unchecked), `submitted_root`, `replayed_root`, `problem`,
    `game` and `seconds`.

    Examples: `trainledger audit --account carol`

    `trainledger audit 3 --once --dry-run --json`
    """
    from trainer.verify.audit import AuditOptions

    if exit_when_done and once:
        raise UsageError("--once and --exit-when-done contradict each other.", remedy="Give one of them.")
    if dry_run and stake_of:
        raise UsageError("--dry-run puts up no stake, so --stake-of is no use.", remedy="Leave one of them out.")
    options = AuditOptions(
        only_task=task,
        challenge=not dry_run,
        finalise=not (no_finalise or dry_run),
        once=once,
        exit_when_done=exit_when_done,
        poll_seconds=context.settings.poll_seconds,
        turn_seconds=3 * context.settings.poll_seconds,
    )
    _audit(context, options, stake_of)


def _audit(context: CommandContext, options: AuditOptions, stake_of: str | None) -> None:
    from trainer.cli.engine import open_engine
    from trainer.cli.selftest import check_machine
    from trainer.dispute.segments import SegmentSource
    from trainer.verify.audit import Auditor
    from trainer.verify.committee import CommitteeMember, FindingFolder
    from trainer.worker.session import stop_between, worker_lock
    from trainer.worker.stop import stop_on_signals

    client = context.committee(signing=options.challenge)
    engine = open_engine(context)
    check_machine(context.settings.device)
    signer = client.address if options.challenge else "nobody"
    owner = owner_of(context, client, stake_of) if options.challenge else ""
    settings, reporter = context.settings, make_reporter(context)
    folder: Path = settings.home / "auditors" / signer.lower()
    with worker_lock(folder, signer, what="audit"), stop_on_signals() as stop:
        if options.only_task is not None:
            client.task(options.only_task)  # a task that is not there is refused at once
        source = SegmentSource(
            client,
            store_of=lambda task: settings.store_url,
            cache=settings.home / "cache",
            journals=folder / "disputes",
            engine=engine,
            between=partial(stop_between, stop),
        )
        member = None
        if options.challenge and not options.once:
            # Of this deployment alone: another one's audit of the same number has another seed.
            deployed = f"{client.deployment.chain_id}-{client.deployment.ledger.lower()}"
            findings = FindingFolder(folder / "findings" / deployed)
            member = CommitteeMember(
                client, source, owner=owner, findings=findings, reporter=reporter, clock=time.monotonic
            )
        auditor = Auditor(
            client,
            source,
            owner=owner,
            options=options,
            reporter=reporter,
            stop=stop,
            clock=time.monotonic,
            member=member,
        )
        whose = f" as {signer}" + (f" on the stake of {owner}" if owner != signer else "") if owner else ""
        reporter.say("started", f"Auditing{whose}.", auditor=owner or None)
        _report(options, auditor.run(), reporter, fees=member.fees if member is not None else 0)


def _report(options: AuditOptions, summary: AuditSummary, reporter: Reporter, *, fees: int) -> None:
    """Says what came of it; `fees` are wei for drawn audits. Raises what the exit code is for."""
    found = {
        kind: [one for one in summary.audited if one.finding == kind] for kind in ("agrees", "differs", "unchecked")
    }
    text = f"Audited {len(summary.audited)} submissions: {len(found['agrees'])} right, {len(found['differs'])} wrong, "
    text += f"{len(found['unchecked'])} not checked. Disputes won: {len(summary.won)}, lost: {len(summary.lost)}."
    if fees:
        text += f" Fees for drawn audits: {format_tokens(fees)} tokens."
    reporter.say(
        "finished",
        text,
        fees=str(fees),
        **{kind: len(some) for kind, some in found.items()},
        won=list(summary.won),
        lost=list(summary.lost),
    )
    for one in found["differs"] if not options.challenge else []:
        assert one.replayed is not None  # or it would not be known to differ
        raise VerificationFailed(
            one.slot.task, one.slot.round, root_hex(one.slot.state_root), root_hex(one.replayed), place=one.place
        )
    if summary.stake_missing is not None:
        raise summary.stake_missing
    if summary.lost:
        raise DataError(
            f"Disputes {', '.join(map(str, summary.lost))} were lost, although each replay here gave another state.",
            remedy="Try `trainledger selftest` before you audit again, and report it: it should not be possible.",
        )
    for one in found["unchecked"]:
        raise DataError(
            f"{one.place[0].upper()}{one.place[1:]} of task {one.slot.task} was not checked: {one.problem}",
            remedy="Name a store that has what is missing with --store.",
        )
