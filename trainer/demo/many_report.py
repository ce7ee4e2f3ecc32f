"""What the demonstration of many workers shows at its end: losses side by side, and where every wei of escrow went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from ledger.amounts import format_tokens
from ledger.cli.output import loss_value
from ledger.client import LedgerClient
from ledger.errors import TrainledgerError
from ledger.events import fetch_events
from ledger.performance import bits_float, pay_of
from ledger.types import Checkpoint, Slot, SlotStatus, TaskParameters, VaultTotals
from trainer.demo.runs import short_path
from trainer.demo.stage import REQUESTER, Stage

_BUG = "This is a bug; keep the folder of the run and report it."


@dataclass(frozen=True)
class Killed:
    """The worker that was killed, and the slot that was leased to it then."""

    name: str
    round: int
    slot: int


@dataclass(frozen=True, kw_only=True)
class Party:
    """An account and its money, wei: `expected` by the formula over what it did, `received` as growth of its balance.

    `fees` are those of leases that it let run out, by the log; `lost` is what its stake has shrunk by.
    """

    name: str
    address: str
    slots: int
    merges: int
    expected: int
    received: int
    fees: int
    lost: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A task that has ended. `paid` is wei for each of `slots`; `tokens` those trained on up to each round's end."""

    task: int
    parameters: TaskParameters
    slots: tuple[Slot, ...]
    paid: tuple[int, ...]
    lineage: tuple[Checkpoint, ...]
    tokens: tuple[int, ...]
    left: int

    @property
    def refund(self) -> int:
        """What nobody earned of the escrow, wei."""
        return self.parameters.total_reward - sum(self.paid)

    @property
    def losses(self) -> list[float]:
        """Held-out loss of the first state and after each round, nats a token."""
        first = [bits_float(self.parameters.base_loss)] if self.parameters.has_target else []
        return [*first, *(bits_float(point.heldout_loss) for point in self.lineage)]

    def as_json(self, names: Mapping[str, str]) -> dict[str, Any]:
        """Amounts as decimal strings of wei, roots as "0x" strings. `names` are those of addresses."""
        return {
            "task": self.task,
            "escrow": str(self.parameters.total_reward),
            "paid": str(sum(self.paid)),
            "refund": str(self.refund),
            "rounds": [
                {
                    "round": point.round,
                    "tokens": tokens,
                    "heldout_loss": loss_value(point.heldout_loss),
                    "state_root": "0x" + point.state_root.hex(),
                    "slots": [
                        {
                            "slot": slot.slot,
                            "merge": self.parameters.is_merge(slot.slot),
                            "worker": names.get(slot.worker, slot.worker),
                            "attempt": slot.attempt,
                            "steps": slot.steps,
                            "paid": str(paid),
                        }
                        for slot, paid in zip(self.slots, self.paid, strict=True)
                        if slot.round == point.round
                    ],
                }
                for point, tokens in zip(self.lineage, self.tokens, strict=True)
            ],
        }


@dataclass(frozen=True, kw_only=True)
class ManyReport:
    """The end of a demonstration of many workers. `spent` is what the requester has less than before, wei."""

    together: Trained
    alone: Trained
    parties: tuple[Party, ...]
    spent: int
    killed: Killed | None
    totals: VaultTotals

    @property
    def names(self) -> dict[str, str]:
        """Of addresses."""
        return {party.address: party.name for party in self.parties}

    def taken_over(self) -> str | None:
        """Who did the slot of the worker that was killed; None where nobody was killed."""
        if self.killed is None:
            return None
        place = (self.killed.round, self.killed.slot)
        slot = next(slot for slot in self.together.slots if (slot.round, slot.slot) == place)
        return self.names.get(slot.worker, slot.worker)

    def as_json(self) -> dict[str, Any]:
        """Amounts as decimal strings of wei, roots as "0x" strings."""
        killed = self.killed
        return {
            "together": self.together.as_json(self.names),
            "alone": self.alone.as_json(self.names),
            "workers": [
                {
                    "name": party.name,
                    "address": party.address,
                    "slots": party.slots,
                    "merges": party.merges,
                    "received": str(party.received),
                    "fees": str(party.fees),
                }
                for party in self.parties
            ],
            "requester_spent": str(self.spent),
            "killed": None
            if killed is None
            else {"name": killed.name, "round": killed.round, "slot": killed.slot, "taken_over": self.taken_over()},
            "vault": {"held": str(self.totals.held), "staked": str(self.totals.staked), "owed": str(self.totals.owed)},
        }


