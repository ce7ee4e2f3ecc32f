"""`dispute list|show|settle|release`: games in words, and what anybody may do to end one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import amount, shorten, table
from ledger.open.records import OpenTask
from ledger.open.words import describe_slot as describe_open_slot
from ledger.rounds import describe_slot
from ledger.types import Task

if TYPE_CHECKING:
    from ledger.disputes.client import DisputeClient
    from ledger.disputes.positions import GameView, Matter

__all__ = ["GameNumber", "register", "use_explainer"]

# What the task's programs say of a game: JSON with its sentence in `text`, or None.
Explainer = Callable[[CommandContext, "GameView"], dict[str, Any] | None]
_explainer: Explainer | None = None

OfOpenTasks = Annotated[bool, typer.Option("--open", help="Games about scores of open tasks, which count apart.")]
GameNumber = Annotated[int, typer.Argument(help="Number of the game.", min=1, max=2**256 - 1, metavar="GAME")]


def use_explainer(explainer: Explainer) -> None:
    """Has `dispute show` name operations, by whoever can read programs."""
    global _explainer
    _explainer = explainer


def register(app: CommandApp) -> None:
    """Adds the commands to the group."""
    for name, function in (("list", list_), ("show", show), ("settle", settle), ("release", release)):
        app.command(name)(function)


class _Subjects:
    """What games are about: their slots in words, and the bonds of their tasks."""

    def __init__(self, context: CommandContext, client: DisputeClient) -> None:
        self._training, self._open = client, context.open_tasks() if client.open_tasks else None
        self._known: dict[int, Task | OpenTask] = {}

    def __call__(self, matter: Matter) -> tuple[str, int]:
        """The slot, and the bond, wei."""
        task = self._known.get(matter.task)
        if task is None:
            task = (self._training if self._open is None else self._open).task(matter.task)
            self._known[matter.task] = task
        if isinstance(task, OpenTask):
            return describe_open_slot(task, matter.round, matter.slot), task.parameters.bond
        return describe_slot(task.parameters, matter.round, matter.slot), task.parameters.bond


def _game_document(client: DisputeClient, view: GameView, subjects: _Subjects, *, now: int) -> dict[str, Any]:
    """A game as JSON. `now` is the chain's time."""
    from ledger.disputes.words import describe_outcome, describe_place, place_of

    position, matter = view.position, view.position.matter
    place = place_of(position)
    running = view.running
    about, bond = subjects(matter)
    return {
        "game": view.number,
        "open_task": client.open_tasks,
        "task": matter.task,
        "round": matter.round,
        "slot": matter.slot,
        "merge": matter.merge,
        "about": about,
        "attempt": matter.attempt,
        "state": view.outcome.name.lower(),
        "ended": None if running else describe_outcome(view),
        "winner": view.winner,
        "defender": matter.defender,
        "challenger": matter.challenger,
        "at_stake": amount(bond),
        "phase": position.phase.name.lower(),
        "place": describe_place(position),
        "run": place.run,
        "operation": place.operation,
        "tensor": place.tensor,
        "chunk": place.chunk,
        "element": place.element,
        "moves": position.moves,
        "to_move": _side(position.defender_to_move) if running else None,
        "mover": position.mover if running else None,
        "deadline": view.deadline if running else None,
        "seconds_left": max(0, view.deadline - now) if running else None,
        "late": running and now > view.deadline,
        "fell_elsewhere": running and not _stands(client, view),
        "submitted": root_hex(matter.submitted),
        "claimed": root_hex(matter.claimed),
        "symbol": client.token_symbol,
    }


def _stands(client: DisputeClient, view: GameView) -> bool:
    """Whether the submission that a game is about is still in its slot."""
    matter = view.position.matter
    # While a game is open its submission is not final, so it stands as long as the attempt is its own.
    slot = client.slot(matter.task, matter.round, matter.slot)
    return slot.attempt == matter.attempt


def _side(defender: bool) -> str:
    return "defender" if defender else "challenger"


def list_(
    context: CommandContext,
    task: Annotated[
        int | None, typer.Option(help="Only games about this task.", min=1, max=2**64 - 1, metavar="TASK")
    ] = None,
    party: Annotated[
        str | None, typer.Option(help="Only games of this account, by name or address.", metavar="NAME")
    ] = None,
    running: Annotated[bool, typer.Option("--running", help="Only games that are not over.")] = False,
    open_tasks: OfOpenTasks = False,
) -> None:
    """List the disputes about submissions, or those about scores of open tasks.

    JSON: a list of games, each with the keys of `trainledger dispute show`.

    Examples: `trainledger dispute list --running`, `trainledger dispute list --party alice --open --json`
    """
    client = context.disputes(open_tasks=open_tasks)
    found = client.games(task=task, party=None if party is None else context.address(party), only_running=running)
    now = client.chain_time()
    subjects = _Subjects(context, client)
    games = [_game_document(client, view, subjects, now=now) for view in found]
    columns = ["game", "task", "round", "slot", "defender", "challenger", "moves", "now", "to move", "seconds left"]
    rows = [
        (
            game["game"],
            game["task"],
            game["round"],
            "merge" if game["merge"] else game["slot"],
            shorten(game["defender"]),
            shorten(game["challenger"]),
            game["moves"],
            game["ended"] or game["place"],
            game["to_move"] or "",
            "late" if game["late"] else "" if game["seconds_left"] is None else game["seconds_left"],
        )
        for game in games
    ]
    if not games:
        context.say("No disputes.")
    context.emit(games, lambda console: console.print(table(columns, rows)) if rows else None)


