"""True accumulators of long folds, from the outputs that they read (docs/dispute.md, "Moves")."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import numpy as np

from ledger.disputes.positions import BLOCK
from trainer.dispute.committed import CommittedBytes
from trainer.engine.exact import folds
from trainer.program.exact.operations import Matmul, Max, Operand, Operation, ScatterAdd, Sum


class Outputs(Protocol):
    """What folds are computed from."""

    def operation(self, number: int) -> Operation: ...

    def outputs(self, numbers: Collection[int]) -> Mapping[int, CommittedBytes]: ...


def fold_accumulators(truth: Outputs, operation: int, element: int) -> list[int]:
    """Accumulators of one element after 0, 1, 2, … blocks of 1,024 elements, all of its run at last.

    Raises:
        IndexError: the operation does not fold, or its output has no such element.
    """
    one = truth.operation(operation)
    if not isinstance(one.attributes, Matmul | Sum | Max | ScatterAdd):
        raise IndexError(f"operation {operation} is {one.code.name}, which does not fold")
    at = index_of(one, element)
    held = truth.outputs([operand.source for operand in one.operands])

    def elements(place: int, count: int, kind: str) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
        operand = one.operands[place]
        output = held[operand.source]
        return np.frombuffer(output.data, f"<{kind}{output.width}", count, named_by(operand, at) * output.width)

    match one.attributes:
        case Matmul(length):
            words = folds.product_accumulators(
                elements(0, length, "i").tolist(), elements(1, length, "i").tolist(), BLOCK
            )
        case Sum(length):
            exponent = int(elements(1, 1, "i").item())
            words = folds.sum_accumulators(elements(0, length, "u").astype(np.uint32), exponent, BLOCK)
        case Max(length, magnitudes):
            words = folds.maximum_accumulators(elements(0, length, "u").astype(np.uint32), magnitudes, BLOCK)
        case ScatterAdd(length):
            words = folds.scatter_accumulators(
                elements(0, length, "u").astype(np.uint32),
                elements(1, length, "i").tolist(),
                at[0],
                int(elements(2, 1, "i").item()),
                BLOCK,
            )
    return [folds.START, *words]


def index_of(one: Operation, element: int) -> tuple[int, ...]:
    """The element's index in the output. Raises IndexError where the output has no such element."""
    if not 0 <= element < one.elements:
        raise IndexError(f"no element {element} in an output of {one.elements}")
    return tuple(int(i) for i in np.unravel_index(element, one.shape))


def named_by(operand: Operand, index: tuple[int, ...]) -> int:
    """The element of its source that an operand names at an index of the output."""
    return operand.offset + sum(i * stride for i, stride in zip(index, operand.strides, strict=True))