def make_report(
    client: LedgerClient,
    before: Mapping[str, Mapping[str, str]],
    *,
    together: int,
    alone: int,
    tokens_per_step: int,
    killed: Killed | None,
    stake: int,
) -> ManyReport:
    """Reads the chain and checks that every wei is where it has to be.

    Args:
        before: address and balance (wei) of each account before the tasks were posted. together, alone: their numbers.
        stake: what each worker staked, wei.

    Raises:
        TrainledgerError: a balance, a stake, an escrow or the vault's books are not what they have to be.
    """
    tasks = [_trained(client, number, tokens_per_step) for number in (together, alone)]
    fees = _fees(client)
    parties = tuple(
        _party(client, name, account, tasks, fees=fees.get(account["address"], 0), stake=stake)
        for name, account in before.items()
        if name != REQUESTER
    )
    requester = before[REQUESTER]
    report = ManyReport(
        together=tasks[0],
        alone=tasks[1],
        parties=parties,
        spent=int(requester["balance"]) - client.token_balance(requester["address"]),
        killed=killed,
        totals=client.totals(),
    )
    check(report)
    return report


def _trained(client: LedgerClient, number: int, tokens_per_step: int) -> Trained:
    parameters = client.task(number).parameters
    lineage = tuple(client.lineage(number))
    all_slots = [
        client.slot(number, point.round, slot) for point in lineage for slot in range(parameters.last_slot + 1)
    ]
    slots = tuple(slot for slot in all_slots if slot.status is SlotStatus.FINALISED)
    steps = [
        sum(slot.steps for slot in slots if slot.round <= point.round and not parameters.is_merge(slot.slot))
        for point in lineage
    ]
    return Trained(
        task=number,
        parameters=parameters,
        slots=slots,
        paid=tuple(pay_of(parameters, slot) for slot in slots),
        lineage=lineage,
        tokens=tuple(tokens_per_step * count for count in steps),
        left=client.escrow(number),
    )


def _fees(client: LedgerClient) -> dict[str, int]:
    """Fees burned of leases that ran out, wei by worker."""
    fees: dict[str, int] = {}
    for event in fetch_events(client.web3, client.deployment, names={"LeaseExpired"}, artifacts=client.artifacts):
        worker = str(event.arguments["worker"])
        fees[worker] = fees.get(worker, 0) + int(str(event.arguments["feeBurned"]))
    return fees


def _party(
    client: LedgerClient,
    name: str,
    account: Mapping[str, str],
    tasks: Sequence[Trained],
    *,
    fees: int,
    stake: int,
) -> Party:
    address = account["address"]
    done = [
        (one.parameters.is_merge(slot.slot), paid)
        for one in tasks
        for slot, paid in zip(one.slots, one.paid, strict=True)
        if slot.worker == address
    ]
    return Party(
        name=name,
        address=address,
        slots=sum(not merge for merge, _ in done),
        merges=sum(merge for merge, _ in done),
        expected=sum(paid for _, paid in done),
        received=client.token_balance(address) - int(account["balance"]),
        fees=fees,
        lost=stake - client.stake_account(address).staked,
    )


