from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.amounts import format_tokens, parse_tokens
from ledger.errors import UsageError


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        ("1.5", 15 * 10**17),
        ("0", 0),
        ("0.1", 10**17),
        ("0.000000000000000001", 1),
        ("1.5000000000000000000000", 15 * 10**17),
        (" 2 ", 2 * 10**18),
        (3, 3 * 10**18),
        (Decimal("0.3"), 3 * 10**17),
        (Decimal("1E+2"), 10**20),
        ("79228162514.264337593543950335", 2**96 - 1),
    ],
)
def test_parse_tokens_is_exact(text: object, wei: int) -> None:
    assert parse_tokens(text) == wei


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "1,5", ".5", "5.", "0x10", "nan", "\u0661", 0.1, True, None, Decimal("NaN")]
)
def test_parse_tokens_refuses_other_forms(text: object) -> None:
    with pytest.raises(UsageError) as caught:
        parse_tokens(text, what="The bond")
    assert caught.value.problem.startswith("The bond is")
    assert caught.value.exit_code == 2


def test_parse_tokens_too_many_places_counts_them() -> None:
    with pytest.raises(UsageError, match="19 decimal places"):
        parse_tokens("0.0000000000000000001")


@given(st.integers(0, 2**128))
def test_format_tokens_round_trips(wei: int) -> None:
    text = format_tokens(wei)
    assert parse_tokens(text) == wei
    assert format_tokens(-wei) == (f"-{text}" if wei else text)


def test_format_tokens_has_no_needless_zero() -> None:
    assert format_tokens(15 * 10**17) == "1.5"
    assert format_tokens(10**18) == "1"
