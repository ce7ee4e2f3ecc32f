"""Parties to the disputes that are measured: a machine that computes one element wrongly, and one that lies."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ledger.disputes.moves import Evidence, ProgramProof
from ledger.disputes.positions import FOLD_POINTS, RUN_POINTS, points_of, view_width
from trainer.commit.hashing import Kind, depth, leaf, seal
from trainer.commit.tensors import tensor_root
from trainer.commit.trees import Tree
from trainer.data.dataset import Dataset
from trainer.dispute.committed import DatasetProofs
from trainer.dispute.runs import Interpreter, RunTruth
from trainer.dispute.subjects import Subject
from trainer.dispute.truth import SegmentTruth
from trainer.dispute.values import RunValues
from trainer.engine.engines import Engine
from trainer.engine.exact.backends import Backend, dot
from trainer.engine.exact.interpreter import run_operations, run_program
from trainer.engine.state import State
from trainer.program.exact.operations import Code, Operation, Pointwise, Program
from trainer.program.task import TaskProgram

BLOCK, CHUNK = 1024, 1024
FAULT = 2**24  # what the faulty machine adds to one integer product
TRIED = 16  # elements of a tensor among which the one with the longest evidence is taken
COMPUTING = (Code.MATMUL, Code.POINTWISE, Code.SUM, Code.MAX, Code.SCATTER_ADD)
LOSS = torch.tensor([2.5])


@dataclass(frozen=True)
class Result:
    """What is submitted for a segment: the last state's root, and its held-out loss with the proof."""

    root: bytes
    loss_bits: int
    proof: tuple[bytes, ...]


def result_of(roots: Sequence[bytes], loss: Tensor) -> Result:
    """The result whose state has these tensor roots, that of the loss first."""
    tree = Tree(Kind.STATE, [leaf(Kind.STATE, root) for root in roots])
    bits = int(loss.view(torch.int32).item()) & 0xFFFFFFFF
    return Result(seal(Kind.STATE, 0, len(roots), tree.root), bits, tuple(tree.path(0)))


# --- what a dispute about an operation takes ---


