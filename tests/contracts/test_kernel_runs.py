"""Kernel.sol against the reference of kernels, over random kernels of every instruction and hostile bytes."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from generate_float32 import Bits, Operation, hard_pairs
from program_oracle import written
from web3.exceptions import ContractCustomError

from trainer.engine.exact.functions import FUNCTIONS, function_kernel
from trainer.engine.exact.kernels import Instruction, Kernel, Op, operands_of, run_kernel, signed
from trainer.program.exact import DType

pytestmark = pytest.mark.chain

COMPUTING = [op for op in Op if op not in (Op.INPUT, Op.CONST)]
KERNELS = 60


class Probe(Protocol):
    def call(self, name: str, *arguments: Any) -> Any: ...
    def run(self, kernel: bytes, words: list[int]) -> int: ...


def reference(kernel: Kernel, words: list[int]) -> int:
    inputs = [torch.tensor([signed(word)], dtype=torch.int32) for word in words]
    return int(run_kernel(kernel, inputs)[0]) & 0xFFFFFFFF


def random_kernel(rng: random.Random, words: list[int], used: Counter[Op]) -> Kernel:
    """Every register counts: the result is all of them in one sum, so that no wrong one is hidden."""
    lines = [Instruction(Op.INPUT, number) for number in range(len(words))]
    lines += [Instruction(Op.CONST, word=rng.choice(words)) for _ in range(rng.randint(1, 6))]
    start = len(lines)
    for _ in range(rng.randint(1, 60)):
        # Mostly inputs and constants: what is computed soon ends in NaN, zeros and infinities.
        registers = [rng.randrange(start) if rng.random() < 0.7 else rng.randrange(len(lines)) for _ in range(3)]
        op = rng.choice(COMPUTING)
        used[op] += 1
        count = operands_of(op)
        lines.append(Instruction(op, *registers[:count]))
    total = start
    for register in range(start + 1, len(lines)):
        # 31 times what was there, so that equal words do not cancel.
        lines.append(Instruction(Op.CONST, word=31))
        lines.append(Instruction(Op.IMUL, total, len(lines) - 1))
        lines.append(Instruction(Op.IADD, len(lines) - 1, register))
        total = len(lines) - 1
    return Kernel(len(words), tuple(lines))


def test_run_equals_the_reference_for_random_kernels(probe: Probe) -> None:
    rng, used = random.Random(5), Counter[Op]()
    pool = np.concatenate(hard_pairs(Operation.ADD, Bits(5), 3000)).tolist()
    pool += [0, 1, 31, 32, 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF]
    for number in range(KERNELS):
        words = [rng.choice(pool) for _ in range(rng.randint(1, 16))]
        kernel = random_kernel(rng, words, used)
        assert probe.run(kernel.encode(), words) == reference(kernel, words), number
    assert min(used[op] for op in COMPUTING) >= 20


@pytest.mark.parametrize("op", COMPUTING, ids=lambda op: op.name)
def test_run_each_instruction_alone(probe: Probe, op: Op) -> None:
    """All pairs of a few words in one kernel, whose registers are added up."""
    words = [0, 1, 33, 0xFFFFFFFF, 0x80000000, 0x3F800000, 0xBFC00000, 0x7F800000, 0x7FA00001, 0x4F000000, 0x00000003]
    lines = [Instruction(Op.INPUT, number) for number in range(len(words))]
    for a in range(len(words)):
        for b in range(len(words)):
            lines.append(Instruction(op, *(a, b, len(words) - 1 - a)[: operands_of(op)]))
            previous = len(lines) - 2
            if previous >= len(words):
                lines.append(Instruction(Op.IADD, previous, len(lines) - 1))
    kernel = Kernel(len(words), tuple(lines))
    assert probe.run(kernel.encode(), words) == reference(kernel, words)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_run_equals_the_reference_for_functions(probe: Probe, name: str) -> None:
    kernel = function_kernel(name)
    values = np.array([0.0, -0.0, 0.3, -1.7, 5.5, 88.0, -104.0, 1e-40, 3e38, np.inf, -np.inf, np.nan], dtype=np.float32)
    for word in values.view(np.uint32).tolist():
        assert probe.run(kernel.encode(), [word]) == reference(kernel, [word]), hex(word)


def test_run_refuses_exactly_what_the_decoder_refuses(probe: Probe) -> None:
    rng = random.Random(6)
    refused = 0
    for _ in range(150):
        words = [rng.randrange(2**32) for _ in range(3)]
        data = bytearray(random_kernel(rng, words, Counter()).encode()[: 8 * 20])
        for _ in range(rng.randint(1, 2)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 2, 3, 0x10, 0x14, 0x1C, 0x30, 0x31, rng.randrange(256)])
        if rng.random() < 0.1:
            data = data[: rng.randrange(len(data))]
        try:
            kernel = Kernel.decode(bytes(data), len(words))
        except ValueError:
            refused += 1
            with pytest.raises(ContractCustomError):
                probe.run(bytes(data), words)
        else:
            assert probe.run(bytes(data), words) == reference(kernel, words)
    assert 40 <= refused <= 140


@pytest.mark.parametrize(
    "op", [Op.FADD, Op.FSUB, Op.FMUL, Op.FDIV, Op.FSQRT, Op.F2I, Op.I2F, Op.SELECT], ids=lambda op: op.name
)
def test_run_longest_kernel_costs_less_than_a_million_gas(probe: Probe, op: Op) -> None:
    """Subnormal operands are the dearest: their leading bits have to be looked for."""
    lines = [Instruction(Op.CONST, word=0x00000123), Instruction(Op.CONST, word=0x80000457)]
    lines += [Instruction(op, *(0, 1, 1)[: operands_of(op)])] * 510
    _, gas = probe.call("run", Kernel(0, tuple(lines)).encode(), [])
    assert gas < 1_000_000


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.INT32, DType.INT8, DType.INT16], ids=lambda dtype: dtype.name)
def test_store_equals_the_oracle(probe: Probe, dtype: DType) -> None:
    edges = [127, 128, 4095, 4096, 32767, 2**31 - 1, 0, 1, 0x7F800000, 0x7F800001, 0x7FFFFFFF]
    for word in [*edges, *(-edge % 2**32 for edge in edges), 2**31, 0xFF800000, 0xFF800001, 0xFFC00000]:
        assert probe.call("store", word, int(dtype)) == written(word, dtype) & 0xFFFFFFFF, hex(word)


@pytest.mark.parametrize("dtype", [0, 2, 5, 255])
def test_store_other_dtypes_are_refused(probe: Probe, dtype: int) -> None:
    with pytest.raises(ContractCustomError):
        probe.call("store", 1, dtype)
