"""States of a segment on disk, so that a party that was killed need not run the segment from its beginning again.

A journal only saves time. What is damaged or missing is computed anew, and nothing is believed that does not have the
root in its file's name.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ledger.errors import BlobCorrupt
from trainer.checkpoints import read_state_file, write_state_file
from trainer.commit.states import state_root
from trainer.program.layout import StateLayout

_NAME = re.compile(r"run-(\d+)-([0-9a-f]{64})\.safetensors")
_RECENT = 2  # states beside the spaced ones that are held in memory


class FolderKeeper:
    """Keeps every `spacing`-th state of a segment in a folder, and the last few that were given in memory.

    Args:
        folder: of this segment alone; made when something is kept.
        spacing: of the runs whose states are written; at least 1.

    Raises:
        ResourceError: from `keep`, where the disk is full.
    """

    def __init__(self, folder: Path, layout: StateLayout, *, spacing: int) -> None:
        self._folder, self._layout, self._spacing = folder, layout, spacing
        self._recent: OrderedDict[int, Sequence[Tensor]] = OrderedDict()

    def keep(self, run: int, state: Sequence[Tensor]) -> None:
        """See `StateKeeper`."""
        self._recent[run] = state
        self._recent.move_to_end(run)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        if run % self._spacing == 0 and run not in self._written():
            self._write(run, state)

    def nearest(self, run: int) -> tuple[int, Sequence[Tensor]] | None:
        """See `StateKeeper`."""
        held = max((number for number in self._recent if number <= run), default=-1)
        written = self._written()
        for number in sorted((number for number in written if held < number <= run), reverse=True):
            state = self._read(written[number])
            if state is not None:
                return number, state
        return None if held < 0 else (held, self._recent[held])

    def _written(self) -> dict[int, Path]:
        with contextlib.suppress(FileNotFoundError):
            names = ((_NAME.fullmatch(path.name), path) for path in self._folder.iterdir())
            return {int(match[1]): path for match, path in names if match}
        return {}

    def _write(self, run: int, state: Sequence[Tensor]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / "partial"
        write_state_file(OrderedDict(zip(self._layout.names, state, strict=True)), partial)
        partial.replace(self._folder / f"run-{run}-{state_root(state).hex()}.safetensors")

    def _read(self, path: Path) -> Sequence[Tensor] | None:
        match = _NAME.fullmatch(path.name)
        assert match is not None  # `_written` has seen to it
        with contextlib.suppress(BlobCorrupt):
            state = list(read_state_file(path, self._layout).values())
            if state_root(state).hex() == match[2]:
                return state
        path.unlink(missing_ok=True)
        return None


def forget_journals(folder: Path, *, keep: int) -> None:
    """Deletes all journals in a folder but the ones that were written last."""
    with contextlib.suppress(FileNotFoundError):
        known = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in known[keep:]:
            shutil.rmtree(old, ignore_errors=True)
