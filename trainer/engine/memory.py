"""The several ways in which memory runs out, as one error that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ledger.errors import ResourceError

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")


@contextmanager
def memory_errors(doing: str, *, remedy: str) -> Iterator[None]:
    """Raises ResourceError where memory runs out inside; `doing` follows "Out of memory while"."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        text = str(error)
        exhausted = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not exhausted and not any(sign in text.lower() for sign in _OUT_OF_MEMORY):
            raise
        first = text.splitlines()[0] if text else "no memory left"
        raise ResourceError(f"Out of memory while {doing}: {first}", remedy=remedy) from error
