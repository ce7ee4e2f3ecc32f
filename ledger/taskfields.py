"""What task files of all kinds are read with: the file, and its fields one by one.

Amounts are tokens, exact decimals. A field that is unknown, missing or wrong is named.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ledger.amounts import UINT96_MAX, format_tokens, parse_tokens
from ledger.errors import SpecificationError, UsageError
from ledger.toml import parse_toml

MAXIMUM_PERIOD = 365 * 24 * 3600  # seconds; TaskRules.sol has the same
UINT32_MAX = 2**32 - 1
_MISSING = object()


@dataclass(frozen=True)
class Field:
    """How a field is read, given its value and its dotted name; and what it is where it is left out."""

    read: Callable[[object, str], Any]
    default: Any = _MISSING


def read_document(path: Path) -> Mapping[str, Any]:
    """The TOML of a task file.

    Raises:
        SpecificationError: it is missing, not to be read or not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecificationError(
            f"The task file {path} does not exist.", remedy="examples/ has some to start from."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecificationError(
            f"The task file {path} cannot be read: {error}.", remedy="Name a TOML file; examples/ has some."
        ) from error
    try:
        return parse_toml(text)
    except ValueError as error:
        raise SpecificationError(
            f"The task file {path} is not valid TOML: {error}.", remedy="Correct it there; examples/ shows the form."
        ) from error


def read_field(table: Mapping[str, Any], name: str, field: Field) -> Any:
    """One field by its dotted name. Raises SpecificationError where it is missing or wrong."""
    key = name.rpartition(".")[2]
    if key in table:
        return field.read(table[key], name)
    if field.default is _MISSING:
        raise SpecificationError(f"The task file lacks {name}.", field=name, remedy="Add it; examples/ shows how.")
    return field.default


def read_section(
    document: Mapping[str, Any], name: str, fields: Mapping[str, Field], *, optional: bool
) -> dict[str, Any]:
    """The values of a section by the fields' names; an optional section that is not there has its defaults.

    Raises:
        SpecificationError: it is not there, or a field is unknown, missing or wrong.
    """
    table = read_table(document, name, optional=optional)
    refuse_unknown(table, list(fields), prefix=f"{name}.")
    return {key: read_field(table, f"{name}.{key}", field) for key, field in fields.items()}


def read_table(document: Mapping[str, Any], name: str, *, optional: bool = False) -> Mapping[str, Any]:
    """A section as it stands there. Raises SpecificationError where there is none."""
    table = document.get(name, {} if optional else None)
    if table is None:
        raise SpecificationError(f"The task file lacks the section [{name}].", field=name, remedy="Add it.")
    if not isinstance(table, Mapping):
        raise SpecificationError(f"{name} is {table!r}, which is not a section.", field=name)
    return table


def refuse_unknown(table: Mapping[str, Any], known: list[str], *, prefix: str) -> None:
    """Raises SpecificationError for the first field that is not known, with the one that may be meant."""
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            remedy = f"Did you mean {prefix}{close[0]}?" if close else f"Known here: {', '.join(known)}."
            raise SpecificationError(
                f"The task file has an unknown field {prefix}{key}.", field=prefix + key, remedy=remedy
            )


def plain(value: Any, name: str) -> Any:
    """Turns decimals into floats all the way down; amounts never pass through here."""
    if isinstance(value, Decimal):
        number = float(value)
        if not math.isfinite(number):
            raise SpecificationError(f"{name} is {value}, which is not a finite number.", field=name)
        return number
    if isinstance(value, Mapping):
        return {key: plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
    return value


def contradiction(field: str, problem: str) -> SpecificationError:
    """What to raise where two fields do not go together."""
    return SpecificationError(f"{field} is {problem}.", field=field, remedy="Change one of the two.")


def whole(least: int, most: int) -> Callable[[object, str], int]:
    """Reads a whole number."""

    def read(value: object, name: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise SpecificationError(
                f"{name} is {shown(value)}, which is not a whole number from {least} to {most}.", field=name
            )
        return value

    return read


def amount(*, positive: bool) -> Callable[[object, str], int]:
    """Reads a number of tokens as wei."""

    def read(value: object, name: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            raise SpecificationError(f"{name} is {shown(value)}, which is not a number of tokens.", field=name)
        try:
            wei = parse_tokens(value, what=name)
        except UsageError as error:
            raise SpecificationError(error.problem, field=name, remedy=error.remedy) from None
        if wei > UINT96_MAX or (positive and wei == 0):
            least = "more than 0" if positive else "0"
            raise SpecificationError(
                f"{name} is {value}; it must be {least} and at most {format_tokens(UINT96_MAX)} tokens.", field=name
            )
        return wei

    return read


def read_loss(value: object, name: str) -> float:
    """Reads a loss, or a difference of two."""
    number = Decimal(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else Decimal("nan")
    if number.is_nan() or not 0 <= number < 10**6:
        raise SpecificationError(f"{name} is {shown(value)}, which is not a loss from 0 to 1000000.", field=name)
    return float(number)


def read_title(value: object, name: str) -> str:
    """Reads a title: 1 to 200 characters."""
    return check_text(value, name, limit=200, empty=False)


def read_description(value: object, name: str) -> str:
    """Reads a description: at most 10,000 characters."""
    return check_text(value, name, limit=10_000, empty=True)


def check_text(value: object, name: str, *, limit: int, empty: bool) -> str:
    """A text for people: at most `limit` characters, and nothing that could steer a terminal."""
    if not isinstance(value, str) or (not empty and not value.strip()):
        raise SpecificationError(f"{name} is {value!r}, which is not a text.", field=name)
    if len(value) > limit:
        raise SpecificationError(f"{name} has {len(value)} characters; {limit} are allowed.", field=name)
    if any(not (character.isprintable() or character in "\n\t") for character in value):
        raise SpecificationError(f"{name} holds control characters.", field=name, remedy="Remove them.")
    return value


def shown(value: object) -> str:
    """A value as users wrote it."""
    return str(value) if isinstance(value, Decimal) else repr(value)
