"""What a dispute can be about: the tensors of a trace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Subject:
    """A tensor of a trace: the output of operation `number`, or tensor `number` of the state after the run."""

    of_state: bool
    number: int


@dataclass(frozen=True)
class TensorLayout:
    """How a tensor is committed: dtype number, bytes, chunks, bytes of an element."""

    dtype: int
    size: int
    chunks: int
    width: int
