"""`rewards` and `withdraw`: what an account has, what it earned by which work, and how it gets it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console

from ledger.amounts import format_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount, loss_value, shorten, table
from ledger.types import Event, StakeAccount

__all__ = ["register", "rewards", "rewards_document"]

_EVENTS = ("TaskPosted", "SlotClaimed", "Finalised", "EscrowPaid", "BondTaken", "Withdrawn")
_OPEN_EVENTS = ("ScoreFinalised", "DefaultPaid")


def register(app: CommandApp) -> None:
    """Adds `withdraw`; `rewards` is what its group does without a command."""
    app.command("withdraw")(withdraw)


def rewards(context: CommandContext) -> None:
    """Show what an account holds and what it earned, submission by submission.

    All numbers come from the chain: balances from the contracts, earnings from the logs of finalised submissions.
    Each earning names the stake's owner (worker), the key that claimed (operator) and who was paid (payout), so it
    is always clear which key earned what. Credit is what `trainledger withdraw` sends you; `explain` shows how a pay
    was computed.

    JSON: `account`, `chain_id`, `ledger`, `symbol`; `balance` with `tokens_held`, `staked`, `locked`, `free`,
    `unbonding`, `unbonding_release` (Unix seconds or null) and `credit`; `payout`; `earnings`, a list of `task`,
    `round`, `slot`, `merge` (whether it merged its round's slots), `attempt`, `worker`, `operator`, `payout`, `roles`
    (which of the three the account is), `state_root`, `steps`, `heldout_loss` (null where not finite), `paid`, `block`
    and `transaction`; `open_earnings`, the same of slots of open tasks, without `merge`, `attempt`, `operator` and
    `steps`; `total` with `earned` (paid to the account), `refunded`, `awarded`, `withdrawn` and `stake_taken`.

    Examples: `trainledger rewards --account alice`, `trainledger rewards --account 0x… --json`
    """
    account = context.address()
    client = context.client()
    document = rewards_document(
        account,
        chain_id=context.deployment.chain_id,
        ledger=context.deployment.ledger,
        symbol=client.token_symbol,
        token_balance=client.token_balance(account),
        stake=client.stake_account(account),
        events=itertools.chain(context.events(_EVENTS), context.events(_OPEN_EVENTS, open_tasks=True)),
    )
    context.emit(document, lambda console: _print(console, document))


def rewards_document(
    account: str,
    *,
    chain_id: int,
    ledger: str,
    symbol: str,
    token_balance: int,
    stake: StakeAccount,
    events: Iterable[Event],
) -> dict[str, Any]:
    """The JSON of `trainledger rewards --json`; examples/query_rewards.py makes the same from web3 alone.

    `events` holds all events of the six kinds, oldest first, then those of the two kinds of open tasks. The books
    close: credited − withdrawn = credit, where credited is earned as payout + refunded as requester + awarded in
    disputes.
    """
    totals = dict.fromkeys(("earned", "credited", "awarded", "taken", "withdrawn"), 0)
    operators: dict[tuple[object, ...], object] = {}
    merges: set[tuple[int, int]] = set()  # task and slot
    earnings: list[dict[str, Any]] = []
    open_earnings: list[dict[str, Any]] = []
    for event in events:
        values: Any = event.arguments
        if event.name == "TaskPosted":
            merges.add((values["task"], values["parameters"]["slotsPerRound"]))
        elif event.name == "SlotClaimed":
            operators[_attempt(values)] = values["operator"]
        elif event.name == "Finalised":
            operator = operators[_attempt(values)]
            roles = {"worker": values["worker"], "operator": operator, "payout": values["payout"]}
            if account in roles.values():
                # With one slot a round it is number 0, and there is no slot 1.
                merge = (values["task"], values["slot"]) in merges
                earnings.append(_earning(event, roles, account, merge=merge))
            totals["earned"] += values["paid"] if values["payout"] == account else 0
        elif event.name in _OPEN_EVENTS:
            if account in (values["worker"], values["payout"]):
                open_earnings.append(_open_earning(event, account))
            totals["earned"] += values["paid"] if values["payout"] == account else 0
        elif event.name == "EscrowPaid":
            totals["credited"] += values["amount"] if values["to"] == account else 0
        elif event.name == "BondTaken":
            totals["awarded"] += values["awarded"] if values["winner"] == account else 0
            totals["taken"] += values["burned"] + values["awarded"] if values["owner"] == account else 0
        elif event.name == "Withdrawn":
            totals["withdrawn"] += values["amount"] if values["account"] == account else 0
    return {
        "account": account,
        "chain_id": chain_id,
        "ledger": ledger,
        "symbol": symbol,
        "balance": {
            "tokens_held": amount(token_balance),
            "staked": amount(stake.staked),
            "locked": amount(stake.locked),
            "free": amount(stake.free),
            "unbonding": amount(stake.unbonding),
            "unbonding_release": stake.unbonding_release if stake.unbonding else None,
            "credit": amount(stake.credit),
        },
        "payout": stake.payout,
        "earnings": earnings,
        "open_earnings": open_earnings,
        "total": {
            "earned": amount(totals["earned"]),
            "refunded": amount(totals["credited"] - totals["earned"]),
            "awarded": amount(totals["awarded"]),
            "withdrawn": amount(totals["withdrawn"]),
            "stake_taken": amount(totals["taken"]),
        },
    }


def _attempt(values: Any) -> tuple[object, ...]:
    return tuple(values[name] for name in ("task", "round", "slot", "attempt"))


def _earning(event: Event, roles: dict[str, Any], account: str, *, merge: bool) -> dict[str, Any]:
    values: Any = event.arguments
    return {
        "task": values["task"],
        "round": values["round"],
        "slot": values["slot"],
        "merge": merge,
        "attempt": values["attempt"],
        **roles,
        "roles": [role for role, address in roles.items() if address == account],
        "state_root": "0x" + bytes(values["stateRoot"]).hex(),
        "steps": values["steps"],
        "heldout_loss": loss_value(values["heldOutLoss"]),
        "paid": amount(values["paid"]),
        "block": event.block_number,
        "transaction": "0x" + event.transaction.hex(),
    }


def _open_earning(event: Event, account: str) -> dict[str, Any]:
    """A slot of an open task that was paid; one whose requester showed no held-out data has no loss."""
    values: Any = event.arguments
    roles = {"worker": values["worker"], "payout": values["payout"]}
    scored = event.name == "ScoreFinalised"
    return {
        "task": values["task"],
        "round": values["round"],
        "slot": values["slot"],
        **roles,
        "roles": [role for role, address in roles.items() if address == account],
        "state_root": "0x" + bytes(values["scoredRoot" if scored else "trainedRoot"]).hex(),
        "heldout_loss": loss_value(values["heldOutLoss"]) if scored else None,
        "paid": amount(values["paid"]),
        "block": event.block_number,
        "transaction": "0x" + event.transaction.hex(),
    }


def _print(console: Console, document: dict[str, Any]) -> None:
    symbol = document["symbol"]
    balance, total = document["balance"], document["total"]
    console.print(f"Account {document['account']}; rewards go to {document['payout']}")
    rows = [(name.replace("_", " "), value["tokens"]) for name, value in balance.items() if name != "unbonding_release"]
    console.print(table(["balance", symbol], rows, right=[symbol]))
    if balance["unbonding_release"] is not None:
        console.print(f"Unbonding stake is released at Unix time {balance['unbonding_release']}.")
    if document["earnings"]:
        console.print()
        columns = [
            "task",
            "round",
            "slot",
            "worker",
            "operator",
            "payout",
            "steps",
            "held-out loss",
            f"paid ({symbol})",
        ]
        rows_ = [
            (
                item["task"],
                item["round"],
                "merge" if item["merge"] else item["slot"],
                *(shorten(item[role]) for role in ("worker", "operator", "payout")),
                item["steps"],
                "not finite" if item["heldout_loss"] is None else f"{item['heldout_loss']:.4f}",
                item["paid"]["tokens"],
            )
            for item in document["earnings"]
        ]
        console.print(table(columns, rows_, right=["task", "round", "slot", *columns[6:]]))
    if document["open_earnings"]:
        console.print()
        _print_open(console, document)
    console.print()
    console.print(
        f"TOTAL earned {total['earned']['tokens']} {symbol}, withdrawn {total['withdrawn']['tokens']} {symbol}"
        f" (refunds {total['refunded']['tokens']}, awards {total['awarded']['tokens']},"
        f" stake taken {total['stake_taken']['tokens']})"
    )
    if balance["credit"]["wei"] != "0":
        console.print("`trainledger withdraw` sends you the credit.")


def _print_open(console: Console, document: dict[str, Any]) -> None:
    columns = ["open task", "round", "slot", "worker", "payout", "held-out loss", f"paid ({document['symbol']})"]
    rows = [
        (
            *(item[name] for name in ("task", "round", "slot")),
            *(shorten(item[role]) for role in ("worker", "payout")),
            "" if item["heldout_loss"] is None else f"{item['heldout_loss']:.4f}",
            item["paid"]["tokens"],
        )
        for item in document["open_earnings"]
    ]
    console.print(table(columns, rows, right=[*columns[:3], *columns[5:]]))


def withdraw(
    context: CommandContext,
    to: Annotated[
        str | None, typer.Option("--to", help="Name or address to send to; the account itself if not given.")
    ] = None,
) -> None:
    """Send all of the account's credit (rewards, refunds, awards) to itself or to --to.

    Safe to repeat: with no credit left it says so and changes nothing. JSON: `account`, `to`, `amount`, `symbol`.

    Examples: `trainledger withdraw --account alice`, `trainledger withdraw --account alice --to 0x…`
    """
    account = context.wallet.address
    receiver = context.address(to) if to else account
    client = context.client(signing=True)
    symbol = client.token_symbol
    credit = client.stake_account(account).credit
    paid = client.withdraw(to=receiver) if credit else 0
    document = {"account": account, "to": receiver, "amount": amount(paid), "symbol": symbol}
    text = f"Sent {format_tokens(paid)} {symbol} to {receiver}." if paid else f"{account} has no credit to withdraw."
    context.emit(document, lambda console: console.print(text))
