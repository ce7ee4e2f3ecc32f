"""Composes the whole `trainledger` command out of the chain's commands and the trainer's."""

from __future__ import annotations

import importlib

from ledger.cli import make_app

__all__ = ["app", "main"]

# Each module has `register(app: CommandApp) -> None` and imports torch only inside its commands.
_MODULES = ("task_create", "worker", "verify", "checkpoint", "generate", "demo")

app = make_app()
for _name in _MODULES:
    importlib.import_module(f"trainer.cli.{_name}").register(app)


def main() -> None:
    """Entry point of the console script."""
    app()
