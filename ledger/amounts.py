"""Token amounts as people write them, exactly: decimal text to integer wei and back, without any float."""

from __future__ import annotations

import re
from decimal import Decimal

from ledger.errors import UsageError

__all__ = ["DECIMALS", "UINT96_MAX", "format_tokens", "parse_tokens"]

DECIMALS = 18
UINT96_MAX = 2**96 - 1
# 59 digits before the point: with 18 after it, the largest amount still fits into 256 bits.
_PLAIN = re.compile(r"([0-9]{1,59})(?:\.([0-9]{1,60}))?")


def parse_tokens(value: object, *, what: str = "The amount") -> int:
    """Reads an amount of tokens ("1.5", 2, Decimal("0.25")) as wei.

    Floats are refused: their nearest binary value is rarely what was meant.

    Raises:
        UsageError: not a plain decimal number, negative, or with more than 18 places.
    """
    text = format(value, "f") if isinstance(value, Decimal) and value.is_finite() else str(value)
    match = _PLAIN.fullmatch(text.strip())
    if match is None or isinstance(value, bool | float):
        raise UsageError(f"{what} is {text!r}, which is not a number of tokens.", remedy='Write it like "1.5".')
    fraction = (match[2] or "").rstrip("0")
    if len(fraction) > DECIMALS:
        raise UsageError(
            f"{what} is {text}, which has {len(fraction)} decimal places; a token has {DECIMALS}.",
            remedy=f"Round it to {DECIMALS} places.",
        )
    return int(match[1] + fraction.ljust(DECIMALS, "0"))


def format_tokens(wei: int) -> str:
    """Writes wei as tokens with no digit lost and no needless zero: 1500000000000000000 is "1.5"."""
    whole, rest = divmod(abs(wei), 10**DECIMALS)
    fraction = f"{rest:0{DECIMALS}d}".rstrip("0")
    return ("-" if wei < 0 else "") + str(whole) + (f".{fraction}" if fraction else "")
