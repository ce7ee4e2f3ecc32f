"""`account stake|unbond|authorise|payout`: what an account puts at stake, and who may act or be paid for it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ledger.amounts import format_tokens, parse_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount
from ledger.errors import UsageError

__all__ = ["register"]

_Amount = Annotated[str, typer.Argument(help='Tokens, like "1.5".', metavar="AMOUNT")]


def register(app: CommandApp) -> None:
    """Adds the commands to the group."""
    for name, function in (("stake", stake), ("unbond", unbond), ("authorise", authorise), ("payout", payout)):
        app.command(name)(function)


def stake(
    context: CommandContext,
    tokens: _Amount,
    owner: Annotated[str | None, typer.Option(help="Account whose stake grows; the payer if not given.")] = None,
) -> None:
    """Put tokens at stake. Claims lock part of the stake as a bond.

    Example: `trainledger account stake 50 --account alice`
    """
    wei = _positive(tokens)
    beneficiary = context.address(owner) if owner else context.wallet.address
    client = context.client(signing=True)
    client.stake(wei, owner=beneficiary)
    after = client.stake_account(beneficiary)
    _report(
        context,
        {"account": beneficiary, "added": amount(wei), "staked": amount(after.staked), "free": amount(after.free)},
        f"Staked {format_tokens(wei)} {client.token_symbol} for {beneficiary}, "
        f"who now has {format_tokens(after.staked)} at stake, {format_tokens(after.free)} of it free.",
    )


def unbond(
    context: CommandContext,
    tokens: Annotated[
        str | None, typer.Argument(help="Tokens of free stake to take out; none to collect.", metavar="AMOUNT")
    ] = None,
) -> None:
    """Take free stake out: with an AMOUNT start the waiting time, without one collect what has waited long enough.

    Examples: `trainledger account unbond 20 --account alice`, later `trainledger account unbond --account alice`
    """
    client = context.client(signing=True)
    address = context.wallet.address
    before = client.stake_account(address)
    if tokens is None:
        client.complete_unbond()
        text = f"Collected {format_tokens(before.unbonding)} {client.token_symbol}."
        _report(context, {"account": address, "collected": amount(before.unbonding)}, text)
        return
    client.request_unbond(_positive(tokens))
    after = client.stake_account(address)
    seconds = max(0, after.unbonding_release - client.chain_time())
    _report(
        context,
        {
            "account": address,
            "unbonding": amount(after.unbonding),
            "unbonding_release": after.unbonding_release,
            "free": amount(after.free),
        },
        f"{format_tokens(after.unbonding)} {client.token_symbol} can be collected in {seconds} seconds "
        "with `trainledger account unbond`.",
    )


def authorise(
    context: CommandContext,
    operator: Annotated[str, typer.Argument(help="Name or address of the hot key.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="Forbid it again.")] = False,
) -> None:
    """Let another key claim and submit on the account's stake (a hot key), or forbid it with --revoke.

    A hot key can cost its owner lease fees and bonds, but can never move the stake nor choose who is paid.

    Example: `trainledger account authorise hotkey --account alice`
    """
    address = context.address(operator)
    client = context.client(signing=True)
    client.set_operator(address, not revoke)
    _report(
        context,
        {"account": context.wallet.address, "operator": address, "allowed": not revoke},
        f"{address} {'may no longer' if revoke else 'may now'} claim and submit for {context.wallet.address}.",
    )


def payout(
    context: CommandContext,
    to: Annotated[str, typer.Argument(help="Name or address to be paid; the account itself to undo.")],
) -> None:
    """Name who is paid for the account's claims from now on.

    Example: `trainledger account payout coldwallet --account alice`
    """
    address = context.address(to)
    client = context.client(signing=True)
    client.set_payout(address)
    _report(
        context,
        {"account": context.wallet.address, "payout": address},
        f"New claims of {context.wallet.address} pay {address}.",
    )


def _positive(tokens: str) -> int:
    wei = parse_tokens(tokens)
    if wei == 0:
        raise UsageError("The amount is 0.", remedy="Give more than 0 tokens.")
    return wei


def _report(context: CommandContext, document: dict[str, Any], text: str) -> None:
    context.emit(document, lambda console: console.print(text))
