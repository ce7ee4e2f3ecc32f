"""`auditor enrol|resign|status|fund|budget|refund`: seats of drawn auditors, and what tasks pay for audits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.amounts import UINT96_MAX, format_tokens, parse_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount
from ledger.errors import UsageError

if TYPE_CHECKING:
    from ledger.audits.client import CommitteeClient

__all__ = ["register"]

_MOST_AT_ONCE = 32  # as the contract has it
_Count = Annotated[int, typer.Argument(help="How many seats.", min=1, max=10_000, metavar="COUNT")]
_Task = Annotated[int, typer.Argument(help="Number of the task.", min=1, max=2**63 - 1, metavar="TASK")]


def register(app: CommandApp) -> None:
    """Adds the commands to the group."""
    commands = (enrol, resign, status, fund, budget, refund)
    for function in commands:
        app.command(function.__name__)(function)


def enrol(context: CommandContext, count: _Count) -> None:
    """Take seats, from which auditors are drawn. Each locks the deployment's seat stake, and counts after its age.

    Then run `trainledger audit` with the same account: it takes part in what it is drawn into. Who was drawn and does
    not show up loses the seat, but no stake.

    Example: `trainledger auditor enrol 3 --account carol`
    """
    client = context.committee(signing=True)
    left = count
    while left:
        taken = min(left, _MOST_AT_ONCE)
        client.enrol(taken)
        left -= taken
    document = _status(client, context.wallet.address)
    text = f"{document['seats']} seats of {document['seats_of_all']} are yours; new ones count after "
    context.emit(document, lambda console: console.print(f"{text}{document['seat_age']} seconds."))


def resign(context: CommandContext, count: _Count) -> None:
    """Give up seats; their stake is free again. Not while an audit runs that the account has committed in.

    Example: `trainledger auditor resign 3 --account carol`
    """
    client = context.committee(signing=True)
    address = context.wallet.address
    held = client.seats_of(address)
    if count > held:
        raise UsageError(f"{address} has {held} seats, fewer than {count}.", remedy="Give up no more than there are.")
    # From the last one down: what moves into a place that was given up is then nobody's of the account.
    for index in client.seat_indexes(address, count):
        client.resign(index)
    document = _status(client, address)
    context.emit(document, lambda console: console.print(f"{document['seats']} seats are left."))


def status(
    context: CommandContext,
    who: Annotated[str | None, typer.Argument(help="Name or address; the settings' account if not given.")] = None,
) -> None:
    """Show an account's seats, and what a seat takes in this deployment.

    JSON: `account`, `seats`, `seats_of_all`, `seat_stake`, `seat_age`, `reveal_seconds`, `free` (stake for more seats)
    and `busy_until` (Unix time until which they cannot be given up, or 0).

    Example: `trainledger auditor status carol`
    """
    document = _status(context.committee(), context.address(who))
    lines = [
        f"{document['account']} has {document['seats']} of {document['seats_of_all']} seats.",
        f"A seat locks {document['seat_stake']['tokens']} tokens and counts after {document['seat_age']} seconds; "
        f"{document['free']['tokens']} tokens of stake are free.",
    ]
    context.emit(document, lambda console: console.print("\n".join(lines)))


def fund(
    context: CommandContext,
    task: _Task,
    tokens: Annotated[str, typer.Argument(help='Tokens to add, like "18".', metavar="AMOUNT")],
    fee: Annotated[
        str,
        typer.Option(help="Tokens for each of an audit's nine votes; fixed when the budget is opened.", metavar="FEE"),
    ],
) -> None:
    """Pay for audits of a task's submissions by drawn auditors. The requester opens the budget; anybody adds to it.

    An agreement of two thirds ends a submission's challenge window early, but never before its floor. What no audit
    needs comes back with `trainledger auditor refund` when the task has ended.

    Example: `trainledger auditor fund 3 18 --fee 0.5 --account alice`
    """
    client = context.committee(signing=True)
    client.fund_audits(task, _positive(fee, UINT96_MAX), _positive(tokens))
    _show_budget(context, client, task)


def budget(context: CommandContext, task: _Task) -> None:
    """Show what is left of a task's audit budget.

    JSON: `task`, `fee` (for each vote), `held`, `reserved` (for audits that run, or not yet collected), `free` and
    `audits_left`.

    Example: `trainledger auditor budget 3 --json`
    """
    client = context.committee()
    client.task(task)  # one that is not there is refused
    _show_budget(context, client, task)


def refund(context: CommandContext, task: _Task) -> None:
    """Send what no audit has reserved of an ended task's budget back to its requester, as credit to withdraw.

    Audits that are over are closed first, which frees what they do not owe.

    Example: `trainledger auditor refund 3 --account alice`
    """
    from ledger.audits.records import Stage

    client = context.committee(signing=True)
    for key in client.audits_of(task):
        audit = client.audit(key)
        over = audit.stage(now=client.chain_time(), block=client.block_number()) in (Stage.MISSED, Stage.OVER)
        if over and not audit.closed:
            client.close_audit(key)
    back = client.refund_audits(task)
    document = {"task": task, "refunded": amount(back)}
    text = f"{format_tokens(back)} {client.token_symbol} of the audit budget of task {task} went back to its requester."
    context.emit(document, lambda console: console.print(text))


def _status(client: CommitteeClient, address: str) -> dict[str, Any]:
    return {
        "account": address,
        "seats": client.seats_of(address),
        "seats_of_all": client.seat_count(),
        "seat_stake": amount(client.seat_stake()),
        "seat_age": client.seat_age(),
        "reveal_seconds": client.reveal_seconds(),
        "free": amount(client.stake_account(address).free),
        "busy_until": client.busy_until(address),
    }


def _show_budget(context: CommandContext, client: CommitteeClient, task: int) -> None:
    now = client.audit_budget(task)
    document = {
        "task": task,
        "fee": amount(now.fee),
        "held": amount(now.held),
        "reserved": amount(now.reserved),
        "free": amount(now.free),
        "audits_left": now.audits_left,
    }
    text = f"Task {task} pays {format_tokens(now.fee)} {client.token_symbol} for a vote. Its audit budget holds "
    text += f"{format_tokens(now.held)}, {format_tokens(now.free)} of it free: {now.audits_left} audits."
    if not now.fee:
        text = f"Nobody has opened an audit budget for task {task}."
    context.emit(document, lambda console: console.print(text))


def _positive(tokens: str, most: int | None = None) -> int:
    wei = parse_tokens(tokens)
    if wei == 0 or (most is not None and wei > most):
        raise UsageError(f"The amount is {tokens}.", remedy="Give more than 0 tokens, and no more than there can be.")
    return wei
