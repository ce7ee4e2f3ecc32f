"""A segment's values, all held in memory and written as plainly as can be: what other truths are compared with.

Accumulators of folds are toys here, sums that mean nothing: `OracleReferee` knows them. Evidence is a number that the
oracle ignores. So whole games take milliseconds, and nothing of them depends on the code that proves elements.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ledger.disputes.moves import NOTHING, Evidence, ProgramProof, Record
from trainer.commit.hashing import Kind, chunk_leaves, leaf, merkle_proof, merkle_root, pad, seal
from trainer.commit.tensors import DTYPE_NUMBERS, tensor_bytes
from trainer.commit.trees import Tree
from trainer.dispute.proving import fold_length
from trainer.dispute.sources import Scene
from trainer.dispute.values import RunValues, Subject, TensorLayout, Truth
from trainer.engine.exact.interpreter import Batches, run_program
from trainer.program.exact import BuiltProgram, program_root
from trainer.program.exact.encoding import encode_records

BLOCK = 1024


@dataclass(frozen=True, kw_only=True)
class Lies:
    """What a run's values are falsified in. Empty, it is the truth.

    Attributes:
        outputs: operation to what changes its output in place; all later operations read the changed one.
        shown: the same, but nothing later reads it: one tensor alone is wrong.
        states: tensor of the state after the run to what changes it in place, after the operations are done.
        roots: subject to a root that takes the place of its tensor's.
        chunks: (subject, chunk) to what changes the committed 1,024 bytes in place: padding too.
        pads: "trace", "state" or a subject whose tree has garbage in its last pad.
        folds: (operation, element) to the numbers of blocks after which the accumulator is wrong.
    """

    outputs: Mapping[int, Callable[[Tensor], None]] = field(default_factory=dict)
    shown: Mapping[int, Callable[[Tensor], None]] = field(default_factory=dict)
    states: Mapping[int, Callable[[Tensor], None]] = field(default_factory=dict)
    roots: Mapping[Subject, bytes] = field(default_factory=dict)
    chunks: Mapping[tuple[Subject, int], Callable[[bytearray], None]] = field(default_factory=dict)
    pads: frozenset[object] = frozenset()
    folds: Mapping[tuple[int, int], Collection[int]] = field(default_factory=dict)


class PlainRun:
    """One run of a program, computed at once and kept.

    `proofs` has the evidence and the accumulators of the run that is lied about: a liar proves what both sides agree
    on, and that is true.
    """

    def __init__(
        self,
        built: BuiltProgram,
        state: Sequence[Tensor],
        batches: Batches | None = None,
        *,
        lies: Lies | None = None,
        proofs: RunValues | None = None,
    ) -> None:
        self.lies, self._proofs = lies or Lies(), proofs
        self.program = built.program
        self.states, self.operations = len(built.program.states), len(built.program.operations)
        self.state_before = list(state)
        outputs: list[Tensor] = []

        def observe(number: int, output: Tensor) -> None:
            if change := self.lies.outputs.get(number):
                change(output)
            shown = output.clone()
            if change := self.lies.shown.get(number):
                change(shown)
            outputs.append(shown)

        after = run_program(built.program, [one.clone() for one in state], built.constants, batches, observe=observe)
        self.state_after = [one.clone() for one in after]
        for number, change in self.lies.states.items():
            change(self.state_after[number])
        self._tensors = {Subject(False, number): one for number, one in enumerate(outputs)}
        self._tensors |= {Subject(True, number): one for number, one in enumerate(self.state_after)}
        self._trees = {subject: self._tree(subject) for subject in self._tensors}
        self._state = self._padded(
            Kind.STATE, [leaf(Kind.STATE, self.root(Subject(True, n))) for n in range(self.states)], "state"
        )
        leaves = [leaf(Kind.TRACE, self.root(Subject(False, n))) for n in range(self.operations)]
        self._trace = self._padded(Kind.TRACE, [*leaves, leaf(Kind.TRACE, self.state_root)], "trace")

    @property
    def state_root(self) -> bytes:
        return seal(Kind.STATE, 0, self.states, self._state.root)

    def root(self, subject: Subject) -> bytes:
        """The tensor's root."""
        layout = self.tensor_layout(subject)
        honest = seal(Kind.TENSOR, layout.dtype, layout.size, self._trees[subject].root)
        return self.lies.roots.get(subject, honest)

    def trace_nodes(self, height: int, index: int, width: int) -> list[bytes]:
        return self._trace.view(height, index, width)

    def state_nodes(self, height: int, index: int, width: int) -> list[bytes]:
        return self._state.view(height, index, width)

    def tensor_nodes(self, subject: Subject, height: int, index: int, width: int) -> list[bytes]:
        return self._trees[subject].view(height, index, width)

    def tensor_layout(self, subject: Subject) -> TensorLayout:
        tensor = self._tensors[subject]
        size = len(tensor_bytes(tensor))
        return TensorLayout(DTYPE_NUMBERS[tensor.dtype], size, -(-size // 1024), tensor.element_size())

    def chunk(self, subject: Subject, index: int) -> bytes:
        data = bytearray(bytes(tensor_bytes(self._tensors[subject])[index * 1024 : index * 1024 + 1024]))
        data += bytes(1024 - len(data))
        if change := self.lies.chunks.get((subject, index)):
            change(data)
        return bytes(data)

    def element_bits(self, subject: Subject, element: int) -> int:
        width = self.tensor_layout(subject).width
        chunk = self.chunk(subject, element * width // 1024)
        return int.from_bytes(chunk[element * width % 1024 :][:width], "little")

    def fold_length(self, operation: int) -> int:
        return fold_length(self.record(Subject(False, operation)).data)

    def accumulators(self, operation: int, element: int, blocks: Sequence[int]) -> list[int]:
        true = (
            [toy_accumulator(operation, element, block) for block in blocks]
            if self._proofs is None
            else self._proofs.accumulators(operation, element, blocks)
        )
        wrong = self.lies.folds.get((operation, element), ())
        return [value ^ (block in wrong) for value, block in zip(true, blocks, strict=True)]

    def is_counter(self, tensor: int) -> bool:
        state = self.program.states[tensor]
        return state.source is not None and state.dtype != self.program.operations[state.source].dtype

    def record(self, subject: Subject) -> Record:
        first = 1 if subject.of_state else 1 + self.states + len(self.program.constants)
        return record_of(self.program, first + subject.number)

    def prove_element(self, subject: Subject, element: int) -> Evidence:
        if self._proofs is not None:
            return self._proofs.prove_element(subject, element)
        return Evidence(self.record(subject).data, NOTHING, ())

    def prove_block(self, operation: int, element: int, block: int) -> Evidence:
        if self._proofs is not None:
            return self._proofs.prove_block(operation, element, block)
        return self.prove_element(Subject(False, operation), element)

    def prove_rounding(self, operation: int, element: int) -> Evidence:
        if self._proofs is not None:
            return self._proofs.prove_rounding(operation, element)
        return self.prove_element(Subject(False, operation), element)

    def state_leaf(self, tensor: int) -> tuple[bytes, list[bytes]]:
        source = self.program.states[tensor].source
        if source is None:
            base = self.state_before[: self.states]  # of a merge, the first of its states
            path = merkle_proof(Kind.STATE, [leaf(Kind.STATE, plain_root(one)) for one in base], tensor)
            if self.program.inputs:
                path += merkle_proof(Kind.INPUTS, plain_inputs(self.state_before, self.states), 0)
            return plain_root(self.state_before[tensor]), path
        height = (source ^ self.operations).bit_length() - 1
        return self.root(Subject(False, source)), self._trace.path(source, high=height)

    def _tree(self, subject: Subject) -> Tree:
        count = self.tensor_layout(subject).chunks
        return self._padded(
            Kind.TENSOR, [leaf(Kind.TENSOR, self.chunk(subject, number)) for number in range(count)], subject
        )

    def _padded(self, kind: Kind, leaves: list[bytes], name: object) -> Tree:
        """The tree, where lies have it so with garbage in the last of its unused leaves."""
        room = 1 << (len(leaves) - 1).bit_length()
        if name not in self.lies.pads or room == len(leaves):
            return Tree(kind, leaves)
        return Tree(kind, [*leaves, *[pad(kind)] * (room - len(leaves) - 1), b"garbage".ljust(32)])


class PlainSegment:
    """A segment of h runs of one program and a last one of another, each computed when it is first asked for.

    Where the first one is a merge program, `state` has the tensors of all states that it takes, one after the other.
    """

    def __init__(
        self,
        training: BuiltProgram,
        evaluation: BuiltProgram,
        state: Sequence[Tensor],
        *,
        steps: int,
        seed: int = 0,
        batches: Callable[[Sequence[Tensor]], Batches] | None = None,
        lies: Mapping[int, Lies] | None = None,
        proofs: Truth | None = None,
        records: Sequence[bytes] | None = None,
        dataset: bytes = bytes(32),
    ) -> None:
        self.programs, self.merge = (training, evaluation), training.program.inputs > 0
        self.base, self.steps, self.seed, self.dataset = list(state), steps, seed, dataset
        self._batches, self._lies, self._proofs = batches, lies or {}, proofs
        self._runs: list[PlainRun] = []
        own = [b"TLXT\x00\x02\x00\x00" + seed.to_bytes(8, "big")]
        own += [*(program_root(one.program) for one in self.programs), bytes(32), b"description".ljust(32)]
        own += [program_root(training.program) if self.merge else bytes(32)]
        self._records = own if records is None else list(records)

    @property
    def task_program(self) -> bytes:
        """The task's program root."""
        merkle = merkle_root(Kind.PROGRAM, [leaf(Kind.PROGRAM, record) for record in self._records])
        return seal(Kind.PROGRAM, 2, len(self._records), merkle)

    def state_root(self, run: int) -> bytes:
        if run == 0:
            return plain_inputs_root(self.base, self.run(0).states) if self.merge else plain_state_root(self.base)
        return self.run(run - 1).state_root

    def run(self, number: int) -> PlainRun:
        while len(self._runs) <= number:
            at = len(self._runs)
            built = self.programs[at == self.steps]
            state = self._runs[-1].state_after if at else self.base
            batches = self._batches(state) if self._batches else None
            proofs = None if self._proofs is None else self._proofs.run(at)
            self._runs.append(PlainRun(built, state, batches, lies=self._lies.get(at), proofs=proofs))
        return self._runs[number]

    def program_proof(self, number: int) -> ProgramProof:
        leaves = [leaf(Kind.PROGRAM, record) for record in self._records]
        place = 2 if number == self.steps else 5 if self.merge else 1
        return ProgramProof(
            self.seed,
            tuple(merkle_proof(Kind.PROGRAM, leaves, 0)),
            self._records[place],
            tuple(merkle_proof(Kind.PROGRAM, leaves, place)),
            record_of(self.programs[number == self.steps].program, 0),
        )

    def lying(self, lies: Mapping[int, Lies], proofs: Truth | None = None) -> PlainSegment:
        """The same segment with lies in some runs."""
        made = self.of_state(self.base, proofs, lies)
        # What comes before the first lie is the same.
        made._runs = self._runs[: min(lies)]
        return made

    def of_state(
        self, state: Sequence[Tensor], proofs: Truth | None = None, lies: Mapping[int, Lies] | None = None
    ) -> PlainSegment:
        """The same programs from another state."""
        return PlainSegment(
            *self.programs,
            state,
            steps=self.steps,
            seed=self.seed,
            batches=self._batches,
            lies=lies,
            proofs=proofs,
            records=self._records,
            dataset=self.dataset,
        )


class OracleReferee:
    """Judges by looking at the true segment: a referee for games that are not about evidence."""

    def __init__(self, truth: PlainSegment) -> None:
        self._truth = truth

    def element(self, scene: Scene, index: int, evidence: Evidence) -> int:
        return self._run(scene).element_bits(Subject(False, scene.reached), index)

    def state_element(self, scene: Scene, index: int, evidence: Evidence) -> int:
        run = self._run(scene)
        records = [run.record(Subject(True, number)).data for number in range(run.states)]
        return run.element_bits(Subject(True, records.index(evidence.record)), index)

    def fold_block(self, scene: Scene, index: int, first: int, accumulator: int, evidence: Evidence) -> int:
        assert accumulator == (toy_accumulator(scene.reached, index, first) if first else 0), "agreed on a lie"
        return toy_accumulator(scene.reached, index, first + 1)

    def fold_rounding(self, scene: Scene, index: int, accumulator: int, evidence: Evidence) -> int:
        run = self._run(scene)
        blocks = -(-run.fold_length(scene.reached) // BLOCK)
        bits = run.element_bits(Subject(False, scene.reached), index)
        return bits if accumulator == toy_accumulator(scene.reached, index, blocks) else bits ^ 1

    def _run(self, scene: Scene) -> PlainRun:
        runs = (self._truth.run(number) for number in range(self._truth.steps + 1))
        found = [run for number, run in enumerate(runs) if self._truth.state_root(number) == scene.state_before]
        by_program = [run for run in found if program_root(run.program) == scene.program]
        assert by_program, "the scene is not one of the truth"
        return by_program[0]


def toy_accumulator(operation: int, element: int, blocks: int) -> int:
    """Stands for a fold's accumulator after so many blocks."""
    return 2**200 + operation * 2**80 + element * 2**40 + blocks * 2**8


def record_of(program: object, index: int) -> Record:
    records = encode_records(program)
    proof = merkle_proof(Kind.PROGRAM, [leaf(Kind.PROGRAM, record) for record in records], index)
    return Record(records[index], tuple(proof))


def plain_root(tensor: Tensor) -> bytes:
    data = tensor_bytes(tensor)
    return seal(
        Kind.TENSOR, DTYPE_NUMBERS[tensor.dtype], len(data), merkle_root(Kind.TENSOR, chunk_leaves(Kind.TENSOR, data))
    )


def plain_state_root(tensors: Sequence[Tensor]) -> bytes:
    merkle = merkle_root(Kind.STATE, [leaf(Kind.STATE, plain_root(one)) for one in tensors])
    return seal(Kind.STATE, 0, len(tensors), merkle)


def plain_inputs(tensors: Sequence[Tensor], states: int) -> list[bytes]:
    """Leaves of the tree over the states that a merge takes."""
    each = [tensors[at : at + states] for at in range(0, len(tensors), states)]
    return [leaf(Kind.INPUTS, plain_state_root(state)) for state in each]


def plain_inputs_root(tensors: Sequence[Tensor], states: int) -> bytes:
    leaves = plain_inputs(tensors, states)
    return seal(Kind.INPUTS, 0, len(leaves), merkle_root(Kind.INPUTS, leaves))


def bump(element: int) -> Callable[[Tensor], None]:
    """Changes one bit of one element, its lowest one."""

    def change(tensor: Tensor) -> None:
        flat = tensor.reshape(-1).view(torch.uint8)
        flat[element * tensor.element_size()] ^= 1

    return change
