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

    JSON: `task`, `initial_state_root` and `checkpoints`, a list of `round`, `parent`, `state_root`, `worker`, `steps`
    and `heldout_loss` (null where not finite).

    Example: `trainledger checkpoint list 1 --json`
    """
    client = context.client()
    task = client.task(number)
    lineage = client.lineage(number)
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
                "heldout_loss": loss_value(entry.heldout_loss),
            }
            for entry in lineage
        ],
    }
    rows = [("initial", document["initial_state_root"], "", "", "")]
    for entry in lineage:
        loss = loss_value(entry.heldout_loss)
        shown = "not finite" if loss is None else f"{loss:.4f}"
        rows.append((str(entry.round), root_hex(entry.state_root), shorten(entry.worker), str(entry.steps), shown))
    columns = ["round", "state root", "worker", "steps", "held-out loss"]
    context.emit(document, lambda console: console.print(table(columns, rows, right=columns[3:])))
