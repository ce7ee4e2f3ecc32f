"""TOML in: one reader for settings and task files, whose numbers and nesting stay within what can be handled."""

from __future__ import annotations

import tomllib
from decimal import Decimal, DecimalException
from typing import Any

__all__ = ["parse_toml"]

# Far beyond any value of ours. Python cannot even print a whole number of more than 4,300 digits, and an exponent of
# nine digits written out fills the memory.
_MOST_BITS = 1024
_MOST_EXPONENT = 400
_MOST_DEPTH = 64


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML; numbers with a point or an exponent become exact decimals.

    Raises:
        ValueError: not TOML, a number beyond all use, or nesting more than 64 deep; says which.
    """
    try:
        document = tomllib.loads(text, parse_float=_decimal)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep") from None
    except ValueError as problem:
        long = "digits" in str(problem)  # Python's own guard against whole numbers without end
        raise ValueError("a whole number in it has too many digits" if long else str(problem)) from None
    _check(document, depth=0)
    return document


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except DecimalException:
        raise ValueError(f"the number {text[:40]} is out of range") from None
    if number.is_finite() and abs(number.adjusted()) > _MOST_EXPONENT:
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _check(value: Any, *, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"a whole number in it has {value.bit_length()} bits")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _check(item, depth=depth + 1)
