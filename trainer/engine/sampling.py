"""Text from a generation program: one run a token, on whatever runs programs (docs/generation.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainer.engine.engines import Run
from trainer.program.exact.operations import Program
from trainer.program.layout import DIVERGED, LENGTH, POSITION, SEED, TEMPERATURE, TOKENS, TOP_K

_SEEDS = 2**32  # LOAD gives a kernel the low 32 bits of a counter


def sample(
    program: Program,
    run: Run,
    state: Mapping[str, Tensor],
    prompt: Sequence[int],
    *,
    vocabulary: int,
    tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> list[int]:
    """Chooses `tokens` more tokens after `prompt` (at least one token); gives the new ones only.

    Args:
        program: what `trace_generation` made; `run`: the same program, ready to run.
        state: the training program's tensors by name.
        vocabulary: token values that the model has, V.
        temperature: 0 takes the likeliest token each time. top_k: sample among so many likeliest tokens only.
        seed: 0 to 2^32 - 1; the same one gives the same text on every machine.

    Raises:
        ValueError: an empty prompt, a token outside the vocabulary, a setting out of range, tensors that are not the
            program's, a model whose logits are not finite (training diverged), or a program that chooses a token
            outside the vocabulary.
    """
    if not prompt or not all(0 <= token < vocabulary for token in prompt):
        raise ValueError(f"the prompt needs tokens from 0 to {vocabulary - 1}")
    if tokens < 0 or not temperature >= 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"tokens={tokens}, temperature={temperature}, top_k={top_k} is out of range")
    if not 0 <= seed < _SEEDS:
        raise ValueError(f"seed={seed} is out of range: seeds are 0 to {_SEEDS - 1}")
    number_of = {tensor.name: number for number, tensor in enumerate(program.states)}
    context = program.states[number_of[TOKENS]].shape[0]
    history = list(prompt)
    run.load(
        _first_state(
            program,
            state,
            {
                TOKENS: _window(history, context),
                LENGTH: _counter(min(len(history), context)),
                SEED: _counter(seed),
                POSITION: _counter(0),
                TEMPERATURE: torch.tensor([temperature], dtype=torch.float64).to(torch.float32),
                TOP_K: _counter(0 if top_k is None else min(top_k, vocabulary)),
                DIVERGED: _counter(0),
            },
        )
    )
    for _ in range(tokens):
        run.step()
        if int(run.tensor(number_of[DIVERGED]).item()):
            raise ValueError("the model's logits are not finite: its training diverged")
        token = int(run.tensor(number_of[TOKENS])[min(len(history), context - 1)].item())
        if not 0 <= token < vocabulary:
            raise ValueError(f"the program chose the token {token}, and there are {vocabulary}")
        history.append(token)
    return history[len(prompt) :]


def _first_state(program: Program, state: Mapping[str, Tensor], text: Mapping[str, Tensor]) -> list[Tensor]:
    given = {**state, **text}
    missing = [tensor.name for tensor in program.states if tensor.name not in given]
    if missing:
        raise ValueError(f"the state has no {missing[0]}, which the generation program has")
    return [given[tensor.name] for tensor in program.states]


def _window(history: Sequence[int], context: int) -> Tensor:
    """The last tokens, left-aligned, int64 [context]; 0 past them."""
    last = history[-context:]
    return torch.tensor([*last, *[0] * (context - len(last))], dtype=torch.int64)


def _counter(value: int) -> Tensor:
    return torch.tensor([value], dtype=torch.int64)
