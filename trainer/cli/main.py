"""Composes the whole `trainledger` command out of the chain's commands and the trainer's."""

from __future__ import annotations

from ledger.cli import make_app
from trainer.cli import (
    audit,
    checkpoint,
    demo,
    dispute,
    fleet,
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
_WORK = (task_create, open_tasks, worker, fleet, verify, audit, dispute, checkpoint)
for _module in (*_WORK, generate, program, selftest, demo):
    _module.register(app)


def main() -> None:
    """Entry point of the console script."""
    app()