def show(context: CommandContext, number: GameNumber, open_tasks: OfOpenTasks = False) -> None:
    """Explain a dispute: where it stands, whose move it is, how long it has, and what is at stake.

    Runs, operations, tensors, chunks and elements count from 0; the last run is the evaluation, and the only one
    before it in a merge is that of the merge program. A score has no other run.

    JSON: `game`, `open_task` (whether it is about the score of an open task), `task`, `round`, `slot`, `merge` (whether
    it is about a merge), `about` (the slot in words), `attempt`; `state` (running, defender_won, challenger_won or
    void), `ended` (in words, null while it runs) and `winner` (null without one); `defender`, `challenger`, `at_stake`
    (the bond of each side); `phase` (runs, trace, state, tensor, chunk or fold), `place` (in words), and `run`,
    `operation`, `tensor`, `chunk` and `element` (null where the game has not come to one); `moves` made; `to_move`
    (defender or challenger), `mover`, `deadline` (Unix seconds) and `seconds_left`, all null once over; `late` (anybody
    may settle it) and `fell_elsewhere` (anybody may release it); `submitted` and `claimed`, the two state roots;
    `symbol`; and `explanation`, null of open tasks, before a tensor is in question or where the store has not the
    task's programs, else `program` (training, merge or evaluation), `line` (of its listing), `near` (tensors of the
    state that the operation reads most directly), `first_element`, `last_element`, `index` (in the tensor's shape, of a
    single element) and `text`.

    Examples: `trainledger dispute show 1`, `trainledger dispute show 1 --open`
    """
    client = context.disputes(open_tasks=open_tasks)
    view = client.view(number)
    document = _game_document(client, view, _Subjects(context, client), now=client.chain_time())
    document["explanation"] = None if _explainer is None or open_tasks else _explainer(context, view)
    context.emit(document, lambda console: _print_game(console, document))


def _print_game(console: Console, document: dict[str, Any]) -> None:
    """A game for people."""
    console.print(
        f"Game {document['game']} is about the {'score' if document['open_task'] else 'submission'} of "
        f"{document['about']} of {'open ' if document['open_task'] else ''}task {document['task']} "
        f"(attempt {document['attempt']})."
    )
    stake = f"{document['at_stake']['tokens']} {document['symbol']}"
    rows = [
        ("defender", f"{document['defender']} submitted {document['submitted']}"),
        ("challenger", f"{document['challenger']} says {document['claimed']}"),
        ("at stake", f"{stake} of each side; at least half of what is lost is burned"),
        ("moves", document["moves"]),
        ("in question" if document["ended"] is None else "it came to", document["place"]),
    ]
    if document["explanation"] is not None:
        rows.append(("that is", document["explanation"]["text"]))
    console.print(table(["", ""], rows))
    console.print(_turn(document))


def _turn(document: dict[str, Any]) -> str:
    number = f"{document['game']}{' --open' if document['open_task'] else ''}"
    if document["ended"] is not None:
        winner = f", {document['winner']}" if document["winner"] else ""
        return f"It is over: {document['ended']}{winner}."
    if document["fell_elsewhere"]:
        return f"The submission no longer stands; `trainledger dispute release {number}` frees the challenger's bond."
    if document["late"]:
        return f"The {document['to_move']} is late and loses; `trainledger dispute settle {number}` says so on chain."
    return f"The {document['to_move']} is to move, within {document['seconds_left']} seconds."


def settle(context: CommandContext, number: GameNumber, open_tasks: OfOpenTasks = False) -> None:
    """End a dispute whose side to move is late: that side loses. Anybody may.

    Safe to repeat. JSON: `game`, `already_over`, `state` and `winner` as in `trainledger dispute show`.

    Example: `trainledger dispute settle 1 --account alice`
    """
    client = context.disputes(signing=True, open_tasks=open_tasks)
    receipt = client.settle_late(number)
    _report(context, client.view(number), acted=receipt is not None)


def release(context: CommandContext, number: GameNumber, open_tasks: OfOpenTasks = False) -> None:
    """End a dispute whose submission fell in another one, which frees the challenger's bond. Anybody may.

    Safe to repeat. JSON: `game`, `already_over`, `state` and `winner` as in `trainledger dispute show`.

    Example: `trainledger dispute release 1 --account alice`
    """
    client = context.disputes(signing=True, open_tasks=open_tasks)
    receipt = client.release(number)
    _report(context, client.view(number), acted=receipt is not None)


def _report(context: CommandContext, view: GameView, *, acted: bool) -> None:
    from ledger.disputes.words import describe_outcome

    document = {
        "game": view.number,
        "already_over": not acted,
        "state": view.outcome.name.lower(),
        "winner": view.winner,
    }
    words = f"Game {view.number} {'is over' if acted else 'was over already'}: {describe_outcome(view)}."
    context.emit(document, lambda console: console.print(words))
