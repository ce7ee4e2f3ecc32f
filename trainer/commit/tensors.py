"""Roots of single tensors (formats §1)."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from trainer.commit.hashing import Kind, bytes_root

DTYPE_NUMBERS: dict[torch.dtype, int] = {
    torch.float32: 1,
    torch.int64: 2,
    torch.int32: 3,
    torch.int8: 4,
    torch.uint8: 5,
    torch.uint16: 6,
    torch.float16: 7,
    torch.bfloat16: 8,
    torch.int16: 9,
}


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Row-major little-endian bytes of a tensor, without a copy where it lies contiguous in CPU memory.

    Raises ValueError on an empty tensor, a dtype without a number, or a big-endian machine.
    """
    if tensor.dtype not in DTYPE_NUMBERS:
        raise ValueError(f"tensors of {tensor.dtype} have no number in the formats")
    if tensor.numel() == 0:
        raise ValueError(f"an empty tensor (shape {tuple(tensor.shape)}) has no root")
    if sys.byteorder != "little":
        raise ValueError("this machine stores numbers big-endian, and tensors are committed little-endian")
    plain = tensor.detach().to("cpu").contiguous().reshape(-1)
    # One element may lie contiguous with any stride, and views as bytes insist on 1.
    plain = plain.as_strided(plain.shape, (1,))
    return plain.view(torch.uint8).numpy().data


def tensor_root(tensor: Tensor) -> bytes:
    """Sealed root of a tensor's data; its shape is not part of it (the layout has that)."""
    return bytes_root(Kind.TENSOR, DTYPE_NUMBERS.get(tensor.dtype, 0), tensor_bytes(tensor))
