"""Runs a compiled program: memory given once, then one call a run."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from torch import Tensor

from trainer.engine.exact.fast.held import HeldState
from trainer.engine.exact.fast.source import Source
from trainer.engine.exact.interpreter import Batches
from trainer.program.exact.operations import Program

MOST_THREADS = 64


class CompiledProgram(HeldState):
    """A program, its memory and its state, to be run again and again. Not for two threads of Python at a time.

    Gives the bits of `interpreter.run_program`, on any number of threads.
    """

    def __init__(
        self, program: Program, constants: Sequence[Tensor], source: Source, library: ctypes.CDLL, *, threads: int = 1
    ) -> None:
        """Takes memory for everything.

        Args:
            constants: the data of the program's constants, checked by `check_constants`.
            source: what `write_source` made of this program, and library: what a compiler made of that.
            threads: 1 to 64.

        Raises:
            ValueError: a number of threads outside that, or constants of other dtypes or shapes.
        """
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"a program runs on 1 to {MOST_THREADS} threads, not {threads}")
        super().__init__(program, constants, source.plan, scratch=source.scratch * threads)
        self._threads, self._scratch = threads, source.scratch
        self._run = library.tl_run
        self._run.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_size_t]
        self._run.restype = ctypes.c_int

    def step(self, batches: Batches | None = None) -> None:
        """Runs the program once on the state that is held, which becomes the next one.

        Raises:
            ValueError: the program reads tokens, and no batches or other ones were given; or it is a merge, and was
                given no states since its last run.
            OSError: the system gives no more threads; the state is as it was.
        """
        self.take_tokens(batches)
        addresses = self.addresses()
        if self._run((ctypes.c_void_p * len(addresses))(*addresses), self._threads, self._scratch):
            raise OSError(f"no {self._threads} threads could be started")
        self.swap()

    def run(self, state: Sequence[Tensor], batches: Batches | None = None) -> list[Tensor]:
        """What `run_program` gives: the state's tensors to the next state's.

        Raises:
            ValueError, OSError: as `load` and `step`.
        """
        self.load(state)
        self.step(batches)
        return self.state()
