"""The published kernels of exp, log and the like are those that the tracer uses, and the interpreter agrees on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from trainer.engine.exact.functions import FUNCTIONS, function_kernel
from trainer.engine.exact.kernels import Kernel, run_kernel

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "functions.json").read_text())


def words(text: str) -> torch.Tensor:
    """[n] int32 of eight hexadecimal digits each."""
    raw = bytes.fromhex(text[2:])
    return torch.tensor([int.from_bytes(raw[i : i + 4], "big", signed=True) for i in range(0, len(raw), 4)]).int()


def test_every_function_is_there() -> None:
    assert [one["name"] for one in VECTORS["functions"]] == list(FUNCTIONS)


@pytest.mark.parametrize("one", VECTORS["functions"], ids=lambda one: one["name"])
def test_kernel_is_the_tracers_and_gives_the_results(one: dict[str, str]) -> None:
    kernel = Kernel.decode(bytes.fromhex(one["kernel"][2:]), 1)
    assert kernel == function_kernel(one["name"])
    result = run_kernel(kernel, [words(VECTORS["inputs"])])
    nan = torch.tensor(0x7FC00000, dtype=torch.int32)
    seen = torch.where((result & 0x7FFFFFFF) > 0x7F800000, nan, result)
    assert torch.equal(seen, words(one["results"]))
