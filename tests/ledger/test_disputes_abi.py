from __future__ import annotations

from typing import Any, get_args

import pytest
from dispute_positions import abi_shape
from eth_utils.abi import collapse_if_tuple

from ledger.compile import Artifact
from ledger.disputes.abi import AbiRecord, abi_types
from ledger.disputes.moves import Move, Opening
from ledger.disputes.positions import Position

MOVES: tuple[type[AbiRecord], ...] = get_args(Move)


def entries(artifacts: dict[str, Artifact], kind: str) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in artifacts["IDisputeGame"].abi if entry["type"] == kind}


def shape(items: list[dict[str, Any]]) -> Any:
    """Names and nested names of ABI parameters."""
    return [(item["name"], shape(item["components"]) if "components" in item else None) for item in items]


def test_moves_are_all_functions_that_take_a_position(artifacts: dict[str, Artifact]) -> None:
    functions = entries(artifacts, "function")
    taking = {
        name for name, entry in functions.items() if entry["inputs"][:1] and entry["inputs"][0]["name"] == "position"
    }
    assert {move.function for move in MOVES} == taking  # type: ignore[attr-defined]  # every move has one


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_moves_have_their_functions_arguments(move: Any, artifacts: dict[str, Artifact]) -> None:
    inputs = entries(artifacts, "function")[move.function]["inputs"]
    assert tuple(collapse_if_tuple(item) for item in inputs) == (Position.abi_type(), *abi_types(move))
    assert shape(inputs)[0] == ("position", abi_shape(Position))
    assert shape(inputs)[1:] == abi_shape(move)


def test_opening_has_its_functions_arguments(artifacts: dict[str, Artifact]) -> None:
    opening, points = entries(artifacts, "function")["open"]["inputs"]
    assert collapse_if_tuple(opening) == Opening.abi_type()
    assert shape([opening]) == [("opening", abi_shape(Opening))]
    assert points["type"] == "bytes32[]"
