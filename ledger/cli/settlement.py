"""`task settle`: all that anybody may do now for a task's slots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ledger.attempts import EVENTS, Attempt, AttemptLog, Stage, read_attempts
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.tasks import TaskNumber
from ledger.rounds import describe_slot
from ledger.types import Slot, SlotStatus, Task

if TYPE_CHECKING:
    from ledger.client import LedgerClient
    from ledger.tx import Receipt

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds the command to the group."""
    app.command("settle")(settle)


def settle(context: CommandContext, number: TaskNumber) -> None:
    """Do all that anybody may do now for a task: collect inputs, expire leases, finalise, award falls.

    In this order: it collects the inputs of a merge whose round is ready, expires leases that are over, finalises
    submissions whose window is over and that nobody disputes, the merge last, and takes the bonds of submissions that
    fell and whose slot is final. The account pays the gas and gets nothing for it. Safe to repeat: where nothing is
    left to do it says so. Disputes are ended by `trainledger dispute settle` and `release`.

    JSON: `task` and `done`, a list of `action` (collected, expired, finalised, void or awarded), `round`, `slot`
    (null where it is the round), `attempt` (null likewise), `text` and `transaction`.

    Example: `trainledger task settle 1 --account alice`
    """
    client = context.client(signing=True)
    task = client.task(number)
    log = read_attempts(context.events(EVENTS))
    done = []
    for entry in _settled(client, task, log):
        context.say(f"{entry['text']}.")
        done.append(entry)
    document = {"task": number, "done": done}
    context.emit(document, lambda console: _print(console, document))


def _settled(client: LedgerClient, task: Task, log: AttemptLog) -> Iterator[dict[str, Any]]:
    attempts = [attempt for key, attempt in log.attempts.items() if key.task == task.number]
    yield from _collect(client, task)
    for attempt in attempts:
        if attempt.stage is Stage.LEASED:
            yield from _expire(client, task, attempt)
    # Merges after what they take; sorted by nothing else, so that rounds stay in their order.
    submitted = [attempt for attempt in attempts if attempt.stage is Stage.SUBMITTED]
    for attempt in sorted(submitted, key=lambda one: task.parameters.is_merge(one.key.slot)):
        yield from _finalise(client, task, attempt)
    for attempt in attempts:
        if attempt.stage is Stage.FELL and attempt.award is None:
            yield from _award(client, task, attempt)


def _collect(client: LedgerClient, task: Task) -> Iterator[dict[str, Any]]:
    if not task.parameters.merges or task.complete:
        return
    state = client.round(task.number, task.current_round)
    unread = state.frozen_at != 0 and state.collected <= task.parameters.slots_per_round
    if not state.ready and not unread:
        return
    receipt = client.collect(task.number, task.current_round, state.generation)
    if receipt is not None:
        text = f"Collected the inputs of the merge of round {task.current_round}"
        yield _entry("collected", text, receipt, round_number=task.current_round)


def _expire(client: LedgerClient, task: Task, attempt: Attempt) -> Iterator[dict[str, Any]]:
    key = attempt.key
    slot = client.slot(*key[:3])
    if (slot.status, slot.attempt) != (SlotStatus.LEASED, key.attempt):
        return
    if client.chain_time() <= slot.deadline and not _freed(client, task, slot):
        return
    receipt = client.expire_lease(*key[:2], key.attempt, key.slot)
    yield _entry("expired", f"Expired the lease of {_about(task, attempt)}", receipt, attempt=attempt)


def _freed(client: LedgerClient, task: Task, slot: Slot) -> bool:
    """Whether a running lease can be expired: the round froze without it, or a merge's inputs are others now."""
    if not task.parameters.merges:
        return False
    state = client.round(slot.task, slot.round)
    if not task.parameters.is_merge(slot.slot):
        return state.frozen_at != 0
    return client.inputs_root(slot.task, slot.round, slot.generation) != state.inputs_root


def _finalise(client: LedgerClient, task: Task, attempt: Attempt) -> Iterator[dict[str, Any]]:
    key = attempt.key
    slot = client.slot(*key[:3])
    if (slot.status, slot.attempt) != (SlotStatus.SUBMITTED, key.attempt):
        return
    if slot.open_games or client.chain_time() <= slot.deadline:
        return
    if task.parameters.is_merge(key.slot):
        state = client.round(*key[:2])
        if not any(state.inputs_root) or state.finalised < state.counted:
            return
    receipt = client.finalise(*key[:2], attempt=key.attempt, state_root=slot.state_root, slot=key.slot)
    if receipt is None:
        return
    void = client.slot(*key[:3]).status is SlotStatus.OPEN
    text = f"{'Declared void' if void else 'Finalised'}: {_about(task, attempt)}"
    yield _entry("void" if void else "finalised", text, receipt, attempt=attempt)


def _award(client: LedgerClient, task: Task, attempt: Attempt) -> Iterator[dict[str, Any]]:
    key = attempt.key
    status = client.slot(*key[:3]).status
    # A closed task takes no more claims, and nor does a round that ended: an open slot there is never redone.
    given = status is SlotStatus.OPEN and (task.closed or key.round < task.current_round)
    if status is not SlotStatus.FINALISED and not given:
        return
    receipt = client.award_fall(*key[:2], attempt=key.attempt, slot=key.slot)
    if receipt is not None:
        yield _entry("awarded", f"Took the bond of {_about(task, attempt)}, which fell", receipt, attempt=attempt)


def _about(task: Task, attempt: Attempt) -> str:
    return f"{describe_slot(task.parameters, attempt.key.round, attempt.key.slot)}, attempt {attempt.key.attempt}"


def _entry(
    action: str, text: str, receipt: Receipt, *, attempt: Attempt | None = None, round_number: int = 0
) -> dict[str, Any]:
    return {
        "action": action,
        "round": round_number if attempt is None else attempt.key.round,
        "slot": None if attempt is None else attempt.key.slot,
        "attempt": None if attempt is None else attempt.key.attempt,
        "text": text,
        "transaction": receipt.transaction,
    }


def _print(console: Console, document: dict[str, Any]) -> None:
    count = len(document["done"])
    if count == 0:
        console.print(f"Nothing can be done for task {document['task']} now.")
    else:
        console.print(f"Did {count} {'thing' if count == 1 else 'things'} for task {document['task']}.")
