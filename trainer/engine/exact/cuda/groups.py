"""Which operations one kernel does row by row: element-wise ones, and folds of rows that they make or read.

Memory is what a GPU waits for. A softmax, a norm or a quantisation is a handful of operations on the same rows; done
together, a row is read once and what nobody else reads is never written. The operations are the program's, each with
its own roundings, so the bits are too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from trainer.engine.exact.fast.nests import dense
from trainer.program.exact.operations import Max, Operand, Operation, Pointwise, Program, Shape, Sum

MOST_MEMBERS = 32
MOST_ADDRESSES = 39  # of `struct tl_given`, less one for the scratch
LEAST_LENGTH, LEAST_ROWS = 32, 64
_AHEAD = 64  # operations that are looked at for more members: what is done early lives long


@dataclass(frozen=True)
class Group:
    """Operations that one kernel does, in their order.

    Attributes:
        rows: how many there are. length: of each, more than 1.
        whole, folds, single: members with an element for each place of the rows, SUMs and MAXes of rows, and members
            with one element a row.
    """

    rows: int
    length: int
    whole: tuple[int, ...]
    folds: tuple[int, ...]
    single: tuple[int, ...]

    @property
    def members(self) -> tuple[int, ...]:
        """All of them, in order."""
        return tuple(sorted((*self.whole, *self.folds, *self.single)))

    def reads_rows(self, number: int, which: int) -> bool:
        """Whether an operand of a member is a row of elements, and not one for each row."""
        return number in self.whole or (number in self.folds and which == 0)


def schedule(program: Program) -> list[Group | int]:
    """All operations, those that go together in groups of two and more; each after what it reads."""
    steps: list[Group | int] = []
    done: set[int] = set()
    for number in range(len(program.operations)):
        if number in done:
            continue
        group = _group_at(program, number, done)
        steps.append(number if group is None else group)
        done.update((number,) if group is None else group.members)
    return steps


def members_of(step: Group | int) -> tuple[int, ...]:
    """The operations of a step."""
    return (step,) if isinstance(step, int) else step.members


@dataclass
class _Growing:
    program: Program
    rows: int
    length: int
    whole: list[int] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    single: list[int] = field(default_factory=list)

    @property
    def members(self) -> set[int]:
        return {*self.whole, *self.folds, *self.single}

    def addresses(self) -> int:
        """At the most: each member's output, and each operand that is not a member."""
        operands = sum(
            operand.source not in self.members
            for number in self.members
            for operand in self.program.operations[number].operands
        )
        return operands + len(self.members)

    def take(self, number: int, done: set[int]) -> None:
        """Makes an operation a member if it can be one."""
        one = self.program.operations[number]
        kind = self._kind(one)
        if kind is None or not all(self._readable(one, operand, kind, done) for operand in one.operands):
            return
        kind.append(number)
        if self.addresses() > MOST_ADDRESSES:
            kind.pop()

    def _kind(self, one: Operation) -> list[int] | None:
        """The members that an operation would be one of."""
        if isinstance(one.attributes, Sum | Max):
            return self.folds if (one.elements, one.fold) == (self.rows, self.length) else None
        if not isinstance(one.attributes, Pointwise):
            return None
        if one.elements == self.rows * self.length and one.shape[-1] == self.length:
            return self.whole
        return self.single if one.elements == self.rows else None

    def _readable(self, one: Operation, operand: Operand, kind: list[int], done: set[int]) -> bool:
        """Whether an operand is there before the group runs, or is the very row, or element of a row, of a member."""
        source = operand.source
        if source not in self.members:
            return source in done
        if kind is self.whole:
            return follows(one.shape, operand, 1) if source in self.whole else self._of_row(one.shape, operand)
        if kind is self.folds and operand is one.operands[0]:
            return source in self.whole and follows(one.shape, operand, self.length)
        return source not in self.whole and follows(one.shape, operand, 1)

    def _of_row(self, shape: Shape, operand: Operand) -> bool:
        """Whether an operand under whole rows is one element for each row."""
        leading = Operand(operand.source, operand.offset, operand.strides[:-1])
        return operand.strides[-1] == 0 and follows(shape[:-1], leading, 1)


def follows(shape: Shape, operand: Operand, step: int) -> bool:
    """Whether the element that an operand names is `step` times the number of the output's element."""
    wanted = tuple(stride * step for stride in dense(shape))
    given = zip(shape, operand.strides, wanted, strict=True)
    return operand.offset == 0 and all(extent == 1 or stride == right for extent, stride, right in given)


def _group_at(program: Program, first: int, done: set[int]) -> Group | None:
    """The group that begins with an operation, or None where it goes with no other."""
    for rows, length in _rows_at(program, first):
        group = _Growing(program, rows, length)
        group.take(first, done)
        for number in range(first + 1, min(first + _AHEAD, len(program.operations))):
            one = program.operations[number]
            # Only what reads a member, or makes what one reads: the rest has no reason to be early.
            if number not in done and any(operand.source in group.members for operand in one.operands):
                group.take(number, done)
            if len(group.members) == MOST_MEMBERS:
                break
        if len(group.members) > 1 and (group.whole or group.folds):
            return Group(rows, length, tuple(group.whole), tuple(group.folds), tuple(group.single))
    return None


def _rows_at(program: Program, number: int) -> Iterator[tuple[int, int]]:
    """The rows that a group which begins with an operation would have."""
    one = program.operations[number]
    if isinstance(one.attributes, Sum | Max):
        rows, length = one.elements, one.fold
    elif isinstance(one.attributes, Pointwise) and one.shape:
        rows, length = one.elements // one.shape[-1], one.shape[-1]
    else:
        return
    if rows >= LEAST_ROWS and length >= LEAST_LENGTH:
        yield rows, length


def hidden(program: Program, steps: Sequence[Group | int]) -> set[int]:
    """Outputs that nobody reads but the kernel that makes them."""
    group_of = {number: place for place, step in enumerate(steps) for number in members_of(step)}
    inside = {number for step in steps if isinstance(step, Group) for number in step.members}
    for number, one in enumerate(program.operations):
        inside -= {operand.source for operand in one.operands if group_of[operand.source] != group_of[number]}
    return inside - {state.source for state in program.states}
