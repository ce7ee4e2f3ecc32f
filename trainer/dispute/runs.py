"""The true values of one run: every output of its operations, computed when they are asked for (docs/dispute.md).

The trace of a step may be many times larger than what fits in memory, so it is never held. A first run hashes each
output as it is made and lets it go after its last reader; the chunks of particular outputs are had by running again
what they depend on. What was had so is kept within a budget.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ledger.disputes.moves import Evidence, Record
from ledger.errors import MachineFault
from trainer.commit.hashing import Kind, leaf, seal
from trainer.commit.proofs import parting_height
from trainer.commit.tensors import tensor_root
from trainer.commit.traces import trace_leaves
from trainer.commit.trees import Tree
from trainer.dispute import evidence
from trainer.dispute.committed import CommittedBytes, DatasetProofs
from trainer.dispute.folding import fold_accumulators
from trainer.dispute.subjects import Subject, TensorLayout
from trainer.engine.exact.backends import Backend
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.exact.interpreter import TORCH_DTYPES, run_operations, run_program
from trainer.engine.memory import memory_errors
from trainer.program.exact import BuiltProgram, Operation, cost_of, program_root
from trainer.program.exact.encoding import encode_records
from trainer.program.exact.operations import Matmul, Max, ScatterAdd, Sum

_STEP = 1  # place of counter.step in every state
CACHE_BYTES = 2**28  # of outputs that are kept for the next question


@dataclass(frozen=True)
class Interpreter:
    """Where and how the reference interpreter runs: a device, and a way to multiply (None takes float64)."""

    device: str = "cpu"
    backend: Backend | None = None


@dataclass(frozen=True)
class _Trace:
    tree: Tree
    outputs: list[bytes]  # tensor roots
    after: Tree  # of the state after the run
    after_root: bytes


class RunTruth:
    """One run of a checked program from a state, and everything that can be asked about it in a dispute.

    Nothing is computed before it is asked for. Not for two threads at a time.

    Args:
        state: the state before, in the program's order; of a merge, all states that it takes, one after the other and
            the base first, where a missing one is the base's own tensors. Kept, not copied, and not to be changed.
        seed, slot: what the batches depend on beside the state.
        cache_bytes: of outputs that are kept; what one question needs is kept for it in any case.
        expected: root of the state after, where another engine has computed it.
        progress: told how many operations of how many are done, while the first run goes on.
    """

    def __init__(
        self,
        built: BuiltProgram,
        state: Sequence[Tensor],
        data: DatasetProofs,
        *,
        seed: int,
        slot: int = 0,
        interpreter: Interpreter | None = None,
        cache_bytes: int = CACHE_BYTES,
        expected: bytes | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.program, self.data, self.seed, self.slot = built.program, data, seed, slot
        self._built = built
        self._before = list(state)
        self.interpreter = interpreter or Interpreter()
        self._cache_bytes, self._expected, self._progress = cache_bytes, expected, progress
        self._held: OrderedDict[int, CommittedBytes] = OrderedDict()
        self._held_bytes = 0
        self._folded: tuple[int, int, list[int]] | None = None  # the accumulators asked for last

    # --- the program ---

    @property
    def states(self) -> int:
        """Number of tensors of the state."""
        return len(self.program.states)

    @property
    def inputs(self) -> int:
        """States that a merge takes beside its base; 0 in every other run."""
        return self.program.inputs

    @property
    def constants(self) -> int:
        """Number of the program's constants."""
        return len(self.program.constants)

    @property
    def operations(self) -> int:
        """Number of the program's operations; the trace has one leaf more."""
        return len(self.program.operations)

    @cached_property
    def program_root(self) -> bytes:
        """The program's root, 32 bytes."""
        return program_root(self.program)

    def header(self) -> Record:
        """The program's record 0 with its proof."""
        return self._record(0)

    def record(self, subject: Subject) -> Record:
        """The record of an operation or of a tensor of the state, with its proof. Raises IndexError outside."""
        if subject.of_state:
            return self._record(1 + _checked(subject.number, self.states))
        return self._record(1 + self.states + self.constants + _checked(subject.number, self.operations))

    def constant_record(self, number: int) -> Record:
        """The record of a constant, with its proof. Raises IndexError where the program has no such constant."""
        return self._record(1 + self.states + _checked(number, self.constants))

    def is_counter(self, tensor: int) -> bool:
        """Whether a tensor of the state is an int64 that an operation writes: its bytes are no operation's output."""
        one = self.program.states[tensor]
        return one.source is not None and one.dtype is not self.program.operations[one.source].dtype

    def _record(self, place: int) -> Record:
        return Record(self._records[place], tuple(self._program_tree.path(place)))

    @cached_property
    def _records(self) -> list[bytes]:
        return encode_records(self.program)

    @cached_property
    def _program_tree(self) -> Tree:
        return Tree(Kind.PROGRAM, [leaf(Kind.PROGRAM, record) for record in self._records])

    # --- the states ---

    @cached_property
    def state_before(self) -> bytes:
        """Root of the state before the run; of a merge, of its inputs."""
        if self.inputs:
            return seal(Kind.INPUTS, 0, self.inputs + 1, self._inputs_tree.root)
        return seal(Kind.STATE, 0, self.states, self._before_trees[0].root)

    @property
    def state_after(self) -> bytes:
        """Root of the state after the run."""
        return self._trace.after_root

    def state_before_tensor(self, number: int) -> CommittedBytes:
        """A tensor of the state before, as it is committed; of a merge, numbered as LOAD does."""
        return CommittedBytes.of_tensor(self._before[number])

    def state_before_path(self, number: int) -> list[bytes]:
        """Siblings that lead from a tensor of the state before to its Merkle root; of a merge, on to the inputs'."""
        state, tensor = divmod(number, self.states)
        path = self._before_trees[state].path(tensor)
        return path + self._inputs_tree.path(state) if self.inputs else path

    def state_leaf(self, tensor: int) -> tuple[bytes, list[bytes]]:
        """The root that a tensor has after the run, and the path that proves it.

        The path leads to the state before where the run leaves the tensor unchanged, else to the trace's frontier.
        """
        source = self.program.states[tensor].source
        if source is None:
            return self._before_roots[tensor], self.state_before_path(tensor)
        return self.output_root(source), self.trace_path(source, high=parting_height(source, self.operations))

    def state_nodes(self, height: int, index: int, width: int) -> list[bytes]:
        """The 2^width descendants of a node of the state after."""
        return self._trace.after.view(height, index, width)

    @cached_property
    def _before_roots(self) -> list[bytes]:
        # Missing slots of a merge are the base's own tensors, which are hashed once.
        known = {id(tensor): tensor for tensor in self._before}
        roots = {key: tensor_root(tensor) for key, tensor in known.items()}
        return [roots[id(tensor)] for tensor in self._before]

    @cached_property
    def _before_trees(self) -> list[Tree]:
        """Of the state, or of each that a merge takes."""
        leaves = [leaf(Kind.STATE, root) for root in self._before_roots]
        return [Tree(Kind.STATE, leaves[at : at + self.states]) for at in range(0, len(leaves), self.states)]

    @cached_property
    def _inputs_tree(self) -> Tree:
        roots = [seal(Kind.STATE, 0, self.states, tree.root) for tree in self._before_trees]
        return Tree(Kind.INPUTS, [leaf(Kind.INPUTS, root) for root in roots])

    # --- the trace ---

    @property
    def trace_root(self) -> bytes:
        """The trace's sealed root, 32 bytes."""
        return seal(Kind.TRACE, 0, self.operations + 1, self._trace.tree.root)

    def trace_nodes(self, height: int, index: int, width: int) -> list[bytes]:
        """The 2^width descendants of a node of the trace."""
        return self._trace.tree.view(height, index, width)

    def trace_path(self, number: int, *, high: int | None = None) -> list[bytes]:
        """Siblings that lead from a leaf of the trace up to height `high`, or to the root."""
        return self._trace.tree.path(number, high=high)

    def frontier(self, reached: int) -> list[bytes]:
        """The nodes that cover all leaves before `reached`, by height; zeros where bit k of `reached` is 0."""
        return self._trace.tree.frontier(reached)

    def output_root(self, number: int) -> bytes:
        """Tensor root of an operation's output."""
        return self._trace.outputs[number]

    @cached_property
    def _trace(self) -> _Trace:
        outputs: list[bytes] = []
        keeps = cost_of(self.program).bytes_written <= self._cache_bytes

        def observe(number: int, output: Tensor) -> None:
            if keeps:
                self._hold(number, output)
            outputs.append(self._held[number].root if keeps else tensor_root(output))
            if self._progress is not None:
                self._progress(number + 1, self.operations)

        with self._memory_errors():
            after = run_program(
                self.program,
                self._before,
                self._built.constants,
                self.batches,
                device=self.interpreter.device,
                backend=self.interpreter.backend,
                observe=observe,
            )
        roots = [self._after_root(number, tensor, outputs) for number, tensor in enumerate(after)]
        tree = Tree(Kind.STATE, [leaf(Kind.STATE, root) for root in roots])
        after_root = seal(Kind.STATE, 0, self.states, tree.root)
        if self._expected not in (None, after_root):
            raise MachineFault(
                "A run gave another state on the reference than on this machine's engine.",
                remedy="Nothing was posted. Try `trainledger selftest`, and check this machine's memory.",
            )
        return _Trace(Tree(Kind.TRACE, trace_leaves(outputs, after_root)), outputs, tree, after_root)

    def _after_root(self, number: int, tensor: Tensor, outputs: Sequence[bytes]) -> bytes:
        """Root of a tensor of the state after; hashed again only where its bytes are nobody's yet."""
        source = self.program.states[number].source
        if source is None:
            return self._before_roots[number]
        return tensor_root(tensor) if self.is_counter(number) else outputs[source]

    @cached_property
    def batches(self) -> DatasetBatches:
        """The tokens that this run reads."""
        step = int(self._before[_STEP].reshape(-1)[0].item()) if len(self._before) > _STEP else 0
        return DatasetBatches(data=self.data.data, seed=self.seed, slot=self.slot, step=step)

    def _memory_errors(self) -> AbstractContextManager[None]:
        least = cost_of(self.program).peak_bytes / 2**20
        return memory_errors(
            f"computing the trace of one run, which takes at least {least:,.0f} MiB on {self.interpreter.device}",
            remedy="Close other programs, or go on with this dispute on a machine with more memory: "
            "everything it needs is on the chain and in the stores.",
        )

    # --- tensors ---

    def tensor_layout(self, subject: Subject) -> TensorLayout:
        """How a tensor is committed; computes nothing."""
        declared = self.program.states if subject.of_state else self.program.operations
        one = declared[subject.number]
        elements = torch.Size(one.shape).numel()
        size = elements * one.dtype.size
        return TensorLayout(one.dtype, size, -(-size // 1024), one.dtype.size)

    def tensor_nodes(self, subject: Subject, height: int, index: int, width: int) -> list[bytes]:
        """The 2^width descendants of a node of a tensor."""
        return self.tensor(subject).tree.view(height, index, width)

    def tensor_root(self, subject: Subject) -> bytes:
        """A tensor's root."""
        if not subject.of_state:
            return self.output_root(subject.number)
        return self.tensor(subject).root

    def chunk(self, subject: Subject, index: int) -> bytes:
        """The 1,024 bytes of a chunk."""
        return self.tensor(subject).chunk(index)

    def element_bits(self, subject: Subject, element: int) -> int:
        """An element's little-endian bytes as an unsigned number."""
        return self.tensor(subject).bits(element)

    def tensor(self, subject: Subject) -> CommittedBytes:
        """A tensor as it is committed."""
        if not subject.of_state:
            return self.outputs([subject.number])[subject.number]
        state = self.program.states[subject.number]
        if state.source is None:
            return self.state_before_tensor(subject.number)
        output = self.outputs([state.source])[state.source]
        if not self.is_counter(subject.number):
            return output
        words = torch.frombuffer(bytearray(output.data), dtype=torch.int32)
        return CommittedBytes.of_tensor(words.to(TORCH_DTYPES[state.dtype]))

    def outputs(self, numbers: Collection[int]) -> dict[int, CommittedBytes]:
        """Outputs of operations; those that are not kept are computed in one run of what they depend on."""
        found = {number: self._held[number] for number in numbers if number in self._held}
        missing = [number for number in numbers if number not in found]
        if missing:
            with self._memory_errors():
                made = run_operations(
                    self.program,
                    self._before,
                    self._built.constants,
                    self.batches,
                    wanted=missing,
                    device=self.interpreter.device,
                    backend=self.interpreter.backend,
                )
            found |= {number: self._hold(number, output) for number, output in made.items()}
        for number in numbers:
            self._held.move_to_end(number)
        self._let_go(len(set(numbers)))
        return found

    def _hold(self, number: int, output: Tensor) -> CommittedBytes:
        old = self._held.pop(number, None)
        held = self._held[number] = CommittedBytes.of_tensor(output)
        self._held_bytes += held.size - (old.size if old is not None else 0)
        return held

    def _let_go(self, newest: int) -> None:
        """Drops what was asked for longest ago, until the rest is within the budget; the newest ones stay."""
        while self._held_bytes > self._cache_bytes and len(self._held) > newest:
            self._held_bytes -= self._held.popitem(last=False)[1].size

    def constant(self, number: int) -> CommittedBytes:
        """The data of a constant of the program."""
        return CommittedBytes.of_tensor(self._built.constants[number])

    # --- folds ---

    def fold_length(self, operation: int) -> int:
        """How many elements one element of the operation's output folds; 0 where it does not fold."""
        attributes = self.program.operations[operation].attributes
        return attributes.length if isinstance(attributes, Matmul | Sum | Max | ScatterAdd) else 0

    def operation(self, number: int) -> Operation:
        """An operation of the program."""
        return self.program.operations[number]

    def accumulators(self, operation: int, element: int, blocks: Sequence[int]) -> list[int]:
        """Accumulators of an element's fold after so many blocks each; after none, the one that folds start with.

        Raises:
            IndexError: the operation does not fold, or has no such element.
        """
        if self._folded is None or self._folded[:2] != (operation, element):
            self._folded = (operation, element, fold_accumulators(self, operation, element))
        words = self._folded[2]
        return [words[block] for block in blocks]

    # --- evidence ---

    def prove_element(self, subject: Subject, element: int) -> Evidence:
        """All that an element depends on: of an operation's output, or of a counter of the state after."""
        if subject.of_state:
            return evidence.state_evidence(self, subject.number, element)
        return evidence.element_evidence(self, subject.number, element)

    def prove_block(self, operation: int, element: int, block: int) -> Evidence:
        """What a block of a fold reads."""
        return evidence.block_evidence(self, operation, element, block)

    def prove_rounding(self, operation: int, element: int) -> Evidence:
        """What rounding a fold's last accumulator reads."""
        return evidence.rounding_evidence(self, operation, element)


def _checked(number: int, count: int) -> int:
    if not 0 <= number < count:
        raise IndexError(f"no record {number} of {count} of its kind")
    return number
