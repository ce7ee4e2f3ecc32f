"""`why-not-paid`: which condition each unpaid attempt of an account waits for."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ledger.amounts import format_tokens
from ledger.attempts import EVENTS, Attempt, AttemptKey, AttemptLog, Stage, read_attempts
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount
from ledger.performance import pay_for
from ledger.rounds import describe_slot
from ledger.types import Task
from ledger.unpaid import Condition, Facts, OpenGame, Reason, why_not_paid

if TYPE_CHECKING:
    from ledger.disputes.client import DisputeClient
    from ledger.disputes.positions import GameView

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds the command."""
    app.command("why-not-paid")(why_not_paid_)


def why_not_paid_(
    context: CommandContext,
    number: Annotated[
        int | None,
        typer.Argument(help="Only slots of this task.", min=0, max=2**64 - 1, metavar="TASK", show_default=False),
    ] = None,
) -> None:
    """Say of each slot that an account held, and that is not paid, what is missing and when it will be there.

    An account's slots are those that it staked for, claimed as an operator, or is paid for. Times are the chain's.

    JSON: `account`, `now` (Unix seconds), `symbol`, and `unpaid`, a list of `task`, `round`, `slot`, `merge`,
    `attempt`, `about` (the slot in words), `state` (leased, submitted, final, lapsed, fell or void), `worker`,
    `payout`, `pay` (what it earns once nothing is missing; null before it is submitted), `lost` (this attempt will
    never be paid), `reason` (in words), `conditions` (empty once it ended), each with `text`, `met`, `until` (Unix
    seconds, the end of the clock that it hangs on, null without one) and `seconds_left`, and `command` (what helps
    now, null where there is only waiting).

    Examples: `trainledger why-not-paid --account alice`, `trainledger why-not-paid 1 --account alice --json`
    """
    account = context.address()
    client = context.disputes()
    if number is not None:
        client.task(number)
    log = read_attempts(context.events(EVENTS))
    held = [
        one for key, one in log.attempts.items() if one.concerns(account) and (number is None or key.task == number)
    ]
    now = client.chain_time()
    unpaid = []
    for attempt, task, facts in _gather(client, log, held, now=now):
        reason = why_not_paid(facts)
        if reason is not None:
            unpaid.append(_document(task, attempt, reason, now=now))
    document = {"account": account, "now": now, "symbol": client.token_symbol, "unpaid": unpaid}
    context.emit(document, lambda console: _print(console, document, number, held=bool(held)))


def _gather(
    client: DisputeClient, log: AttemptLog, held: list[Attempt], *, now: int
) -> list[tuple[Attempt, Task, Facts]]:
    """The facts of each attempt, read task by task."""
    by_task: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in held:
        by_task[attempt.key.task].append(attempt)
    found = []
    for number, attempts in by_task.items():
        task = client.task(number)
        disputed = any(attempt.stage in (Stage.SUBMITTED, Stage.FELL) for attempt in attempts)
        games: dict[AttemptKey, list[GameView]] = defaultdict(list)
        for view in client.games(task=number) if disputed else ():
            matter = view.position.matter
            games[AttemptKey(matter.task, matter.round, matter.slot, matter.attempt)].append(view)
        found += [
            (attempt, task, _facts(client, log, task, attempt, games[attempt.key], now=now)) for attempt in attempts
        ]
    return found


def _facts(
    client: DisputeClient, log: AttemptLog, task: Task, attempt: Attempt, games: list[GameView], *, now: int
) -> Facts:
    from ledger.disputes.positions import Outcome

    key, fixed = attempt.key, task.parameters
    lost = [view.number for view in games if view.outcome is Outcome.CHALLENGER_WON]
    known: dict[str, Any] = {
        "parameters": fixed,
        "attempt": attempt,
        "now": now,
        "closed": task.closed,
        "passed": key.round < task.current_round,
        "credited": attempt.stage is Stage.FINAL and attempt.paid > 0 and log.withdrawn(attempt) is None,
        "games": tuple(
            OpenGame(number=view.number, defender_to_move=view.position.defender_to_move, deadline=view.deadline)
            for view in games
            if view.running
        ),
        "fell_in": lost[0] if lost else None,
    }
    if attempt.stage is Stage.FELL:
        known["slot"] = client.slot(*key[:3])
    if not fixed.merges or attempt.stage not in (Stage.LEASED, Stage.SUBMITTED):
        return Facts(**known)
    state = client.round(key.task, key.round)
    known |= {"round": state, "merge": client.slot(key.task, key.round, fixed.last_slot)}
    if fixed.is_merge(key.slot):
        taken = client.inputs_root(key.task, key.round, known["merge"].generation)
        collected = any(state.inputs_root)
        known |= {
            "inputs": tuple(client.slot(key.task, key.round, slot) for slot in sorted(state.counted_slots)),
            "inputs_stand": taken == state.inputs_root if collected else None,
        }
    return Facts(**known)


def _document(task: Task, attempt: Attempt, reason: Reason, *, now: int) -> dict[str, Any]:
    key, fixed = attempt.key, task.parameters
    pay = None
    if attempt.was_submitted:
        earned = fixed.merge_reward
        if not fixed.is_merge(key.slot):
            earned = pay_for(fixed, round_number=key.round, steps=attempt.steps, loss_bits=attempt.loss_bits)
        pay = amount(0 if reason.lost else earned)
    return {
        "task": key.task,
        "round": key.round,
        "slot": key.slot,
        "merge": fixed.is_merge(key.slot),
        "attempt": key.attempt,
        "about": describe_slot(fixed, key.round, key.slot),
        "state": attempt.stage.value,
        "worker": attempt.worker,
        "payout": attempt.payout,
        "pay": pay,
        "lost": reason.lost,
        "reason": reason.text,
        "conditions": [_condition_document(condition, now=now) for condition in reason.conditions],
        "command": None if reason.command is None else f"trainledger {reason.command}",
    }


def _condition_document(condition: Condition, *, now: int) -> dict[str, Any]:
    until = condition.until
    return {
        "text": condition.text,
        "met": condition.met,
        "until": until,
        "seconds_left": None if until is None else max(0, until - now),
    }


def _print(console: Console, document: dict[str, Any], number: int | None, *, held: bool) -> None:
    where = "" if number is None else f" of task {number}"
    if not document["unpaid"]:
        nothing = "Nothing is unpaid" if held else "Nothing is unpaid: it never held a slot"
        console.print(f"{nothing}{where} ({document['account']}).")
        return
    for one in document["unpaid"]:
        about = one["about"][0].upper() + one["about"][1:]
        console.print(f"{about} of task {one['task']}, attempt {one['attempt']}: {one['reason']}.")
        if one["pay"] is not None and not one["lost"]:
            console.print(f"  pay: {format_tokens(int(one['pay']['wei']))} {document['symbol']}")
        for condition in one["conditions"]:
            left = condition["seconds_left"]
            wait = f" ({left} s left)" if left and not condition["met"] else ""
            console.print(f"  {'met' if condition['met'] else 'missing'}: {condition['text']}{wait}")
        if one["command"] is not None:
            console.print(f"  now: `{one['command']}`")
