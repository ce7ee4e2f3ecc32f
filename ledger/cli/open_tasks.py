"""`open list|show|close|question|acknowledge`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ledger.amounts import format_tokens
from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount, loss_value, shorten, table
from ledger.cli.tasks import TaskNumber
from ledger.errors import UsageError
from ledger.open.records import OpenRound, OpenSlot, OpenTask, Stage
from ledger.open.words import describe_round, wait_of
from ledger.performance import open_pay
from ledger.types import ZERO_ADDRESS

if TYPE_CHECKING:
    from ledger.open.client import OpenClient

__all__ = ["open_task_document", "register", "slots_of"]

RoundNumber = Annotated[int, typer.Argument(help="Number of the round.", min=0, max=2**32 - 1, metavar="ROUND")]
SlotNumber = Annotated[int, typer.Argument(help="Number of the slot.", min=0, max=255, metavar="SLOT")]


def register(app: CommandApp) -> None:
    """Adds the commands to the group."""
    commands = (("list", list_), ("show", show), ("close", close), ("question", question), ("acknowledge", acknowledge))
    for name, function in commands:
        app.command(name)(function)


def open_task_document(task: OpenTask) -> dict[str, Any]:
    """An open task as JSON: roots as text, amounts exact, losses as numbers."""
    fixed = task.parameters
    return {
        "task": task.number,
        "state": task.phase.name.lower(),
        "requester": task.requester,
        "current_round": task.current_round,
        "rounds": task.rounds,
        "slots_per_round": fixed.slots_per_round,
        "full_gain": loss_value(fixed.full_gain),
        "slot_reward": amount(fixed.slot_reward),
        "floor_reward": amount(fixed.floor_reward),
        "score_reward": amount(fixed.score_reward),
        "bond": amount(fixed.bond),
        "fee": amount(fixed.fee),
        "minimum_stake": amount(fixed.minimum_stake),
        "commit_seconds": fixed.commit_seconds,
        "reveal_seconds": fixed.reveal_seconds,
        "held_out_seconds": fixed.held_out_seconds,
        "lease_seconds": fixed.lease_seconds,
        "challenge_window": fixed.challenge_window,
        "specification_hash": root_hex(fixed.specification_hash),
        "program_root": root_hex(fixed.program_root),
        "initial_state_root": root_hex(fixed.initial_state_root),
        "state_tensors": fixed.state_tensors,
    }


def slots_of(client: OpenClient, task: OpenTask, state: OpenRound) -> list[OpenSlot]:
    """The slots of a round that are taken, and the baseline as the last one."""
    places = [*range(state.committed), task.parameters.baseline]
    return [client.slot(task.number, state.round, place) for place in places]


def list_(
    context: CommandContext,
    running: Annotated[bool, typer.Option("--running", help="Only tasks that still take work.")] = False,
) -> None:
    """List the open tasks.

    JSON: a list of tasks, each with the keys of `trainledger open show` up to `state_tensors`.

    Examples: `trainledger open list`, `trainledger open list --running --json`
    """
    client = context.open_tasks()
    tasks = [open_task_document(task) for task in client.tasks()]
    tasks = [task for task in tasks if not running or task["state"] == "running"]
    symbol = client.token_symbol
    columns = ["task", "state", "round", "slots", f"slot reward ({symbol})", "floor", "bond", "requester"]
    rows = [
        (
            task["task"],
            task["state"],
            f"{task['current_round']}/{task['rounds']}",
            task["slots_per_round"],
            *(task[name]["tokens"] for name in ("slot_reward", "floor_reward", "bond")),
            shorten(task["requester"]),
        )
        for task in tasks
    ]
    if not tasks:
        context.say("No open tasks.")
    context.emit(tasks, lambda console: console.print(table(columns, rows, right=columns[4:7])) if rows else None)


def show(
    context: CommandContext,
    number: TaskNumber,
    round_number: Annotated[
        int | None, typer.Option("--round", help="Another round than the current one.", min=0, max=2**32 - 1)
    ] = None,
) -> None:
    """Show an open task: its terms, its escrow, and the slots of a round with what each waits for, and until when.

    JSON: `task`, `state` (running, complete or closed), `requester`, `current_round`, `rounds`, `slots_per_round`,
    `full_gain` (of the held-out loss), `slot_reward`, `floor_reward`, `score_reward`, `bond`, `fee`, `minimum_stake`,
    `commit_seconds`, `reveal_seconds`, `held_out_seconds`, `lease_seconds`, `challenge_window`, `specification_hash`,
    `program_root`, `initial_state_root`, `state_tensors`; `escrow`, `paid` (for slots of all rounds so far), `symbol`;
    `standing` of the round (null once complete) with `round`, `base_root`, `waits_for` (in words), `commit_end`,
    `reveal_end`, `held_out_end`, `held_out_at` (Unix seconds, null before they are known), `committed`, `opened`,
    `revealed`, `resolved` and `best` (the slot with the lowest final loss, or null); `slots`, those that are taken and,
    last, the baseline, each with `slot`, `baseline`, `stage` (empty, committed, revealed, scored, finalised, copy or
    missing), `attempt`, `worker`, `payout`, `waits_for`, `until` (Unix seconds), `question` (none, open or cleared),
    `open_games`, `heldout_loss`, `pay` (by the losses so far; null where one is missing still), `trained_root` and
    `scored_root`, all null where there is none.

    Examples: `trainledger open show 1`, `trainledger open show 1 --round 0`
    """
    client = context.open_tasks()
    task = client.task(number)
    if round_number is not None and round_number >= task.rounds:
        raise UsageError(f"Open task {number} has rounds 0 to {task.rounds - 1}.", remedy="Name one of those.")
    now = client.chain_time()
    shown = task.current_round if round_number is None else round_number
    standing, slots = None, list[dict[str, Any]]()
    if shown < task.rounds:
        state = client.round(number, shown)
        taken = slots_of(client, task, state)
        standing = _standing(task, state, client.base_root(number, shown), now=now)
        slots = [_slot_document(task, state, slot, taken[-1], now=now) for slot in taken]
    document = open_task_document(task) | {
        "escrow": amount(client.escrow(number)),
        "paid": amount(_paid(context, number)),
        "symbol": client.token_symbol,
        "standing": standing,
        "slots": slots,
    }
    context.emit(document, lambda console: _print_task(console, document))


def _paid(context: CommandContext, task: int) -> int:
    """Wei that a task has paid so far."""
    events = context.events(("ScoreFinalised", "DefaultPaid"), open_tasks=True)
    return sum(int(str(event.arguments["paid"])) for event in events if event.arguments["task"] == task)


def _standing(task: OpenTask, state: OpenRound, base: bytes, *, now: int) -> dict[str, Any]:
    return {
        "round": state.round,
        "base_root": root_hex(base) if any(base) else None,
        "waits_for": describe_round(task, state, now=now),
        "commit_end": state.commit_end or None,
        "reveal_end": state.reveal_end or None,
        "held_out_end": state.held_out_end or None,
        "held_out_at": state.held_out_at or None,
        "committed": state.committed,
        "opened": state.opened,
        "revealed": state.revealed,
        "resolved": state.resolved,
        "best": state.best,
    }


def _slot_document(task: OpenTask, state: OpenRound, slot: OpenSlot, baseline: OpenSlot, *, now: int) -> dict[str, Any]:
    wait = wait_of(task, state, slot, baseline, now=now)
    pay = _pay_of(task, slot, baseline)
    scored = any(slot.scored_root)
    return {
        "slot": slot.slot,
        "baseline": slot.slot == task.parameters.baseline,
        "stage": slot.stage.name.lower(),
        "attempt": slot.attempt,
        "worker": None if slot.worker == ZERO_ADDRESS else slot.worker,
        "payout": None if slot.payout == ZERO_ADDRESS else slot.payout,
        "waits_for": None if wait is None else wait.text,
        "until": None if wait is None else wait.until,
        "question": slot.question.name.lower(),
        "open_games": slot.open_games,
        "heldout_loss": loss_value(slot.held_out_loss) if scored else None,
        "pay": None if pay is None else amount(pay),
        "trained_root": root_hex(slot.trained_root) if any(slot.trained_root) else None,
        "scored_root": root_hex(slot.scored_root) if scored else None,
    }


def _pay_of(task: OpenTask, slot: OpenSlot, baseline: OpenSlot) -> int | None:
    """Wei that a slot is paid, or will be if no score falls; None where a score is not there yet."""
    fixed = task.parameters
    if slot.stage in (Stage.COPY, Stage.MISSING):
        return 0
    if slot.stage not in (Stage.SCORED, Stage.FINALISED):
        return None
    if slot.slot == fixed.baseline:
        return fixed.score_reward
    if not any(slot.scored_root):  # its requester showed no held-out data
        return fixed.slot_reward
    if baseline.stage is Stage.MISSING:
        return open_pay(fixed, None, slot.held_out_loss)
    scored = baseline.stage in (Stage.SCORED, Stage.FINALISED)
    return open_pay(fixed, baseline.held_out_loss, slot.held_out_loss) if scored else None


def _print_task(console: Console, document: dict[str, Any]) -> None:
    rows = []
    for name, value in document.items():
        if name in ("slots", "standing", "symbol") or value is None:
            continue
        shown = f"{value['tokens']} {document['symbol']}" if isinstance(value, dict) else value
        if isinstance(value, float):
            shown = f"{value:.6g}"
        rows.append((name.replace("_", " "), shown))
    console.print(table(["", ""], rows))
    standing = document["standing"]
    if standing is None:
        return
    console.print()
    console.print(f"Round {standing['round']}: {standing['waits_for']}.")
    columns = ["slot", "now", "worker", "waits for", "until", "held-out loss", f"pay ({document['symbol']})"]
    cells = [_slot_row(slot) for slot in document["slots"]]
    console.print(table(columns, cells, right=columns[4:]))


def _slot_row(slot: dict[str, Any]) -> tuple[object, ...]:
    loss = "" if slot["heldout_loss"] is None else f"{slot['heldout_loss']:.4f}"
    return (
        "baseline" if slot["baseline"] else slot["slot"],
        slot["stage"],
        "" if slot["worker"] is None else shorten(slot["worker"]),
        slot["waits_for"] or "",
        "" if slot["until"] is None else slot["until"],
        loss,
        "" if slot["pay"] is None else slot["pay"]["tokens"],
    )


def close(context: CommandContext, number: TaskNumber) -> None:
    """Close one of the account's open tasks: the round that runs is its last, and the others are refunded as credit.

    Safe to repeat. JSON: `task`, `already_closed`, `refunded`, `escrow_left`, `symbol`.

    Example: `trainledger open close 1 --account alice`
    """
    client = context.open_tasks(signing=True)
    symbol = client.token_symbol
    before, credit = client.task(number), client.stake_account(client.address).credit
    if not before.closed:
        client.close_task(number)
    refunded = max(0, client.stake_account(client.address).credit - credit)
    document = {
        "task": number,
        "already_closed": before.closed,
        "refunded": amount(refunded),
        "escrow_left": amount(client.escrow(number)),
        "symbol": symbol,
    }
    text = (
        f"Open task {number} was closed already."
        if before.closed
        else f"Closed open task {number}; {format_tokens(refunded)} {symbol} are credited to you. "
        "`trainledger withdraw` sends them."
    )
    context.emit(document, lambda console: console.print(text))


def question(context: CommandContext, number: TaskNumber, round_number: RoundNumber, slot: SlotNumber) -> None:
    """Say that a revealed state cannot be fetched; locks the task's bond of the account's stake until it is decided.

    Nine votes are then drawn among the auditors' seats. Where the state is there the deposit is lost, or its fee where
    the task's requester says so first. Each state is asked about once, until the window of its score ends. Safe to
    repeat. JSON: `task`, `round`, `slot`, `already_asked`, `asker`, `deposit`, `symbol`, `state_root`.

    Example: `trainledger open question 1 0 2 --account carol`
    """
    client = context.open_tasks(signing=True)
    root = client.slot(number, round_number, slot).trained_root
    asked = client.unavailable(number, round_number, slot, root, client.address)
    inquiry = client.inquiry(number, round_number, slot)
    document = {
        "task": number,
        "round": round_number,
        "slot": slot,
        "already_asked": asked is None,
        "asker": inquiry.asker,
        "deposit": amount(inquiry.bond),
        "symbol": client.token_symbol,
        "state_root": root_hex(root),
    }
    text = f"{'It was asked already' if asked is None else 'Asked'} whether the state of slot {slot} can be fetched; "
    text += f"{format_tokens(inquiry.bond)} {client.token_symbol} of {inquiry.asker} answer for it."
    context.emit(document, lambda console: console.print(text))


def acknowledge(context: CommandContext, number: TaskNumber, round_number: RoundNumber, slot: SlotNumber) -> None:
    """Requester: say that a state which somebody asked for can be fetched. The question is over, at once.

    Safe to repeat. JSON: `task`, `round`, `slot`, `already_decided`, `asker`, `fee` (burned of the asker's deposit),
    `symbol`.

    Example: `trainledger open acknowledge 1 0 2 --account alice`
    """
    client = context.open_tasks(signing=True)
    done = client.acknowledge(number, round_number, slot)
    inquiry = client.inquiry(number, round_number, slot)
    document = {
        "task": number,
        "round": round_number,
        "slot": slot,
        "already_decided": done is None,
        "asker": inquiry.asker,
        "fee": amount(0 if done is None else inquiry.fee),
        "symbol": client.token_symbol,
    }
    text = f"Acknowledged that the state of slot {slot} can be fetched; {inquiry.asker} lost "
    text += f"{format_tokens(inquiry.fee)} {client.token_symbol}."
    if done is None:
        text = f"It was decided already that the state of slot {slot} can be fetched."
    context.emit(document, lambda console: console.print(text))
