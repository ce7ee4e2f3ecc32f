"""Strict reading of mappings: every field named, typed and in range, nothing left over."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ledger.errors import SpecificationError

# Fields that people expect from other trainers, with the reason why they are not here.
_NOT_SUPPORTED = {
    "dropout": "Dropout is not supported in this version: a step's result must follow from the state and batch alone.",
}


class Fields:
    """A cursor over one mapping; `take_*` consumes fields and `done` refuses what is left.

    All methods raise SpecificationError with the dotted field name and the value.
    """

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(path, value, "must be a table of fields")
        self._values: dict[str, Any] = dict(value)
        self._path = path
        self._known: list[str] = []

    def name(self, field: str) -> str:
        """Dotted name of a field of this mapping."""
        return f"{self._path}.{field}" if self._path else field

    def has(self, field: str) -> bool:
        """Whether an optional field was given."""
        self._known.append(field)
        return field in self._values

    def take(self, field: str) -> Any:
        """Any value of a field that must be there."""
        self._known.append(field)
        if field not in self._values:
            name = self.name(field)
            raise SpecificationError(f"{name} is missing.", field=name, remedy=f"Add a value for {name}.")
        return self._values.pop(field)

    def take_int(self, field: str, low: int, high: int) -> int:
        """An integer in [low, high]; booleans are not integers here."""
        value = self.take(field)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(self.name(field), value, "must be a whole number")
        if not low <= value <= high:
            raise _wrong(self.name(field), value, f"must be from {low} to {high}")
        return value

    def take_float(self, field: str, low: float, high: float, *, above: bool = False) -> float:
        """A finite number in [low, high], or in (low, high] with `above`."""
        value = self.take(field)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(self.name(field), value, "must be a number")
        # Compared as it came: a huge integer would overflow the conversion.
        if not low <= value <= high or (above and value == low) or math.isnan(value):
            raise _wrong(
                self.name(field),
                value,
                f"must be {'above' if above else 'from'} {low:g} {'and up to' if above else 'to'} {high:g}",
            )
        return float(value) + 0.0  # -0.0 becomes 0.0, so that equal programs have equal bytes

    def take_bool(self, field: str) -> bool:
        """A boolean."""
        value = self.take(field)
        if not isinstance(value, bool):
            raise _wrong(self.name(field), value, "must be true or false")
        return value

    def take_choice(self, field: str, choices: Sequence[str]) -> str:
        """One of the given strings."""
        value = self.take(field)
        if not isinstance(value, str) or value not in choices:
            nearest = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"Did you mean {nearest[0]!r}?" if nearest else ""
            raise _wrong(self.name(field), value, f"must be one of {', '.join(choices)}", hint)
        return value

    def rest(self) -> dict[str, Any]:
        """All that nobody took yet; it counts as taken."""
        left, self._values = self._values, {}
        return left

    def table(self, field: str) -> Fields:
        """A nested mapping."""
        return Fields(self.take(field), self.name(field))

    def done(self) -> None:
        """Refuse fields that nobody took."""
        for field in self._values:
            name = self.name(str(field))
            if field in _NOT_SUPPORTED:
                raise SpecificationError(
                    f"{name} = {self._values[field]!r} cannot be used.", field=name, remedy=_NOT_SUPPORTED[field]
                )
            nearest = difflib.get_close_matches(str(field), self._known, n=1)
            remedy = f"Did you mean {self.name(nearest[0])}?" if nearest else f"Known: {', '.join(self._known)}."
            raise SpecificationError(f"{name} is not a known field.", field=name, remedy=remedy)


def _wrong(name: str, value: object, rule: str, remedy: str = "") -> SpecificationError:
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    return SpecificationError(f"{name or 'the description'} is {shown} but {rule}.", field=name, remedy=remedy)
