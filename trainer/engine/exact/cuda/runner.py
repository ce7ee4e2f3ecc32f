"""Runs a program's kernels on a device: memory taken once, the same launches for every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from trainer.engine.exact.cuda.source import CudaSource, Launch
from trainer.engine.exact.fast.held import HeldState
from trainer.engine.exact.interpreter import Batches
from trainer.program.exact.operations import Program

Run = Callable[[], None]


class Kernels(Protocol):
    """A program's compiled kernels on a device."""

    def prepare(self, launches: Sequence[Launch], bases: Sequence[int]) -> Run:
        """What launches them in order, again and again, with memories that begin at the given addresses."""


class CudaProgram(HeldState):
    """A program, its memory on a device and its state, to be run again and again. Not for two threads at a time.

    Gives the bits of `interpreter.run_program`.

    Args:
        constants: the data of the program's constants, checked by `check_constants`.
        source: what `write_cuda` made of this program, and kernels: what a compiler made of that, on `device`.

    Raises:
        ValueError: constants of other dtypes or shapes.
    """

    def __init__(
        self,
        program: Program,
        constants: Sequence[Tensor],
        source: CudaSource,
        kernels: Kernels,
        *,
        device: torch.device | str,
    ) -> None:
        super().__init__(program, constants, source.plan, scratch=source.scratch, device=device)
        self._source, self._kernels = source, kernels
        # State and next state change places at each run, so there are two ways to launch.
        self._runs: dict[tuple[int, ...], Run] = {}

    def step(self, batches: Batches | None = None) -> None:
        """Runs the program once on the state that is held, which becomes the next one.

        Raises:
            ValueError: the program reads tokens, and no batches or other ones were given.
        """
        self.take_tokens(batches)
        bases = tuple(self.addresses())
        if bases not in self._runs:
            self._runs[bases] = self._kernels.prepare(self._source.launches, bases)
        self._runs[bases]()
        self.swap()

    def run(self, state: Sequence[Tensor], batches: Batches | None = None) -> list[Tensor]:
        """What `run_program` gives: the state's tensors to the next state's, on the CPU.

        Raises:
            ValueError: as `load` and `step`.
        """
        self.load(state)
        self.step(batches)
        return self.state()
