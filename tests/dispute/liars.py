"""False work: one wrong thing planted in one run of a segment, in every kind of place that a run has."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from plain_truth import BLOCK, Lies, PlainRun, bump

from trainer.dispute.values import Subject


@dataclass(frozen=True)
class Plant:
    """A lie with a name that says what is wrong where."""

    name: str
    lies: Lies


def plants(run: PlainRun, rng: random.Random) -> Iterator[Plant]:
    """Lies of every kind in the values of a true run. All of them end in another state than the true one."""
    # Whatever else is wrong, the state is too: otherwise nothing false would be submitted.
    false_state = {run.states - 1: bump(0)}
    for number, one in enumerate(run.program.operations):
        subject, name = Subject(False, number), f"{one.code.name.lower()} {number}"
        for element in sorted({0, one.elements - 1, rng.randrange(one.elements)}):
            yield Plant(f"{name} element {element} spreads", Lies(outputs={number: bump(element)}, states=false_state))
            yield Plant(f"{name} element {element} alone", Lies(shown={number: bump(element)}, states=false_state))
        yield from _tensor_plants(run, subject, name, false_state)
        if one.fold > BLOCK:
            yield from _fold_plants(number, rng.randrange(one.elements), one.fold, name, false_state)
    for number, state in enumerate(run.program.states):
        subject, name = Subject(True, number), f"state {state.name}"
        last = run.tensor_layout(subject).size // run.tensor_layout(subject).width - 1
        for element in sorted({0, last, rng.randint(0, last)}):
            yield Plant(f"{name} element {element}", Lies(states={number: bump(element)}))
        yield from _tensor_plants(run, subject, name, {})
    yield Plant("pad of the trace", Lies(pads=frozenset({"trace"}), states=false_state))
    yield Plant("pad of the state", Lies(pads=frozenset({"state"})))


def _tensor_plants(run: PlainRun, subject: Subject, name: str, states: dict[int, object]) -> Iterator[Plant]:
    """A root of nothing, dirty bytes after the tensor's end, a dirty leaf after the tree's."""
    layout = run.tensor_layout(subject)
    yield Plant(f"{name} root", Lies(roots={subject: b"no tensor has this root".ljust(32)}, states=states))
    if layout.size % 1024:

        def dirty(chunk: bytearray) -> None:
            chunk[-1] = 1

        yield Plant(f"{name} padding", Lies(chunks={(subject, layout.chunks - 1): dirty}, states=states))
    if layout.chunks & (layout.chunks - 1):
        yield Plant(f"{name} pad", Lies(pads=frozenset({subject}), states=states))


def _fold_plants(number: int, element: int, length: int, name: str, false_state: dict[int, object]) -> Iterator[Plant]:
    blocks = -(-length // BLOCK)
    wrong = {"shown": {number: bump(element)}, "states": false_state}
    # The first, the last, and one that is right again at the end.
    for label, at in (
        ("from block 1", range(1, blocks + 1)),
        (f"from block {blocks}", range(blocks, blocks + 1)),
        ("but at its end", range(1, blocks)),
    ):
        yield Plant(f"{name} fold wrong {label}", Lies(folds={(number, element): at}, **wrong))
