"""One step on several ranks, with the bits of `run_program` on one (docs/ranks.md).

Each rank computes what depends on its own shards of the batch, the ranks sum gradients exactly, and each then computes
the rest: the optimizer's part, which is small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainer.engine.engines import PartRun, ReferenceRun
from trainer.engine.exact.exchange import CountedGroup, Group, Traffic, exact_sums
from trainer.engine.exact.interpreter import Batches
from trainer.engine.exact.reference import bits_of
from trainer.program.exact.cutting import Cut, Piece, cut_program, owner_of
from trainer.program.exact.encoding import program_root
from trainer.program.exact.operations import DType, Operand, Program

MakeRun = Callable[[Program, Sequence[Tensor]], PartRun]
"""What runs a program, given it and the data of its constants."""


class RankedRun:
    """A program on this rank of a group. Every rank makes one of the same program, and calls the same methods.

    The state after each step has the bits of `run_program`'s on every rank, for any number of ranks.
    """

    def __init__(
        self, program: Program, constants: Sequence[Tensor], group: Group, make: MakeRun = ReferenceRun
    ) -> None:
        """Cuts the program and makes this rank's two parts ready.

        Args:
            program: checked; the same on every rank.
            constants: the data of its constants, checked by `check_constants`.
            make: what runs the parts.

        Raises:
            ValueError: another rank has another program.
        """
        self._program, self._group = program, CountedGroup(group)
        _demand_one_program(program, group)
        self._cut = cut_program(program, group.size)
        before = self._cut.before[group.rank]
        self._before = None if before is None else (before, _made(before, constants, make))
        self._after = _made(self._cut.after, constants, make)
        self._most = _most_values(self._cut)
        self._unchanged: list[Tensor | None] = [None] * len(program.states)
        self._intact = False

    @property
    def intact(self) -> bool:
        """Whether the state that is held is the one after the last whole step, also where a step failed since."""
        return self._intact

    @property
    def cut(self) -> Cut:
        """The program's parts."""
        return self._cut

    @property
    def traffic(self) -> Traffic:
        """What this rank sent in the last step."""
        return self._group.traffic

    def load(self, state: Sequence[Tensor]) -> None:
        """Takes a state, the program's tensors in their order; the same on every rank.

        Raises:
            ValueError: dtypes or shapes are not the program's.
        """
        if len(state) != len(self._program.states):
            raise ValueError(f"{len(state)} state tensors, and the program has {len(self._program.states)}")
        self._intact = False
        for index, (given, one) in enumerate(zip(state, self._program.states, strict=True)):
            self._after.put(index, given)
            # What stays unchanged is given back as it came, whatever NaNs it has, as run_program does.
            self._unchanged[index] = given.detach().clone() if one.source is None and _has_other_nan(given) else None
        self._intact = True

    def step(self, batches: Batches | None = None) -> None:
        """Runs the program once, together with all other ranks. After an error see `intact`.

        Raises:
            ValueError: the program reads tokens, and no batches or other ones were given.
            RankMissed: another rank is gone; the state is still the one before the step.
        """
        self._group.traffic = Traffic()
        if self._before is not None:
            piece, run = self._before
            for place, index in enumerate(piece.loads):
                run.put(place, self._after.held(index))
            run.step(batches)
        received = {**self._summed(), **self._gathered()}
        for place, number in enumerate(self._cut.after.extra):
            self._after.put(len(self._program.states) + place, received[number])
        self._intact = False
        self._after.step(batches)
        self._intact = True

    def tensor(self, number: int) -> Tensor:
        """A copy of one tensor of the state that is held, on the CPU."""
        unchanged = self._unchanged[number]
        return self._after.tensor(number) if unchanged is None else unchanged.to("cpu", copy=True)

    def state(self) -> list[Tensor]:
        """A copy of the state that is held, on the CPU."""
        return [self.tensor(number) for number in range(len(self._program.states))]

    def _summed(self) -> dict[int, Tensor]:
        """The SUMs over shards, by operation."""
        joins = self._cut.joins
        if not joins:
            return {}
        sizes = [join.elements for join in joins]
        values = [
            [
                value
                for one in join.addends
                if owner_of(one.shard, self._group.size) == self._group.rank
                for value in self._read(one.operand, (*join.shape, one.extent)).unbind(-1)
            ]
            for join in joins
        ]
        sums = exact_sums(self._group, values, sizes, most=self._most, device=self._device)
        self._group.traffic.float32 = 2 * 4 * sum(sizes) * (self._group.size - 1) // self._group.size
        found, at = {}, 0
        for join in joins:
            found[join.number] = sums[at : at + join.elements].view(join.shape)
            at += join.elements
        return found

    def _gathered(self) -> dict[int, Tensor]:
        """Outputs of single shards that every rank reads, by operation: float32, or int64 of integers."""
        cut, found = self._cut, {}
        if not cut.gathered:
            return {}
        made = [self._program.operations[number] for number in cut.gathered]
        sizes = [0] * self._group.size
        for one, owner in zip(made, cut.owners, strict=True):
            sizes[owner] += one.elements
        mine = torch.zeros(max(sizes), dtype=torch.int32, device=self._device)
        own = [number for number, owner in zip(cut.gathered, cut.owners, strict=True) if owner == self._group.rank]
        if own:
            words = torch.cat([_words(self._exported(number)).reshape(-1) for number in own])
            mine[: len(words)] = words
        rows, at = self._group.gather(mine), [0] * self._group.size
        for number, one, owner in zip(cut.gathered, made, cut.owners, strict=True):
            words = rows[owner, at[owner] : at[owner] + one.elements].view(one.shape)
            found[number] = words.view(torch.float32) if one.dtype is DType.FLOAT32 else words.to(torch.int64)
            at[owner] += one.elements
        return found

    @property
    def _device(self) -> torch.device:
        return self._after.held(0).device

    def _exported(self, number: int) -> Tensor:
        """The output of an operation of this rank's own shards, whole."""
        if self._before is None:
            raise AssertionError("a rank without shards gives no outputs")
        piece, run = self._before
        return run.held(len(piece.loads) + piece.extra.index(number))

    def _read(self, operand: Operand, shape: tuple[int, ...]) -> Tensor:
        source = self._exported(operand.source)
        return source.as_strided(shape, operand.strides, source.storage_offset() + operand.offset)


def _made(piece: Piece, constants: Sequence[Tensor], make: MakeRun) -> PartRun:
    return make(piece.program, [constants[index] for index in piece.constants])


def _words(x: Tensor) -> Tensor:
    """32-bit words of a state tensor: bits of floats, the low words of integers that were int32."""
    return x.contiguous().view(torch.int32) if x.dtype == torch.float32 else x.to(torch.int32)


def _has_other_nan(x: Tensor) -> bool:
    """Whether floats have a NaN that is not the one NaN."""
    return x.dtype == torch.float32 and not torch.equal(_words(x), bits_of(x))


def _most_values(cut: Cut) -> int:
    """The greatest number of values that a rank adds to an element of any join."""
    most = 0
    for join in cut.joins:
        counts = [0] * cut.ranks
        for one in join.addends:
            counts[owner_of(one.shard, cut.ranks)] += one.extent
        most = max(most, *counts)
    return most


def _demand_one_program(program: Program, group: Group) -> None:
    own = torch.frombuffer(bytearray(program_root(program)), dtype=torch.uint8)
    rows = group.gather(own)
    if not bool((rows == rows[0]).all()):
        raise ValueError(f"the {group.size} ranks were not given one program, but several")
