"""Composes the whole `trainledger` command out of the chain's commands and the trainer's."""

from __future__ import annotations

from ledger.cli import make_app
from trainer.cli import (
    audit,
    checkpoint,
    demo,
    dispute,
    generate,
    open_tasks,
    program,
    selftest,
    task_create,
    verify,
    worker,
)

__all__ = ["app", "main"]

app = make_app()
# Each module imports torch only inside its commands.
for _module in (task_create, open_tasks, worker, verify, audit, dispute, checkpoint, generate, program, selftest, demo):
    _module.register(app)


def main() -> None:
    """Entry point of the console script."""
    app()
