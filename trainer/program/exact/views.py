"""Strided views of an operation's output, before any operand is made of them: no copies, no operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainer.program.exact.operations import DType, Operand, Shape


@dataclass(frozen=True)
class Value:
    """A strided view of the output of operation `source`, in elements. Strides of axes of extent 1 are 0."""

    source: int
    dtype: DType
    shape: Shape
    offset: int
    strides: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def is_contiguous(self) -> bool:
        """Whether its elements lie one after the other, in order."""
        return self.strides == contiguous_strides(self.shape)

    def permute(self, axes: Sequence[int]) -> Value:
        """Axes in another order, as torch.permute."""
        order = [axis % len(self.shape) for axis in axes]
        if sorted(order) != list(range(len(self.shape))):
            raise ValueError(f"{list(axes)} is no order of {len(self.shape)} axes")
        return replace(self, shape=tuple(self.shape[a] for a in order), strides=tuple(self.strides[a] for a in order))

    def transpose(self, first: int = -2, second: int = -1) -> Value:
        """Two axes exchanged."""
        order = list(range(len(self.shape)))
        order[first], order[second] = order[second], order[first]
        return self.permute(order)

    def expand(self, shape: Sequence[int]) -> Value:
        """Broadcast to a shape, by strides of 0; axes are matched from the last, as everywhere."""
        added = len(shape) - len(self.shape)
        old = (*(1,) * added, *self.shape)
        if added < 0 or any(o not in (1, n) for o, n in zip(old, shape, strict=True)):
            raise ValueError(f"{list(self.shape)} does not broadcast to {list(shape)}")
        # An axis of extent 1 has stride 0 already, which is what an expanded one needs.
        return replace(self, shape=tuple(shape), strides=(*(0,) * added, *self.strides))

    def slice(self, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Elements start, start + step, … below stop along an axis; at least one, within the extent."""
        axis %= len(self.shape)
        if not 0 <= start < stop <= self.shape[axis] or step < 1:
            raise ValueError(f"{start}:{stop}:{step} of an axis of {self.shape[axis]} elements")
        extent = -(-(stop - start) // step)
        shape, strides = list(self.shape), list(self.strides)
        shape[axis], strides[axis] = extent, 0 if extent == 1 else self.strides[axis] * step
        return replace(
            self, shape=tuple(shape), strides=tuple(strides), offset=self.offset + start * self.strides[axis]
        )

    def select(self, axis: int, index: int) -> Value:
        """The element `index` along an axis, which goes."""
        axis %= len(self.shape)
        return self.slice(axis, index, index + 1).squeeze(axis)

    def squeeze(self, axis: int) -> Value:
        """Without an axis of extent 1."""
        axis %= len(self.shape)
        if self.shape[axis] != 1:
            raise ValueError(f"axis {axis} of {list(self.shape)} has more than one element")
        return replace(
            self,
            shape=(*self.shape[:axis], *self.shape[axis + 1 :]),
            strides=(*self.strides[:axis], *self.strides[axis + 1 :]),
        )

    def unsqueeze(self, axis: int) -> Value:
        """With an axis of extent 1 more, at place `axis` of the result."""
        axis %= len(self.shape) + 1
        return replace(
            self,
            shape=(*self.shape[:axis], 1, *self.shape[axis:]),
            strides=(*self.strides[:axis], 0, *self.strides[axis:]),
        )

    def diagonal(self, first: int, second: int) -> Value:
        """The diagonal of two axes of one extent, as the last axis."""
        first, second = first % len(self.shape), second % len(self.shape)
        if first == second or self.shape[first] != self.shape[second]:
            raise ValueError(f"axes {first} and {second} of {list(self.shape)} have no diagonal")
        rest = [axis for axis in range(len(self.shape)) if axis not in (first, second)]
        return replace(
            self,
            shape=(*(self.shape[a] for a in rest), self.shape[first]),
            strides=(*(self.strides[a] for a in rest), self.strides[first] + self.strides[second]),
        )

    def reshaped(self, shape: Sequence[int]) -> Value | None:
        """The same elements in order under another shape, or None where strides cannot say that."""
        if math.prod(shape) != self.elements:
            raise ValueError(f"{list(self.shape)} and {list(shape)} have not as many elements")
        strides = _reshaped_strides(self, tuple(shape))
        return None if strides is None else replace(self, shape=tuple(shape), strides=strides)

    def runs(self, row: int) -> bool:
        """Whether every run along the last axis lies in one row of a source whose last axis has `row` elements."""
        if not self.shape or (self.shape[-1] > 1 and self.strides[-1] != 1):
            return False
        return runs_fit(self.operand(self.shape).offset, self.strides[:-1], self.shape[:-1], self.shape[-1], row)

    def operand(self, shape: Shape) -> Operand:
        """The operand that reads this view, broadcast to an output's shape."""
        view = self.expand(shape)
        return Operand(view.source, view.offset, view.strides)


def runs_fit(offset: int, strides: Sequence[int], shape: Sequence[int], length: int, row: int) -> bool:
    """Whether runs of `length` elements from every element named stay inside rows of `row` (programs.md, "Operands").

    Sufficient for all, and exact where the strides are multiples of the row or smaller than it.
    """
    reach = offset % row + sum((extent - 1) * (stride % row) for extent, stride in zip(shape, strides, strict=True))
    return reach + length <= row


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides; 0 for axes of extent 1."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(0 if extent == 1 else step)
        step *= extent
    return tuple(reversed(strides))


def whole(source: int, dtype: DType, shape: Shape) -> Value:
    """All of an operation's output."""
    return Value(source, dtype, shape, 0, contiguous_strides(shape))


def _reshaped_strides(value: Value, shape: Shape) -> tuple[int, ...] | None:
    """Strides of the new shape, if each group of axes that changes is one evenly spaced run."""
    # Runs of old axes that can be merged into one: (elements, stride of the innermost).
    runs: list[tuple[int, int]] = []
    for extent, stride in zip(value.shape, value.strides, strict=True):
        if extent == 1:
            continue
        if runs and runs[-1][1] == stride * extent:
            runs[-1] = (runs[-1][0] * extent, stride)
        else:
            runs.append((extent, stride))
    strides = [0] * len(shape)
    room, step = runs.pop() if runs else (1, 0)
    for axis in range(len(shape) - 1, -1, -1):
        if shape[axis] == 1:
            continue
        if room == 1:
            room, step = runs.pop()
        if room % shape[axis]:
            return None
        strides[axis] = step
        room, step = room // shape[axis], step * shape[axis]
    return tuple(strides)
