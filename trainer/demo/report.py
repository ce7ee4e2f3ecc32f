"""What the demonstration proves at its end, computed from the chain and checked to the wei."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hexbytes import HexBytes
from rich.console import Console
from rich.table import Table

from ledger.amounts import format_tokens
from ledger.cli.output import loss_value
from ledger.client import LedgerClient
from ledger.disputes.client import DisputeClient
from ledger.disputes.positions import GameView, Outcome
from ledger.errors import TrainledgerError
from ledger.events import fetch_events
from ledger.performance import bits_float, pay_for
from ledger.types import Checkpoint, VaultTotals
from trainer.demo.commands import Commands
from trainer.demo.runs import short_path
from trainer.demo.workers import WorkerProcess

CHEAT = "worker-3"


@dataclass(frozen=True, kw_only=True)
class Earning:
    """What one worker got, wei: `expected` by the formula over the lineage, `received` as growth of its balance."""

    name: str
    address: str
    rounds: tuple[int, ...]
    expected: int
    received: int


@dataclass(frozen=True, kw_only=True)
class Caught:
    """How the cheat was found out: the game, its transactions and their gas. Amounts in wei."""

    game: int
    cheat: str
    auditor: str
    transactions: int
    gas: int
    lost: int
    awarded: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """The end of a demonstration. `sample` is text that the last checkpoint generated."""

    task: int
    base_loss: float | None
    lineage: tuple[Checkpoint, ...]
    paid: tuple[int, ...]
    earnings: tuple[Earning, ...]
    totals: VaultTotals
    caught: Caught
    sample: str

    def as_json(self) -> dict[str, Any]:
        """Amounts as decimal strings of wei, roots as "0x" strings."""
        return {
            "task": self.task,
            "rounds": [
                {
                    "round": point.round,
                    "worker": point.worker,
                    "heldout_loss": loss_value(point.heldout_loss),
                    "state_root": "0x" + point.state_root.hex(),
                    "paid": str(paid),
                }
                for point, paid in zip(self.lineage, self.paid, strict=True)
            ],
            "earnings": [
                {"name": one.name, "address": one.address, "rounds": list(one.rounds), "received": str(one.received)}
                for one in self.earnings
            ],
            "vault": {"held": str(self.totals.held), "staked": str(self.totals.staked), "owed": str(self.totals.owed)},
            "dispute": {
                "game": self.caught.game,
                "cheat": self.caught.cheat,
                "auditor": self.caught.auditor,
                "transactions": self.caught.transactions,
                "gas": self.caught.gas,
                "lost": str(self.caught.lost),
                "awarded": str(self.caught.awarded),
            },
            "sample": self.sample,
        }


def dispute_of(client: DisputeClient, task: int, cheat: str) -> GameView:
    """The game that felled the cheat's submission.

    Raises:
        TrainledgerError: there is none.
    """
    for view in client.games(task=task, party=cheat):
        if view.outcome is Outcome.CHALLENGER_WON and view.position.matter.defender == cheat:
            return view
    raise TrainledgerError(
        "Nobody caught the cheat.", remedy="This is a bug; keep the folder of the run and report it."
    )


def make_report(
    client: LedgerClient,
    commands: Commands,
    task: int,
    before: Mapping[str, Mapping[str, str]],
    workers: Sequence[WorkerProcess],
    caught: Caught,
) -> Report:
    """Reads the chain and checks every promise.

    Raises:
        TrainledgerError: a balance, the vault's books or a loss is not what it has to be; or the cheat got away.
    """
    parameters = client.task(task).parameters
    lineage = tuple(client.lineage(task))
    paid = tuple(
        pay_for(parameters, round_number=point.round, steps=point.steps, loss_bits=point.heldout_loss)
        for point in lineage
    )
    earnings = tuple(
        Earning(
            name=worker.name,
            address=(address := before[worker.name]["address"]),
            rounds=tuple(point.round for point in lineage if point.worker == address),
            expected=sum(pay for point, pay in zip(lineage, paid, strict=True) if point.worker == address),
            received=client.token_balance(address) - int(before[worker.name]["balance"]),
        )
        for worker in workers
    )
    base_loss = bits_float(parameters.base_loss) if parameters.has_target else None
    losses = [bits_float(point.heldout_loss) for point in lineage]
    totals = client.totals()
    _check_caught(caught, parameters.bond)
    _check(earnings, totals, losses if base_loss is None else [base_loss, *losses])
    sample = commands.ask("generate", "--task", str(task), "--prompt", "def ", "--tokens", "240", "--seed", "7")
    return Report(
        task=task,
        base_loss=base_loss,
        lineage=lineage,
        paid=paid,
        earnings=earnings,
        totals=totals,
        caught=caught,
        sample=str(sample["text"]),
    )


def caught_in(client: DisputeClient, view: GameView, *, balance_before: int) -> Caught:
    """What a game that felled the cheat's submission cost. `balance_before` is what the auditor held, wei."""
    matter = view.position.matter
    events = fetch_events(
        client.web3,
        client.deployment,
        from_block=client.deployment.block_number,
        names={"GameStarted", "Moved", "GameEnded"},
        artifacts=client.artifacts,
    )
    hashes = {event.transaction for event in events if event.arguments["game"] == view.number}
    awards = fetch_events(
        client.web3,
        client.deployment,
        from_block=client.deployment.block_number,
        names={"FallAwarded"},
        artifacts=client.artifacts,
    )
    lost = sum(int(str(one.arguments["awarded"])) + int(str(one.arguments["burned"])) for one in awards)
    return Caught(
        game=view.number,
        cheat=matter.defender,
        auditor=matter.challenger,
        transactions=len(hashes),
        gas=sum(int(client.web3.eth.get_transaction_receipt(HexBytes(one))["gasUsed"]) for one in hashes),
        lost=lost,
        awarded=client.token_balance(matter.challenger) - balance_before,
    )


