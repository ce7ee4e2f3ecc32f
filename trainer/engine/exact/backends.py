"""Ways to the exact integer dot product, and which of them this machine computes rightly and fast.

All take int16 rows within the precision's range and give the same int64 sums. A backend is admitted by its results on
worst cases (`admitted_backends`), never by the processor's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_SPLIT_BITS = 7
_INT8_BITS = 8
# cuBLASLt wants multiples of 8 and more than 16 rows; padding costs nothing where it is not needed.
_ALIGN = 8
_LEAST_ROWS = 24
# Of float32 at a time: 4 MiB, and so many slices of small operands that calling them costs little.
_MOST_PARTIAL_SUMS = 2**20


@dataclass(frozen=True)
class Backend:
    """One way to compute `a @ b.T` exactly.

    Attributes:
        name: as users see it.
        multiply: (a int16 [M, K], b int16 [N, K], bits of a, bits of b) to int64 [M, N].
    """

    name: str
    multiply: Callable[[Tensor, Tensor, int, int], Tensor]


def dot(a: Tensor, b: Tensor, *, bits: tuple[int, int], backend: Backend | None = None) -> Tensor:
    """Exact integer products of all rows of a [M, K] with all rows of b [N, K], both int16: int64 [M, N].

    Raises:
        ValueError: the shapes do not fit.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"rows of {list(a.shape)} and {list(b.shape)} cannot be multiplied")
    chosen = backend or BACKENDS["float64"]
    return chosen.multiply(a, b, *bits)


def _by_float64(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """Every partial sum is an integer below 2^53, so float64 is exact in any order."""
    step = max(1, 2 ** (53 - (bits_a - 1) - (bits_b - 1)))
    parts = [
        (left.to(torch.float64) @ right.to(torch.float64).mT).to(torch.int64)
        for left, right in zip(torch.split(a, step, 1), torch.split(b, step, 1), strict=True)
    ]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def _by_float32(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """Slices of K so short that every partial sum is below 2^24, each exact in float32 in any order."""
    step = max(1, min(a.shape[1], 2 ** (24 - (bits_a - 1) - (bits_b - 1))))
    # Wide operands have slices of one element: many are multiplied in one call, or calling is all that takes time.
    together = max(1, _MOST_PARTIAL_SUMS // max(1, a.shape[0] * b.shape[0])) * step
    total = torch.zeros(a.shape[0], b.shape[0], dtype=torch.int64, device=a.device)
    for left, right in zip(torch.split(a, together, 1), torch.split(b, together, 1), strict=True):
        sums = _sliced(left, step) @ _sliced(right, step).mT
        total += sums[0].to(torch.int64) if len(sums) == 1 else sums.to(torch.int64).sum(0)
    return total


def _sliced(rows: Tensor, step: int) -> Tensor:
    """int16 [R, K] in slices of K, zeros behind the last: float32 [slices, R, step]."""
    height, length = rows.shape
    slices = -(-length // step)
    return _pad(rows, height, slices * step).to(torch.float32).view(height, slices, step).transpose(0, 1)


def _by_int8(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
    """int8 products with int32 sums; operands of more than 8 bits are split into 128 h + l."""
    total = torch.zeros(a.shape[0], b.shape[0], dtype=torch.int64, device=a.device)
    for shift_a, part_a in _int8_parts(a, bits_a):
        for shift_b, part_b in _int8_parts(b, bits_b):
            total += _int8_product(part_a, part_b) << (shift_a + shift_b)
    return total


def _int8_parts(rows: Tensor, bits: int) -> list[tuple[int, Tensor]]:
    if bits <= _INT8_BITS:
        return [(0, rows.to(torch.int8))]
    high = (rows + 64) >> _SPLIT_BITS
    low = rows - (high << _SPLIT_BITS)
    return [(0, low.to(torch.int8)), (_SPLIT_BITS, high.to(torch.int8))]


def _int8_product(a: Tensor, b: Tensor) -> Tensor:
    step = 2**17  # 127 * 127 * 2^17 is below 2^31
    total = torch.zeros(a.shape[0], b.shape[0], dtype=torch.int64, device=a.device)
    for left, right in zip(torch.split(a, step, 1), torch.split(b, step, 1), strict=True):
        rows, columns, length = left.shape[0], right.shape[0], left.shape[1]
        left = _pad(left, max(_LEAST_ROWS, _up(rows)), _up(length))
        right = _pad(right, _up(columns), _up(length))
        total += torch._int_mm(left, right.mT)[:rows, :columns]
    return total


def _up(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _pad(rows: Tensor, height: int, width: int) -> Tensor:
    if rows.shape == (height, width):
        return rows.contiguous()
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1], 0, height - rows.shape[0]))


BACKENDS: dict[str, Backend] = {
    name: Backend(name, multiply)
    for name, multiply in (("int8", _by_int8), ("float64", _by_float64), ("float32", _by_float32))
}


def admitted_backends(device: torch.device) -> dict[str, str]:
    """Tries each backend on worst cases: name to "" where it is right, else to what went wrong."""
    return {name: _fault_of(backend, device) for name, backend in BACKENDS.items()}


def _fault_of(backend: Backend, device: torch.device) -> str:
    for title, a, b, bits in _worst_cases():
        expected = _exact(a, b)
        try:
            actual = backend.multiply(a.to(device), b.to(device), *bits).cpu()
        except RuntimeError as error:  # a kernel that this processor or build does not have
            return f"{title}: {str(error).splitlines()[0]}"
        if not torch.equal(actual, expected):
            wrong = int((actual != expected).sum())
            return f"{title}: {wrong} of {expected.numel()} sums are wrong"
    return ""


def _exact(a: Tensor, b: Tensor) -> Tensor:
    """Sums in int64, the definition itself."""
    return torch.stack([(row.to(torch.int64) * b.to(torch.int64)).sum(-1) for row in a])


def _worst_cases() -> list[tuple[str, Tensor, Tensor, tuple[int, int]]]:
    """Largest values of every sign, shapes that are no multiple of anything, a long K; each (title, a, b, bits)."""
    cases = []
    generator = torch.Generator().manual_seed(20)
    for bits in ((8, 8), (13, 13), (8, 13), (13, 8)):
        tops = [2 ** (one - 1) - 1 for one in bits]
        for rows, length, columns in ((1, 1, 1), (3, 2, 5), (17, 127, 9), (4, 1041, 3), (33, 64, 64), (2, 9000, 2)):
            for signs in ((1, 1), (1, -1), (-1, -1)):
                a = torch.full((rows, length), tops[0] * signs[0], dtype=torch.int16)
                b = torch.full((columns, length), tops[1] * signs[1], dtype=torch.int16)
                cases.append((f"largest values, {bits} bits, K = {length}", a, b, bits))
            a, b = (
                torch.randint(-top, top + 1, (size, length), generator=generator, dtype=torch.int16)
                for top, size in zip(tops, (rows, columns), strict=True)
            )
            cases.append((f"random values, {bits} bits, K = {length}", a, b, bits))
    return cases


def fastest(backends: list[str], device: torch.device, *, size: int = 512, repeats: int = 5) -> str:
    """The admitted backend that multiplies 8-bit rows of `size` fastest here: best of `repeats` each."""
    a = torch.ones(size, size, dtype=torch.int16, device=device)
    best: dict[str, float] = {}
    for name in backends:
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            BACKENDS[name].multiply(a, a, _INT8_BITS, _INT8_BITS)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
        best[name] = min(seconds[1:])
    return min(best, key=lambda name: best[name])
