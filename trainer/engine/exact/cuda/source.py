"""A program as CUDA: kernels, the launches of a run, and where everything lies (docs/fast-path.md, "CUDA").

Nothing of a program gets into the text but numbers that its checks have bounded: no names, no data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from ledger.errors import SpecificationError
from trainer.engine.exact.cuda.bodies import Body, body_of, converting
from trainer.engine.exact.cuda.groups import Group, hidden, members_of, schedule
from trainer.engine.exact.cuda.loops import Piece
from trainer.engine.exact.cuda.rows import rows_of
from trainer.engine.exact.fast.nests import product
from trainer.engine.exact.fast.plan import Base, Place, Plan, make_plan
from trainer.engine.exact.fast.source import MOST_CHARACTERS, MOST_SCRATCH, UNIT_CHARACTERS
from trainer.program.exact.operations import Batch, Constant, DType, Load, Program

_MOST_LAUNCHES = 500_000
_HEAD = ("device.h", "words.h", "folds.cuh", "product.h", "product.cuh")


@dataclass(frozen=True)
class Unit:
    """CUDA C++ that is compiled on its own, and the names of the kernels in it. key: a hash of the text."""

    key: str
    text: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class Launch:
    """One kernel of a run: its name, how many blocks of how many threads, and what it is given.

    Attributes:
        addresses: of the output, each operand's first element and the scratch: a memory, and bytes from its beginning.
        first: a number that the kernel takes.
    """

    kernel: str
    blocks: int
    threads: int
    addresses: tuple[tuple[int, int], ...]
    first: int


@dataclass(frozen=True)
class CudaSource:
    """What to compile, what to launch for a run, one after another, and how much scratch that needs, in bytes."""

    units: tuple[Unit, ...]
    launches: tuple[Launch, ...]
    plan: Plan
    scratch: int


@dataclass(frozen=True)
class _Call:
    body: Body
    addresses: tuple[tuple[int, int], ...]


def write_cuda(program: Program, *, keep: bool = False) -> CudaSource:
    """The CUDA of a checked program.

    Args:
        keep: every output stays where it is until the next run, to be read afterwards.

    Raises:
        SpecificationError: the program is too large to be compiled; the reference interpreter runs it.
    """
    steps = schedule(program)
    inside = set() if keep else hidden(program, steps)
    plan = make_plan(program, keep=keep, steps=[members_of(step) for step in steps], hidden=inside)
    calls = [*_calls(program, plan, steps, inside), *_ending(program, plan)]
    scratch = max([0, *(call.body.scratch for call in calls)])
    if scratch > MOST_SCRATCH:
        raise SpecificationError(f"The program's folds need {scratch} bytes; {MOST_SCRATCH} is the most.")
    names: dict[tuple[str, int], str] = {}
    launches = []
    for call in calls:
        addresses = (*call.addresses, (Base.SCRATCH, 0))
        for one in call.body.pieces:
            name = names.setdefault((one.text, one.threads), f"tl_f{len(names)}")
            launches.append(Launch(name, one.blocks, one.threads, addresses, one.first))
    if sum(len(text) for text, _ in names) > MOST_CHARACTERS or len(launches) > _MOST_LAUNCHES:
        raise SpecificationError("The program has too many different operations to be compiled.")
    return CudaSource(tuple(_units(names)), tuple(launches), plan, scratch)


def _calls(program: Program, plan: Plan, steps: Sequence[Group | int], inside: set[int]) -> Iterator[_Call]:
    operations = program.operations

    def read(number: int, which: int) -> tuple[int, int]:
        operand = operations[number].operands[which]
        place = plan.outputs[operand.source]
        return place.base, place.offset + operand.offset * operations[operand.source].dtype.size

    def written(number: int) -> tuple[int, int]:
        return plan.outputs[number].base, plan.outputs[number].offset

    for step in steps:
        if isinstance(step, Group):
            rows = rows_of(program, step, inside)
            addresses = (*map(written, rows.written), *(read(*one) for one in rows.read))
            yield _Call(Body((rows.piece,)), addresses)
            continue
        one = operations[step]
        if isinstance(one.attributes, Constant | Batch):
            continue
        if isinstance(one.attributes, Load):
            if one.dtype is not DType.FLOAT32:
                state = plan.taken[one.attributes.index]
                yield _converted(one.elements, state, plan.outputs[step], "int64_t", "uint32_t")
            continue
        body = body_of(one, [operations[operand.source].dtype for operand in one.operands])
        yield _Call(body, (written(step), *(read(step, which) for which in range(len(one.operands)))))


def _ending(program: Program, plan: Plan) -> Iterator[_Call]:
    """What of the next state no operation has written where it belongs."""
    for place, state in zip(plan.states, program.states, strict=True):
        target = Place(Base.NEXT, place.offset, place.size)
        if state.source is not None and plan.outputs[state.source] != target:
            types = ("int32_t", "int64_t") if state.dtype is DType.INT64 else ("uint32_t", "uint32_t")
            yield _converted(product(state.shape), plan.outputs[state.source], target, *types)


def _converted(count: int, source: Place, target: Place, source_type: str, target_type: str) -> _Call:
    body = converting(count, source_type, target_type)
    return _Call(body, ((target.base, target.offset), (source.base, source.offset)))


def _function(piece: Piece, name: str) -> str:
    return (
        f'extern "C" __global__ void __launch_bounds__({piece.threads})\n'
        f"{name}(const __grid_constant__ struct tl_given given)\n"
        "{\n    char *const *at = given.at;\n    const uint32_t zero = 0;\n    (void)at, (void)zero;\n"
        f"{piece.text}\n}}\n"
    )


def _units(names: dict[tuple[str, int], str]) -> Iterator[Unit]:
    head = "".join((resources.files("trainer.engine.exact.native") / name).read_text() for name in _HEAD)
    held, kernels, size = list[str](), list[str](), 0
    for (text, threads), name in names.items():
        function = _function(Piece(text, 1, threads), name)
        if held and size + len(function) > UNIT_CHARACTERS:
            yield _unit(head, held, kernels)
            held, kernels, size = [], [], 0
        held.append(function)
        kernels.append(name)
        size += len(function)
    if held:
        yield _unit(head, held, kernels)


def _unit(head: str, functions: Sequence[str], kernels: Sequence[str]) -> Unit:
    text = head + "\n".join(functions)
    return Unit(hashlib.sha256(text.encode()).hexdigest(), text, tuple(kernels))
