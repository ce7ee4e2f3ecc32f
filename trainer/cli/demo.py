"""`trainledger demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.common import CommandApp, CommandContext


def register(app: CommandApp) -> None:
    """Adds `demo`."""

    @app.command("demo")
    def demo(
        context: CommandContext,
        task_file: Annotated[
            Path | None, typer.Option("--task-file", help="Another task file than the demonstration's own.")
        ] = None,
    ) -> None:
        """Run the whole life of a training task on a local chain of its own.

        Starts a chain, deploys, posts a task, lets one worker cheat and an auditor catch it, trains it with two others,
        pays, and prints what came of it. A killed demonstration goes on when it is started again; one that ended starts
        afresh in a new folder.

        Example: trainledger demo --home .demo
        """
        from rich.console import Console

        from trainer.demo.scenario import Demonstration

        console = Console(stderr=context.json, highlight=False, soft_wrap=True)
        home = context.settings.home
        arguments = {} if task_file is None else {"task_file": task_file}
        report = Demonstration(home, console, **arguments).play()
        context.emit(report.as_json(), lambda _: None)
