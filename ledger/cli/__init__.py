"""The commands that need only the chain. Importing this package imports neither torch nor web3."""

from ledger.cli.app import account_app, checkpoint_app, make_app, task_app

__all__ = ["account_app", "checkpoint_app", "make_app", "task_app"]
