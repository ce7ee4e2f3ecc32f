"""The shards of a program: who depends on which rows of the batch, and where shards meet (docs/ranks.md).

A shard is a range of the batch's rows that no reader of the batch reads across. What depends on one shard is the affair
of one rank. What depends on several is every rank's, and what it reads of single shards has to be exchanged: at a
`Join`, an exact SUM over shards, as partial sums; anywhere else (`gathered`) as it is.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass

from trainer.program.exact.operations import (
    Batch,
    Cat,
    DType,
    Max,
    Operand,
    Pointwise,
    Program,
    Shape,
    Sum,
)
from trainer.program.exact.reach import last_element
from trainer.program.exact.scaling import exponent_kernel
from trainer.program.exact.views import contiguous_strides


@dataclass(frozen=True)
class Addend:
    """What a SUM over shards takes from one of them.

    Attributes:
        operand: the elements, a view of an operation's output, under [*the SUM's shape, extent].
        extent: how many elements each element of the SUM takes.
        shard: whose they are; None where they depend on no row of the batch, and are to be added once.
    """

    operand: Operand
    extent: int
    shard: int | None


@dataclass(frozen=True)
class Join:
    """A SUM whose runs are the values of shards beside each other, with the exponent of their greatest magnitude."""

    number: int
    shape: Shape
    addends: tuple[Addend, ...]

    @property
    def elements(self) -> int:
        """Number of elements of the SUM."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Sharding:
    """The shards of a program.

    Attributes:
        rows: first and last row of each shard, in order; rows that nobody reads are in none.
        dependence: for each operation, bit s is set if it depends on shard s. BATCH itself depends on none: every rank
            can draw all tokens.
        needed: operations that depend on no shard or on several, which every rank computes, except the joins.
        joins: the exact SUMs over shards that `needed` or the next state reads.
        gathered: operations of one shard that `needed` or the next state reads otherwise.
    """

    rows: tuple[tuple[int, int], ...]
    dependence: tuple[int, ...]
    needed: frozenset[int]
    joins: tuple[Join, ...]
    gathered: tuple[int, ...]

    def shard_of(self, number: int) -> int | None:
        """The one shard that an operation depends on; None where it depends on none or on several."""
        mask = self.dependence[number]
        return mask.bit_length() - 1 if mask and not _several(mask) else None


def sharding_of(program: Program) -> Sharding:
    """The shards of a checked program; linear in its length times the number of shards.

    A program that does not split has one shard at most.
    """
    live = closure(program, (one.source for one in program.states if one.source is not None))
    rows = _shards(program, live)
    dependence = _dependence(program, live, rows)
    needed: set[int] = set()
    gathered: set[int] = set()
    joins: dict[int, Join] = {}
    waiting = [one.source for one in program.states if one.source is not None]
    while waiting:
        number = waiting.pop()
        if number in needed or number in gathered or number in joins:
            continue
        mask = dependence[number]
        if mask and not _several(mask):
            gathered.add(number)
            continue
        addends = _addends_of_sum(program, dependence, number) if _several(mask) else None
        if addends is not None:
            joins[number] = Join(number, program.operations[number].shape, addends)
            continue
        needed.add(number)
        waiting.extend(operand.source for operand in program.operations[number].operands)
    ordered = tuple(joins[number] for number in sorted(joins))
    return Sharding(rows, dependence, frozenset(needed), ordered, tuple(sorted(gathered)))


def closure(program: Program, roots: Iterable[int]) -> set[int]:
    """The operations that these depend on, they themselves included."""
    live = set(roots)
    for number in range(max(live, default=-1), -1, -1):
        if number in live:
            live.update(operand.source for operand in program.operations[number].operands)
    return live


def _several(mask: int) -> bool:
    return mask & (mask - 1) != 0


def _rows_read(program: Program, number: int) -> list[tuple[int, int]]:
    """First and last row of the batch that each of an operation's operands can name, of those that read a batch."""
    one, found = program.operations[number], []
    for place, operand in enumerate(one.operands):
        source = program.operations[operand.source]
        if isinstance(source.attributes, Batch):
            length = source.shape[1]
            found.append((operand.offset // length, last_element(one, place) // length))
    return found


def _shards(program: Program, live: set[int]) -> tuple[tuple[int, int], ...]:
    """The ranges of rows that operations read, those that overlap made one."""
    shards: list[tuple[int, int]] = []
    for first, last in sorted({rows for number in live for rows in _rows_read(program, number)}):
        if shards and first <= shards[-1][1]:
            shards[-1] = (shards[-1][0], max(last, shards[-1][1]))
        else:
            shards.append((first, last))
    return tuple(shards)


def _dependence(program: Program, live: set[int], shards: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    starts = [first for first, _ in shards]
    masks = [0] * len(program.operations)
    for number in sorted(live):
        for operand in program.operations[number].operands:
            masks[number] |= masks[operand.source]
        for first, _ in _rows_read(program, number):
            masks[number] |= 1 << (bisect.bisect_right(starts, first) - 1)
    return tuple(masks)


def _addends_of_sum(program: Program, dependence: tuple[int, ...], number: int) -> tuple[Addend, ...] | None:
    """What a SUM adds up, if it is one over whole rows of a CAT with the exponent of their greatest magnitude."""
    one = program.operations[number]
    if not isinstance(one.attributes, Sum):
        return None
    x, exponent = one.operands
    row = (*one.shape, one.attributes.length)
    if program.operations[x.source].shape != row or x != Operand(x.source, 0, contiguous_strides(row)[:-1]):
        return None
    if not _is_exponent_of(program, exponent, x, one.shape, one.attributes.length):
        return None
    addends = _addends_of_cat(program, dependence, x.source)
    return None if addends is None else tuple(addends)


def _is_exponent_of(program: Program, exponent: Operand, x: Operand, shape: Shape, length: int) -> bool:
    """Whether an operand is E of the greatest magnitude of each run of x, as the builder writes it."""
    made = program.operations[exponent.source]
    if exponent != _whole(exponent.source, shape) or made.shape != shape or made.dtype is not DType.INT32:
        return False
    if made.attributes != Pointwise(exponent_kernel()):
        return False
    (greatest,) = made.operands
    folded = program.operations[greatest.source]
    return (
        greatest == _whole(greatest.source, shape)
        and folded.shape == shape
        and folded.attributes == Max(length, True)
        and folded.operands == (x,)
    )


def _addends_of_cat(program: Program, dependence: tuple[int, ...], number: int) -> list[Addend] | None:
    """The inputs of a CAT along its last axis that pads nothing; a CAT among them, of several shards, by its own."""
    one = program.operations[number]
    cat = one.attributes
    if not isinstance(cat, Cat) or cat.axis != len(one.shape) - 1 or sum(cat.extents) != one.shape[-1]:
        return None
    addends: list[Addend] = []
    for operand, extent in zip(one.operands, cat.extents, strict=True):
        mask = dependence[operand.source]
        if not _several(mask):
            addends.append(Addend(operand, extent, mask.bit_length() - 1 if mask else None))
            continue
        part = (*one.shape[:-1], extent)
        if program.operations[operand.source].shape != part or operand != _whole(operand.source, part):
            return None
        deeper = _addends_of_cat(program, dependence, operand.source)
        if deeper is None:
            return None
        addends += deeper
    return addends


def _whole(source: int, shape: Shape) -> Operand:
    return Operand(source, 0, contiguous_strides(shape))
