"""What a party to a dispute knows: the true values of a segment, as it computes them itself.

The solver asks for them through these protocols, so that whoever plays, honest or not, plays by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ledger.disputes.moves import Evidence, ProgramProof, Record
from trainer.dispute.subjects import Subject, TensorLayout

__all__ = ["Concede", "RunValues", "Subject", "TensorLayout", "Truth"]


class RunValues(Protocol):
    """Everything that one run of a program computes, with what proves it.

    Nodes are named by their height above a tree's leaves and their index at that height; `width` levels below them are
    given, 2^width hashes from the left.
    """

    @property
    def states(self) -> int:
        """Tensors of the state."""
        ...

    @property
    def operations(self) -> int:
        """Operations of the program."""
        ...

    def trace_nodes(self, height: int, index: int, width: int) -> Sequence[bytes]: ...

    def state_nodes(self, height: int, index: int, width: int) -> Sequence[bytes]:
        """Of the tree over the state after the run."""
        ...

    def tensor_nodes(self, subject: Subject, height: int, index: int, width: int) -> Sequence[bytes]: ...

    def tensor_layout(self, subject: Subject) -> TensorLayout: ...

    def chunk(self, subject: Subject, index: int) -> bytes:
        """1,024 bytes, zeros past the tensor's end."""
        ...

    def element_bits(self, subject: Subject, element: int) -> int:
        """An element's little-endian bytes as an unsigned number."""
        ...

    def fold_length(self, operation: int) -> int:
        """Elements that one element of the output folds; 0 where the operation does not fold."""
        ...

    def accumulators(self, operation: int, element: int, blocks: Sequence[int]) -> Sequence[int]:
        """The fold's accumulators after so many blocks of 1,024 elements."""
        ...

    def is_counter(self, tensor: int) -> bool:
        """Whether a tensor of the state is an int64 that an operation writes."""
        ...

    def record(self, subject: Subject) -> Record:
        """The record of the operation or of the state's tensor, with its proof in the program."""
        ...

    def prove_element(self, subject: Subject, element: int) -> Evidence: ...

    def prove_block(self, operation: int, element: int, block: int) -> Evidence: ...

    def prove_rounding(self, operation: int, element: int) -> Evidence: ...

    def state_leaf(self, tensor: int) -> tuple[bytes, Sequence[bytes]]:
        """The tensor root that makes a leaf of the state after the run, and its path to what is agreed."""
        ...


class Truth(Protocol):
    """The true values of the segment that a game is about, as one party computes them."""

    def state_root(self, run: int) -> bytes:
        """Root of the state before run `run`; of the last state for the number of runs."""
        ...

    def run(self, number: int) -> RunValues:
        """One run and everything in it."""
        ...

    def program_proof(self, number: int) -> ProgramProof:
        """What proves the program of that run against the task's program root."""
        ...


@dataclass(frozen=True)
class Concede:
    """No move: as far as this side can tell the other one is right. `reason` is a clause that says why."""

    reason: str
