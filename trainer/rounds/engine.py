"""Programs on several processes of this machine at once, as an engine (docs/ranks.md)."""

from __future__ import annotations

from pathlib import Path

from trainer.engine.engines import ReferenceRun, Run
from trainer.engine.exact.fast.runner import MOST_THREADS
from trainer.native import compiled_program
from trainer.program.exact import BuiltProgram
from trainer.rounds.processes import RankProcesses
from trainer.rounds.ranks import RankedProgram


class RanksEngine:
    """Ranks that share every step of a program whose batch has shards; other programs they all run whole.

    A merge has no batch, and as many states as its round has slots, so it runs once, in this process.

    The processes start with the first program and end with this one.

    Args:
        ranks: processes. threads: of each.
        folder: of compiled programs; None runs on the reference interpreter.
    """

    is_reference = False

    def __init__(self, ranks: int, *, threads: int, folder: Path | None) -> None:
        self._ranks, self._threads, self._folder = ranks, threads, folder
        self.name = f"{ranks} ranks"
        self.setting = f"{self.name} of {threads} threads, {'reference' if folder is None else 'compiled'}"
        self._processes: RankProcesses | None = None
        self._open: RankedProgram | None = None

    def open(self, built: BuiltProgram) -> Run:
        """A run of a checked program; the run opened before is over then, so that its memory is free.

        Raises:
            RankFailed: a rank did not start, died, or could not compile.
            CompilerError, SpecificationError: a merge could not be compiled.
        """
        if built.program.inputs:
            return self._here(built)
        if self._processes is None:
            self._processes = RankProcesses(self._ranks, threads=self._threads)
        if self._open is not None:
            self._open.close()
        self._open = RankedProgram(
            self._processes, built.program, built.constants, folder=self._folder, threads=self._threads
        )
        return self._open

    def _here(self, built: BuiltProgram) -> Run:
        threads = min(MOST_THREADS, self._ranks * self._threads)
        if self._folder is None:
            return ReferenceRun(built.program, built.constants, threads=threads)
        return compiled_program(built.program, built.constants, self._folder, threads=threads)

    def close(self) -> None:
        """Ends the processes."""
        if self._processes is not None:
            self._processes.close()
            self._processes = self._open = None
