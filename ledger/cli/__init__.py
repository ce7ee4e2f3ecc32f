"""The commands that need only the chain. Importing this package imports neither torch nor web3."""

from ledger.cli.app import make_app
from ledger.cli.common import CommandApp, CommandContext
from ledger.cli.groups import account_app, checkpoint_app, dispute_app, task_app

__all__ = ["CommandApp", "CommandContext", "account_app", "checkpoint_app", "dispute_app", "make_app", "task_app"]
