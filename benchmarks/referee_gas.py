"""Gas and calldata of one question to the referee for every operation, as a real Anvil charges a transaction for it.

python benchmarks/referee_gas.py
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from ledger.anvil import LocalChain
from ledger.compile import compile_contracts
from ledger.disputes.abi import to_plain
from ledger.disputes.moves import Evidence
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect
from ledger.tx import TransactionSender
from trainer.commit.tensors import tensor_root
from trainer.data.dataset import dataset_of
from trainer.data.tokenizer import ByteTokenizer
from trainer.dispute.committed import DatasetProofs
from trainer.dispute.evidence import block_evidence, element_evidence, rounding_evidence, scene_of, state_evidence
from trainer.dispute.runs import RunTruth
from trainer.dispute.subjects import Subject
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.program.exact import BuiltProgram, DType, Part, Program, Role, check_program
from trainer.program.exact.operations import (
    Attributes,
    Batch,
    Cat,
    Constant,
    ConstantTensor,
    Load,
    Matmul,
    Max,
    Operand,
    Operation,
    Pointwise,
    ScatterAdd,
    Shape,
    StateTensor,
    Sum,
    Take,
    View,
)
from trainer.program.exact.scaling import quantise_kernel, scale_kernel

RESULTS = Path(__file__).parent / "results"
ETHER = 10**18
ROWS, ROW = 1024, 2048  # 8 MiB of float32: proofs of 13 siblings
FOLD = 1024
FILLER = 900  # operations that nobody reads, so that the trace is as deep as a real model's
GAS_LIMIT, CALLDATA_LIMIT, PRODUCT_LIMIT = 10_000_000, 100 * 1024, 400_000
CODE_LIMIT = 24_576
PRODUCT = "MATMUL int16, 1,024 elements"


@dataclass(frozen=True)
class Question:
    """One call of the referee, and its true answer."""

    function: str
    reached: int
    numbers: tuple[int, ...]
    evidence: Evidence
    answer: int


class Writer:
    """Operations one after the other, and what the table calls some of them."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.names: dict[str, int] = {}

    def add(
        self,
        attributes: Attributes,
        dtype: DType,
        shape: Shape,
        *operands: tuple[int, int, tuple[int, ...]],
        name: str = "",
    ) -> int:
        self.operations.append(Operation(attributes, dtype, shape, tuple(Operand(*one) for one in operands)))
        number = len(self.operations) - 1
        if name:
            self.names[name] = number
        return number


def dearest_kernel() -> Kernel:
    """512 instructions: sixteen inputs, then divisions."""
    inputs = [Instruction(Op.INPUT, number) for number in range(16)]
    return Kernel(16, (*inputs, *(Instruction(Op.FDIV, 1 + at % 15, 15 + at) for at in range(496))))


def write_program() -> tuple[BuiltProgram, list[torch.Tensor], dict[str, int]]:
    """A program of every operation over large tensors; its state; the numbers of the operations measured."""
    generator = torch.Generator().manual_seed(1)
    state = [torch.zeros(1), torch.tensor([41]), torch.randn(ROWS, ROW, generator=generator)]
    tokens = torch.randint(0, 64, (ROW,), generator=generator, dtype=torch.int32)
    constants = (tokens, torch.tensor(8, dtype=torch.int32))
    write = Writer()
    f, i = DType.FLOAT32, DType.INT32
    x = write.add(Load(2), f, (ROWS, ROW), name="LOAD float32")
    step = write.add(Load(1), i, (1,), name="LOAD int64")
    index = write.add(Constant(0), i, (ROW,), name="CONST")
    exponent = write.add(Constant(1), i, ())
    write.add(Batch(Part.TRAIN, 1), i, (8, 256), name="BATCH of the train part")
    write.add(Batch(Part.HELDOUT, 0), i, (8, 256), name="BATCH of the held-out part")
    inputs = [(x, 1031 * place, (1,)) for place in range(16)]
    write.add(Pointwise(dearest_kernel()), f, (16,), *inputs, name="POINTWISE, 16 inputs, 512 instructions")
    write_products(write, x)
    write_sums(write, x, index, exponent)
    write.add(Take(ROWS, ROW), f, (8, 16), (x, 0, (0, 1)), (index, 0, (1, 0)), name="TAKE")
    write.add(Cat(0, (8, 8), 0), f, (16, 8), (x, 0, (ROW, 1)), (x, ROW, (ROW, 1)), name="CAT")
    for _ in range(FILLER):
        write.add(View(), i, (1,), (step, 0, (0,)), name="VIEW")
    tensors = (StateTensor("metric", f, (1,)), StateTensor("counter.step", DType.INT64, (1,), source=step))
    states = (*tensors, StateTensor("x", f, (ROWS, ROW)))
    declared = tuple(ConstantTensor(i, tuple(one.shape), tensor_root(one)) for one in constants)
    program = Program(Role.TRAIN, states, declared, tuple(write.operations))
    check_program(program)
    return BuiltProgram(program, constants), state, write.names


