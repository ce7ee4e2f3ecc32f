"""An engine that is wrong when told to be, and one that notes what it opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from trainer.engine.engines import Engine, Run
from trainer.engine.exact.interpreter import Batches
from trainer.program.exact import BuiltProgram, Role, program_root


class WatchedEngine:
    """Another engine's runs; `opened` are the roots of its programs in order.

    `wrong` is asked after each run, with the program's role, whether one bit of the result should be another.
    """

    name = "compiled"
    is_reference = False

    def __init__(self, inner: Engine, *, wrong: Callable[[Role], bool] = lambda role: False) -> None:
        self._inner = inner
        self.wrong = wrong
        self.setting = inner.setting
        self.opened: list[bytes] = []

    def open(self, built: BuiltProgram) -> Run:
        self.opened.append(program_root(built.program))
        return _WatchedRun(self, built.program.role, self._inner.open(built))


class _WatchedRun:
    def __init__(self, engine: WatchedEngine, role: Role, inner: Run) -> None:
        self._engine, self._role, self._inner = engine, role, inner

    def load(self, state: Sequence[Tensor]) -> None:
        self._inner.load(state)

    def step(self, batches: Batches | None = None) -> None:
        self._inner.step(batches)
        if self._engine.wrong(self._role):
            state = self._inner.state()
            state[0].view(torch.int32)[0] ^= 1  # the last bit of the loss
            self._inner.load(state)

    def state(self) -> list[Tensor]:
        return self._inner.state()

    def tensor(self, number: int) -> Tensor:
        return self._inner.tensor(number)
