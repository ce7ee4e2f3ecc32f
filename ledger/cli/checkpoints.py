"""`checkpoint list`: the lineage that the chain keeps."""

from __future__ import annotations

from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.output import loss_value, shorten, table
from ledger.cli.tasks import TaskNumber

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds the command to the group."""
    app.command("list")(list_)


def list_(context: CommandContext, number: TaskNumber) -> None:
    """List a task's checkpoints from the initial state on: who made each, in how many steps, with which loss.

    Where a round has several slots its checkpoint is their merge.

    JSON: `task`, `initial_state_root` and `checkpoints`, a list of `round`, `parent`, `state_root`, `worker`, `steps`,
    `merged` (how many slots a merge took; null where a round has one) and `heldout_loss` (null where not finite).

    Example: `trainledger checkpoint list 1 --json`
    """
    client = context.client()
    task = client.task(number)
    lineage, slots = client.lineage(number), task.parameters.slots_per_round
    merged = [client.round(number, entry.round).counted if task.parameters.merges else None for entry in lineage]
    document = {
        "task": number,
        "initial_state_root": root_hex(task.parameters.initial_state_root),
        "checkpoints": [
            {
                "round": entry.round,
                "parent": root_hex(entry.parent),
                "state_root": root_hex(entry.state_root),
                "worker": entry.worker,
                "steps": entry.steps,
                "merged": took,
                "heldout_loss": loss_value(entry.heldout_loss),
            }
            for entry, took in zip(lineage, merged, strict=True)
        ],
    }
    rows = [("initial", document["initial_state_root"], "", "", "")]
    for entry, took in zip(lineage, merged, strict=True):
        loss = loss_value(entry.heldout_loss)
        shown = "not finite" if loss is None else f"{loss:.4f}"
        work = str(entry.steps) if took is None else f"{took} of {slots} slots"
        rows.append((str(entry.round), root_hex(entry.state_root), shorten(entry.worker), work, shown))
    columns = ["round", "state root", "worker", "merged" if task.parameters.merges else "steps", "held-out loss"]
    context.emit(document, lambda console: console.print(table(columns, rows, right=columns[3:])))
