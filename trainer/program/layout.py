"""The layout of a program's states: which tensors they hold, in which order (formats §2)."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from trainer.models import build_model
from trainer.program.description import TrainingProgram

HELDOUT_LOSS = "metric.heldout_loss"
STEP = "counter.step"
PARAMETER = "parameter."
MOMENT1 = "moment1."
MOMENT2 = "moment2."

# What a generation program's state has after the training program's (docs/generation.md).
TOKENS = "generation.tokens"
LENGTH = "generation.length"
SEED = "generation.seed"
POSITION = "generation.position"
TEMPERATURE = "generation.temperature"
TOP_K = "generation.top_k"
DIVERGED = "generation.diverged"


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one tensor of a state."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True)
class StateLayout:
    """The tensors of a state in commitment order."""

    tensors: tuple[TensorSpec, ...]

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def of(program: TrainingProgram) -> StateLayout:
        """Layout of a program's states. Shapes come from the model built without memory (meta device)."""
        with torch.device("meta"):
            model = build_model(program.model, vocabulary=program.vocabulary, context=program.context)
        parameters = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
        head = [TensorSpec(HELDOUT_LOSS, torch.float32, (1,)), TensorSpec(STEP, torch.int64, (1,))]
        body = [
            TensorSpec(prefix + name, torch.float32, shape)
            for prefix in (PARAMETER, MOMENT1, MOMENT2)
            for name, shape in parameters
        ]
        return StateLayout(tuple(head + body))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.tensors)

    @property
    def parameters(self) -> tuple[TensorSpec, ...]:
        """The parameters alone."""
        return tuple(spec for spec in self.tensors if spec.name.startswith(PARAMETER))

    @property
    def parameter_count(self) -> int:
        """Number of parameter elements."""
        return sum(spec.elements for spec in self.parameters)

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors of a state."""
        return sum(spec.bytes for spec in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)
