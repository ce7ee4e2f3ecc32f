"""Sampling text from a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainer.engine.state import model_of
from trainer.program.description import ProgramDescription

# Below the smallest float32 there is nothing to divide by: only the likeliest token is left.
_NO_CHANCE = torch.finfo(torch.float32).tiny


@torch.no_grad()
def generate(
    program: ProgramDescription,
    state: Mapping[str, Tensor],
    prompt: Sequence[int],
    *,
    tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
    seed: int = 0,
) -> list[int]:
    """Sample `tokens` more tokens after `prompt` (at least one token); gives the new ones only.

    Args:
        temperature: 0 takes the likeliest token each time. top_k: sample among so many likeliest tokens only.

    Raises:
        ValueError: an empty prompt, a token outside the vocabulary, a setting out of range, or a model whose logits
            are not finite (training diverged).
    """
    if not prompt or not all(0 <= token < program.vocabulary for token in prompt):
        raise ValueError(f"the prompt needs tokens from 0 to {program.vocabulary - 1}")
    if tokens < 0 or not temperature >= 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"tokens={tokens}, temperature={temperature}, top_k={top_k} is out of range")
    model = model_of(program, state).eval()
    generator = torch.Generator().manual_seed(seed)
    history = list(prompt)
    for _ in range(tokens):
        window = torch.tensor([history[-program.context :]], dtype=torch.int64)
        logits = model.logits(window)[0, -1]
        history.append(_choose(logits, temperature=temperature, top_k=top_k, generator=generator))
    return history[len(prompt) :]


def _choose(logits: Tensor, *, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    if not bool(logits.isfinite().all()):
        raise ValueError("the model's logits are not finite: its training diverged")
    if temperature < _NO_CHANCE:
        return int(logits.argmax().item())
    if top_k is not None and top_k < logits.numel():
        kept, places = logits.topk(top_k)
    else:
        kept, places = logits, torch.arange(logits.numel())
    # The maximum is taken off first, so that a tiny temperature cannot overflow.
    weights = ((kept - kept.max()) / temperature).softmax(0)
    return int(places[torch.multinomial(weights, 1, generator=generator)].item())
