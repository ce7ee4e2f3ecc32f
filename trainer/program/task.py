"""What a task's program root commits to: exact programs that share a state, a seed, and a description for people.

docs/programs.md, "A task's programs". Nothing here reads or writes files: `trainer.materials` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ledger.errors import SpecificationError
from trainer.commit.hashing import Kind, bytes_root, leaf, merkle_root, seal
from trainer.engine.exact.kernels import Instruction, Kernel, Op
from trainer.program.exact import BuiltProgram, DType, Part, Program, Role, program_root
from trainer.program.exact.operations import Batch, ConstantTensor, Load, Pointwise
from trainer.program.fields import Fields
from trainer.program.layout import (
    DIVERGED,
    HELDOUT_LOSS,
    LENGTH,
    POSITION,
    SEED,
    STEP,
    TEMPERATURE,
    TOKENS,
    TOP_K,
    StateLayout,
)

FORMAT = "trainledger/program/3"
MAXIMUM_SEED = 2**53 - 1  # the largest integer that canonical JSON can hold
MAXIMUM_MANIFEST_BYTES = 65_536
MAXIMUM_CONSTANT_BYTES = 2**28  # of all constants of a task's programs together

_MAGIC = b"TLXT\x00\x02\x00\x00"
_SEAL_TYPE = 2  # single programs have 1
_NO_ROOT = bytes(32)
_Tensor = tuple[str, DType, tuple[int, ...]]
_HEAD: tuple[_Tensor, ...] = ((HELDOUT_LOSS, DType.FLOAT32, (1,)), (STEP, DType.INT64, (1,)))
_STEP = 1  # its place there
# What follows the window of a text.
_TEXT: tuple[_Tensor, ...] = (
    (LENGTH, DType.INT64, (1,)),
    (SEED, DType.INT64, (1,)),
    (POSITION, DType.INT64, (1,)),
    (TEMPERATURE, DType.FLOAT32, (1,)),
    (TOP_K, DType.INT64, (1,)),
    (DIVERGED, DType.INT64, (1,)),
)
_ONE_MORE = Kernel(1, (Instruction(Op.INPUT), Instruction(Op.CONST, word=1), Instruction(Op.IADD, 0, 1)))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The small file that names a task's programs.

    Attributes:
        seed: of the batches. training, evaluation, generation, merge: program roots; without a generation program, a
            task's checkpoints write no text, and without a merge program its rounds have one slot.
        description: what the programs were traced from, as JSON values; for people and exports, decides nothing.
    """

    seed: int
    training: bytes
    evaluation: bytes
    generation: bytes | None
    merge: bytes | None = None
    description: Mapping[str, Any]

    @property
    def records(self) -> tuple[bytes, ...]:
        """The six records that the root commits to: seed, three programs' roots, the description's, the merge's."""
        from ledger.canonical import canonical_json  # here, so that the engine needs no JSON package

        described = bytes_root(Kind.PROGRAM, 0, canonical_json(dict(self.description)))
        seed = _MAGIC + self.seed.to_bytes(8, "big")
        generation, merge = self.generation or _NO_ROOT, self.merge or _NO_ROOT
        return (seed, self.training, self.evaluation, generation, described, merge)

    @property
    def root(self) -> bytes:
        """The program root of a task, 32 bytes."""
        records = self.records
        merkle = merkle_root(Kind.PROGRAM, [leaf(Kind.PROGRAM, record) for record in records])
        return seal(Kind.PROGRAM, _SEAL_TYPE, len(records), merkle)

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        from ledger.canonical import canonical_json, root_hex  # see records

        return canonical_json(
            {
                "format": FORMAT,
                "seed": self.seed,
                "training": root_hex(self.training),
                "evaluation": root_hex(self.evaluation),
                "generation": None if self.generation is None else root_hex(self.generation),
                "merge": None if self.merge is None else root_hex(self.merge),
                "description": dict(self.description),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Reads what `to_bytes` wrote, and nothing else.

        Raises:
            SpecificationError: too long, not JSON, a wrong field, or bytes that are not canonical.
        """
        from ledger.canonical import parse_json_strict, parse_root  # see records

        if len(data) > MAXIMUM_MANIFEST_BYTES:
            raise SpecificationError(f"The program has {len(data)} bytes; at most {MAXIMUM_MANIFEST_BYTES} are read.")
        fields = Fields(parse_json_strict(data, "The program"), "")
        fields.take_choice("format", [FORMAT])
        generation, merge = fields.take("generation"), fields.take("merge")
        manifest = cls(
            seed=fields.take_int("seed", 0, MAXIMUM_SEED),
            training=parse_root(fields.take("training"), "training"),
            evaluation=parse_root(fields.take("evaluation"), "evaluation"),
            generation=None if generation is None else parse_root(generation, "generation"),
            merge=None if merge is None else parse_root(merge, "merge"),
            description=_table(fields.take("description")),
        )
        fields.done()
        if manifest.to_bytes() != data:
            raise SpecificationError(
                "The program's file is not in canonical form.",
                remedy="Write it with Manifest.to_bytes (RFC 8785: sorted keys, no spaces, shortest numbers).",
            )
        return manifest


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskProgram:
    """A task's programs with the data of their constants, checked as a whole when an instance is made.

    Each single program is checked before (`load_program`, `check_constants`); here it is checked that they belong
    together.

    Raises:
        SpecificationError: programs in the wrong place, or over states that differ.
    """

    seed: int
    training: BuiltProgram
    evaluation: BuiltProgram
    generation: BuiltProgram | None
    merge: BuiltProgram | None = None
    description: Mapping[str, Any]

    def __post_init__(self) -> None:
        training = self.training.program
        check_training(training)
        check_companion(training, self.evaluation.program, Role.EVALUATE, merged=self.merge is not None)
        if self.generation is not None:
            check_companion(training, self.generation.program, Role.GENERATE)
        if self.merge is not None:
            check_merge(training, self.merge.program)

    @property
    def programs(self) -> tuple[BuiltProgram, ...]:
        """All that there are, training first."""
        found = (self.training, self.evaluation, self.generation, self.merge)
        return tuple(one for one in found if one is not None)

    @property
    def slots(self) -> int:
        """Training slots of a round: 1, or as many as the merge program takes."""
        return 1 if self.merge is None else self.merge.program.inputs

    @cached_property
    def manifest(self) -> Manifest:
        """What names them."""
        return Manifest(
            seed=self.seed,
            training=program_root(self.training.program),
            evaluation=program_root(self.evaluation.program),
            generation=None if self.generation is None else program_root(self.generation.program),
            merge=None if self.merge is None else program_root(self.merge.program),
            description=self.description,
        )

    @cached_property
    def root(self) -> bytes:
        """The program root of a task, 32 bytes."""
        return self.manifest.root

    @cached_property
    def layout(self) -> StateLayout:
        """The tensors of the task's states."""
        return StateLayout.of(self.training.program)

    @cached_property
    def tokens_per_step(self) -> int:
        """Training tokens that a step reads: each of them once as an input, whatever else it is read as."""
        return max((samples * length for _, samples, length, _ in batches_of(self.training.program)), default=0)


def batches_of(program: Program) -> list[tuple[Part, int, int, int]]:
    """Every BATCH of a program: part, samples, length in tokens, shift."""
    return [
        (one.attributes.part, one.shape[0], one.shape[1], one.attributes.shift)
        for one in program.operations
        if isinstance(one.attributes, Batch)
    ]


def check_training(program: Program) -> None:
    """Checks that a program is one to train with: its role, the tensors that every state begins with, and that it
    counts its steps one by one, because training that is taken up again learns from the state how far it has come.

    Raises:
        SpecificationError: it is not.
    """
    _check_role(program, Role.TRAIN)
    found = tuple((one.name, one.dtype, one.shape) for one in program.states[: len(_HEAD)])
    if found != _HEAD:
        raise SpecificationError(
            f"The training program's states begin with {_names(found)}, and not with {_names(_HEAD)}.",
            field="training",
            remedy="Nothing could be paid for such states: leave the task alone.",
        )
    if not _counts(program):
        raise SpecificationError(
            f"The training program does not add one to {STEP}.",
            field="training",
            remedy="Nobody could tell how far a state has come: leave the task alone.",
        )


def check_companion(training: Program, program: Program, role: Role, *, merged: bool = False) -> None:
    """Checks that a program works on the training program's states, and changes of them what its role may change.

    An evaluation program changes the held-out loss alone; in a task with a merge program (`merged`) everything but the
    counter of steps. A generation program changes nothing of them; the tensors of a text follow there
    (docs/generation.md).

    Raises:
        SpecificationError: it is of another role, over other states, or changes them.
    """
    _check_role(program, role)
    name = _field(role)
    shared = [(one.name, one.dtype, one.shape) for one in training.states]
    found = [(one.name, one.dtype, one.shape) for one in program.states]
    if found[: len(shared)] != shared or (role is Role.EVALUATE and len(found) > len(shared)):
        raise SpecificationError(
            f"The {name} program is over other states than the training program.",
            field=name,
            remedy="Trace both from the same model and optimizer.",
        )
    if role is Role.GENERATE and not _is_text(found[len(shared) :]):
        raise SpecificationError(
            f"The generation program's own tensors are {_names(found[len(shared) :])}, and not those of a text.",
            field=name,
            remedy="Trace it with trace_generation, or leave it out.",
        )
    for one in program.states[: len(shared)]:
        free = role is Role.EVALUATE and (one.name == HELDOUT_LOSS or (merged and one.name != STEP))
        if one.source is not None and not free:
            raise SpecificationError(
                f"The {name} program changes {one.name}.",
                field=name,
                remedy="Only training and merges count steps." if merged else "Only training may change the model.",
            )


def check_merge(training: Program, program: Program) -> None:
    """Checks that a program makes one state of several of the training program's, and says how far that has come.

    Raises:
        SpecificationError: it is of another role, over other states, or leaves the counter of steps as it is.
    """
    _check_role(program, Role.MERGE)
    if [(one.name, one.dtype, one.shape) for one in program.states] != [
        (one.name, one.dtype, one.shape) for one in training.states
    ]:
        raise SpecificationError(
            "The merge program is over other states than the training program.",
            field="merge",
            remedy="Make both from the same model and optimizer.",
        )
    if program.states[_STEP].source is None:
        raise SpecificationError(
            f"The merge program leaves {STEP} unchanged.",
            field="merge",
            remedy="Nobody could tell how far a merged state has come: leave the task alone.",
        )


def constants_of(program: Program, limit: int = MAXIMUM_CONSTANT_BYTES) -> tuple[ConstantTensor, ...]:
    """A program's constants, once it is sure that their data are no more than `limit` bytes.

    Raises:
        SpecificationError: they are more.
    """
    size = sum(math.prod(one.shape) * one.dtype.size for one in program.constants)
    if size > limit:
        raise SpecificationError(f"The program's constants have {size} bytes; at most {limit} are read.")
    return program.constants


def _counts(program: Program) -> bool:
    """Whether the next counter is the operation that adds one to the counter's LOAD."""
    source = program.states[_STEP].source
    one = None if source is None else program.operations[source]
    if one is None or not isinstance(one.attributes, Pointwise) or one.attributes.kernel != _ONE_MORE:
        return False
    read = program.operations[one.operands[0].source].attributes
    return isinstance(read, Load) and read.index == _STEP


def _check_role(program: Program, role: Role) -> None:
    if program.role is not role:
        raise SpecificationError(
            f"The {_field(role)} program has the role {program.role.name.lower()}.", field=_field(role)
        )


def _field(role: Role) -> str:
    names = {Role.TRAIN: "training", Role.EVALUATE: "evaluation", Role.GENERATE: "generation", Role.MERGE: "merge"}
    return names[role]


def _is_text(tensors: Sequence[_Tensor]) -> bool:
    window = tensors[0][2] if tensors else ()
    return len(window) == 1 and list(tensors) == [(TOKENS, DType.INT64, window), *_TEXT]


def _names(tensors: Sequence[_Tensor]) -> str:
    return ", ".join(f"{name} {dtype.name.lower()} {list(shape)}" for name, dtype, shape in tensors) or "nothing"


def _table(value: object) -> dict[str, Any]:
    Fields(value, "description")  # names the fault
    assert isinstance(value, Mapping)
    return dict(value)
