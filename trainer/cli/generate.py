"""`trainledger generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from ledger.canonical import root_hex
from ledger.cli.common import CommandApp, CommandContext
from ledger.errors import UsageError

__all__ = ["register"]


def register(app: CommandApp) -> None:
    """Adds `generate`."""
    app.command("generate")(generate)


def generate(
    context: CommandContext,
    task: Annotated[int, typer.Option("--task", min=1, metavar="TASK", help="Number of the task.")],
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="How the text begins.")] = "\n",
    tokens: Annotated[int, typer.Option("--tokens", min=1, max=100_000, help="Tokens to add.")] = 200,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 always takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="Choose among so many likeliest tokens.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="The same seed, the same text.")] = 0,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, metavar="R", help="The checkpoint of this round; the newest else.")
    ] = None,
    root: Annotated[
        str | None, typer.Option("--root", metavar="ROOT", help="Any state of the task by its root, final or not.")
    ] = None,
) -> None:
    """Let a task's checkpoint write text.

    Example: trainledger generate --task 1 --prompt "def " --tokens 100 --seed 7
    """
    from trainer.checkpoints import load_state
    from trainer.cli.checkpoint import pick_state
    from trainer.cli.engine import open_engine
    from trainer.engine.sampling import sample
    from trainer.materials import open_materials

    if not prompt:
        raise UsageError("--prompt is empty; a model needs something to go on from.", remedy="Give a letter at least.")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:  # an argument that is not UTF-8 comes with lone surrogates in it
        raise UsageError("--prompt is not UTF-8 text.", remedy="Give it in UTF-8.") from error
    client = context.client()
    materials = open_materials(client, task, context.settings.store_url, context.settings.home / "cache")
    chosen = pick_state(client, materials.task, round_number, root)
    state = load_state(materials.store, chosen, materials.layout, context.settings.home / "cache")
    tokenizer, generation = materials.dataset.tokenizer, materials.program.generation
    if generation is None:
        raise UsageError(
            f"Task {task} has no generation program.", remedy="Export its checkpoint and use it elsewhere."
        )
    start = [int(token) for token in tokenizer.encode(prompt)]
    try:
        added = sample(
            generation.program,
            open_engine(context).open(generation),
            state,
            start,
            vocabulary=tokenizer.vocabulary,
            tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
        )
    except ValueError as error:
        raise UsageError(
            f"Nothing can be generated: {error}.", remedy="Try another --round or --temperature."
        ) from error
    # Decoded together: the prompt's last token and the first new one may share a character.
    text = tokenizer.decode([*start, *added])
    document = {"task": task, "state_root": root_hex(chosen), "prompt": prompt, "seed": seed, "text": text}
    context.emit(document, lambda console: console.print(text))
