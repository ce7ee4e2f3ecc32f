"""A way to train for an open task: plain PyTorch in bfloat16, with an optimizer and batches of one's own choice.

`trainledger open work TASK --script examples/open_script.py` calls `train`; docs/open-tasks.md, "A script", says how.
The model must be the task's: this one is that of examples/open.toml.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from trainer.models import TransformerConfig, build_model

MODEL = TransformerConfig(layers=2, heads=4, width=64)
CONTEXT, BATCH = 64, 16
PARAMETER = "parameter."


def train(state: dict[str, Tensor], data: Any, seconds: float) -> dict[str, Tensor]:
    """Trains the model for so many seconds.

    Args:
        state: the round's base by name; `parameter.<name>` are the model's own.
        data: `data.train` and `data.heldout` are uint16 tokens, `data.tokenizer` their tokenizer. The held-out tokens
            here are public; the round is scored on others.

    Returns:
        The tensors that changed. Those left out stay the base's.
    """
    model = build_model(MODEL, vocabulary=data.tokenizer.vocabulary, context=CONTEXT)
    model.load_state_dict({name.removeprefix(PARAMETER): one for name, one in state.items() if PARAMETER in name})
    tokens = torch.from_numpy(data.train.astype("int64"))
    optimizer = torch.optim.RAdam(model.parameters(), lr=2e-3)
    end = time.monotonic() + 0.9 * seconds
    while time.monotonic() < end:
        starts = torch.randint(len(tokens) - CONTEXT, (BATCH,))
        windows = torch.stack([tokens[at : at + CONTEXT + 1] for at in starts])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(windows[:, :-1], windows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {PARAMETER + name: one.detach() for name, one in model.named_parameters()}