def check(report: ManyReport) -> None:
    """Whether escrow = pay + refund, in what was promised and in what everybody has.

    Raises:
        TrainledgerError: a wei is missing or too many, a slot is not final, or a task has learned nothing.
    """
    tasks = (report.together, report.alone)
    for party in report.parties:
        if (party.received, party.lost) != (party.expected, party.fees):
            raise _wrong(
                f"{party.name} received {party.received} wei and lost {party.lost} of its stake; by the formula it is "
                f"{party.expected}, and by the log {party.fees}."
            )
    for one in tasks:
        parameters = one.parameters
        needed = parameters.rounds * (parameters.last_slot + 1)
        if len(one.slots) != needed:
            raise _wrong(f"{len(one.slots)} of the {needed} slots of task {one.task} are final.")
        if one.left != 0:
            raise _wrong(f"{one.left} wei are left in the escrow of task {one.task}, which has ended.")
        if not one.losses[-1] < one.losses[0]:
            raise TrainledgerError(f"The held-out loss of task {one.task} did not fall: {one.losses}.")
    escrow, refund = sum(one.parameters.total_reward for one in tasks), sum(one.refund for one in tasks)
    received = sum(party.received for party in report.parties)
    if received + refund != escrow or report.spent != escrow - refund:
        raise _wrong(
            f"Of {escrow} wei in escrow the workers received {received}, and the requester, to whom {refund} are "
            f"due, spent {report.spent}."
        )
    if report.totals.held != report.totals.staked + report.totals.owed:
        raise _wrong(f"The vault holds {report.totals.held} wei and owes {report.totals.staked + report.totals.owed}.")


def _wrong(problem: str) -> TrainledgerError:
    return TrainledgerError(problem, remedy=_BUG)


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def print_report(console: Console, stage: Stage, report: ManyReport) -> None:
    """The report for people, and what to try next."""
    together, alone = report.together, report.alone
    workers = together.parameters.slots_per_round
    losses = _table("Held-out loss, nats a token", "round", "tokens", f"{workers} slots, merged", "one worker alone")
    if together.parameters.has_target:
        losses.add_row("", "0", f"{together.losses[0]:.4f}", f"{alone.losses[0]:.4f}")
    for mine, other, tokens in zip(together.lineage, alone.lineage, together.tokens, strict=True):
        cells = (f"{bits_float(point.heldout_loss):.4f}" for point in (mine, other))
        losses.add_row(str(mine.round), f"{tokens:,}", *cells)
    console.print(losses)
    steps = together.parameters.steps_per_round, alone.parameters.steps_per_round
    console.print(
        f"Both have trained on as many tokens. In a round each of the {workers} slots does {steps[0]} steps, beside "
        f"the others; the one worker does {steps[1]}, one after the other.\n",
        highlight=False,
    )
    if report.killed is not None:
        console.print(
            f"{report.killed.name} was killed in slot {report.killed.slot} of round {report.killed.round}; "
            f"{report.taken_over()} did it instead. The state roots are those without a kill.\n",
            highlight=False,
        )
    _print_money(console, report)
    folder = short_path(stage.run.folder)
    console.print("\n[bold]Try next[/]")
    for words, what in (
        (f"trainledger up --home {folder}", "the same chain again, in a terminal of its own; then:"),
        (f"trainledger rewards --home {folder} --account worker-1", "who earned what, by which submission"),
        (
            f"trainledger checkpoint list {together.task} --home {folder}",
            "the merged states, and how many slots counted",
        ),
        (f"trainledger verify {together.task} --all --home {folder}", "replay every slot and every merge"),
    ):
        console.print(f"  {words}\n      {what}", markup=False, highlight=False, soft_wrap=True)


def _print_money(console: Console, report: ManyReport) -> None:
    money = _table("Every wei of the escrow", "", "slots", "merges", "tokens received", "fees burned")
    for party in report.parties:
        cells = format_tokens(party.received), format_tokens(party.fees)
        money.add_row(party.name, str(party.slots), str(party.merges), *cells)
    refund = report.together.refund + report.alone.refund
    money.add_row("refund", "", "", format_tokens(refund), "")
    escrow = report.together.parameters.total_reward + report.alone.parameters.total_reward
    money.add_row("escrow", "", "", format_tokens(escrow), "", style="bold")
    console.print(money)
    totals = report.totals
    console.print(
        f"Conservation: the vault holds {format_tokens(totals.held)} = stakes {format_tokens(totals.staked)} "
        f"+ escrows and credits {format_tokens(totals.owed)}.",
        highlight=False,
    )
