"""`trainledger verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import shorten
from ledger.errors import BlobCorrupt, DataError, UsageError, VerificationFailed
from ledger.performance import bits_float
from ledger.rounds import describe_slot

if TYPE_CHECKING:
    from ledger.types import TaskParameters
    from trainer.verify.task import RoundVerdict, TaskVerdict

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds `verify`."""
    app.command("verify")(verify)


def verify(
    context: CommandContext,
    task: Annotated[int, typer.Argument(min=1, metavar="TASK", help="Number of the task.")],
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, metavar="R", help="Check this round only (the first is 0).")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Check every round that has a result; the default.")] = False,
) -> None:
    """Replay rounds of a task and compare what comes out with what was submitted.

    Needs nobody's word: the programs are run again from each round's base, for every slot of the round and its merge.
    States that the store lacks are replayed from earlier ones. Exits with 4 and names the first round that differs, if
    one does.

    Examples: trainledger verify 1

    trainledger verify 1 --round 2 --json
    """
    from trainer.cli.engine import open_engine
    from trainer.materials import open_materials
    from trainer.verify.task import TaskVerdict, TaskVerifier, claims_of

    if every and round_number is not None:
        raise UsageError("--round and --all contradict each other.", remedy="Give one of them.")
    settings = context.settings
    client = context.client()
    materials = open_materials(client, task, settings.store_url, settings.home / "cache")
    claims = claims_of(client, materials.task)
    rounds = sorted({claim.entry.round for claim in claims}) if round_number is None else [round_number]
    if not rounds:
        context.say(f"Task {task} has no submission yet; there is nothing to check.")
    verifier = TaskVerifier(materials, claims, engine=open_engine(context))
    verdicts: list[RoundVerdict] = []
    parameters = materials.task.parameters
    for verdict in verifier.verify(rounds):
        verdicts.append(verdict)
        if not context.json:
            context.console.print(_line(parameters, verdict))
    result = TaskVerdict(task=task, rounds=tuple(verdicts))
    first = result.first_difference
    document = {
        "task": task,
        "agrees": first is None and not result.unchecked,
        "first_difference": None if first is None else first.claim.entry.round,
        "rounds": [verdict.as_json() for verdict in result.rounds],
    }
    context.emit(document, lambda console: None)
    _raise_for(parameters, result)


def _place(parameters: TaskParameters, verdict: RoundVerdict) -> str:
    return describe_slot(parameters, verdict.claim.entry.round, verdict.claim.slot)


def _line(parameters: TaskParameters, verdict: RoundVerdict) -> str:
    entry, place = verdict.claim.entry, _place(parameters, verdict)
    state = "final" if verdict.claim.final else "submitted"
    head = f"{place[0].upper()}{place[1:]} ({state}, by {shorten(entry.worker)})"
    stored = "" if verdict.stored == "whole" else f" The store's copy of it is {verdict.stored}."
    if verdict.verdict == "agrees":
        what = "its inputs" if verdict.claim.merge else f"{entry.steps} steps"
        return (
            f"{head}: the replay of {what} gives the same state {root_hex(entry.state_root)}, held-out "
            f"loss {bits_float(entry.heldout_loss):.4f} ({verdict.seconds:.1f} s).{stored}"
        )
    words = "DIFFERS" if verdict.verdict == "differs" else "not checked"
    return f"{head}: {words}: {'; '.join(verdict.problems)}.{stored}"


def _raise_for(parameters: TaskParameters, result: TaskVerdict) -> None:
    """Exit status: what differs first, then what could not be checked, then files that are damaged."""
    first = result.first_difference
    if first is not None:
        entry, replayed, place = first.claim.entry, first.replayed, _place(parameters, first)
        if replayed is not None and replayed != entry.state_root:
            raise VerificationFailed(
                result.task, entry.round, root_hex(entry.state_root), root_hex(replayed), place=place
            )
        raise DataError(
            f"{place[0].upper()}{place[1:]} of task {result.task} is false: {'; '.join(first.problems)}.",
            remedy="Do not build on this checkpoint.",
        )
    for verdict in result.unchecked:
        place = _place(parameters, verdict)
        raise DataError(
            f"{place[0].upper()}{place[1:]} of task {result.task} was not checked: {'; '.join(verdict.problems)}.",
            remedy="Name a store that has its base with --store, or check all rounds.",
        )
    for verdict in result.damaged:
        raise BlobCorrupt(
            f"The stored state of {_place(parameters, verdict)}",
            f"{verdict.stored_problem.rstrip('.')}. The submission itself replays",
            remedy="Whoever keeps the store should replace the file.",
        )
