"""`account new|list|import|show|fund|send`: keys and balances."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger.amounts import format_tokens, parse_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount, table
from ledger.cli.passwords import new_password, read_private_key
from ledger.errors import UsageError

__all__ = ["register"]

_Name = Annotated[str, typer.Argument(help="Name of the account: letters, digits, dots, dashes, underscores.")]
_Who = Annotated[str | None, typer.Argument(help="Name or address; --account if not given.")]


def register(app: CommandApp) -> None:
    """Adds the commands to the group."""
    for name, function in (
        ("new", new),
        ("list", list_),
        ("import", import_),
        ("show", show),
        ("fund", fund),
        ("send", send),
    ):
        app.command(name)(function)


def new(context: CommandContext, name: _Name) -> None:
    """Make a new key and store it encrypted.

    The password comes from TRAINLEDGER_PASSWORD, from --password-file or from a prompt.

    Example: `trainledger account new alice`
    """
    wallet = context.keystore.new(name, new_password(context.settings, f"account {name!r}"))
    _print_key(context, name, wallet.address, "Made")


def import_(context: CommandContext, name: _Name) -> None:
    """Store an existing private key, encrypted.

    The key comes from TRAINLEDGER_PRIVATE_KEY, from a hidden prompt or from standard input, never from an argument,
    where other users of the machine could read it.

    Example: `trainledger account import alice < key.txt`
    """
    private_key = read_private_key(context.settings)
    wallet = context.keystore.import_key(name, private_key, new_password(context.settings, f"account {name!r}"))
    _print_key(context, name, wallet.address, "Imported")


def _print_key(context: CommandContext, name: str, address: str, verb: str) -> None:
    path = context.keystore.find(name).path
    document = {"name": name, "address": address, "path": str(path)}
    context.emit(document, lambda console: console.print(f"{verb} account {name!r}: {address}\nKey file: {path}"))


def list_(context: CommandContext) -> None:
    """List the stored keys. Needs neither a chain nor a password.

    JSON: a list of `name`, `address` and `path`.

    Example: `trainledger account list --json`
    """
    keys = context.keystore.list()
    document = [{"name": key.name, "address": key.address, "path": str(key.path)} for key in keys]
    if not keys:
        context.say(f"No accounts in {context.keystore.path}. Make one with `trainledger account new NAME`.")
    context.emit(
        document,
        lambda console: (
            console.print(table(["name", "address"], [(key.name, key.address) for key in keys])) if keys else None
        ),
    )


def show(context: CommandContext, who: _Who = None) -> None:
    """Show an account's balances, stake and payout address.

    JSON: `account`, `symbol`, `ether`, `tokens_held`, `staked`, `locked`, `free`, `unbonding`, `credit`,
    `unbonding_release` (Unix seconds or null) and `payout`.

    Examples: `trainledger account show alice`, `trainledger account show 0x… --json`
    """
    address = context.address(who)
    client = context.client()
    stake = client.stake_account(address)
    symbol = client.token_symbol
    amounts = {
        "ether": client.ether_balance(address),
        "tokens_held": client.token_balance(address),
        "staked": stake.staked,
        "locked": stake.locked,
        "free": stake.free,
        "unbonding": stake.unbonding,
        "credit": stake.credit,
    }
    document = {
        "account": address,
        "symbol": symbol,
        **{name: amount(wei) for name, wei in amounts.items()},
        "unbonding_release": stake.unbonding_release if stake.unbonding else None,
        "payout": stake.payout,
    }
    rows = [
        (name.replace("_", " "), format_tokens(wei), "ETH" if name == "ether" else symbol)
        for name, wei in amounts.items()
    ]
    context.emit(
        document,
        lambda console: console.print(
            f"Account {address}; rewards go to {stake.payout}", table(["", "amount", ""], rows, right=["amount"])
        ),
    )


def fund(
    context: CommandContext,
    who: _Who = None,
    ether: Annotated[str, typer.Option(help="Ether the account shall have at least.", metavar="AMOUNT")] = "10",
    tokens: Annotated[str, typer.Option(help="Tokens the account shall have at least.", metavar="AMOUNT")] = "1000",
) -> None:
    """Give an account ether and tokens, on the local development chain only.

    Tops up to the amounts, so repeating it gives nothing more. The tokens come from the local deployer.

    Example: `trainledger account fund alice --tokens 5000`
    """
    from ledger.cli.development import top_up

    address = context.address(who)
    given = top_up(
        context,
        address,
        ether=parse_tokens(ether, what="--ether"),
        tokens=parse_tokens(tokens, what="--tokens"),
    )
    symbol = context.client().token_symbol
    document = {"account": address, "ether": amount(given.ether), "tokens": amount(given.tokens), "symbol": symbol}
    text = f"Gave {address} {format_tokens(given.ether)} ETH and {format_tokens(given.tokens)} {symbol}."
    context.emit(document, lambda console: console.print(text))


def send(
    context: CommandContext,
    to: Annotated[str, typer.Argument(help="Name or address of the receiver.")],
    tokens: Annotated[str, typer.Argument(help='Tokens, like "1.5".', metavar="AMOUNT")],
) -> None:
    """Send tokens of the account to another one.

    Example: `trainledger account send bob 25 --account alice`
    """
    receiver = context.address(to)
    wei = parse_tokens(tokens)
    if wei == 0:
        raise UsageError("The amount is 0.", remedy="Give more than 0 tokens.")
    client = context.client(signing=True)
    receipt = client.transfer_token(receiver, wei)
    document = {
        "from": context.wallet.address,
        "to": receiver,
        "amount": amount(wei),
        "transaction": receipt.transaction,
    }
    text = f"Sent {format_tokens(wei)} {client.token_symbol} to {receiver}."
    context.emit(document, lambda console: console.print(text))
