"""Canonical JSON (RFC 8785) out, strict JSON in, and roots as text (docs/formats.md §4 and conventions)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import rfc8785

from ledger.errors import SpecificationError

__all__ = ["JSON", "canonical_json", "nesting_depth", "parse_json_strict", "parse_root", "root_hex"]

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]

# Far beyond any of our documents. The interpreter's own guard is no help: with the recursion limit raised, as some
# libraries do, a file of brackets overflows the C stack and kills the process.
MAXIMUM_DEPTH = 64
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_ROOT = re.compile(r"0x[0-9a-f]{64}")


def canonical_json(value: JSON) -> bytes:
    """Encodes `value` as RFC 8785 asks: sorted keys, no spaces, shortest numbers, UTF-8.

    Raises:
        SpecificationError: the value holds NaN, an infinity, an integer beyond 2**53 or a lone surrogate, none of
            which JSON can carry exactly.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise SpecificationError(
            f"A value cannot be written as canonical JSON: {error}.",
            remedy="Use finite numbers, whole numbers within 2^53 and valid Unicode text.",
        ) from error


def parse_json_strict(data: bytes, what: str) -> Any:
    """Parses JSON, refusing what two readers could understand differently.

    Args:
        data: UTF-8 without a byte-order mark.
        what: names the document in errors, for example "The specification 0x12…".

    Raises:
        SpecificationError: not UTF-8, not JSON, a duplicate key, NaN, an infinity, or nesting too deep to read.
    """
    if nesting_depth(data) > MAXIMUM_DEPTH:
        raise SpecificationError(f"{what} is not valid JSON for us: it is nested more than {MAXIMUM_DEPTH} deep.")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise SpecificationError(f"{what} is not UTF-8 text (byte {error.start}).") from error
    except ValueError as error:
        raise SpecificationError(f"{what} is not valid JSON: {error}.") from error


def nesting_depth(data: bytes) -> int:
    """How deep arrays and objects are nested; for invalid JSON, at least as deep as a parser gets before it fails.

    Linear in time for any input: a text without an end counts as one that reaches to the end of the document.
    """
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        first = match[0][:1]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is out of range")
    return value


def root_hex(root: bytes) -> str:
    """The text form of a 32-byte root: 0x and 64 lower-case hexadecimal digits."""
    if len(root) != 32:
        raise ValueError(f"a root has 32 bytes, not {len(root)}")
    return "0x" + root.hex()


def parse_root(text: object, field: str) -> bytes:
    """Reads a root as `root_hex` writes it.

    Raises:
        SpecificationError: not 0x and 64 lower-case hexadecimal digits, or the zero root, which no data has.
    """
    if not isinstance(text, str) or _ROOT.fullmatch(text) is None:
        raise SpecificationError(
            f"{field} is {text!r}, which is not a root.",
            field=field,
            remedy="A root is 0x followed by 64 lower-case hexadecimal digits.",
        )
    root = bytes.fromhex(text[2:])
    if not any(root):
        raise SpecificationError(f"{field} is the zero root, which no data has.", field=field)
    return root
