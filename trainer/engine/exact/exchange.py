"""Exact sums over ranks: every rank gets the bits of SUM over all shards' values, however many ranks they lie on.

Each rank answers for one block of all elements: what belongs to it goes there, is rounded there once, and comes back as
float32. Two ways, with the same bits (docs/ranks.md):

- **one value a rank**: the values themselves go to the block's rank, which does the SUM of `reference`;
- **several**: the ranks agree on the greatest exponent of each element (a byte), then send the sum of their quantised
  integers (5 bytes), so that traffic does not grow with the number of shards.

Legend of shapes: G elements of all sums together, R ranks, N elements of a block, R · N being G rounded up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed
from torch import Tensor

from trainer.engine.exact import reference
from trainer.program.exact.operations import GREATEST_EXPONENT, LEAST_EXPONENT

_MAGNITUDE, _INFINITY = 0x7FFFFFFF, 0x7F800000
_SUM_BITS = 30
# Codes of exponents, a byte each: E - LEAST_EXPONENT, and what poisons a sum above all of them.
_GREATEST_CODE = GREATEST_EXPONENT - LEAST_EXPONENT
_INFINITE, _NAN = _GREATEST_CODE + 1, _GREATEST_CODE + 2
# What an element that is poisoned sends instead of integers: how many are +inf, and how many are -inf.
_ABOVE, _BELOW = 1, 2**30
# So many values a rank, each at most 2^30 in magnitude, fit a low signed word and a high signed byte: 509 would.
_MOST_VALUES = 500


class RankMissed(RuntimeError):
    """Another rank took no part in an exchange: it is gone, or too slow."""


class Group(Protocol):
    """Ranks that exchange tensors. Every rank calls the same methods in the same order, with the same shapes.

    Methods raise RankMissed where another rank is gone.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def greatest(self, x: Tensor) -> Tensor:
        """The greatest of all ranks' elements: uint8 [n] to [n]."""
        ...

    def swap(self, x: Tensor) -> Tensor:
        """Row r to rank r: [R, n] to [R, n], whose row r came from rank r."""
        ...

    def gather(self, x: Tensor) -> Tensor:
        """All ranks' tensors: [n] to [R, n]."""
        ...


@dataclass
class Traffic:
    """Bytes that this rank had to send for a step.

    Attributes:
        sent: by the exchange, counted as rings do it.
        float32: what an all-reduce of the same sums in plain float32 sends.
    """

    sent: int = 0
    float32: int = 0

    @property
    def ratio(self) -> float:
        """Exact over plain; 0 where nothing was exchanged."""
        return self.sent / self.float32 if self.float32 else 0.0


class TorchGroup:
    """A group of torch.distributed: gloo on the CPU, or NCCL where each rank has a GPU of its own, the current one.

    Tensors that are elsewhere are taken there and back.
    """

    def __init__(self, group: torch.distributed.ProcessGroup | None = None) -> None:
        """Takes a group, or the default one, which has to be there already."""
        self._group = group
        gloo = torch.distributed.get_backend(group) == "gloo"
        self._device = torch.device("cpu") if gloo else torch.device("cuda", torch.cuda.current_device())
        self.rank: int = torch.distributed.get_rank(group)
        self.size: int = torch.distributed.get_world_size(group)

    def greatest(self, x: Tensor) -> Tensor:
        sent = x.to(self._device, copy=True).contiguous()
        with _together():
            torch.distributed.all_reduce(sent, op=torch.distributed.ReduceOp.MAX, group=self._group)
        return sent.to(x.device)

    def swap(self, x: Tensor) -> Tensor:
        sent = x.to(self._device).contiguous()
        received = torch.empty_like(sent)
        with _together():
            torch.distributed.all_to_all_single(received, sent, group=self._group)
        return received.to(x.device)

    def gather(self, x: Tensor) -> Tensor:
        sent = x.to(self._device).contiguous()
        received = sent.new_empty(self.size, sent.numel())
        with _together():
            torch.distributed.all_gather(list(received), sent, group=self._group)
        return received.to(x.device)


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises, whatever went wrong with a connection
        raise RankMissed(f"another rank took no part: {error}") from error


