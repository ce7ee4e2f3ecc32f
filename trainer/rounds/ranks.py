"""A program on several processes, used like `CompiledProgram` on one (docs/ranks.md)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Concatenate, cast

from torch import Tensor

from trainer.commit.states import state_root
from trainer.engine.engines import PartRun, ReferenceRun
from trainer.engine.exact.exchange import Traffic
from trainer.engine.exact.interpreter import Batches
from trainer.engine.exact.ranks import MakeRun, RankedRun
from trainer.native import compiled_program
from trainer.native.engine import choose_engine
from trainer.native.hashing import hash_natively
from trainer.program.exact import BuiltProgram
from trainer.program.exact.operations import Batch, Part, Program
from trainer.rounds.calls import Arguments, RankContext, RankFailed, Ranks, Result

_KEYS = itertools.count()


@dataclass(frozen=True)
class DrawnTokens:
    """The batches of one run, drawn already: by part, shift, samples and length."""

    drawn: dict[tuple[Part, int, int, int], Tensor]

    def tokens(self, part: Part, shift: int, samples: int, length: int) -> Tensor:
        """int32 [samples, length]. Raises KeyError for a batch that the program does not read."""
        return self.drawn[part, shift, samples, length]


class RankedProgram:
    """A program held by every rank: load a state, step, read the state.

    The state has the bits of `run_program`'s, for any number of ranks.
    """

    def __init__(
        self,
        ranks: Ranks,
        program: Program,
        constants: Sequence[Tensor],
        *,
        folder: Path | None = None,
        threads: int = 1,
    ) -> None:
        """Gives each rank the program.

        Args:
            program: checked; constants: their data, checked by `check_constants`.
            folder: where compiled programs are kept (docs/fast-path.md); None runs on the reference interpreter.
            threads: of each rank's compiled program.

        Raises:
            RankFailed: a rank died, or could not compile.
        """
        self._ranks, self._key = ranks, next(_KEYS)
        self._batches = {
            (one.attributes.part, one.attributes.shift, one.shape[0], one.shape[1])
            for one in program.operations
            if isinstance(one.attributes, Batch)
        }
        self.traffic: list[Traffic] = []
        """What each rank sent in the last step."""
        self._asked(_open, program, list(constants), folder, threads)

    def load(self, state: Sequence[Tensor]) -> None:
        """Takes a state, the program's tensors in their order.

        Raises:
            RankFailed: a rank died, or the dtypes or shapes are not the program's.
        """
        self._asked(_load, list(state))

    def step(self, batches: Batches | None = None) -> None:
        """Runs the program once, on all ranks together.

        Raises:
            ValueError: the program reads tokens, and there are no batches.
            RankFailed: a rank died or failed. Its `state` is that after the last whole step, where this process is a
                rank itself and holds it.
        """
        if self._batches and batches is None:
            raise ValueError("the program reads tokens, and no batches were given")
        drawn = {} if batches is None else {wanted: batches.tokens(*wanted) for wanted in self._batches}
        self.traffic = self._asked(_step, DrawnTokens(drawn))

    def state(self) -> list[Tensor]:
        """A copy of the state that is held, after all ranks have shown the same state root.

        Raises:
            RankFailed: a rank died, or holds another state than the first: its machine computes wrongly.
        """
        answers = self._asked(_state)
        first = answers[0]
        for rank, (root, _) in enumerate(answers):
            if root != first[0]:
                self._ranks.stop(rank, f"holds the state {root.hex()}, and rank 0 {first[0].hex()}")
        return first[1]

    def tensor(self, number: int) -> Tensor:
        """A copy of one tensor of the state that is held, as the first rank has it.

        Raises:
            RankFailed: a rank died.
        """
        return self._asked(_tensor, number)[0]

    def close(self) -> None:
        """Lets the ranks forget the program."""
        self._asked(_close)

    def _asked(
        self,
        work: Callable[Concatenate[RankContext, int, Arguments], Result],
        *args: Arguments.args,
        **named: Arguments.kwargs,
    ) -> list[Result]:
        """work(context, key, *args) on every rank; the program's state, if this process holds it, in the error."""
        try:
            return self._ranks.call(work, self._key, *args, **named)
        except RankFailed as lost:
            own = None if self._ranks.own is None else self._ranks.own.held.get(self._key)
            if isinstance(own, RankedRun) and own.intact:
                lost.state = own.state()
            raise


def _open(
    context: RankContext, key: int, program: Program, constants: list[Tensor], folder: Path | None, threads: int
) -> None:
    context.held[key] = RankedRun(program, constants, context.group, _runs_of(context, folder, threads))


def _runs_of(context: RankContext, folder: Path | None, threads: int) -> MakeRun:
    """What runs programs on the rank's device; made ready once."""
    kept = ("runs", folder, threads)
    if kept not in context.held:
        if folder is not None:
            hash_natively(folder, threads=threads, device=context.device)  # each rank shows its state's root
        context.held[kept] = _new_runs(context.device, folder, threads)
    runs: MakeRun = context.held[kept]
    return runs


def _new_runs(device: str, folder: Path | None, threads: int) -> MakeRun:
    if folder is None:
        return partial(ReferenceRun, device=device)
    if device == "cpu":
        return partial(compiled_program, folder=folder, threads=threads)
    engine = choose_engine(device, folder, threads=threads, notice=_no_notice)

    def on_gpu(program: Program, constants: Sequence[Tensor]) -> PartRun:
        # Both kinds that an engine of a GPU opens, compiled and reference, are read and written in place.
        return cast(PartRun, engine.open(BuiltProgram(program, tuple(constants))))

    return on_gpu


def _no_notice(text: str) -> None:
    """Says nothing: the worker's own engine has said the same of its device."""


def _load(context: RankContext, key: int, state: list[Tensor]) -> None:
    _run(context, key).load(state)


def _step(context: RankContext, key: int, batches: DrawnTokens) -> Traffic:
    run = _run(context, key)
    run.step(batches)
    return run.traffic


def _state(context: RankContext, key: int) -> tuple[bytes, list[Tensor]]:
    """The state root, and on the first rank the state."""
    state = _run(context, key).state()
    return state_root(state), state if context.group.rank == 0 else []


def _tensor(context: RankContext, key: int, number: int) -> Tensor:
    return _run(context, key).tensor(number)


def _close(context: RankContext, key: int) -> None:
    del context.held[key]


def _run(context: RankContext, key: int) -> RankedRun:
    run = context.held[key]
    assert isinstance(run, RankedRun)
    return run