def write_products(write: Writer, x: int) -> None:
    """Quantises x by rows, and multiplies rows."""
    greatest = write.add(Max(ROW, True), DType.FLOAT32, (ROWS,), (x, 0, (ROW,)), name="MAX, 2,048 elements")
    quantised, scales = {}, {}
    for dtype, bits in ((DType.INT8, 8), (DType.INT16, 13)):
        operands = (x, 0, (ROW, 1)), (greatest, 0, (1, 0))
        name = f"POINTWISE to {dtype.name.lower()}"
        quantised[dtype] = write.add(Pointwise(quantise_kernel(bits)), dtype, (ROWS, ROW), *operands, name=name)
        scales[dtype] = write.add(Pointwise(scale_kernel(bits)), DType.FLOAT32, (ROWS,), (greatest, 0, (1,)))
    for dtype, length, first in (
        (DType.INT8, FOLD, 0),
        (DType.INT16, FOLD, 0),
        (DType.INT16, FOLD, 13),
        (DType.INT16, ROW, 0),
    ):
        name = f"MATMUL {dtype.name.lower()}, {length:,} elements" + (" across chunks" if first else "")
        a, b = (quantised[dtype], first, (ROW, 0)), (quantised[dtype], first, (0, ROW))
        sides = (scales[dtype], 0, (1, 0)), (scales[dtype], 0, (0, 1))
        write.add(Matmul(length), DType.FLOAT32, (4, 4), a, b, *sides, name=name)


def write_sums(write: Writer, x: int, index: int, exponent: int) -> None:
    """The other folds of rows of x, of one block and of two."""
    run, scattered = (x, 0, (ROW,)), (x, 0, (0, ROW))
    write.add(Max(FOLD, False), DType.FLOAT32, (4,), run, name="MAX, 1,024 elements")
    for length in (FOLD, ROW):
        write.add(Sum(length), DType.FLOAT32, (4,), run, (exponent, 0, (0,)), name=f"SUM, {length:,} elements")
        operands = scattered, (index, 0, (0, 0)), (exponent, 0, (0, 0))
        write.add(ScatterAdd(length), DType.FLOAT32, (64, 4), *operands, name=f"SCATTER_ADD, {length:,} elements")


def questions(truth: RunTruth, names: dict[str, int]) -> Iterator[tuple[str, Question]]:
    """What is measured: the last element of each named operation, of long folds a block and the rounding."""
    for name, number in names.items():
        one = truth.operation(number)
        place = one.elements - 1
        true = truth.element_bits(Subject(of_state=False, number=number), place)
        if one.fold <= FOLD:
            yield name, Question("element", number, (place,), element_evidence(truth, number, place), true)
            continue
        words = truth.accumulators(number, place, [1, 2])
        block, rounding = block_evidence(truth, number, place, 1), rounding_evidence(truth, number, place)
        yield f"{name}: a block", Question("foldBlock", number, (place, 1, words[0]), block, words[1])
        yield f"{name}: rounding", Question("foldRounding", number, (place, words[1]), rounding, true)
    evidence = state_evidence(truth, 1, 0)
    yield "element of a counter", Question("stateElement", truth.operations, (0,), evidence, 41)


