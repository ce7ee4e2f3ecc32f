"""A program cut where its shards meet: programs of their own, whose extra state tensors are what ranks exchange.

Both halves are ordinary programs, so whatever runs programs runs them (docs/ranks.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.program.exact.operations import (
    QUANTISED,
    Attributes,
    Constant,
    DType,
    Load,
    Operation,
    Pointwise,
    Program,
    StateTensor,
)
from trainer.program.exact.sharding import Join, Sharding, closure, sharding_of
from trainer.program.exact.views import whole

_PASSED_ON = Kernel(1, (Instruction(Op.INPUT, 0),))


@dataclass(frozen=True)
class Piece:
    """A part of a program, as a program.

    Attributes:
        program: its state is `loads`, then one tensor for each of `extra`: float32, or int64 for an integer dtype.
        constants: which of the whole program's constants it has, in order.
        loads: which of the whole program's state tensors it has, in order.
        extra: the operations of the whole program whose outputs the further state tensors hold.
    """

    program: Program
    constants: tuple[int, ...]
    loads: tuple[int, ...]
    extra: tuple[int, ...]


@dataclass(frozen=True)
class Cut:
    """A program for a number of ranks.

    Attributes:
        before: for each rank, what it computes of its own shards; its extra tensors are made by it. None where a rank
            has no shard.
        after: what every rank computes then; its extra tensors are given to it.
        joins: the SUMs over shards that ranks exchange partial sums for.
        gathered: operations whose outputs their rank gives to all others.
        owners: the rank of each of `gathered`.
    """

    ranks: int
    before: tuple[Piece | None, ...]
    after: Piece
    joins: tuple[Join, ...] = ()
    gathered: tuple[int, ...] = ()
    owners: tuple[int, ...] = ()


def cut_program(program: Program, ranks: int) -> Cut:
    """A checked program cut for so many ranks: shard s is the affair of rank s % ranks.

    A program of one shard or none, or one rank, is not cut: every rank runs all of it.
    """
    if ranks < 1:
        raise ValueError(f"there is no run on {ranks} ranks")
    sharding = sharding_of(program)
    if ranks == 1 or len(sharding.rows) < 2:
        everything = tuple(range(len(program.states)))
        constants = tuple(range(len(program.constants)))
        return Cut(ranks, (None,) * ranks, Piece(program, constants, everything, ()))
    owners = tuple((sharding.shard_of(number) or 0) % ranks for number in sharding.gathered)
    before = tuple(_before(program, _exported(sharding, owners, rank, ranks)) for rank in range(ranks))
    return Cut(ranks, before, _after(program, sharding), sharding.joins, sharding.gathered, owners)


def owner_of(shard: int | None, ranks: int) -> int:
    """The rank that gives a shard's values; what depends on no shard is given by the first."""
    return 0 if shard is None else shard % ranks


def _exported(sharding: Sharding, owners: Sequence[int], rank: int, ranks: int) -> tuple[int, ...]:
    found = {number for number, owner in zip(sharding.gathered, owners, strict=True) if owner == rank}
    for join in sharding.joins:
        found.update(one.operand.source for one in join.addends if owner_of(one.shard, ranks) == rank)
    return tuple(sorted(found))


def _before(program: Program, exported: tuple[int, ...]) -> Piece | None:
    if not exported:
        return None
    needed = closure(program, exported)
    read = {
        one.attributes.index for number in needed if isinstance((one := program.operations[number]).attributes, Load)
    }
    writer = _Writer(program, tuple(sorted(read)), exported)
    for number in sorted(needed):
        writer.copy(number)
    held = tuple(replace(program.states[index], source=None) for index in writer.loads)
    made = tuple(
        replace(tensor, source=writer.sent(number)) for tensor, number in zip(writer.tensors, exported, strict=True)
    )
    return writer.piece((*held, *made))


def _after(program: Program, sharding: Sharding) -> Piece:
    received = tuple(sorted((*(join.number for join in sharding.joins), *sharding.gathered)))
    writer = _Writer(program, tuple(range(len(program.states))), received)
    for number in sorted((*sharding.needed, *received)):
        if number in sharding.needed:
            writer.copy(number)
        else:
            writer.receive(number)
    next_state = tuple(
        one if one.source is None else replace(one, source=writer.place[one.source]) for one in program.states
    )
    return writer.piece((*next_state, *writer.tensors))


class _Writer:
    """Writes the operations of a piece."""

    def __init__(self, program: Program, loads: tuple[int, ...], extra: tuple[int, ...]) -> None:
        self.loads = loads
        self.place: dict[int, int] = {}  # operations of the whole program: their number here
        self.tensors = _tensors(program, extra)
        self._program = program
        self._extra = extra
        self._state_of = {index: place for place, index in enumerate(loads)}
        self._tensor_of = {number: len(loads) + place for place, number in enumerate(extra)}
        self._constants: dict[int, int] = {}
        self._operations: list[Operation] = []

    def copy(self, number: int) -> None:
        """An operation as it is, reading what its operands are here."""
        one = self._program.operations[number]
        attributes: Attributes = one.attributes
        if isinstance(attributes, Load):
            attributes = Load(self._state_of[attributes.index])
        elif isinstance(attributes, Constant):
            attributes = Constant(self._constants.setdefault(attributes.index, len(self._constants)))
        operands = tuple(replace(operand, source=self.place[operand.source]) for operand in one.operands)
        self.place[number] = self._add(replace(one, attributes=attributes, operands=operands))

    def receive(self, number: int) -> None:
        """An operation's output from its state tensor; integers lie there as int64, and are read as int32."""
        one = self._program.operations[number]
        read = DType.FLOAT32 if one.dtype is DType.FLOAT32 else DType.INT32
        at = self._add(Operation(Load(self._tensor_of[number]), read, one.shape))
        self.place[number] = self._passed_on(at, one.dtype) if one.dtype in QUANTISED else at

    def sent(self, number: int) -> int:
        """What the state tensor of an operation's output is made from."""
        quantised = self._program.operations[number].dtype in QUANTISED
        return self._passed_on(self.place[number], DType.INT32) if quantised else self.place[number]

    def piece(self, states: tuple[StateTensor, ...]) -> Piece:
        """What was written, with this state."""
        constants = tuple(self._program.constants[index] for index in self._constants)
        program = Program(self._program.role, states, constants, tuple(self._operations))
        return Piece(program, tuple(self._constants), self.loads, self._extra)

    def _add(self, one: Operation) -> int:
        self._operations.append(one)
        return len(self._operations) - 1

    def _passed_on(self, number: int, dtype: DType) -> int:
        made = self._operations[number]
        operand = whole(number, made.dtype, made.shape).operand(made.shape)
        return self._add(Operation(Pointwise(_PASSED_ON), dtype, made.shape, (operand,)))


def _tensors(program: Program, numbers: Iterable[int]) -> tuple[StateTensor, ...]:
    """State tensors for outputs, named after their operations."""
    prefix = "exchange."
    while any(one.name.startswith(prefix) for one in program.states):
        prefix = "_" + prefix
    made = []
    for number in numbers:
        one = program.operations[number]
        dtype = DType.FLOAT32 if one.dtype is DType.FLOAT32 else DType.INT64
        made.append(StateTensor(f"{prefix}{number}", dtype, one.shape))
    return tuple(made)
