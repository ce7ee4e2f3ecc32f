"""The settings that are measured: nanoGPT's small CPU setting and a GPT of ten million parameters, over bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.config import DataConfig
from trainer.data.dataset import Dataset, prepare_dataset
from trainer.engine.state import State, model_of
from trainer.program.description import ProgramDescription

SMALL: dict[str, Any] = {
    "model": {"kind": "transformer", "layers": 4, "heads": 4, "width": 128, "bias": False, "tied_embeddings": True},
    "context": 64,
    "batch_size": 12,
    "optimizer": {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "gradient_clip": 1.0},
    "schedule": {
        "learning_rate": 1e-3,
        "minimum_learning_rate": 1e-4,
        "warmup_steps": 100,
        "total_steps": 2000,
    },
    "evaluation_windows": 240,  # nanoGPT measures 20 batches of 12
    "evaluation_batch": 12,
    "seed": 1,
}
# nanoGPT's setting for one GPU, with a batch that a CPU can take.
TEN_MILLION: dict[str, Any] = {
    **copy.deepcopy(SMALL),
    "model": {"kind": "transformer", "layers": 6, "heads": 6, "width": 384, "bias": False, "tied_embeddings": True},
    "context": 256,
    "batch_size": 4,
    "evaluation_windows": 4,
    "evaluation_batch": 4,
}
SETTINGS = {"small": SMALL, "ten million": TEN_MILLION}


def dataset_of_text(text: Path) -> Dataset:
    """Bytes of a text file, the last tenth held out, as nanoGPT splits it."""
    return prepare_dataset(DataConfig(source=(str(text.resolve()),), heldout_fraction=0.1))


def describe(fields: dict[str, Any], dataset: Dataset, **changes: Any) -> ProgramDescription:
    """A setting as a description; `changes` replace fields."""
    return ProgramDescription.from_task_file({**fields, **changes}, vocabulary=dataset.vocabulary, total_steps=2000)


class PlainLoop:
    """Training as anybody would write it: random batches, fused AdamW, clipping, warm-up and cosine; float32.

    Args:
        compiled: under torch.compile.
        seed: of the batches.
    """

    def __init__(
        self, description: ProgramDescription, dataset: Dataset, state: State, *, compiled: bool = False, seed: int = 1
    ) -> None:
        self.description, self.dataset = description, dataset
        self._data = np.asarray(dataset.train)
        self.model = model_of(description, state).train()
        self._forward: Callable[[Tensor, Tensor], Tensor] = torch.compile(self.model) if compiled else self.model
        self._optimizer = self._adamw(self.model)
        self._generator = torch.Generator().manual_seed(seed)
        self.steps = 0

    def _adamw(self, model: nn.Module) -> torch.optim.AdamW:
        config = self.description.optimizer
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=1e-3, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)

    def step(self) -> Tensor:
        """One optimizer step; gives the loss."""
        inputs, targets = self.next_batch()
        rate = self._rate()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._forward(inputs, targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch has no type for it
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.description.optimizer.gradient_clip)
        self._optimizer.step()
        self.steps += 1
        return loss.detach()

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, [B, T] int64, from anywhere in the text."""
        described, data = self.description, self._data
        context = described.context
        starts = torch.randint(len(data) - context, (described.batch_size,), generator=self._generator).tolist()
        inputs = torch.stack([torch.from_numpy(data[i : i + context].astype(np.int64)) for i in starts])
        targets = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + context].astype(np.int64)) for i in starts])
        return inputs, targets

    def _rate(self) -> float:
        low, high = 1e-4, 1e-3
        if self.steps < 100:
            return high * (self.steps + 1) / 101
        done = min(1.0, (self.steps - 100) / 1900)
        return low + (high - low) * 0.5 * (1.0 + math.cos(math.pi * done))