@contextmanager
def world() -> Iterator[TransactionSender]:
    """A fresh chain and somebody with gas."""
    with tempfile.TemporaryDirectory() as home, LocalChain(Path(home), 0) as chain:
        wallet = Wallet.from_private_key(keccak(text="referee benchmark").hex())
        chain.set_balance(wallet.address, 1000 * ETHER)
        yield TransactionSender(connect(chain.rpc_url), wallet, errors=ErrorDecoder(compile_contracts()))


def calldata(truth: RunTruth, question: Question) -> bytes:
    """A call of the referee."""
    abi = compile_contracts()["StepReferee"].abi
    entry = next(entry for entry in abi if entry["type"] == "function" and entry["name"] == question.function)
    types = [_type(item) for item in entry["inputs"]]
    scene = tuple(vars(scene_of(truth, question.reached)).values())
    arguments = [scene, *question.numbers, to_plain(question.evidence, Evidence, "evidence")]
    return keccak(text=f"{question.function}({','.join(types)})")[:4] + encode(types, arguments)


def _type(item: dict[str, Any]) -> str:
    if not item["type"].startswith("tuple"):
        return str(item["type"])
    return f"({','.join(map(_type, item['components']))}){item['type'].removeprefix('tuple')}"


def measure(sender: TransactionSender) -> tuple[dict[str, dict[str, int]], int]:
    """Calldata bytes and gas of each question, and the gas of deploying."""
    built, state, names = write_program()
    tokens = np.arange(100_000, dtype=np.uint16) % 64
    data = dataset_of(ByteTokenizer(), tokens[:90_000].copy(), tokens[90_000:].copy())
    truth = RunTruth(built, state, DatasetProofs(data), seed=7)
    artifact = compile_contracts()["StepReferee"]
    deployed = sender.send_request(
        {"data": "0x" + artifact.bytecode.hex()}, contract="StepReferee", method="constructor"
    )
    measured = {}
    for name, question in questions(truth, names):
        sent = calldata(truth, question)
        request = {"to": deployed.contract_address, "data": "0x" + sent.hex()}
        answer = sender.simulate({"from": sender.address, **request}, contract="StepReferee", method=question.function)
        assert int.from_bytes(answer, "big") == question.answer, name
        used = sender.send_request(request, contract="StepReferee", method=question.function).gas_used
        measured[name] = {"calldata_bytes": len(sent), "gas": used}
    return measured, deployed.gas_used


def report(measured: dict[str, dict[str, int]], deployed: int) -> dict[str, Any]:
    size = len(compile_contracts()["StepReferee"].runtime_bytecode)
    return {
        "command": "python benchmarks/referee_gas.py",
        "questions": measured,
        "deployment_gas": deployed,
        "targets": {
            "gas of the dearest question": _target(GAS_LIMIT, max(one["gas"] for one in measured.values())),
            "bytes of the longest question": _target(
                CALLDATA_LIMIT, max(one["calldata_bytes"] for one in measured.values())
            ),
            f"gas of {PRODUCT}": _target(PRODUCT_LIMIT, measured[PRODUCT]["gas"]),
            "bytes of the contract": _target(CODE_LIMIT, size),
        },
    }


def _target(limit: int, measured: int) -> dict[str, Any]:
    return {"limit": limit, "measured": measured, "met": measured <= limit}


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# Gas of one question to the referee",
        "",
        "Real transactions on Anvil, the 21,000 gas of a transaction and its calldata included. Tensors of "
        f"{ROWS:,} by {ROW:,} elements, a trace of {FILLER:,} operations and some. Each doubling of "
        "a tensor adds a sibling of 32 bytes to a source, some 1,600 gas.",
        "",
        "| question | calldata, bytes | gas |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {one['calldata_bytes']:,} | {one['gas']:,} |" for name, one in result["questions"].items()]
    lines += ["", "| target | limit | measured | met |", "| --- | --- | --- | --- |"]
    for name, entry in result["targets"].items():
        lines.append(f"| {name} | {entry['limit']:,} | {entry['measured']:,} | {'yes' if entry['met'] else 'NO'} |")
    lines += ["", f"Deploying the referee takes {result['deployment_gas']:,} gas.", "", f"Again: `{result['command']}`"]
    return "\n".join(lines) + "\n"


def main() -> None:
    with world() as sender:
        result = report(*measure(sender))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "referee_gas.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "referee_gas.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
