"""`open finalise`: all that anybody may do now for an open task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.open_tasks import slots_of
from ledger.cli.tasks import TaskNumber
from ledger.open.records import OpenTask, Stage, split_slot_key
from ledger.open.words import Due, describe_slot, due_now

if TYPE_CHECKING:
    from ledger.open.client import OpenClient
    from ledger.tx import Receipt

__all__ = ["register"]

_EVENTS = (
    "StateCommitted",
    "StateRevealed",
    "CommitForfeited",
    "SubmissionFell",
    "FallAwarded",
    "UnavailableClaimed",
    "InquiryClosed",
)
_DONE = {
    "forfeit": ("forfeited", "Took the fee for {}, which was not revealed"),
    "finalise": ("finalised", "Finalised {}"),
    "expire": ("expired", "Gave up {}, which nobody scored"),
    "settle_default": ("defaulted", "Paid {} in full"),
    "skip": ("skipped", "Ended round {}"),
}


@dataclass(frozen=True)
class _Left:
    """(round, slot) of commits neither revealed nor forfeited, and of questions not ended; with attempt, of falls."""

    commits: set[tuple[int, int]] = field(default_factory=set)
    inquiries: set[tuple[int, int]] = field(default_factory=set)
    falls: set[tuple[int, int, int]] = field(default_factory=set)


def register(app: CommandApp) -> None:
    """Adds the command to the group."""
    app.command("finalise")(finalise)


def finalise(context: CommandContext, number: TaskNumber) -> None:
    """Do all that anybody may do now for an open task.

    It ends questions about states whose time is over, takes the fee for commits that were not revealed, finalises
    scores whose window is over and that nobody disputes, gives up what nobody scored in time, pays states in full whose
    requester showed no held-out data, ends rounds without states, and takes the bonds of scores that fell. The account
    pays the gas and gets nothing for it. Safe to repeat: where nothing is left to do it says so.

    JSON: `task` and `done`, a list of `action` (answered, forfeited, finalised, expired, defaulted, skipped or
    awarded), `round`, `slot` (null where it is the round), `text` and `transaction`.

    Example: `trainledger open finalise 1 --account alice`
    """
    client = context.open_tasks(signing=True)
    client.task(number)
    done = []
    for entry in _settled(context, client, number):
        context.say(f"{entry['text']}.")
        done.append(entry)
    document = {"task": number, "done": done}
    context.emit(document, lambda console: _print(console, document))


def _settled(context: CommandContext, client: OpenClient, number: int) -> Iterator[dict[str, Any]]:
    left, task = _left(context, number), client.task(number)
    yield from _answer(client, task, left)
    # Bonds of commits stay locked after their round, until somebody takes the fee.
    for round_number, slot in sorted(left.commits):
        if round_number < task.current_round:
            receipt = client.forfeit(number, round_number, slot)
            yield from _entry(_DONE["forfeit"], task, round_number, slot, receipt)
    tried = set[tuple[int, str, int | None, int]]()
    while True:  # what is done makes other things due
        task = client.task(number)
        state = client.round(number, task.current_round)
        due = due_now(task, state, slots_of(client, task, state), now=client.chain_time()) if not task.complete else []
        due = [one for one in due if _name(task, one) not in tried]
        if not due:
            break
        tried.add(_name(task, due[0]))
        receipt = _do(client, task, due[0])
        yield from _entry(
            _DONE[due[0].action], task, task.current_round, None if due[0].slot is None else due[0].slot.slot, receipt
        )
    for round_number, slot, attempt in sorted(left.falls):
        if client.slot(number, round_number, slot).stage in (Stage.FINALISED, Stage.MISSING):
            receipt = client.award_fall(number, round_number, slot, attempt)
            yield from _entry(("awarded", "Took the bond of {}, whose score fell"), task, round_number, slot, receipt)


def _left(context: CommandContext, number: int) -> _Left:
    """What the log has begun and not ended, in the order of slots."""
    left = _Left()
    for event in context.events(_EVENTS, open_tasks=True):
        values: Any = event.arguments
        task, *place = split_slot_key(values["inquiry"]) if "inquiry" in values else _place(values)
        if task != number:
            continue
        round_number, slot = place
        if event.name == "StateCommitted":
            left.commits.add((round_number, slot))
        elif event.name in ("StateRevealed", "CommitForfeited"):
            left.commits.discard((round_number, slot))
        elif event.name == "UnavailableClaimed":
            left.inquiries.add((round_number, slot))
        elif event.name == "InquiryClosed":
            left.inquiries.discard((round_number, slot))
        elif event.name == "SubmissionFell":
            left.falls.add((round_number, slot, values["attempt"]))
        else:
            left.falls.discard((round_number, slot, values["attempt"]))
    return left


def _place(values: Any) -> tuple[int, int, int]:
    return values["task"], values["round"], values["slot"]


def _answer(client: OpenClient, task: OpenTask, left: _Left) -> Iterator[dict[str, Any]]:
    """Ends questions whose time is over."""
    for round_number, slot in sorted(left.inquiries):
        inquiry = client.inquiry(task.number, round_number, slot)
        if inquiry.drawn and not inquiry.closed and client.chain_time() > inquiry.reveal_end:
            receipt = client.close_inquiry(task.number, round_number, slot)
            yield from _entry(("answered", "Ended the question about {}"), task, round_number, slot, receipt)


def _name(task: OpenTask, due: Due) -> tuple[int, str, int | None, int]:
    slot = due.slot
    return task.current_round, due.action, None if slot is None else slot.slot, 0 if slot is None else slot.attempt


def _do(client: OpenClient, task: OpenTask, due: Due) -> Receipt | None:
    number, slot = task.number, due.slot
    if slot is None:
        return client.skip(number, task.current_round)
    place = (number, slot.round, slot.slot)
    if due.action == "forfeit":
        return client.forfeit(*place)
    if due.action == "expire":
        return client.expire(*place, slot.attempt)
    if due.action == "settle_default":
        return client.settle_default(*place, slot.trained_root)
    return client.finalise(*place, slot.attempt, slot.scored_root)


def _entry(
    what: tuple[str, str], task: OpenTask, round_number: int, slot: int | None, receipt: Receipt | None
) -> Iterator[dict[str, Any]]:
    """One line of what was done; nothing where somebody else did it first."""
    if receipt is None:
        return
    action, words = what
    about = str(round_number) if slot is None else describe_slot(task, round_number, slot)
    yield {
        "action": action,
        "round": round_number,
        "slot": slot,
        "text": words.format(about),
        "transaction": receipt.transaction,
    }


def _print(console: Console, document: dict[str, Any]) -> None:
    count = len(document["done"])
    if count == 0:
        console.print(f"Nothing can be done for open task {document['task']} now.")
    else:
        console.print(f"Did {count} {'thing' if count == 1 else 'things'} for open task {document['task']}.")
