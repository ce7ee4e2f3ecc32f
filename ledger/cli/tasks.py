"""`task list|show|close`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount, loss_value, shorten, table
from ledger.rounds import describe_wait
from ledger.types import ZERO_ADDRESS, Round, Slot, SlotStatus, Task

if TYPE_CHECKING:
    from ledger.client import LedgerClient

__all__ = ["TaskNumber", "register", "task_document", "task_state"]

TaskNumber = Annotated[int, typer.Argument(help="Number of the task.", min=0, max=2**64 - 1, metavar="TASK")]


def register(app: CommandApp) -> None:
    """Adds the commands to the group."""
    for name, function in (("list", list_), ("show", show), ("close", close)):
        app.command(name)(function)


def task_state(task: Task) -> str:
    """One word for a table."""
    return "closed" if task.closed else "complete" if task.complete else "running"


def task_document(task: Task) -> dict[str, Any]:
    """A task as JSON: roots as text, amounts exact, losses as numbers."""
    fixed = task.parameters
    return {
        "task": task.number,
        "state": task_state(task),
        "requester": task.requester,
        "current_round": task.current_round,
        "rounds": fixed.rounds,
        "slots_per_round": fixed.slots_per_round,
        "steps_per_round": fixed.steps_per_round,
        "minimum_steps": fixed.minimum_steps,
        "quorum": fixed.quorum if fixed.merges else None,
        "round_seconds": fixed.round_seconds if fixed.merges else None,
        "slot_reward": amount(fixed.slot_reward),
        "merge_reward": amount(fixed.merge_reward) if fixed.merges else None,
        "bond": amount(fixed.bond),
        "lease_fee": amount(fixed.lease_fee),
        "lease_seconds": fixed.lease_seconds,
        "challenge_window": fixed.challenge_window,
        "admission": fixed.admission.name.lower(),
        "minimum_stake": amount(fixed.minimum_stake),
        "ticket_target": hex(fixed.ticket_target) if fixed.admission.needs_ticket else None,
        "base_loss": loss_value(fixed.base_loss) if fixed.has_target else None,
        "target_loss": loss_value(fixed.target_loss) if fixed.has_target else None,
        "specification_hash": root_hex(fixed.specification_hash),
        "program_root": root_hex(fixed.program_root),
        "dataset_root": root_hex(fixed.dataset_root),
        "initial_state_root": root_hex(fixed.initial_state_root),
        "state_tensors": fixed.state_tensors,
    }


def list_(
    context: CommandContext,
    running: Annotated[bool, typer.Option("--running", help="Only tasks that still take work.")] = False,
) -> None:
    """List the posted tasks.

    JSON: a list of tasks, each with the keys of `trainledger task show` up to `state_tensors`.

    Examples: `trainledger task list`, `trainledger task list --running --json`
    """
    client = context.client()
    tasks = [task for task in client.tasks() if not running or task_state(task) == "running"]
    symbol = client.token_symbol
    columns = ["task", "state", "round", "slots", "steps", f"slot reward ({symbol})", "bond", "admission", "requester"]
    rows = [
        (
            task.number,
            task_state(task),
            f"{task.current_round}/{task.parameters.rounds}",
            task.parameters.slots_per_round,
            task.parameters.steps_per_round,
            format_tokens(task.parameters.slot_reward),
            format_tokens(task.parameters.bond),
            task.parameters.admission.name.lower().replace("_", " "),
            shorten(task.requester),
        )
        for task in tasks
    ]
    if not tasks:
        context.say("No tasks. Post one with `trainledger task create FILE`.")
    context.emit(
        [task_document(task) for task in tasks],
        lambda console: console.print(table(columns, rows, right=columns[5:7])) if rows else None,
    )


def show(context: CommandContext, number: TaskNumber) -> None:
    """Show a task: its parameters, its escrow, and the slots of the current round with what the round waits for.

    JSON: `task`, `state` (running, complete or closed), `requester`, `current_round`, `rounds`, `slots_per_round`,
    `steps_per_round`, `minimum_steps`, `quorum`, `round_seconds`, `slot_reward`, `merge_reward` (null, as `quorum` and
    `round_seconds`, where a round has one slot), `bond`, `lease_fee`, `lease_seconds`, `challenge_window`, `admission`,
    `minimum_stake`, `ticket_target`, `base_loss` and `target_loss` (null without a target), `specification_hash`,
    `program_root`, `dataset_root`, `initial_state_root`, `state_tensors`; `escrow`, `symbol`; `standing` of the current
    round (null once complete, and where a round has one slot) with `waits_for` (in words), `round_deadline` (after
    which the quorum is enough) and `frozen_at` (null before), `generation`, `ready` (anybody may collect), `submitted`,
    `finalised`, `counted` (a list of the slots that the merge takes, empty before the round is frozen), `collected`
    (inputs that are read) and `inputs_root` (null before all are); `slots`, those of the current round (empty once
    complete), and `slot`, the last of them, whose state the round leads to (null once complete), each with `round`,
    `slot`, `merge`, `status` (open, leased, submitted or finalised), `missing` (the round goes on without it),
    `attempt`, `next_attempt`, `worker`, `reserved_for` (who alone may claim it just now, after a dispute; else null),
    `payout`, `deadline`, `seconds_left`, `open_games` and `state_root`.

    Example: `trainledger task show 1`
    """
    client = context.client()
    task = client.task(number)
    now = client.chain_time()
    places = [] if task.complete else range(task.parameters.last_slot + 1)
    slots = [client.slot(number, task.current_round, place) for place in places]
    state = client.round(number, task.current_round) if slots and task.parameters.merges else None
    shown = [_slot_document(client, task, slot, state, now=now) for slot in slots]
    document = task_document(task) | {
        "escrow": amount(client.escrow(number)),
        "symbol": client.token_symbol,
        "standing": None if state is None else _standing(task, state, slots[-1], now=now),
        "slots": shown,
        "slot": shown[-1] if shown else None,
    }
    context.emit(document, lambda console: _print_task(console, document))


def _standing(task: Task, state: Round, merge: Slot, *, now: int) -> dict[str, Any]:
    return {
        "waits_for": describe_wait(task.parameters, state, merge, now=now),
        "round_deadline": state.deadline or None,
        "frozen_at": state.frozen_at or None,
        "generation": state.generation,
        "ready": state.ready,
        "submitted": state.submitted,
        "finalised": state.finalised,
        "counted": sorted(state.counted_slots),
        "collected": state.collected,
        "inputs_root": root_hex(state.inputs_root) if any(state.inputs_root) else None,
    }


def _slot_document(client: LedgerClient, task: Task, slot: Slot, state: Round | None, *, now: int) -> dict[str, Any]:
    empty, merge = slot.status is SlotStatus.OPEN, task.parameters.is_merge(slot.slot)
    return {
        "round": slot.round,
        "slot": slot.slot,
        "merge": merge,
        "status": slot.status.name.lower(),
        "missing": state is not None and not merge and state.is_missing(slot.slot, now),
        "attempt": slot.attempt,
        "next_attempt": client.next_attempt(slot.task, slot.round, slot.slot),
        "worker": None if empty or slot.worker == ZERO_ADDRESS else slot.worker,
        "reserved_for": slot.reserved_for(now),
        "payout": None if empty or slot.payout == ZERO_ADDRESS else slot.payout,
        "deadline": None if empty else slot.deadline,
        "seconds_left": None if empty else max(0, slot.deadline - now),
        "open_games": slot.open_games,
        "state_root": root_hex(slot.state_root) if slot.status >= SlotStatus.SUBMITTED else None,
    }


def _print_task(console: Console, document: dict[str, Any]) -> None:
    rows = []
    for name, value in document.items():
        if name in ("slot", "slots", "standing", "symbol") or value is None:
            continue
        shown = f"{value['tokens']} {document['symbol']}" if isinstance(value, dict) else value
        if isinstance(value, float):
            shown = f"{value:.6g}"
        rows.append((name.replace("_", " "), shown))
    console.print(table(["", ""], rows))
    slot, standing = document["slot"], document["standing"]
    if slot is None:
        return
    console.print()
    if standing is None:
        hidden = ("merge", "missing")  # of rounds with several slots
        rows = [(k.replace("_", " "), v) for k, v in slot.items() if v is not None and k not in hidden]
        console.print(table(["slot now", ""], rows))
        return
    console.print(f"Round {slot['round']}: {standing['waits_for']}.")
    columns = ["slot", "now", "worker", "seconds left", "games", "state root"]
    cells = [_slot_row(one) for one in document["slots"]]
    console.print(table(columns, cells, right=columns[3:5]))


def _slot_row(slot: dict[str, Any]) -> tuple[object, ...]:
    """A slot of several in a line."""
    now = "free" if slot["status"] == "open" and not slot["merge"] else slot["status"]
    if slot["missing"]:
        now = "missing" if now == "free" else f"{now}, missing"
    if slot["reserved_for"] is not None:
        now += f", kept for {shorten(slot['reserved_for'])}"
    left = "" if slot["seconds_left"] is None else slot["seconds_left"]
    worker = "" if slot["worker"] is None else shorten(slot["worker"])
    return (
        "merge" if slot["merge"] else slot["slot"],
        now,
        worker,
        left,
        slot["open_games"] or "",
        slot["state_root"] or "",
    )


def close(context: CommandContext, number: TaskNumber) -> None:
    """Close one of the account's tasks: no new claims, and what nobody can still earn is refunded as credit.

    A slot that is leased or submitted keeps its escrow. Safe to repeat. JSON: `task`, `already_closed`, `refunded`,
    `escrow_left`, `symbol`.

    Example: `trainledger task close 1 --account alice`
    """
    client = context.client(signing=True)
    symbol = client.token_symbol
    before = client.task(number)
    credit = client.stake_account(context.wallet.address).credit
    if not before.closed:
        client.close_task(number)
    after = client.stake_account(context.wallet.address).credit
    refunded = max(0, after - credit)
    document = {
        "task": number,
        "already_closed": before.closed,
        "refunded": amount(refunded),
        "escrow_left": amount(client.escrow(number)),
        "symbol": symbol,
    }
    text = (
        f"Task {number} was closed already."
        if before.closed
        else f"Closed task {number}; {format_tokens(refunded)} {symbol} are credited to you. "
        "`trainledger withdraw` sends them."
    )
    context.emit(document, lambda console: console.print(text))
