"""The commands of `trainledger open` that take the trainer."""

from __future__ import annotations

from ledger.cli.common import CommandApp
from ledger.cli.groups import open_app
from trainer.cli.open_audit import audit
from trainer.cli.open_create import create
from trainer.cli.open_work import serve, work

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds the commands to the group, which is part of `app` already."""
    for command in (create, work, serve, audit):
        open_app.command(command.__name__)(command)
