"""Programs on several processes at once, as an engine (docs/ranks.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from trainer.engine.engines import Engine, ReferenceRun, Run
from trainer.engine.exact.fast.runner import MOST_THREADS
from trainer.native import compiled_program
from trainer.program.exact import BuiltProgram
from trainer.rounds.calls import Ranks
from trainer.rounds.processes import RankProcesses
from trainer.rounds.ranks import RankedProgram


class RanksEngine:
    """Ranks that share every step of a program whose batch has shards; other programs they all run whole.

    A merge has no batch, and as many states as its round has slots, so it runs once, in this process.

    The ranks start with the first program, unless they are given, and end with this process.

    Args:
        ranks: how many. threads: of each.
        folder: of compiled programs; None runs on the reference interpreter.
        device: of the ranks. start: gives the ranks; None starts processes on this machine.
        alone: what runs merges; None takes this machine's processors, as many as all ranks.
    """

    is_reference = False

    def __init__(
        self,
        ranks: int,
        *,
        threads: int,
        folder: Path | None,
        device: str = "cpu",
        start: Callable[[], Ranks] | None = None,
        alone: Engine | None = None,
    ) -> None:
        self._count, self._threads, self._folder = ranks, threads, folder
        self.name = f"{ranks} ranks"
        self.setting = f"{self.name} of {threads} threads, {'reference' if folder is None else 'compiled'}"
        self.setting += "" if device == "cpu" else f", {device}"
        self._start = start or partial(RankProcesses, ranks, threads=threads)
        self._alone = alone
        self._ranks: Ranks | None = None
        self._open: RankedProgram | None = None

    def open(self, built: BuiltProgram) -> Run:
        """A run of a checked program; the run opened before is over then, so that its memory is free.

        Raises:
            RankFailed: a rank did not start, died, or could not compile.
            CompilerError, SpecificationError: a merge could not be compiled.
        """
        if built.program.inputs:
            return self._here(built)
        if self._ranks is None:
            self._ranks = self._start()
        if self._open is not None:
            self._open.close()
        self._open = RankedProgram(
            self._ranks, built.program, built.constants, folder=self._folder, threads=self._threads
        )
        return self._open

    def _here(self, built: BuiltProgram) -> Run:
        if self._alone is not None:
            return self._alone.open(built)
        threads = min(MOST_THREADS, self._count * self._threads)
        if self._folder is None:
            return ReferenceRun(built.program, built.constants, threads=threads)
        return compiled_program(built.program, built.constants, self._folder, threads=threads)

    def close(self) -> None:
        """Ends the ranks."""
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = self._open = None
