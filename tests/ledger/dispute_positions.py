"""Positions made up for tests, by hand and by hypothesis."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any, get_args, get_type_hints

from eth_utils.address import to_checksum_address
from hypothesis import strategies as st

from ledger.disputes.abi import AbiRecord
from ledger.disputes.positions import Folding, Matter, Phase, Position, Run, Subject, View

DEFENDER = to_checksum_address("0x" + "d0" * 20)
CHALLENGER = to_checksum_address("0x" + "c0" * 20)


def word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def position(**changes: Any) -> Position:
    """A game of 101 runs after its opening, with these fields changed."""
    matter = Matter(
        game=7, task=3, round=2, slot=0, attempt=1, steps=100, clock=3600, defender=DEFENDER, challenger=CHALLENGER,
        base=word(1), submitted=word(2), claimed=word(3), task_program=word(4), dataset=word(5),
        merge=False,
    )  # fmt: skip
    fields: dict[str, Any] = {
        "matter": matter,
        "phase": Phase.RUNS,
        "moves": 1,
        "defender_to_move": True,
        "mover_seconds": 3600,
        "waiter_seconds": 3500,
        "since": 1_000,
        "low": 0,
        "high": 101,
        "agreed": word(1),
        "points": tuple(word(100 + number) for number in range(32)),
        "run": Run(
            number=0, state_before=word(0), program=word(0), inputs=0, states=0, constants=0, operations=0, seed=0,
            reached=0, frontier=(),
        ),
        "tree": View(leaves=0, index=0, height=0, width=0, node=word(0)),
        "subject": Subject(of_state=False, number=0, dtype=0, size=0, record=word(0)),
        "fold": Folding(element=0, bits=0, opening=False),
    }  # fmt: skip
    return Position(**(fields | changes))


def run_entered(**changes: Any) -> Run:
    """Run 37, of a program of 830 operations."""
    fields: dict[str, Any] = {
        "number": 37, "state_before": word(9), "program": word(8), "inputs": 0, "states": 12, "constants": 4,
        "operations": 830, "seed": 5, "reached": 0, "frontier": (word(0),) * 10,
    }  # fmt: skip
    return Run(**(fields | changes))


def records(record: type[AbiRecord]) -> st.SearchStrategy[Any]:
    """Any value of a record."""
    assert dataclasses.is_dataclass(record)
    hints = get_type_hints(record, include_extras=True)
    return st.builds(record, **{field.name: _values(hints[field.name]) for field in dataclasses.fields(record)})


def _values(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, AbiRecord):
        return records(kind)
    arguments = get_args(kind)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return st.lists(_values(arguments[0]), max_size=3).map(tuple)
    solidity = str(arguments[1])
    if solidity.startswith("uint"):
        most = 2 ** int(solidity.removeprefix("uint")) - 1
        return st.one_of(st.integers(0, most), st.sampled_from([0, most]))
    if solidity == "address":
        return st.binary(min_size=20, max_size=20).map(lambda raw: to_checksum_address("0x" + raw.hex()))
    if solidity == "bool":
        return st.booleans()
    return st.binary(min_size=32, max_size=32) if solidity == "bytes32" else st.binary(max_size=80)


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def abi_shape(record: Any) -> Any:
    """Solidity's names of a record's fields, and those of the records in it."""
    from typing import get_type_hints

    hints = get_type_hints(record, include_extras=True)
    found = []
    for field in dataclasses.fields(record):
        kind = hints[field.name]
        arguments = get_args(kind)
        inner = arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else kind
        nested = isinstance(inner, type) and issubclass(inner, AbiRecord)
        found.append((camel(field.name), abi_shape(inner) if nested else None))
    return found
