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
        workers: Annotated[
            int | None,
            typer.Option(
                "--workers", min=2, max=8, metavar="N", help="Show rounds of N slots instead, with N workers (2 to 8)."
            ),
        ] = None,
    ) -> None:
        """Run the whole life of a training task on a local chain of its own.

        Starts a chain, deploys, posts a task, lets one worker cheat and an auditor catch it, trains it with two others,
        pays, and prints what came of it. A killed demonstration goes on when it is started again; one that ended starts
        afresh in a new folder.

        With --workers, N workers train one model by DiLoCo: one is killed in mid-round, two more join later, and one
        worker trains the same model alone, with as many tokens. The losses of both are shown side by side, and where
        every wei of the escrow went.

        Examples: trainledger demo --home .demo

        trainledger demo --home .demo --workers 4
        """
        from rich.console import Console

        from trainer.demo.many import ManyWorkers
        from trainer.demo.scenario import Demonstration

        console = Console(stderr=context.json, highlight=False, soft_wrap=True)
        home = context.settings.home
        arguments = {} if task_file is None else {"task_file": task_file}
        stage = (
            Demonstration(home, console, **arguments)
            if workers is None
            else ManyWorkers(home, console, workers, **arguments)
        )
        report = stage.play()
        context.emit(report.as_json(), lambda _: None)
