"""The definition of exact arithmetic in plain torch, one operation at a time, on any device (docs/arithmetic.md).

Legend of shapes: R rows, K length of a row. Rows are the last axis; leading axes are free.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainer.engine.exact.backends import Backend, dot

CANONICAL_NAN = 0x7FC00000
_INFINITY = 0x7F800000
_MAGNITUDE = 0x7FFFFFFF
_LEAST_EXPONENT, _GREATEST_EXPONENT = -96, 128
_SUM_BITS = 30


def bits_of(x: Tensor) -> Tensor:
    """The bits of a float32 tensor as int32, same shape; every NaN canonical."""
    return canonical_nan(x).view(torch.int32)


def float_of(bits: Tensor) -> Tensor:
    """The float32 tensor of int32 bits, same shape; every NaN canonical."""
    return canonical_nan(bits.contiguous().view(torch.float32))


def canonical_nan(x: Tensor) -> Tensor:
    """x, float32, with each NaN replaced by the one NaN, 0x7fc00000."""
    if x.dtype != torch.float32:
        raise TypeError(f"canonical_nan takes float32, not {x.dtype}")
    bits = x.contiguous().view(torch.int32)
    is_nan = (bits & _MAGNITUDE) > _INFINITY
    return torch.where(is_nan, CANONICAL_NAN, bits).to(torch.int32).view(torch.float32)


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent, float32, for int32 exponents of normal numbers: -126 to 127. Made from bits, never by a library."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def order_key(x: Tensor) -> Tensor:
    """Total-order keys, int32: -inf < … < -0 < +0 < … < +inf < NaN."""
    bits = bits_of(x)
    return bits ^ ((bits >> 31) & _MAGNITUDE)


def _value_of_key(key: Tensor) -> Tensor:
    return (key ^ ((key >> 31) & _MAGNITUDE)).view(torch.float32)  # the map of order_key is its own inverse


def max_rows(x: Tensor) -> Tensor:
    """MAX: [..., K] float32 to [..., 1]; NaN is greatest, and -0 is below +0."""
    return _value_of_key(order_key(x).amax(-1, keepdim=True))


def argmax_rows(x: Tensor) -> Tensor:
    """First position of each row's maximum: [..., K] float32 to [..., 1] int64."""
    low = 0xFFFFFFFF - torch.arange(x.shape[-1], device=x.device)
    packed = (order_key(x).to(torch.int64) << 32) | low
    return 0xFFFFFFFF - (packed.amax(-1, keepdim=True) & 0xFFFFFFFF)


def exponent_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """E of each row and whether the row is poisoned: [..., K] float32 to int32 [..., 1] and bool [..., 1]."""
    greatest = (bits_of(x) & _MAGNITUDE).amax(-1, keepdim=True)
    exponent = ((greatest >> 23) - 126).clamp(_LEAST_EXPONENT, _GREATEST_EXPONENT)
    return exponent, greatest >= _INFINITY


def quantise_rows(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Quantise: [..., K] float32 to q, int16 [..., K], and scale, float32 [..., 1].

    Args:
        bits: p, from 3 to 13; |q| is at most 2^(p-1) - 1.
    """
    if not 3 <= bits <= 13:
        raise ValueError(f"a row is quantised to 3 to 13 bits, not {bits}")
    exponent, poisoned = exponent_of(x)
    largest = 2 ** (bits - 1) - 1
    scaled = torch.where(poisoned, 0.0, x) * power_of_two(bits - 1 - exponent)
    q = torch.round(scaled).clamp(-largest, largest).to(torch.int16)
    scale = torch.where(poisoned, torch.nan, power_of_two(exponent - bits + 1))
    return q, canonical_nan(scale)


def matmul(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], *, bits: tuple[int, int], backend: Backend | None = None
) -> Tensor:
    """MATMUL of quantised rows: a = (int16 [M, K], scale [M, 1]), b = (int16 [N, K], scale [N, 1]) to float32 [M, N].

    `bits` are the precisions of a and b; `backend` None takes float64.
    """
    accumulated = dot(a[0], b[0], bits=bits, backend=backend)
    return canonical_nan((accumulated.to(torch.float32) * a[1]) * b[1].mT)


def sum_rows(x: Tensor, exponent: Tensor) -> Tensor:
    """SUM: [..., K] float32 with E, int32 [..., 1], to float32 [..., 1]."""
    bits = bits_of(x)
    magnitude = bits & _MAGNITUDE
    has_nan = (magnitude > _INFINITY).any(-1, keepdim=True)
    above = (bits == _INFINITY).any(-1, keepdim=True)
    below = ((magnitude == _INFINITY) & (bits < 0)).any(-1, keepdim=True)
    finite = torch.where(magnitude >= _INFINITY, 0.0, x)
    limit = 2.0**_SUM_BITS
    q = torch.round(finite * power_of_two(_SUM_BITS - exponent)).clamp(-limit, limit).to(torch.int64)
    total = q.sum(-1, keepdim=True).to(torch.float32) * power_of_two(exponent - _SUM_BITS)
    total = torch.where(above, torch.inf, total)
    total = torch.where(below, -torch.inf, total)
    return canonical_nan(torch.where(has_nan | (above & below), torch.nan, total))


def square_root(x: Tensor) -> Tensor:
    """Correctly rounded square root, float32; the root of a negative number is the one NaN.

    On the CPU through numpy, whose square root is the processor's own instruction; torch's vector library there is
    wrong for some values. On CUDA, torch's square root is the correctly rounded one.
    """
    if x.device.type == "cpu":
        with np.errstate(invalid="ignore"):
            # Reshaped, because ascontiguousarray gives a tensor without axes one.
            return canonical_nan(torch.from_numpy(np.sqrt(np.ascontiguousarray(x.numpy()))).reshape(x.shape))
    return canonical_nan(torch.sqrt(x))
