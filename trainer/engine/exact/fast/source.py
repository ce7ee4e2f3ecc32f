"""A program as C: functions for its operations, a table of calls, and the run (docs/fast-path.md).

Nothing of a program gets into the text but numbers that its checks have bounded: no names, no data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from ledger.errors import SpecificationError
from trainer.engine.exact.fast.bodies import Body, body_of, copying, narrowing, widening
from trainer.engine.exact.fast.nests import product
from trainer.engine.exact.fast.plan import Base, Meetings, Place, Plan, make_plan
from trainer.program.exact.operations import Batch, Constant, DType, Load, Program

UNIT_CHARACTERS = 60_000
MOST_CHARACTERS = 16_000_000
MOST_SCRATCH = 2**30
_SOLO_WORK = 60_000
_SOLO, _MEET = 1, 2
_OPENING = "(void)t, (void)n, (void)scratch;\n    const uint32_t zero = opaque_zero();"
_HEAD = "#include <stddef.h>\n#include <stdint.h>\n"


@dataclass(frozen=True)
class Source:
    """What to compile and what a run needs to know of it.

    Attributes:
        key: names what is compiled: a hash of the text. Programs that differ in their constants' data, such as
            learning rates, share it.
        units: C files, each compiled on its own and linked together.
        plan: where everything lies. scratch: bytes that each thread needs.
    """

    key: str
    units: tuple[str, ...]
    plan: Plan
    scratch: int


@dataclass(frozen=True)
class _Call:
    body: Body
    written: Place
    read: tuple[Place, ...]
    addresses: tuple[tuple[int, int], ...]  # the output's, then each operand's first element


def write_source(program: Program, *, keep: bool = False) -> Source:
    """The C of a checked program.

    Args:
        keep: every output stays where it is until the next run, to be read afterwards.

    Raises:
        SpecificationError: the program is too large to be compiled; the reference interpreter runs it.
    """
    plan = make_plan(program, keep=keep)
    calls = list(_calls(program, plan))
    scratch = -(-max([64, *(call.body.scratch for call in calls)]) // 64) * 64
    if scratch > MOST_SCRATCH:
        raise SpecificationError(f"The program's folds need {scratch} bytes a thread; {MOST_SCRATCH} is the most.")
    names: dict[str, str] = {}
    for call in calls:
        names.setdefault(call.body.text, f"tl_f{len(names)}")
    if sum(map(len, names)) > MOST_CHARACTERS:
        raise SpecificationError("The program has too many different operations to be compiled.")
    units = (*_function_units(names), _main_unit(calls, names))
    text = hashlib.sha256("\0".join(units).encode()).hexdigest()
    return Source(text, units, plan, scratch)


def _calls(program: Program, plan: Plan) -> Iterator[_Call]:
    for number, one in enumerate(program.operations):
        out = plan.outputs[number]
        if isinstance(one.attributes, Constant | Batch):
            continue
        if isinstance(one.attributes, Load):
            if one.dtype is not DType.FLOAT32:
                yield _simple(narrowing(one.elements), plan.taken[one.attributes.index], out)
            continue
        body = body_of(one, [program.operations[operand.source].dtype for operand in one.operands])
        read = tuple(plan.outputs[operand.source] for operand in one.operands)
        starts = (
            (place.base, place.offset + operand.offset * program.operations[operand.source].dtype.size)
            for place, operand in zip(read, one.operands, strict=True)
        )
        yield _Call(body, out, read, ((out.base, out.offset), *starts))
    for place, state in zip(plan.states, program.states, strict=True):
        target = Place(Base.NEXT, place.offset, place.size)
        if state.source is not None and plan.outputs[state.source] != target:
            made = widening if state.dtype is DType.INT64 else copying
            yield _simple(made(product(state.shape)), plan.outputs[state.source], target)


def _simple(body: Body, source: Place, target: Place) -> _Call:
    return _Call(body, target, (source,), ((target.base, target.offset), (source.base, source.offset)))


def _native(name: str) -> str:
    return (resources.files("trainer.engine.exact.native") / name).read_text()


def _prototype(name: str) -> str:
    return f"void {name}(int t, int n, char *const *at, char *scratch)"


def _function_units(names: dict[str, str]) -> list[str]:
    head = "".join(map(_native, ("processor.h", "words.h", "product.h", "blocks.h")))
    units, held, size = [head + _native("product.c")], list[str](), 0
    for text, name in names.items():
        function = f"{_prototype(name)}\n{{\n    {_OPENING}\n{text}\n}}\n"
        if held and size + len(function) > UNIT_CHARACTERS:
            units.append(head + "\n".join(held))
            held, size = [], 0
        held.append(function)
        size += len(function)
    return [*units, head + "\n".join(held)]


def _main_unit(calls: Sequence[_Call], names: dict[str, str]) -> str:
    meetings = Meetings()
    places, rows = list[str](), list[str]()
    for call in calls:
        solo = call.body.work < _SOLO_WORK
        meet = meetings.needed(solo, call.written, call.read)
        flags = solo * _SOLO + meet * _MEET
        rows.append(f"    {{{names[call.body.text]}, {len(places)}, {len(call.addresses)}, {flags}}},")
        places += [f"    {{{int(base)}, {at}}}," for base, at in call.addresses]
    return "\n".join(
        [
            _HEAD + _native("threads.c"),
            *(f"{_prototype(name)};" for name in names.values()),
            "struct place { int base; ptrdiff_t offset; };",
            "struct call { void (*function)(int, int, char *const *, char *); size_t first; int count, flags; };",
            # One row more, because C has no empty tables.
            "static const struct place tl_places[] = {",
            *places,
            "    {0, 0}};",
            "static const struct call tl_calls[] = {",
            *rows,
            "    {NULL, 0, 0, 0}};",
            f"static const size_t tl_call_count = {len(calls)};",
            _native("steps.c"),
            _native("start.c"),
        ]
    )
