"""What runs exact programs again and again over a state: one interface, and the reference behind it.

The compiled engine is in `trainer.native`, because it needs a compiler and a folder. All engines give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ledger.errors import TrainledgerError
from trainer.engine.exact.backends import BACKENDS, Backend
from trainer.engine.exact.interpreter import TORCH_DTYPES, Batches, run_program
from trainer.program.exact import BuiltProgram, Program


class StepLost(TrainledgerError):
    """A run could not go on because something else than the program failed, such as another process that shares it.

    Attributes:
        state: what the run holds, the state after its last whole step, where it can still be told; else None.
    """

    state: list[Tensor] | None = None


class Run(Protocol):
    """A program with a state that it changes step by step. Not for two threads at a time."""

    def load(self, state: Sequence[Tensor]) -> None:
        """Takes a state, the program's tensors in their order. Raises ValueError where they are other ones.

        A merge takes all its states, the base first, and takes them anew for each run. Those beside the base may be
        read where they lie until the run is done; a tensor of theirs that is the base's own object takes no memory.
        """

    def step(self, batches: Batches | None = None) -> None:
        """Runs the program once; the next state takes the place of the one that is held. May raise StepLost."""

    def state(self) -> list[Tensor]:
        """A copy of the state that is held, on the CPU."""

    def tensor(self, number: int) -> Tensor:
        """A copy of one of its tensors, on the CPU."""


class PartRun(Run, Protocol):
    """A run whose state is read and written in place, tensor by tensor, as ranks do between their parts of a step."""

    def held(self, number: int) -> Tensor:
        """A tensor of the state, itself, where it lies: to be read before the next step, and not to be written."""

    def put(self, number: int, given: Tensor) -> None:
        """Takes one tensor of the state. Raises ValueError for another dtype or shape than the program's."""


class Engine(Protocol):
    """Opens programs."""

    @property
    def name(self) -> str:
        """As users see it: "reference", "compiled"."""

    @property
    def setting(self) -> str:
        """Name, device and threads: all of it that its speed depends on."""

    @property
    def is_reference(self) -> bool:
        """Whether checking it against the reference on the processor would compare that with itself."""

    def open(self, built: BuiltProgram) -> Run:
        """A run of a checked program; memory is taken here."""


@runtime_checkable
class WithReference(Protocol):
    """An engine that has the reference beside it on its own device, for what it cannot do itself."""

    reference: ReferenceEngine


class ReferenceEngine:
    """The interpreter that defines what programs mean: slow, on any device.

    Args:
        device: "cpu", "cuda" or "cuda:<number>".
        backend: name of the way to multiply (`backends.BACKENDS`); None takes float64. It must be admitted here.
        threads: of PyTorch's own operations on the CPU; None leaves them as they are.
    """

    name = "reference"

    def __init__(self, device: str = "cpu", *, backend: str | None = None, threads: int | None = None) -> None:
        self.device = device
        # What PyTorch computes on a GPU is other code than what it computes on the processor.
        self.is_reference = torch.device(device).type == "cpu"
        self.backend = None if backend is None else BACKENDS[backend]
        self._threads = threads
        self.setting = f"{self.name} {device} {threads or 'all'}"

    def open(self, built: BuiltProgram) -> Run:
        """A run of a checked program."""
        return ReferenceRun(
            built.program, built.constants, device=self.device, backend=self.backend, threads=self._threads
        )


class ReferenceRun:
    """A program under the interpreter, and its state."""

    def __init__(
        self,
        program: Program,
        constants: Sequence[Tensor],
        *,
        device: torch.device | str = "cpu",
        backend: Backend | None = None,
        threads: int | None = None,
    ) -> None:
        self._program, self._device, self._backend, self._threads = program, device, backend, threads
        self._constants = [constant.to(device) for constant in constants]
        # Until a state is taken, zeros: parts of a step are given their state tensor by tensor.
        self._state = [torch.zeros(one.shape, dtype=TORCH_DTYPES[one.dtype], device=device) for one in program.states]
        self._others: list[Tensor] = []  # what a merge takes beside the base

    def load(self, state: Sequence[Tensor]) -> None:
        declared = [(TORCH_DTYPES[one.dtype], one.shape) for one in self._program.taken]
        given = [(one.dtype, tuple(one.shape)) for one in state]
        if given != declared:
            raise ValueError(f"the state tensors are {given}, and the program has {declared}")
        count = len(self._program.states)
        self._state = [one.to(self._device, copy=True) for one in state[:count]]
        self._others = [
            self._state[number % count] if one is state[number % count] else one.to(self._device)
            for number, one in enumerate(state[count:])
        ]

    def step(self, batches: Batches | None = None) -> None:
        if self._threads is not None:
            # OpenMP keeps the number for each calling thread. Sums are exact, so it shows in the time alone.
            torch.set_num_threads(self._threads)
        if self._program.inputs and not self._others:
            raise ValueError("a merge takes its states before each run, and has none")
        taken = [*self._state, *self._others]
        self._state = run_program(
            self._program, taken, self._constants, batches, device=self._device, backend=self._backend
        )
        self._others = []

    def state(self) -> list[Tensor]:
        return [one.to("cpu", copy=True) for one in self._state]

    def tensor(self, number: int) -> Tensor:
        return self._state[number].to("cpu", copy=True)

    def held(self, number: int) -> Tensor:
        return self._state[number]

    def put(self, number: int, given: Tensor) -> None:
        held = self._state[number]
        if (given.dtype, given.shape) != (held.dtype, held.shape):
            raise ValueError(
                f"state tensor {number} is {given.dtype} {list(given.shape)}, "
                f"and the program has {held.dtype} {list(held.shape)}"
            )
        self._state[number] = given.detach().to(held.device, copy=True)
