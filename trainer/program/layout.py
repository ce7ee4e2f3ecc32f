"""The layout of a program's states: which tensors they hold, in which order (formats §2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from trainer.program.exact.operations import DType, Program

HELDOUT_LOSS = "metric.heldout_loss"
STEP = "counter.step"
PARAMETER = "parameter."
MOMENT1 = "moment1."
MOMENT2 = "moment2."
# What DiLoCo adds (docs/rounds.md): the step at which the round began, the parameters then, and the outer momentum.
ANCHOR_STEP = "counter.anchor"
ANCHOR = "anchor."
VELOCITY = "velocity."

_DTYPES = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64}

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
    def of(program: Program) -> StateLayout:
        """Layout of a checked program's states."""
        return StateLayout(tuple(TensorSpec(one.name, _DTYPES[one.dtype], one.shape) for one in program.states))

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
