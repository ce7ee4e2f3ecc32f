"""The groups of commands; the modules that define commands add them here."""

from __future__ import annotations

from ledger.cli.common import CommandApp

__all__ = ["account_app", "auditor_app", "checkpoint_app", "dispute_app", "open_app", "rewards_app", "task_app"]

account_app = CommandApp("account", help="Keys, balances, stakes, and who acts for whom.")
task_app = CommandApp("task", help="Post, list, show and close training tasks.")
open_app = CommandApp("open", help="Open tasks: train how you like, and be paid for what improves.")
checkpoint_app = CommandApp("checkpoint", help="The lineage of a task's checkpoints.")
auditor_app = CommandApp("auditor", help="Seats of auditors who are drawn and paid, and what tasks pay them.")
dispute_app = CommandApp("dispute", help="Submissions that are challenged, and how it goes.")
rewards_app = CommandApp("rewards", help="What an account has and earned, and why.")
