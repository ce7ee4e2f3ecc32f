"""`trainledger checkpoint export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ledger.canonical import parse_root, root_hex
from ledger.cli import checkpoint_app
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import loss_value
from ledger.errors import UsageError

if TYPE_CHECKING:
    from ledger.client import LedgerClient
    from ledger.types import Task

__all__ = ["pick_state", "register"]


def register(app: CommandApp) -> None:
    """Adds the command to the group, which is part of `app` already."""
    checkpoint_app.command("export")(export)


def export(
    context: CommandContext,
    task: Annotated[int, typer.Argument(min=1, metavar="TASK", help="Number of the task.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to write; made if missing.")],
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, metavar="R", help="The checkpoint of this round; the newest else.")
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="ROOT", help="Any state of the task by its root, final or not.")
    ] = None,
) -> None:
    """Write a checkpoint that plain PyTorch can load, with its tokenizer and the text it was measured on.

    Example: trainledger checkpoint export 1 --to model
    """
    from trainer.checkpoints import export_checkpoint, load_state
    from trainer.engine.state import heldout_loss_bits, heldout_loss_of
    from trainer.materials import open_materials

    client = context.client()
    materials = open_materials(client, task, context.settings.store_url, context.settings.home / "cache")
    chosen = pick_state(client, materials.task, round_number, root)
    state = load_state(materials.store, chosen, materials.layout, context.settings.home / "cache")
    folder = export_checkpoint(materials.program, materials.dataset, state, to)
    document = {
        "task": task,
        "state_root": root_hex(chosen),
        "heldout_loss": loss_value(heldout_loss_bits(state)),
        "folder": str(folder),
        "files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()),
    }
    context.emit(
        document,
        lambda console: console.print(
            f"Wrote {root_hex(chosen)} (held-out loss {heldout_loss_of(state):.4f}) to {folder}; its README tells how "
            "to load it."
        ),
    )


def pick_state(client: LedgerClient, task: Task, round_number: int | None, root: str | None) -> bytes:
    """The root that the options name: `root` itself, a round's checkpoint, or the newest checkpoint.

    Raises:
        UsageError: both are given, or the round has no checkpoint yet.
        SpecificationError: `root` is not a root.
    """
    if root is not None:
        if round_number is not None:
            raise UsageError("--round and --root contradict each other.", remedy="Give one of them.")
        return parse_root(root, "--root")
    if round_number is None:
        return client.base_root(task.number, task.current_round) if not task.complete else _last(client, task)
    if round_number >= task.current_round:
        count = task.current_round
        there = "none has" if count == 0 else f"rounds 0 to {count - 1} have"
        raise UsageError(
            f"Round {round_number} of task {task.number} has no checkpoint yet; {there}.",
            remedy="Name another --round, or a submitted state with --root.",
        )
    return client.checkpoint(task.number, round_number).state_root


def _last(client: LedgerClient, task: Task) -> bytes:
    return client.checkpoint(task.number, task.parameters.rounds - 1).state_root
