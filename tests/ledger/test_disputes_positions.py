from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
from dispute_positions import CHALLENGER, DEFENDER, abi_shape, position, records, word
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.disputes import moves, positions
from ledger.disputes.abi import AbiRecord, abi_types
from ledger.disputes.moves import Move
from ledger.disputes.positions import (
    FOLD_POINTS,
    RUN_POINTS,
    Phase,
    Position,
    points_of,
    view_width,
)
from ledger.errors import ChainError

MOVES: tuple[type[AbiRecord], ...] = get_args(Move)
RECORDS = [
    getattr(module, name)
    for module in (moves, positions)
    for name in module.__all__
    if isinstance(getattr(module, name), type) and issubclass(getattr(module, name), AbiRecord)
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_encode_and_from_abi_give_the_same_record(record: type[AbiRecord], data: st.DataObject) -> None:
    value = data.draw(records(record))
    if abi_types(record):  # eth_abi has no name for an empty tuple
        assert record.from_abi(value.encode()) == value
    assert record.from_abi(value.to_abi()) == value
    assert len(abi_types(record)) == len(value.to_abi())


def test_from_abi_takes_what_web3_decodes_by_name() -> None:
    made = position()
    named = dict(zip((name for name, _ in abi_shape(Position)), made.to_abi(), strict=True))
    assert Position.from_abi(named) == made


@pytest.mark.parametrize(
    "broken",
    [b"", b"\0" * 31, position().encode()[:-40], (1, 2), {}, None, 7, (None,) * 15],
    ids=["empty", "short", "cut", "few", "no-names", "none", "number", "nones"],
)
def test_from_abi_broken_position_is_an_error(broken: Any) -> None:
    with pytest.raises(ChainError, match="What should be a Position of a dispute cannot be read"):
        Position.from_abi(broken)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"agreed": b"\1"}, "agreed is b'\\x01', which is not 32 bytes"),
        ({"agreed": "0x" + "11" * 32}, "which is not 32 bytes"),
        ({"points": (word(1), b"")}, "points is b'', which is not 32 bytes"),
        ({"moves": 2**32}, "moves is 4294967296, which is not a whole number of 32 bits"),
        ({"low": -1}, "low is -1, which is not a whole number of 64 bits"),
        ({"high": True}, "high is True"),
    ],
    ids=["short", "text", "list", "large", "negative", "truth"],
)
def test_to_abi_value_of_another_type_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("\\", "\\\\")):
        position(**changes).to_abi()


def test_digest_is_the_hash_of_soliditys_encoding() -> None:
    made = position()
    assert made.digest() == keccak(encode([Position.abi_type()], [made.to_abi()]))
    assert dataclasses.replace(made, moves=2).digest() != made.digest()


def test_position_mover_and_deadline() -> None:
    made = position(since=1000, mover_seconds=50)
    assert made.mover == DEFENDER
    assert dataclasses.replace(made, defender_to_move=False).mover == CHALLENGER
    assert made.deadline(20) == 1050
    assert made.deadline(90) == 1090


def test_position_places_have_as_many_points_as_the_phase_allows() -> None:
    assert position(low=0, high=1000).places == points_of(0, 1000, RUN_POINTS)
    assert position(low=0, high=1000, phase=Phase.FOLD).places == points_of(0, 1000, FOLD_POINTS)


@given(low=st.integers(0, 2**40), length=st.integers(1, 2**40), most=st.sampled_from([RUN_POINTS, FOLD_POINTS]))
def test_points_of_rise_evenly_to_the_end(low: int, length: int, most: int) -> None:
    points = points_of(low, low + length, most)
    assert len(points) == min(most, length)
    assert points[-1] == low + length
    gaps = [after - before for before, after in zip([low, *points], points, strict=False)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


def test_points_of_known_values() -> None:
    assert points_of(0, 101, RUN_POINTS)[:4] == [3, 6, 9, 12]
    assert points_of(5, 8, RUN_POINTS) == [6, 7, 8]
    assert points_of(9, 10, FOLD_POINTS) == [10]


def test_view_width_is_at_most_six_levels() -> None:
    assert [view_width(height) for height in (0, 1, 5, 6, 7, 20)] == [0, 1, 5, 6, 6, 6]
