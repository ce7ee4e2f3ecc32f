"""Frozen records as the ABI writes them: Solidity types beside the fields, and the way there and back.

A record is a frozen dataclass whose fields have, in Solidity's order, the aliases below, records, or tuples of either::

    @dataclass(frozen=True, kw_only=True)
    class Pick(AbiRecord):
        place: Uint64
        node: Word
        siblings: tuple[Word, ...]

Names are the Solidity names in snake case. The tests compare all of them with the compiled interfaces.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints

from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError
from eth_utils.address import is_address, to_checksum_address

from ledger.errors import ChainError

__all__ = [
    "AbiRecord",
    "Address",
    "Blob",
    "Flag",
    "Uint8",
    "Uint32",
    "Uint64",
    "Uint256",
    "Word",
    "abi_types",
    "from_plain",
    "to_plain",
]

Uint8 = Annotated[int, "uint8"]
Uint32 = Annotated[int, "uint32"]
Uint64 = Annotated[int, "uint64"]
Uint256 = Annotated[int, "uint256"]
Flag = Annotated[bool, "bool"]
Word = Annotated[bytes, "bytes32"]  # a root or hash: 32 bytes
Blob = Annotated[bytes, "bytes"]
Address = Annotated[str, "address"]  # checksummed


class AbiRecord:
    """A Solidity struct. Subclasses are frozen dataclasses."""

    @classmethod
    def abi_type(cls) -> str:
        """Such as `(uint64,bytes32,bytes32[])`."""
        return f"({','.join(abi_types(cls))})"

    @classmethod
    def from_abi(cls, value: Any) -> Self:
        """The record in the bytes that the ABI encodes it to, or in what web3 decodes: a sequence, or a mapping by
        Solidity's names.

        Raises:
            ChainError: it is no such record; only a node that lies gives one.
        """
        try:
            if isinstance(value, bytes):
                (value,) = abi_decode([cls.abi_type()], value)
            record = from_plain(value, cls)
        except (DecodingError, TypeError, ValueError, KeyError, OverflowError) as problem:
            raise ChainError(
                f"What should be a {cls.__name__} of a dispute cannot be read: {problem}.",
                remedy="Name another node with --rpc-url.",
            ) from None
        assert isinstance(record, cls)
        return record

    def to_abi(self) -> tuple[Any, ...]:
        """The fields in order, nested records as tuples: an argument for web3 and eth_abi.

        Raises:
            ValueError: a value does not fit its type; the text names the field.
        """
        own: Any = type(self)
        return tuple(to_plain(getattr(self, name), kind, name) for name, kind in _kinds(own))

    def encode(self) -> bytes:
        """Solidity's `abi.encode` of the record."""
        return abi_encode([self.abi_type()], [self.to_abi()])


def abi_types(record: type) -> tuple[str, ...]:
    """Solidity types of a dataclass's fields, in order."""
    return tuple(_solidity(kind) for _, kind in _kinds(record))


def to_plain(value: Any, kind: Any, name: str) -> Any:
    """What web3 and eth_abi take for a value of this annotation. ValueError where it does not fit."""
    element = _element(kind)
    if element is not None:
        return [to_plain(item, element, name) for item in value]
    if is_dataclass(kind):
        return value.to_abi()
    solidity = _solidity(kind)
    if solidity == "bytes32" and (not isinstance(value, bytes) or len(value) != 32):
        raise ValueError(f"{name} is {value!r}, which is not 32 bytes")
    if solidity.startswith("uint"):
        bits = int(solidity.removeprefix("uint"))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
            raise ValueError(f"{name} is {value!r}, which is not a whole number of {bits} bits")
        return int(value)
    return value


def from_plain(value: Any, kind: Any) -> Any:
    """The value of this annotation in what web3 or eth_abi decoded. ValueError and the like where it is none."""
    element = _element(kind)
    if element is not None:
        return tuple(from_plain(item, element) for item in value)
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = _kinds(kind)
        if not isinstance(value, Sequence):
            value = [value[_camel(name)] for name, _ in kinds]
        if len(value) != len(kinds):
            raise ValueError(f"{kind.__name__} has {len(kinds)} fields, not {len(value)}")
        return kind(**{name: from_plain(item, of) for item, (name, of) in zip(value, kinds, strict=True)})
    if isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        return kind(value)
    solidity = _solidity(kind)
    if solidity == "address":
        if not is_address(value):
            raise ValueError(f"{value!r} is not an address")
        return str(to_checksum_address(value))
    if solidity.startswith("bytes"):
        value = bytes(value)
        if solidity == "bytes32" and len(value) != 32:
            raise ValueError(f"{len(value)} bytes are not a word")
        return value
    return bool(value) if solidity == "bool" else int(value)


@cache
def _kinds(record: Any) -> tuple[tuple[str, Any], ...]:
    """(field, annotation) of a dataclass, in order."""
    hints = get_type_hints(record, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in fields(record))


def _solidity(kind: Any) -> str:
    element = _element(kind)
    if element is not None:
        return _solidity(element) + "[]"
    if isinstance(kind, type) and issubclass(kind, AbiRecord):
        return kind.abi_type()
    if isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        return "uint8"
    return str(get_args(kind)[1])


def _element(kind: Any) -> Any:
    """T of tuple[T, ...]; None of anything else."""
    if isinstance(kind, types.GenericAlias) and get_origin(kind) is tuple:
        return get_args(kind)[0]
    return None


def _camel(name: str) -> str:
    """state_before -> stateBefore."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
