"""The app made of the chain's commands."""

from __future__ import annotations

from ledger.cli import (
    account_keys,
    account_stake,
    auditors,
    checkpoints,
    deployment,
    disputes,
    earnings,
    explain,
    local,
    open_settlement,
    open_tasks,
    settlement,
    tasks,
    unpaid,
)
from ledger.cli.common import CommandApp, root_app
from ledger.cli.groups import account_app, auditor_app, checkpoint_app, dispute_app, open_app, rewards_app, task_app

__all__ = [
    "account_app",
    "auditor_app",
    "checkpoint_app",
    "dispute_app",
    "make_app",
    "open_app",
    "rewards_app",
    "task_app",
]


for _module in (account_keys, account_stake):
    _module.register(account_app)
tasks.register(task_app)
settlement.register(task_app)
rewards_app.default(earnings.rewards)
explain.register(rewards_app)
checkpoints.register(checkpoint_app)
disputes.register(dispute_app)
auditors.register(auditor_app)
for _module in (open_tasks, open_settlement):
    _module.register(open_app)


def make_app() -> CommandApp:
    """A new root app with the chain's commands; the trainer adds its own to it and to the groups."""
    app = root_app(
        name="trainledger",
        help="Post training tasks, train them, prove the work and get paid, on a ledger that trusts nobody.",
    )
    for module in (local, deployment, earnings, unpaid):
        module.register(app)
    for group in (account_app, task_app, open_app, checkpoint_app, rewards_app, dispute_app, auditor_app):
        app.add_typer(group)
    return app
