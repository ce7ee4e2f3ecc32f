"""Loop nests over an output's elements: axes collapsed, the last one innermost, and C for their indexes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.program.exact.operations import Shape

Strides = tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """Collapsed axes: extents, at least one of them, and each operand's strides over them, in elements."""

    extents: tuple[int, ...]
    strides: tuple[Strides, ...]

    @property
    def inner(self) -> int:
        """Extent of the innermost axis."""
        return self.extents[-1]

    @property
    def outer(self) -> int:
        """Number of times that the innermost loop runs."""
        return product(self.extents[:-1])


def product(extents: Sequence[int]) -> int:
    """The number of indexes of a shape."""
    total = 1
    for extent in extents:
        total *= extent
    return total


def dense(shape: Shape) -> Strides:
    """Row-major strides of a shape."""
    return tuple(product(shape[axis + 1 :]) for axis in range(len(shape)))


def collapse(shape: Shape, operands: Sequence[Strides]) -> Nest:
    """Axes of extent 1 dropped, and neighbours joined wherever every operand steps through both as through one."""
    extents: list[int] = []
    steps: list[list[int]] = []
    for axis, extent in enumerate(shape):
        if extent == 1:
            continue
        here = [strides[axis] for strides in operands]
        if extents and all(far == near * extent for far, near in zip(steps[-1], here, strict=True)):
            extents[-1] *= extent
            steps[-1] = here
        else:
            extents.append(extent)
            steps.append(here)
    if not extents:
        extents, steps = [1], [[0] * len(operands)]
    return Nest(tuple(extents), tuple(tuple(step[n] for step in steps) for n in range(len(operands))))


def offset(strides: Strides, names: Sequence[str]) -> str:
    """C for Σ index · stride, "0" where all strides are 0."""
    terms = [
        name if stride == 1 else f"{name} * {stride}" for name, stride in zip(names, strides, strict=True) if stride
    ]
    return " + ".join(terms) or "0"


def indexes(extents: Sequence[int], flat: str = "r", integer: str = "ptrdiff_t") -> tuple[list[str], list[str]]:
    """C declarations of the indexes of a flat number over extents, of an integer type, and their names."""
    names = [f"i{axis}" for axis in range(len(extents))]
    lines, rest = [], flat
    for axis in range(len(extents) - 1, -1, -1):
        if axis == 0:
            lines.append(f"{integer} {names[0]} = {rest};")
        else:
            lines.append(f"{integer} {names[axis]} = {rest} % {extents[axis]}, q{axis} = {rest} / {extents[axis]};")
            rest = f"q{axis}"
    return lines, names
