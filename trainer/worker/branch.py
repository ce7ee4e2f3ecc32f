"""Noticing that the chain took blocks back: what was read before may be otherwise now, at the same height too."""

from __future__ import annotations

from trainer.worker.ports import ChainReader


class Branch:
    """Remembers the newest block of each look."""

    def __init__(self, chain: ChainReader) -> None:
        self._chain = chain
        self._known: tuple[int, bytes] | None = None

    def changed(self) -> bool:
        """Whether the newest block of the look before is no longer on the chain. Comes before all else of a look.

        Raises:
            ChainUnreachable: no answer; the next look tells.
        """
        number = self._chain.block_number()
        gone = False
        if self._known is not None:
            height, digest = self._known
            gone = number < height or self._chain.block_hash(height) != digest
        self._known = (number, self._chain.block_hash(number))
        return gone
