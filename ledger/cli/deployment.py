"""`deploy`: puts the contracts on a chain and writes the record that all other commands use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ledger.amounts import UINT96_MAX, format_tokens, parse_tokens
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount, table
from ledger.errors import SettingsError, StaleDeployment, UsageError, WrongChain

if TYPE_CHECKING:
    from ledger.deploy import Deployment, DeploymentParameters

__all__ = ["MinimumClock", "MinimumMove", "deployment_document", "print_deployment", "register", "with_clocks"]

_UINT128_MAX = 2**128 - 1
_YEAR = 365 * 24 * 3600  # the contracts take no longer period

MinimumClock = Annotated[
    int | None,
    typer.Option("--minimum-clock", help="Least seconds of each side in a dispute.", min=1, max=_YEAR),
]
MinimumMove = Annotated[
    int | None, typer.Option("--minimum-move", help="Least seconds for each move of a dispute.", min=1, max=_YEAR)
]


def register(app: CommandApp) -> None:
    """Adds the command."""
    app.command("deploy")(deploy)


def deploy(
    context: CommandContext,
    unbonding_delay: Annotated[
        int | None, typer.Option(help="Seconds between asking for stake and getting it.", min=1, max=_YEAR)
    ] = None,
    minimum_bond: Annotated[str | None, typer.Option(help="Least bond of a task, in tokens.", metavar="AMOUNT")] = None,
    minimum_window: Annotated[
        int | None, typer.Option(help="Least challenge window, in seconds.", min=1, max=_YEAR)
    ] = None,
    minimum_lease: Annotated[int | None, typer.Option(help="Least lease, in seconds.", min=1, max=_YEAR)] = None,
    minimum_clock: MinimumClock = None,
    minimum_move: MinimumMove = None,
    seat_stake: Annotated[
        str | None, typer.Option(help="Stake of an auditor's seat, in tokens.", metavar="AMOUNT")
    ] = None,
    seat_age: Annotated[
        int | None, typer.Option(help="Seconds after which a seat can be drawn.", min=1, max=_YEAR)
    ] = None,
    reveal_seconds: Annotated[
        int | None, typer.Option(help="Seconds that drawn auditors have to reveal in.", min=1, max=_YEAR)
    ] = None,
    supply: Annotated[
        str | None, typer.Option(help="Tokens minted to the account, where no --token is given.", metavar="AMOUNT")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Address of an existing ERC-20 to use, not a new one.", metavar="ADDRESS")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the record of a live deployment.")] = False,
) -> None:
    """Deploy the contracts with the account, and write the deployment record and ABIs.

    Nobody can change these numbers afterwards, nor the contracts: there is no owner. Defaults suit a public chain (a
    week of unbonding, an hour of window, an hour on each clock of a dispute) or, on the local chain, a quick try.

    JSON: `chain_id`, `ledger`, `vault`, `token`, `game`, `referee`, `committee`, `book`, `open_ledger`, `open_game`,
    `availability`, `deployer`, `block`, `unbonding_delay`, `minimum_bond`, `minimum_window`, `minimum_lease`,
    `minimum_clock`, `minimum_move`, `seat_stake`, `seat_age`, `reveal_seconds` and `record`, the path of the record.

    Example: `trainledger deploy --rpc-url https://… --account alice --minimum-bond 5`
    """
    from ledger.cli import connection
    from ledger.deploy import deploy as deploy_contracts
    from ledger.deploy import publish

    if token is not None and supply is not None:
        raise UsageError("--supply is for a new token, and --token names an existing one.", remedy="Drop one of them.")
    wallet = context.wallet
    directory = connection.deployment_directory(context.settings, context.web3)
    if not force:
        _refuse_live(context, directory)
    sender = connection.make_sender(context.web3, wallet, confirmations=context.settings.confirmations)
    given: dict[str, int | None] = {
        "unbonding_delay": unbonding_delay,
        "minimum_bond": None if minimum_bond is None else _within(minimum_bond, "--minimum-bond", UINT96_MAX),
        "minimum_window": minimum_window,
        "minimum_lease": minimum_lease,
        "seat_stake": None if seat_stake is None else _within(seat_stake, "--seat-stake", UINT96_MAX),
        "seat_age": seat_age,
        "reveal_seconds": reveal_seconds,
        "token_supply": None if supply is None else _within(supply, "--supply", _UINT128_MAX),
    }
    parameters = with_clocks(
        context, _parameters(context, given), minimum_clock=minimum_clock, minimum_move=minimum_move
    )
    existing = context.address(token) if token is not None else None
    context.say(f"Deploying from {wallet.address} …")
    deployment = deploy_contracts(context.web3, sender, parameters=parameters, token=existing)
    publish(deployment, directory)
    document = deployment_document(deployment, directory)
    context.emit(document, lambda console: print_deployment(console, document))


def _refuse_live(context: CommandContext, directory: Path) -> None:
    """A record that is of another chain, or whose contracts are there, is somebody's; a dead one may go."""
    from ledger.deploy import Deployment

    if not (directory / "deployment.json").exists():
        return
    try:
        record = Deployment.load(directory)
        record.check(context.web3)
    except StaleDeployment as stale:
        context.say(f"Replacing the record in {directory}. {stale.problem}")
        return
    except WrongChain:
        problem = f"The record in {directory} is of another chain, with id {record.chain_id}."
    else:
        problem = f"The ledger {record.ledger} is already deployed and recorded in {directory}."
    raise SettingsError(problem, remedy="Use it, name another folder with --deployment, or replace it with --force.")


