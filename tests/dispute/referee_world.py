"""One run of a program with its whole trace committed, evidence about any element of it, and the referee to show it to.

Written from docs/dispute.md alone, apart from the product's own evidence: the two have to agree.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from small_programs import Runs
from torch import Tensor
from web3 import Web3

from ledger.compile import Artifact
from ledger.disputes.abi import AbiRecord, Uint8, Uint32, Uint64, Word
from ledger.disputes.moves import Evidence, Record, Source
from ledger.errors import ContractReverted
from ledger.reverts import ErrorDecoder
from ledger.rpc import rpc
from trainer.commit.hashing import Kind, chunk_leaves, leaf, merkle_root, node, pad, seal
from trainer.commit.tensors import DTYPE_NUMBERS, tensor_bytes, tensor_root
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.exact.interpreter import run_program
from trainer.program.exact.encoding import encode_records
from trainer.program.exact.operations import (
    Batch,
    Cat,
    Code,
    Constant,
    DType,
    Load,
    Operation,
    Part,
    Program,
    Take,
)

CHUNK = BLOCK = 1024
NO_RECORD = Record(b"", ())
ADDRESS = Web3.to_checksum_address("0x" + b"trainledger-referee\0".hex())


@dataclass(frozen=True)
class Scene(AbiRecord):
    """`IStepReferee.Scene`."""

    state_before: Word
    program: Word
    inputs: Uint8
    states: Uint32
    constants: Uint32
    operations: Uint32
    reached: Uint32
    frontier: tuple[Word, ...]
    dataset: Word
    seed: Uint64
    slot: Uint32


class Tree:
    """A tree over leaf hashes, pads and all."""

    def __init__(self, kind: Kind, leaves: Sequence[bytes]) -> None:
        self.kind = kind
        self.depth = (len(leaves) - 1).bit_length()
        self.levels = [[*leaves, *[pad(kind)] * (2**self.depth - len(leaves))]]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            self.levels.append([node(kind, *below[at : at + 2]) for at in range(0, len(below), 2)])

    @property
    def root(self) -> bytes:
        return self.levels[-1][0]

    def path(self, index: int, height: int | None = None) -> tuple[bytes, ...]:
        """Siblings of a leaf from the bottom up."""
        heights = self.depth if height is None else height
        return tuple(self.levels[at][(index >> at) ^ 1] for at in range(heights))

    def span(self, first: int, last: int) -> tuple[bytes, ...]:
        """The range proof of leaves first … last."""
        siblings = []
        for level in self.levels[:-1]:
            siblings += [level[first - 1]] if first % 2 else []
            siblings += [] if last % 2 else [level[last + 1]]
            first, last = first // 2, last // 2
        return tuple(siblings)


@dataclass(frozen=True)
class Committed:
    """Data with their tree: a tensor, or a part of the data set."""

    dtype: int
    data: bytes
    kind: Kind = Kind.TENSOR

    @cached_property
    def tree(self) -> Tree:
        return Tree(self.kind, chunk_leaves(self.kind, self.data))

    @property
    def root(self) -> bytes:
        return seal(self.kind, self.dtype, len(self.data), self.tree.root)

    def source(self, number: int, path: tuple[bytes, ...], first_byte: int, end_byte: int) -> Source:
        """The chunks that hold some bytes."""
        first, last = first_byte // CHUNK, (end_byte - 1) // CHUNK
        chunks = self.data[first * CHUNK : (last + 1) * CHUNK].ljust((last + 1 - first) * CHUNK, b"\0")
        return Source(number, self.dtype, len(self.data), first, chunks, self.tree.span(first, last), path)


def committed(tensor: Tensor) -> Committed:
    return Committed(DTYPE_NUMBERS[tensor.dtype], bytes(tensor_bytes(tensor)))


@dataclass
class World:
    """A run: `state` to the next state, by `program`, over `data`; of a merge all states, one after the other."""

    program: Program
    state: Sequence[Tensor]
    constants: Sequence[Tensor]
    data: Runs
    seed: int = 5
    slot: int = 0
    outputs: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        step = int(self.state[1].reshape(-1)[0])
        batches = DatasetBatches(data=self.data, seed=self.seed, slot=self.slot, step=step)
        self.after = run_program(
            self.program, self.state, self.constants, batches, observe=lambda _, out: self.outputs.append(out.clone())
        )
        self.committed = [committed(output) for output in self.outputs]
        leaves = [leaf(Kind.TRACE, one.root) for one in self.committed]
        self.trace = Tree(Kind.TRACE, [*leaves, leaf(Kind.TRACE, self._state_root(self.after))])
        tensors, count = [leaf(Kind.STATE, tensor_root(one)) for one in self.state], len(self.program.states)
        self.before = [Tree(Kind.STATE, tensors[at : at + count]) for at in range(0, len(tensors), count)]
        self.inputs = Tree(
            Kind.INPUTS, [leaf(Kind.INPUTS, seal(Kind.STATE, 0, count, one.root)) for one in self.before]
        )
        self.records = encode_records(self.program)
        self.records_tree = Tree(Kind.PROGRAM, [leaf(Kind.PROGRAM, record) for record in self.records])
        tokens = [Committed(6, part.tobytes(), Kind.DATASET) for part in (self.data.train, self.data.heldout)]
        self.parts = [Committed(0, b"header", Kind.DATASET), Committed(0, b"byte", Kind.DATASET), *tokens]
        self.dataset = Tree(Kind.DATASET, [leaf(Kind.DATASET, part.root) for part in self.parts])

    @staticmethod
    def _state_root(state: Sequence[Tensor]) -> bytes:
        leaves = [leaf(Kind.STATE, tensor_root(one)) for one in state]
        return seal(Kind.STATE, 0, len(leaves), merkle_root(Kind.STATE, leaves))

    # --- the true answers ---

    def bits(self, number: int, element: int) -> int:
        """An element of an output as it stands in the committed bytes."""
        width = self.program.operations[number].dtype.size
        return int.from_bytes(self.committed[number].data[element * width : (element + 1) * width], "little")

    def state_bits(self, number: int, element: int) -> int:
        """An element of a tensor of int64 of the state after the run."""
        return int(self.after[number].reshape(-1)[element]) & 0xFFFFFFFFFFFFFFFF

    # --- what the referee is shown ---

    def scene(self, reached: int) -> Scene:
        frontier = [
            self.trace.levels[height][(reached >> height) - 1] if reached >> height & 1 else bytes(32)
            for height in range(self.trace.depth)
        ]
        before = seal(Kind.STATE, 0, len(self.program.states), self.before[0].root)
        if self.program.inputs:
            before = seal(Kind.INPUTS, 0, len(self.before), self.inputs.root)
        return Scene(
            before,
            seal(Kind.PROGRAM, 1, len(self.records), self.records_tree.root),
            self.program.inputs,
            len(self.program.states),
            len(self.program.constants),
            len(self.program.operations),
            reached,
            tuple(frontier),
            seal(Kind.DATASET, 0, 4, self.dataset.root),
            self.seed,
            self.slot,
        )

    def element(self, number: int, element: int) -> Evidence:
        """For `element`."""
        one = self.program.operations[number]
        match one.attributes:
            case Load(index):
                return self._evidence(number, [self._state(index, element)])
            case Constant(index):
                held, place = committed(self.constants[index]), 1 + len(self.program.states) + index
                other = Record(self.records[place], self.records_tree.path(place))
                width = one.dtype.size
                source = held.source(index, (), element * width, (element + 1) * width)
                return self._evidence(number, [source], other)
            case Batch():
                return self._evidence(number, self._batch(one, element))
            case Take():
                return self._evidence(number, self._take(number, element))
            case Cat():
                return self._evidence(number, self._cat(number, element))
        places = [self._run(number, element, place, 0, one.fold) for place in range(len(one.operands))]
        return self._evidence(number, places)

    def block(self, number: int, element: int, block: int) -> Evidence:
        """For `foldBlock`."""
        one = self.program.operations[number]
        count = min(BLOCK, one.fold - block * BLOCK)
        shown = range(2 if one.code is Code.MATMUL else len(one.operands))
        return self._evidence(number, [self._run(number, element, place, block * BLOCK, count) for place in shown])

    def rounding(self, number: int, element: int) -> Evidence:
        """For `foldRounding`."""
        one = self.program.operations[number]
        shown = {Code.MATMUL: (2, 3), Code.SUM: (1,), Code.MAX: (), Code.SCATTER_ADD: (2,)}[one.code]
        return self._evidence(number, [self._run(number, element, place, 0, 1) for place in shown])

    def state_element(self, number: int, element: int) -> Evidence:
        """For `stateElement`."""
        operation = self.program.states[number].source
        assert operation is not None
        source = self._output(operation, len(self.program.operations), element, 1)
        return Evidence(self.records[1 + number], NO_RECORD, (source,))

    def _evidence(self, number: int, sources: Sequence[Source], other: Record = NO_RECORD) -> Evidence:
        record = self.records[1 + len(self.program.states) + len(self.program.constants) + number]
        return Evidence(record, other, tuple(sources))

    def _output(self, number: int, reached: int, first: int, count: int) -> Source:
        """Elements of an earlier output, proved to the frontier."""
        width = self.program.operations[number].dtype.size
        path = self.trace.path(number, (number ^ reached).bit_length() - 1)
        return self.committed[number].source(number, path, first * width, (first + count) * width)

    def _state(self, number: int, element: int) -> Source:
        held = committed(self.state[number])
        width = self.state[number].element_size()
        state, tensor = divmod(number, len(self.program.states))
        path = self.before[state].path(tensor) + (self.inputs.path(state) if self.program.inputs else ())
        return held.source(number, path, element * width, (element + 1) * width)

    def _run(self, number: int, element: int, place: int, start: int, count: int) -> Source:
        """What operand `place` reads: of operands that are no runs the one element."""
        one = self.program.operations[number]
        is_run = place < {Code.MATMUL: 2, Code.SUM: 1, Code.MAX: 1, Code.SCATTER_ADD: 2}.get(one.code, 0)
        named = self._named(one, place, _index(one, element))
        first, length = (named + start, count) if is_run else (named, 1)
        return self._output(one.operands[place].source, number, first, length)

    @staticmethod
    def _named(one: Operation, place: int, index: Sequence[int]) -> int:
        operand = one.operands[place]
        return operand.offset + sum(i * stride for i, stride in zip(index, operand.strides, strict=True))

    def _take(self, number: int, element: int) -> list[Source]:
        one = self.program.operations[number]
        take, index, (table, rows) = one.attributes, _index(one, element), one.operands
        assert isinstance(take, Take)
        named = self._named(one, 1, index)
        row = int(self.outputs[rows.source].reshape(-1)[named])
        sources = [self._output(rows.source, number, named, 1)]
        if 0 <= row < take.rows:
            at = self._named(one, 0, index) + row * take.row_stride
            sources.insert(0, self._output(table.source, number, at, 1))
        return sources

    def _cat(self, number: int, element: int) -> list[Source]:
        one = self.program.operations[number]
        cat, index = one.attributes, list(_index(one, element))
        assert isinstance(cat, Cat)
        for place, extent in enumerate(cat.extents):
            if index[cat.axis] < extent:
                return [self._output(one.operands[place].source, number, self._named(one, place, index), 1)]
            index[cat.axis] -= extent
        return []

    def _batch(self, one: Operation, element: int) -> list[Source]:
        batch, (sample, place) = one.attributes, _index(one, element)
        assert isinstance(batch, Batch)
        part, length = self.parts[batch.part], one.shape[1]
        tokens = len(part.data) // 2
        at = sample * length
        if batch.part is Part.TRAIN:
            step = int(self.state[1].reshape(-1)[0]) & 0xFFFFFFFFFFFFFFFF
            numbers = [(self.seed, 8), (self.slot, 4), (step, 8), (sample, 4)]
            preimage = b"trainledger/batch/1\0" + b"".join(number.to_bytes(size, "big") for number, size in numbers)
            drawn = int.from_bytes(hashlib.sha256(preimage).digest()[:8], "big")
            at = drawn % (tokens - length) if tokens > length else 0
        at = min(at + batch.shift + place, tokens - 1)  # past the end, the last chunk shows that it is the end
        source = part.source(batch.part, self.dataset.path(batch.part), 2 * at, 2 * at + 2)
        return [source, *([self._state(1, 0)] if batch.part is Part.TRAIN else [])]


def _index(one: Operation, element: int) -> tuple[int, ...]:
    """The index of an element, row-major."""
    index = []
    for extent in reversed(one.shape):
        element, place = divmod(element, extent)
        index.append(place)
    return tuple(reversed(index))


class Referee:
    """The compiled referee on a node, asked without transactions."""

    def __init__(self, web3: Web3, artifact: Artifact) -> None:
        self._web3 = web3
        self._errors = ErrorDecoder([artifact])
        self._inputs = {
            entry["name"]: [item["type"] for item in entry["inputs"]]
            for entry in artifact.abi
            if entry["type"] == "function"
        }
        rpc(web3, "anvil_setCode", ADDRESS, "0x" + artifact.runtime_bytecode.hex())

    def element(self, scene: Scene, index: int, evidence: Evidence) -> int:
        return self.ask("element", scene, index, evidence)

    def state_element(self, scene: Scene, index: int, evidence: Evidence) -> int:
        return self.ask("stateElement", scene, index, evidence)

    def fold_block(self, scene: Scene, index: int, block: int, accumulator: int, evidence: Evidence) -> int:
        return self.ask("foldBlock", scene, index, block, accumulator, evidence)

    def fold_rounding(self, scene: Scene, index: int, accumulator: int, evidence: Evidence) -> int:
        return self.ask("foldRounding", scene, index, accumulator, evidence)

    def ask(self, function: str, *arguments: AbiRecord | int) -> int:
        """What a function answers. Raises ContractReverted where it reverts."""
        return self.send(function, self.calldata(function, *arguments))

    def calldata(self, function: str, *arguments: AbiRecord | int) -> bytes:
        """A call's data."""
        types = [
            one.abi_type() if isinstance(one, AbiRecord) else kind
            for one, kind in zip(arguments, self._inputs[function], strict=True)
        ]
        values = [one.to_abi() if isinstance(one, AbiRecord) else one for one in arguments]
        return keccak(text=f"{function}({','.join(types)})")[:4] + encode(types, values)

    def send(self, function: str, data: bytes) -> int:
        """What the referee answers to raw calldata. Raises ContractReverted where it reverts."""
        answer = self._web3.provider.make_request(  # raw: these calls are many
            "eth_call",  # type: ignore[arg-type]  # web3 has a type of its own for names
            [{"to": ADDRESS, "data": "0x" + data.hex(), "gas": hex(30_000_000)}, "latest"],
        )
        if "error" in answer:
            raise self.refusal(function, answer["error"])
        return int(answer["result"], 16)

    def gas(self, data: bytes) -> int:
        """Gas of a transaction with this calldata, the 21,000 and the calldata included."""
        return int(rpc(self._web3, "eth_estimateGas", {"to": ADDRESS, "data": "0x" + data.hex()}), 16)

    def refusal(self, function: str, error: object) -> ContractReverted:
        assert isinstance(error, dict), error
        assert "revert" in str(error["message"]), error
        return self._errors.decode("StepReferee", function, error.get("data"))


def small_data(train: int = 300, heldout: int = 40) -> Runs:
    """Tokens of all sizes, some above 32,767."""
    numbers = torch.arange(train + heldout, dtype=torch.int64)
    tokens = ((numbers * 40_503 + 977) % 65_536).numpy().astype("<u2")
    return Runs(train=tokens[:train], heldout=tokens[train:])


def dtype_of(program: Program, number: int) -> DType:
    return program.operations[number].dtype
