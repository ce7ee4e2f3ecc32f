"""Task files (TOML, what a requester writes) and task specifications (canonical JSON, what the chain commits to).

docs/formats.md §4 has the specification. The sections [data], [program] and [merge] of a task file are passed on as
they are: their meaning belongs to the trainer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ledger.canonical import canonical_json, parse_json_strict, parse_root, root_hex
from ledger.errors import SpecificationError
from ledger.taskfile import TaskFile, check_text, load_task_file
from ledger.types import TaskParameters

__all__ = ["SPECIFICATION_FORMAT", "TaskFile", "TaskSpecification", "load_task_file"]

SPECIFICATION_FORMAT = "trainledger/task/2"
_HASH_DOMAIN = b"trainledger/specification/1\x00"
_TEXTS = {"title": 200, "description": 10_000}
_ROOTS = ("program", "dataset", "initial_state")
_NUMBERS = ("rounds", "slots_per_round", "steps_per_round")
_FIELDS = ("format", *_TEXTS, *_ROOTS, *_NUMBERS)


@dataclass(frozen=True, kw_only=True)
class TaskSpecification:
    """What a task is about, apart from money: three roots and three counts, with a title for people.

    `program`, `dataset` and `initial_state` are 32-byte roots. Values are checked when an instance is made.

    Raises:
        SpecificationError: a text too long or with control characters, a bad root, a count outside 1 … 2^32 - 1.
    """

    title: str
    description: str
    program: bytes
    dataset: bytes
    initial_state: bytes
    rounds: int
    slots_per_round: int = 1
    steps_per_round: int

    def __post_init__(self) -> None:
        for name, limit in _TEXTS.items():
            check_text(getattr(self, name), name, limit=limit, empty=name == "description")
        for name in _ROOTS:
            root = getattr(self, name)
            if not isinstance(root, bytes) or len(root) != 32 or not any(root):
                raise SpecificationError(f"{name} is not a root of 32 bytes other than zero.", field=name)
        for name in _NUMBERS:
            number = getattr(self, name)
            if type(number) is not int or not 1 <= number < 2**32:
                raise SpecificationError(
                    f"{name} is {number!r}, which is not a whole number from 1 to {2**32 - 1}.", field=name
                )

    def to_bytes(self) -> bytes:
        """The canonical JSON, as it is stored and hashed."""
        return canonical_json(
            {
                "format": SPECIFICATION_FORMAT,
                "title": self.title,
                "description": self.description,
                **{name: root_hex(getattr(self, name)) for name in _ROOTS},
                **{name: getattr(self, name) for name in _NUMBERS},
            }
        )

    def hash(self) -> bytes:
        """The 32 bytes that stand on chain as `specificationHash`."""
        return hashlib.sha256(_HASH_DOMAIN + self.to_bytes()).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> TaskSpecification:
        """Reads what `to_bytes` wrote, and nothing else.

        Raises:
            SpecificationError: not JSON, an unknown or missing field, a wrong value, or bytes that are not canonical.
        """
        document = parse_json_strict(data, "The specification")
        values = _specification_fields(document)
        specification = cls(**values)
        if specification.to_bytes() != data:
            raise SpecificationError("The specification is not in canonical form.", remedy="Fetch it again.")
        return specification

    def check_against(self, parameters: TaskParameters) -> None:
        """Compares every root and number with the chain's.

        Raises:
            SpecificationError: names the first field that differs, with both values.
        """
        pairs: tuple[tuple[str, bytes | int, bytes | int], ...] = (
            ("specification hash", self.hash(), parameters.specification_hash),
            ("program", self.program, parameters.program_root),
            ("dataset", self.dataset, parameters.dataset_root),
            ("initial_state", self.initial_state, parameters.initial_state_root),
            ("rounds", self.rounds, parameters.rounds),
            ("slots_per_round", self.slots_per_round, parameters.slots_per_round),
            ("steps_per_round", self.steps_per_round, parameters.steps_per_round),
        )
        for name, here, there in pairs:
            if here != there:
                raise SpecificationError(
                    f"The specification says {name} = {_shown(here)}, but the task on chain has {_shown(there)}.",
                    field=name,
                    remedy="Do not work on this task.",
                )


def _specification_fields(document: Any) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise SpecificationError("The specification is not a JSON object.")
    for name in document:
        if name not in _FIELDS:
            raise SpecificationError(f"The specification has an unknown field {name!r}.", field=name)
    for name in _FIELDS:
        if name not in document:
            raise SpecificationError(f"The specification lacks the field {name!r}.", field=name)
    if document["format"] != SPECIFICATION_FORMAT:
        raise SpecificationError(
            f"format is {document['format']!r}; this version reads {SPECIFICATION_FORMAT!r}.",
            field="format",
            remedy="Use a version of trainledger that knows this format.",
        )
    values: dict[str, Any] = {name: document[name] for name in (*_TEXTS, *_NUMBERS)}
    return values | {name: parse_root(document[name], name) for name in _ROOTS}


def _shown(value: bytes | int) -> str:
    return root_hex(value) if isinstance(value, bytes) else str(value)