class CountedGroup:
    """A group, and the bytes that each rank sends through it: `traffic`, to be read and set anew."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.traffic = Traffic()
        self.rank, self.size = group.rank, group.size

    def greatest(self, x: Tensor) -> Tensor:
        self.traffic.sent += 2 * x.nbytes * (self.size - 1) // self.size
        return self._group.greatest(x)

    def swap(self, x: Tensor) -> Tensor:
        self.traffic.sent += x.nbytes * (self.size - 1) // self.size
        return self._group.swap(x)

    def gather(self, x: Tensor) -> Tensor:
        self.traffic.sent += x.nbytes * (self.size - 1)
        return self._group.gather(x)


def exact_sums(
    group: Group, values: Sequence[Sequence[Tensor]], sizes: Sequence[int], *, most: int, device: torch.device
) -> Tensor:
    """SUM with each element's own exponent over the values of all ranks, on every rank: float32 [G].

    Args:
        values: for each sum what this rank adds, float32 tensors of as many elements as the sum; none is fine.
        sizes: elements of each sum, the same on every rank.
        most: the greatest number of values that any rank adds to any sum, the same on every rank.
        device: where the values are, and the result.

    Raises:
        ValueError: a rank would add more than 500 values to one element.
    """
    if most > _MOST_VALUES:
        raise ValueError(f"a rank adds at most {_MOST_VALUES} values to an element, not {most}: use more ranks")
    block = -(-sum(sizes) // group.size)
    columns = [torch.zeros(block * group.size, dtype=torch.float32, device=device) for _ in range(max(most, 1))]
    _fill(columns, values, sizes)
    total = _of_values(group, columns[0], block) if len(columns) == 1 else _of_integers(group, columns, block)
    return group.gather(total).reshape(-1)[: sum(sizes)]


def _fill(columns: Sequence[Tensor], values: Sequence[Sequence[Tensor]], sizes: Sequence[int]) -> None:
    """Puts the values of all sums one after the other, the first of each into the first column, and so on.

    Where there is none +0 stays, which changes no sum: it quantises to 0, and no exponent is below its.
    """
    at = 0
    for found, size in zip(values, sizes, strict=True):
        for column, one in zip(columns, found, strict=False):
            column[at : at + size] = one.reshape(-1)
        at += size


def _of_values(group: Group, column: Tensor, block: int) -> Tensor:
    """One value a rank: float32 [R · N] to the SUMs of this rank's block, [N]."""
    rows = group.swap(column.view(group.size, block)).mT
    exponent, _ = reference.exponent_of(rows)
    return reference.sum_rows(rows, exponent).squeeze(-1)


def _of_integers(group: Group, columns: Sequence[Tensor], block: int) -> Tensor:
    """Several values a rank: float32 tensors [R · N] to the SUMs of this rank's block, [N]."""
    codes = _codes(columns[0])
    for column in columns[1:]:
        codes = torch.maximum(codes, _codes(column))
    codes = group.greatest(codes)
    total = torch.zeros(len(codes), dtype=torch.int64, device=codes.device)
    for column in columns:
        total += _integers(column, codes)
    own = codes.view(group.size, block)[group.rank]
    return _rounded(_added(group, total.view(group.size, block)), own)


def _codes(x: Tensor) -> Tensor:
    """The exponents that SUM takes for each element by itself, or what poisons it, as uint8."""
    magnitude = reference.bits_of(x) & _MAGNITUDE
    exponent = ((magnitude >> 23) - 126).clamp(LEAST_EXPONENT, GREATEST_EXPONENT) - LEAST_EXPONENT
    code = torch.where(magnitude == _INFINITY, _INFINITE, exponent)
    return torch.where(magnitude > _INFINITY, _NAN, code).to(torch.uint8)


def _exponents(codes: Tensor) -> Tensor:
    return codes.to(torch.int32).clamp(max=_GREATEST_CODE) + LEAST_EXPONENT


def _integers(x: Tensor, codes: Tensor) -> Tensor:
    """SUM's integers of each element, int64; where its sum is poisoned, which infinity it is.

    SUM's clamp has nothing to do here: with the exponent of the greatest magnitude, all are below 2^E.
    """
    poisoned = codes >= _INFINITE
    scaled = torch.where(poisoned, 0.0, x) * reference.power_of_two(_SUM_BITS - _exponents(codes))
    flags = (x == torch.inf) * _ABOVE + (x == -torch.inf) * _BELOW
    return torch.where(poisoned, flags, torch.round(scaled).to(torch.int64))


def _added(group: Group, total: Tensor) -> Tensor:
    """The ranks' int64 totals [R, N], below 509 · 2^30, added: those of this rank's block, int64 [N].

    They go as a low signed word and a high signed byte.
    """
    high = (total + 2**31) >> 32
    low = total - (high << 32)
    words = low.to(torch.int32).view(torch.uint8)
    received = group.swap(torch.cat([words, high.to(torch.int8).view(torch.uint8)], dim=1))
    low = received[:, : words.shape[1]].contiguous().view(torch.int32)
    high = received[:, words.shape[1] :].contiguous().view(torch.int8)
    return low.sum(0, dtype=torch.int64) + (high.sum(0, dtype=torch.int64) << 32)


def _rounded(total: Tensor, codes: Tensor) -> Tensor:
    """The one rounding of SUM, int64 [N] and the codes of its exponents to float32 [N]."""
    rounded = total.to(torch.float32) * reference.power_of_two(_exponents(codes) - _SUM_BITS)
    above, below = total & (_BELOW - 1) > 0, total >= _BELOW
    infinity = torch.where(below, torch.where(above, torch.nan, -torch.inf), torch.inf)
    poison = torch.where(codes == _NAN, torch.nan, infinity)
    return reference.canonical_nan(torch.where(codes >= _INFINITE, poison, rounded))