def _parameters(context: CommandContext, given: dict[str, int | None]) -> DeploymentParameters:
    from ledger.cli.development import DEVELOPMENT_CHAIN
    from ledger.deploy import LOCAL_PARAMETERS, PUBLIC_PARAMETERS
    from ledger.rpc import chain_id

    default = LOCAL_PARAMETERS if chain_id(context.web3) == DEVELOPMENT_CHAIN else PUBLIC_PARAMETERS
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(default, **changes)


def with_clocks(
    context: CommandContext,
    parameters: DeploymentParameters,
    *,
    minimum_clock: int | None = None,
    minimum_move: int | None = None,
) -> DeploymentParameters:
    """The parameters with the clocks of disputes that flags (given here) or else settings ask for.

    Raises:
        UsageError: a move may take longer than the whole clock.
    """
    wanted = {
        "minimum_clock": minimum_clock if minimum_clock is not None else context.settings.minimum_clock,
        "minimum_move": minimum_move if minimum_move is not None else context.settings.minimum_move,
    }
    made = replace(parameters, **{name: value for name, value in wanted.items() if value is not None})
    if made.minimum_move > made.minimum_clock:
        raise UsageError(
            f"A move of a dispute would have {made.minimum_move} seconds, more than the {made.minimum_clock} of the "
            "whole clock.",
            remedy="Give a smaller --minimum-move, or a larger --minimum-clock.",
        )
    return made


def _within(text: str, option: str, most: int) -> int:
    wei = parse_tokens(text, what=option)
    if not 0 < wei <= most:
        raise UsageError(
            f"{option} is {text}; it must be more than 0 and at most {format_tokens(most)} tokens.",
            remedy="Give an amount in that range.",
        )
    return wei


def deployment_document(deployment: Deployment, directory: Path) -> dict[str, Any]:
    """What `deploy` and `up` report."""
    fixed = deployment.parameters
    return {
        "chain_id": deployment.chain_id,
        "ledger": deployment.ledger,
        "vault": deployment.vault,
        "token": deployment.token,
        "game": deployment.game,
        "referee": deployment.referee,
        "committee": deployment.committee,
        "book": deployment.book,
        "open_ledger": deployment.open_ledger,
        "open_game": deployment.open_game,
        "availability": deployment.availability,
        "deployer": deployment.deployer,
        "block": deployment.block_number,
        "unbonding_delay": fixed.unbonding_delay,
        "minimum_bond": amount(fixed.minimum_bond),
        "minimum_window": fixed.minimum_window,
        "minimum_lease": fixed.minimum_lease,
        "minimum_clock": fixed.minimum_clock,
        "minimum_move": fixed.minimum_move,
        "seat_stake": amount(fixed.seat_stake),
        "seat_age": fixed.seat_age,
        "reveal_seconds": fixed.reveal_seconds,
        "record": str(directory / "deployment.json"),
    }


def print_deployment(console: Console, document: dict[str, Any]) -> None:
    """The same for people."""
    shown = document | {name: document[name]["tokens"] + " tokens" for name in ("minimum_bond", "seat_stake")}
    for name in shown:
        if name.endswith(("_delay", "_window", "_lease", "_clock", "_move", "_age", "_seconds")):
            shown[name] = f"{shown[name]} seconds"
    console.print(table(["", ""], [(name.replace("_", " "), value) for name, value in shown.items()]))
