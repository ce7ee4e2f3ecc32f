"""`trainledger program trace`, `show` and `cost`."""

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
    program_app.command("cost")(cost)
    app.add_typer(program_app)


def trace(
    context: CommandContext,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Task file (TOML).")],
    to: Annotated[Path | None, typer.Option("--to", metavar="FILE", help="Also write the encoded program.")] = None,
) -> None:
    """Trace the training step of a task file's model into an exact program, and show what a step costs.

    The program is made of eleven operations over tensors (docs/programs.md). `trainledger task create` traces it too,
    with those that measure and generate; this shows it without a chain.

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
        merge=task.merge,
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


def cost(
    context: CommandContext,
    task: Annotated[int, typer.Argument(min=1, metavar="TASK", help="Number of the task.")],
) -> None:
    """Show what a posted task's programs cost here, before anything is claimed.

    Operations and memory follow from the programs alone; seconds and tokens an hour from how fast this machine's engine
    is at a small program of its own, so they are rough. A worker measures a few real steps before it claims.

    Example: `trainledger program cost 1`
    """
    from rich.console import Console

    from ledger.amounts import format_tokens
    from ledger.cli.output import amount, table
    from trainer.cli.engine import open_engine
    from trainer.materials import fetch_description
    from trainer.program.estimate import estimate
    from trainer.store import BlobStore
    from trainer.worker.machine import measure_flops

    client, settings = context.client(), context.settings
    description = fetch_description(client.task(task), BlobStore(settings.store_url, cache=settings.home / "cache"))
    parameters, needed = description.task.parameters, estimate(description.program)
    engine = open_engine(context)
    rate = measure_flops(engine)
    work = needed.work_per_step * parameters.steps_per_round + needed.work_to_measure
    seconds = work / rate
    hourly = int(parameters.slot_reward * 3600 / max(seconds, 1e-3))
    document: dict[str, Any] = {
        "task": task,
        "program_root": root_hex(description.program.root),
        "parameters": needed.parameters,
        "state_bytes": needed.state_bytes,
        "memory_bytes": needed.memory_bytes,
        "flops_per_step": needed.flops_per_step,
        "flops_to_measure": needed.flops_to_measure,
        "steps_per_round": parameters.steps_per_round,
        "engine": engine.setting,
        "flops_per_second": rate,
        "seconds_per_round": seconds,
        "lease_seconds": parameters.lease_seconds,
        "reward_per_hour": amount(hourly),
    }

    def human(console: Console) -> None:
        rows = [
            ("parameters", f"{needed.parameters:,}"),
            ("a checkpoint", f"{needed.state_bytes / 2**20:,.1f} MiB"),
            ("memory to train", f"{needed.memory_bytes / 2**20:,.0f} MiB"),
            ("a step", f"{needed.flops_per_step / 1e9:,.3f} GFLOP"),
            ("measuring the held-out loss", f"{needed.flops_to_measure / 1e9:,.3f} GFLOP"),
            (f"a round of {parameters.steps_per_round} steps", f"about {seconds:,.0f} s here ({engine.setting})"),
            ("the lease", f"{parameters.lease_seconds:,} s"),
            ("pay at most", f"{format_tokens(hourly - hourly % 10**16)} {client.token_symbol} an hour"),
        ]
        console.print(table(["what", "value"], rows, right=["value"]))

    context.emit(document, human)


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
