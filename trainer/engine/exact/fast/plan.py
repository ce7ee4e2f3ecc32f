"""Where each output lies, and where threads have to meet: decided once, so that a run allocates nothing."""

from __future__ import annotations

import bisect
import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from trainer.engine.exact.fast.nests import product
from trainer.program.exact.cost import bytes_of
from trainer.program.exact.operations import Batch, Constant, DType, Load, Program

_ALIGNMENT = 64
_MOST_PENDING = 64


class Base(enum.IntEnum):
    """The memories that a run works on, in the order in which it gets their addresses.

    Of a merge, each tensor of each state beside the base follows as a memory of its own.
    """

    ARENA = 0
    STATE = 1
    NEXT = 2
    CONSTANTS = 3
    TOKENS = 4
    SCRATCH = 5


@dataclass(frozen=True)
class Place:
    """`size` bytes from `offset` of a memory: a `Base`, or len(Base) + k for tensor k of a merge's other states."""

    base: int
    offset: int
    size: int

    def meets(self, other: Place) -> bool:
        """Whether the two have a byte in common."""
        apart = self.offset + self.size <= other.offset or other.offset + other.size <= self.offset
        return self.base == other.base and not apart


@dataclass(frozen=True)
class Plan:
    """Places of everything.

    Attributes:
        outputs: of each operation. states: of each tensor of the state, both in STATE and in NEXT.
        taken: of each tensor that LOAD reads: those of the state in STATE, of a merge's other states where they are.
        constants: of each constant, in CONSTANTS.
        sizes: bytes of each memory but SCRATCH.
    """

    outputs: tuple[Place, ...]
    states: tuple[Place, ...]
    taken: tuple[Place, ...]
    constants: tuple[Place, ...]
    sizes: dict[Base, int]


def make_plan(
    program: Program,
    *,
    keep: bool = False,
    steps: Sequence[Sequence[int]] | None = None,
    hidden: Collection[int] = (),
) -> Plan:
    """The plan of a checked program.

    Args:
        keep: no output is ever overwritten by another.
        steps: operations that are done together, in the order in which that happens; None is each in its own turn.
        hidden: operations whose outputs are nowhere in memory; their places have no bytes.
    """
    states, state_bytes = _laid_out(Base.STATE, [product(s.shape) * s.dtype.size for s in program.states])
    constants, constant_bytes = _laid_out(Base.CONSTANTS, [product(c.shape) * c.dtype.size for c in program.constants])
    sizes = {Base.STATE: state_bytes, Base.NEXT: state_bytes, Base.CONSTANTS: constant_bytes}
    others = [Place(len(Base) + n, 0, states[n % len(states)].size) for n in range(program.inputs * len(states))]
    taken = [*states, *others]
    fixed = _fixed(program, taken, constants, sizes)
    fixed |= {number: Place(Base.ARENA, 0, 0) for number in hidden}
    steps = [(number,) for number in range(len(program.operations))] if steps is None else steps
    outputs, sizes[Base.ARENA] = _in_arena(program, fixed, keep, steps)
    return Plan(tuple(outputs), tuple(states), tuple(taken), tuple(constants), sizes)


def _laid_out(base: Base, sizes: Sequence[int]) -> tuple[list[Place], int]:
    places, at = [], 0
    for size in sizes:
        places.append(Place(base, at, size))
        at += _up(size)
    return places, at


def _up(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _fixed(
    program: Program, taken: Sequence[Place], constants: Sequence[Place], sizes: dict[Base, int]
) -> dict[int, Place]:
    """Outputs that lie outside the arena: read where they are given, or written where the next state is."""
    fixed: dict[int, Place] = {}
    tokens = 0
    for number, one in enumerate(program.operations):
        match one.attributes:
            case Load(index) if one.dtype is DType.FLOAT32:
                fixed[number] = taken[index]
            case Constant(index):
                fixed[number] = constants[index]
            case Batch():
                fixed[number] = Place(Base.TOKENS, tokens, bytes_of(one))
                tokens += _up(bytes_of(one))
    sizes[Base.TOKENS] = tokens
    for place, state in zip(taken, program.states, strict=False):  # the base's tensors come first
        if state.source is not None and state.source not in fixed and state.dtype is DType.FLOAT32:
            fixed[state.source] = Place(Base.NEXT, place.offset, place.size)
    return fixed


def _in_arena(
    program: Program, fixed: dict[int, Place], keep: bool, steps: Sequence[Sequence[int]]
) -> tuple[list[Place], int]:
    """First fit: each output from its step to that of its last reader."""
    step_of = {number: at for at, step in enumerate(steps) for number in step}
    last = dict(step_of)
    for number, one in enumerate(program.operations):
        for operand in one.operands:
            last[operand.source] = max(last[operand.source], step_of[number])
    last |= {state.source: len(steps) for state in program.states if state.source is not None}
    freed: list[list[int]] = [[] for _ in range(len(steps) + 1)]
    for number, at in last.items():
        if number not in fixed:
            freed[at].append(number)
    places = dict(fixed)
    taken: list[tuple[int, int]] = []  # (offset, end), sorted
    size = 0
    for at, step in enumerate(steps):
        for number in step:
            if number not in fixed:
                length = bytes_of(program.operations[number])
                places[number] = place = Place(Base.ARENA, _gap(taken, _up(length)), length)
                bisect.insort(taken, (place.offset, place.offset + _up(length)))
                size = max(size, place.offset + _up(length))
        for old in () if keep else freed[at]:
            taken.remove((places[old].offset, places[old].offset + _up(places[old].size)))
    return [places[number] for number in range(len(program.operations))], size


def _gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    at = 0
    for start, end in taken:
        if start - at >= size:
            break
        at = end
    return at


@dataclass
class Meetings:
    """Decides before which calls all threads must have met: where one touches what another is still working on."""

    _pending: list[tuple[bool, Place, tuple[Place, ...]]] = field(default_factory=list)

    def needed(self, solo: bool, written: Place, read: tuple[Place, ...]) -> bool:
        """Whether to meet before the call; calls are to be given in order.

        Args:
            solo: the first thread does the call alone.
        """
        meet = len(self._pending) == _MOST_PENDING or any(
            not (solo and other_solo)
            and (
                written.meets(other_written)
                or any(written.meets(one) for one in other_read)
                or any(other_written.meets(one) for one in read)
            )
            for other_solo, other_written, other_read in self._pending
        )
        if meet:
            self._pending.clear()
        self._pending.append((solo, written, read))
        return meet
