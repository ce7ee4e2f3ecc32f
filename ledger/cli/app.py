"""The groups of commands, and the app made of them."""

from __future__ import annotations

from ledger.cli.common import CommandApp, root_app

__all__ = ["account_app", "checkpoint_app", "make_app", "task_app"]

account_app = CommandApp("account", help="Keys, stakes and who acts for whom.")
task_app = CommandApp("task", help="Post, list, show and close training tasks.")
checkpoint_app = CommandApp("checkpoint", help="The lineage of a task's checkpoints.")


def make_app() -> CommandApp:
    """A new root app with the chain's commands; the trainer adds its own to it and to the groups."""
    app = root_app(
        name="trainledger",
        help="Post training tasks, train them, prove the work and get paid, on a ledger that trusts nobody.",
    )
    app.add_typer(account_app)
    app.add_typer(task_app)
    app.add_typer(checkpoint_app)
    return app