def _check_caught(caught: Caught, bond: int) -> None:
    if (caught.lost, caught.awarded) != (bond, bond // 2):
        raise TrainledgerError(
            f"The cheat lost {caught.lost} wei and the auditor received {caught.awarded}, of a bond of {bond}.",
            remedy="This is a bug; keep the folder of the run and report it.",
        )


def _check(earnings: Sequence[Earning], totals: VaultTotals, losses: Sequence[float]) -> None:
    for one in earnings:
        if one.received != one.expected or not one.rounds:
            raise TrainledgerError(
                f"{one.name} received {one.received} wei for rounds {list(one.rounds)}, "
                f"and the formula gives {one.expected}.",
                remedy="This is a bug; keep the folder of the run and report it.",
            )
    if not totals.solvent:
        raise TrainledgerError(
            f"The vault holds {totals.held} wei and owes {totals.staked + totals.owed}.",
            remedy="This is a bug; keep the folder of the run and report it.",
        )
    if not all(later < earlier for earlier, later in itertools.pairwise(losses)):
        raise TrainledgerError(f"The held-out loss did not fall in every round: {losses}.")


def print_report(console: Console, commands: Commands, report: Report) -> None:
    """The report for people, and what to try next."""
    table = Table(box=None, pad_edge=False, title="Lineage", title_justify="left", header_style="bold")
    for column in ("round", "worker", "held-out loss", "paid", "state root"):
        table.add_column(column, justify="right" if column in ("round", "held-out loss", "paid") else "left")
    names = {one.address: one.name for one in report.earnings}
    if report.base_loss is not None:
        table.add_row("", "", f"{report.base_loss:.4f}", "", "(initial state)")
    for point, paid in zip(report.lineage, report.paid, strict=True):
        table.add_row(
            str(point.round),
            names.get(point.worker, point.worker),
            f"{bits_float(point.heldout_loss):.4f}",
            format_tokens(paid),
            f"0x{point.state_root.hex()[:16]}…",
        )
    console.print(table)
    console.print()
    for one in report.earnings:
        console.print(
            f"{one.name} trained rounds {', '.join(map(str, one.rounds))} and received {format_tokens(one.received)} "
            f"tokens, to the wei what reward x rate x performance gives.",
            highlight=False,
        )
    caught, totals = report.caught, report.totals
    console.print(
        f"{CHEAT} cheated in one element, and lost its bond of {format_tokens(caught.lost)} tokens to game "
        f"{caught.game}: {caught.transactions} transactions, {caught.gas:,} gas. "
        f"{format_tokens(caught.lost - caught.awarded)} were burned, {format_tokens(caught.awarded)} went to the "
        "auditor. The lineage is what it would be without the cheat: every state in it has been replayed.",
        highlight=False,
    )
    console.print(
        f"Conservation: the vault holds {format_tokens(totals.held)} = stakes {format_tokens(totals.staked)} "
        f"+ escrows and credits {format_tokens(totals.owed)}.",
        highlight=False,
    )
    console.print("\n[bold]The last checkpoint writes:[/]")
    for line in report.sample.splitlines():
        console.print(f"  {line}", markup=False, highlight=False)
    folder = short_path(commands.run.folder)
    console.print("\n[bold]Try next[/]")
    for words, what in (
        (f"trainledger up --home {folder}", "the same chain again, in a terminal of its own; then:"),
        (f"trainledger rewards --home {folder} --account worker-1", "who earned what, by which submission"),
        (f"trainledger verify {report.task} --all --home {folder}", "replay the whole task"),
        (f"trainledger dispute show {report.caught.game} --home {folder}", "what the cheat was caught with"),
        (f"trainledger checkpoint export {report.task} --to my-model --home {folder}", "the model, for plain PyTorch"),
        ("python examples/query_rewards.py --help", "the same figures with web3 alone"),
    ):
        console.print(f"  {words}\n      {what}", markup=False, highlight=False, soft_wrap=True)
