"""`trainledger program trace` and `program show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.errors import SpecificationError

if TYPE_CHECKING:
    from trainer.program.exact.operations import Program

__all__ = ["register"]

program_app = CommandApp("program", help="Exact programs: trace them from a task file, check and read them.")


def register(app: CommandApp) -> None:
    """Adds the group."""
    program_app.command("trace")(trace)
    program_app.command("show")(show)
    app.add_typer(program_app)


def trace(
    context: CommandContext,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Task file (TOML).")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Also write the encoded program.")] = None,
) -> None:
    """Trace the training step of a task file's model into an exact program, and show what a step costs.

    The program is made of eleven operations over tensors (docs/programs.md). Tasks do not carry such programs yet: this
    shows what they will carry.

    Example: `trainledger program trace examples/quick.toml --to step.program`
    """
    from ledger.atomic import write_atomically
    from ledger.taskfile import load_task_file
    from trainer.data.config import DataConfig
    from trainer.program.description import ProgramDescription
    from trainer.program.exact.encoding import encode_program
    from trainer.program.exact.validate import check_program
    from trainer.program.tracing.training import trace_description

    task = load_task_file(file)
    description = ProgramDescription.from_task_file(
        task.program,
        vocabulary=DataConfig.from_mapping(task.data).vocabulary,
        total_steps=task.rounds * task.steps_per_round,
    )
    built, _ = trace_description(description, windows=1)
    check_program(built.program)
    if to is not None:
        write_atomically(to, encode_program(built.program))
        context.say(f"Wrote {to}.")
    _report(context, built.program)


def show(
    context: CommandContext,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Encoded program.")],
    lines: Annotated[bool, typer.Option("--list", help="Print every operation, one a line.")] = False,
) -> None:
    """Check an encoded program and show what a run of it costs.

    Everything is checked before anything is shown: shapes, dtypes, order, limits. A file that is no valid program is
    refused, with the record and the value that are wrong.

    Examples: `trainledger program show step.program`, `trainledger program show step.program --list`
    """
    from trainer.program.exact.listing import listing
    from trainer.program.exact.validate import load_program

    try:
        data = file.read_bytes()
    except OSError as error:
        raise SpecificationError(f"The program file {file} cannot be read: {error.strerror}.") from error
    program = load_program(data)
    if lines and not context.json:
        for line in listing(program):
            context.console.print(line)
        return
    _report(context, program)


def _report(context: CommandContext, program: Program) -> None:
    from dataclasses import asdict

    from rich.console import Console

    from ledger.cli.output import table
    from trainer.program.exact.cost import cost_of
    from trainer.program.exact.encoding import encode_program, program_root

    cost = cost_of(program)
    document: dict[str, Any] = {
        "root": root_hex(program_root(program)),
        "bytes": len(encode_program(program)),
        "state_tensors": len(program.states),
        "constants": len(program.constants),
        "flops": cost.flops,
        **asdict(cost),
    }

    def human(console: Console) -> None:
        rows = [(name.replace("_", " "), value) for name, value in document.items() if name != "operations"]
        rows += [(f"{name} operations", count) for name, count in cost.operations.items()]
        console.print(table(["what", "value"], [(name, _shown(value)) for name, value in rows], right=["value"]))

    context.emit(document, human)


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
