"""The `trainledger` command with all its commands. Torch is imported only inside the commands that train."""

from trainer.cli.main import app, main

__all__ = ["app", "main"]