def transactions(program: Program, operation: int, *, runs: int) -> int:
    """From the opening to the proof, both included, where one element of an operation's output is wrong."""
    one = program.operations[operation]
    chunks = -(-one.elements * one.dtype.size // CHUNK)
    points = 1 + _narrowings(runs, RUN_POINTS)
    nodes = _views(len(program.operations) + 1) + _views(chunks)
    blocks = blocks_of(one)
    return points + nodes + 1 + 1 + (1 + _narrowings(blocks, FOLD_POINTS) if blocks else 0)


def blocks_of(one: Operation) -> int:
    """Blocks of a fold that one call cannot compute; 0 for what it can."""
    return -(-one.fold // BLOCK) if one.fold > BLOCK else 0


def _narrowings(count: int, most: int) -> int:
    """Moves that narrow the longest interval of `count` down to one, after the first points."""
    moves = 0
    while count > most:
        count = -(-count // most)
        moves += 1
    return moves


def _views(leaves: int) -> int:
    """Views on the way down a tree."""
    height, views = depth(leaves), 1
    while height > 6:
        height -= view_width(height)
        views += 1
    return views


def dearest_operations(program: Program, *, runs: int) -> list[int]:
    """The operations whose disputes may be the longest or the dearest.

    Of each kind that computes, long folds apart: of those with the most transactions the one of the largest tensor and
    the one that reads the most; and of all of the kind the one that reads the most. What only copies is left out: its
    proofs are the cheapest.
    """
    operations = program.operations
    count = [transactions(program, number, runs=runs) for number in range(len(operations))]
    kinds: dict[object, list[int]] = {}
    for number, one in enumerate(operations):
        if one.code in COMPUTING:
            kinds.setdefault((one.code, blocks_of(one) > 0), []).append(number)
    chosen: set[int] = set()
    for numbers in kinds.values():
        most = max(count[number] for number in numbers)
        longest = [number for number in numbers if count[number] == most]
        chosen.add(max(longest, key=lambda at: (_bytes(operations[at]), _reads(operations[at]))))
        chosen.add(max(longest, key=lambda at: (_reads(operations[at]), _bytes(operations[at]))))
        chosen.add(max(numbers, key=lambda at: (_reads(operations[at]), count[at])))
    return sorted(chosen)


def _bytes(one: Operation) -> int:
    return one.elements * one.dtype.size


def _reads(one: Operation) -> tuple[int, int]:
    work = len(one.attributes.kernel.instructions) if isinstance(one.attributes, Pointwise) else one.fold
    return len(one.operands), work


# --- a machine with a fault ---


class WrongProduct:
    """A processor that multiplies two particular matrices wrongly, in one element, whenever it meets them.

    Args:
        element: (row, column) of the product.
    """

    def __init__(self, a: Tensor, b: Tensor, element: tuple[int, int]) -> None:
        self._operands, self._element = (a.clone(), b.clone()), element

    def multiply(self, a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
        product = dot(a, b, bits=(bits_a, bits_b))
        if all(torch.equal(*pair) for pair in zip((a, b), self._operands, strict=True)):
            product[self._element] += FAULT
        return product


def faulty_backend(run: RunTruth, state: Sequence[Tensor], constants: Sequence[Tensor], operation: int) -> Backend:
    """A way to multiply that is wrong in the last element of a MATMUL of this run, and nowhere else."""
    last: list[tuple[Tensor, Tensor]] = []

    def watch(a: Tensor, b: Tensor, bits_a: int, bits_b: int) -> Tensor:
        last[:] = [(a, b)]
        return dot(a, b, bits=(bits_a, bits_b))

    run_operations(
        run.program, state, constants, run.batches, wanted=[operation], backend=Backend("watched", watch)
    )  # which computes the operation itself at last
    a, b = last[0]
    return Backend("faulty", WrongProduct(a, b, (len(a) - 1, len(b) - 1)).multiply)


class FaultyTruth:
    """What a machine computes that has one product wrong in one run, and all later steps right from there."""

    def __init__(self, true: SegmentTruth, data: Dataset, engine: Engine, *, at: int, operation: int) -> None:
        self._true, self._at = true, at
        task = true.task
        state = list(true.state(at))
        backend = faulty_backend(true.run(at), state, task.training.constants, operation)
        self._run = RunTruth(
            task.training, state, DatasetProofs(data), seed=task.seed, interpreter=Interpreter(backend=backend)
        )
        built = task.training
        after = run_program(built.program, state, built.constants, self._run.batches, backend=backend)
        named: State = OrderedDict(zip(task.layout.names, after, strict=True))
        self._rest = SegmentTruth(task, data, named, steps=true.steps - at - 1, engine=engine)

    def state_root(self, run: int) -> bytes:
        if run <= self._at:
            return self._true.state_root(run)
        return self._rest.state_root(run - self._at - 1)

    def state(self, run: int) -> Sequence[Tensor]:
        return self._true.state(run) if run <= self._at else self._rest.state(run - self._at - 1)

    def run(self, number: int) -> RunValues:
        if number == self._at:
            return self._run
        return self._true.run(number) if number < self._at else self._rest.run(number - self._at - 1)

    def program_proof(self, number: int) -> ProgramProof:
        return self._true.program_proof(number)


# --- a segment of which one run is computed ---


class LyingRun:
    """A computed run with one element of one output changed, and for a long fold its accumulators from one block on.

    Everything else, evidence too, is the true run's. The state after it is another one as well.
    """

    def __init__(self, true: RunTruth, operation: int, element: int, block: int) -> None:
        self._true, self._subject, self._element, self._block = true, Subject(False, operation), element, block
        width = true.tensor_layout(self._subject).width
        self._chunk, self._at = divmod(element * width, CHUNK)
        roots = _leaves(true.state_nodes, true.states)
        roots[-1] = hashlib.sha256(b"a false tensor").digest()
        self._state = Tree(Kind.STATE, roots)
        self.state_after = seal(Kind.STATE, 0, true.states, self._state.root)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._true, name)

    @functools.cached_property
    def _tensor(self) -> Tree:
        true, subject = self._true, self._subject
        leaves = _leaves(functools.partial(true.tensor_nodes, subject), true.tensor_layout(subject).chunks)
        leaves[self._chunk] = leaf(Kind.TENSOR, self.chunk(subject, self._chunk))
        return Tree(Kind.TENSOR, leaves)

    @functools.cached_property
    def _trace(self) -> Tree:
        layout = self._true.tensor_layout(self._subject)
        leaves = _leaves(self._true.trace_nodes, self._true.operations + 1)
        root = seal(Kind.TENSOR, layout.dtype, layout.size, self._tensor.root)
        leaves[self._subject.number] = leaf(Kind.TRACE, root)
        leaves[-1] = leaf(Kind.TRACE, self.state_after)
        return Tree(Kind.TRACE, leaves)

    def trace_nodes(self, height: int, index: int, width: int) -> list[bytes]:
        return self._trace.view(height, index, width)

    def state_nodes(self, height: int, index: int, width: int) -> list[bytes]:
        return self._state.view(height, index, width)

    def tensor_nodes(self, subject: Subject, height: int, index: int, width: int) -> list[bytes]:
        return self._tensor.view(height, index, width)

    def chunk(self, subject: Subject, index: int) -> bytes:
        data = bytearray(self._true.chunk(subject, index))
        if index == self._chunk:
            data[self._at] ^= 1
        return bytes(data)

    def element_bits(self, subject: Subject, element: int) -> int:
        return self._true.element_bits(subject, element) ^ (element == self._element)

    def accumulators(self, operation: int, element: int, blocks: Sequence[int]) -> list[int]:
        true = self._true.accumulators(operation, element, blocks)
        return [value ^ (block > self._block) for value, block in zip(true, blocks, strict=True)]


def _leaves(nodes: Callable[[int, int, int], Sequence[bytes]], count: int) -> list[bytes]:
    height = depth(count)
    return list(nodes(height, 0, height))[:count]


class OneRun:
    """A long segment of which one run is computed, and the roots of all other states are made up.

    Up to that run both parties have the same roots. Args: `party` makes those after it.
    """

    def __init__(self, computed: SegmentTruth, run: RunTruth | LyingRun, *, steps: int, at: int, party: str) -> None:
        self._computed, self._run, self._at, self._party = computed, run, at, party
        self.steps = steps
        made_up = [_made_up(party, number) for number in range(1, computed.run(0).states)]
        self.result = result_of([tensor_root(LOSS), *made_up], LOSS)

    def state_root(self, run: int) -> bytes:
        if run == self.steps + 1:
            return self.result.root
        if run == self._at:
            return self._run.state_before
        if run == self._at + 1:
            return self._run.state_after
        return _made_up("both" if run < self._at else self._party, run)

    def run(self, number: int) -> RunValues:
        return self._run

    def program_proof(self, number: int) -> ProgramProof:
        return self._computed.program_proof(0)


def _made_up(party: str, number: int) -> bytes:
    return hashlib.sha256(f"{party} {number}".encode()).digest()


def disputed_run(runs: int) -> int:
    """A run in the longest interval of the opening, so that narrowing takes the most roots: its last one.

    The last interval is left out, for its last run is the evaluation.
    """
    points = [0, *points_of(0, runs, RUN_POINTS)]
    _, high = max(itertools.pairwise(points[:-1]), key=lambda pair: (pair[1] - pair[0], pair[1]))
    return high - 1


def parties(
    task: TaskProgram, data: Dataset, base: State, *, steps: int, cache_bytes: int
) -> Iterator[tuple[int, OneRun, OneRun]]:
    """For each operation whose dispute may be the dearest: its number, the true values, and those of a liar.

    Args:
        base: the state before the run that is computed.
    """
    at = disputed_run(steps + 1)
    state: State = OrderedDict((name, tensor.clone()) for name, tensor in base.items())
    state["counter.step"].fill_(at)
    computed = SegmentTruth(task, data, state, steps=1, cache_bytes=cache_bytes)
    run = computed.run(0)
    honest = OneRun(computed, run, steps=steps, at=at, party="true")
    numbers = dearest_operations(run.program, runs=steps + 1)
    read = {operand.source for number in numbers for operand in run.operation(number).operands}
    run.outputs({*numbers, *read})  # all at once: each may take a run of its own
    for number in numbers:
        element, block = dearest_place(run, number)
        liar = LyingRun(run, number, element, block)
        yield number, honest, OneRun(computed, liar, steps=steps, at=at, party="false")


def dearest_place(run: RunTruth, number: int) -> tuple[int, int]:
    """Of some elements spread over an output, and some blocks of a long fold, those with the longest evidence."""
    one = run.operation(number)
    elements = [one.elements * turn // TRIED for turn in range(1, TRIED)] + [one.elements - 1]
    blocks = blocks_of(one)
    if blocks:
        element = elements[-1]
        shown = {block: _length(run.prove_block(number, element, block)) for block in range(1, blocks)}
        return element, max(shown, key=shown.__getitem__)
    lengths = {at: _length(run.prove_element(Subject(False, number), at)) for at in elements}
    return max(lengths, key=lengths.__getitem__), 0


def _length(evidence: Evidence) -> int:
    return sum(len(one.chunks) + 32 * (len(one.siblings) + len(one.path)) for one in evidence.sources)
