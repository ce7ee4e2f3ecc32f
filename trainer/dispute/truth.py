"""The true values of a segment: the states between its runs, and each run's trace, on demand (docs/dispute.md)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from ledger.disputes.moves import ProgramProof
from trainer.commit.hashing import Kind, leaf
from trainer.commit.states import state_root
from trainer.commit.trees import Tree
from trainer.dispute.committed import CommittedData, DatasetProofs
from trainer.dispute.proving import program_place
from trainer.dispute.runs import CACHE_BYTES, Interpreter, RunTruth
from trainer.dispute.subjects import Subject, TensorLayout
from trainer.engine.engines import Engine, ReferenceEngine, Run, WithReference
from trainer.engine.exact.batching import DatasetBatches
from trainer.engine.segment import memory_of
from trainer.engine.state import State, check_state
from trainer.program.exact import BuiltProgram
from trainer.program.task import TaskProgram

__all__ = [
    "KeptStates",
    "RunTruth",
    "SegmentTruth",
    "StateKeeper",
    "Subject",
    "TensorLayout",
]

_STEP = 1  # place of counter.step in every state
_KEPT = 8  # states of a segment that are kept to go on from
_RECENT = 2  # and of those asked for last
_TRACES = 2  # runs whose traces are kept; a game is about one


class StateKeeper(Protocol):
    """Where states of a segment are kept, by number of the run that they come before."""

    def keep(self, run: int, state: Sequence[Tensor]) -> None:
        """May keep a state; the tensors are not changed afterwards."""

    def nearest(self, run: int) -> tuple[int, Sequence[Tensor]] | None:
        """The last kept state at or before a run, with its number."""


class KeptStates:
    """Keeps states in memory: every `spacing`-th, and the last few that were given.

    Args:
        spacing: of the runs whose states stay; at least 1. recent: how many others stay.
    """

    def __init__(self, *, spacing: int, recent: int = _RECENT) -> None:
        self._spacing, self._recent = spacing, recent
        self._spaced: dict[int, Sequence[Tensor]] = {}
        self._others: OrderedDict[int, Sequence[Tensor]] = OrderedDict()

    def keep(self, run: int, state: Sequence[Tensor]) -> None:
        """See `StateKeeper`."""
        if run % self._spacing == 0:
            self._spaced[run] = state
            return
        self._others[run] = state
        self._others.move_to_end(run)
        while len(self._others) > self._recent:
            self._others.popitem(last=False)

    def nearest(self, run: int) -> tuple[int, Sequence[Tensor]] | None:
        """See `StateKeeper`."""
        known = {**self._spaced, **self._others}
        before = max((number for number in known if number <= run), default=None)
        return None if before is None else (before, known[before])

    def __len__(self) -> int:
        return len(self._spaced) + len(self._others)


class SegmentTruth:
    """What a segment of `steps` training steps from a base state truly is.

    It has steps + 1 runs: run 0 … steps - 1 of the training program, run `steps` of the evaluation program. State i is
    the one before run i, state steps + 1 the segment's result. States are computed when they are asked for, from the
    nearest one that is kept. Not for two threads at a time.

    A merge has one step, run 0 of the merge program, whose state before is all states that it takes, side by side.

    Args:
        inputs: of a merge, the states of the round's slots in order, None for a missing one, which is `base`; None
            where the segment is no merge.
        slot: of the round; it decides the batches.
        engine: runs the steps; None takes the reference.
        interpreter: what traces come from; None takes that on the engine's own device, else the CPU.
        keeper: where states are kept; None keeps a few in memory.
        cache_bytes: see `RunTruth`.
        between: called before each step; what it raises ends the computing, which goes on the next time from what is
            kept.
        progress: see `RunTruth`.

    Raises:
        ResourceError: memory ran out, whatever is asked for.
        ValueError: a state does not follow the program's layout, `steps` is negative, or the task has no merge of so
            many inputs and steps.
    """

    def __init__(
        self,
        program: TaskProgram,
        data: CommittedData,
        base: State,
        *,
        steps: int,
        inputs: Sequence[State | None] | None = None,
        slot: int = 0,
        engine: Engine | None = None,
        interpreter: Interpreter | None = None,
        keeper: StateKeeper | None = None,
        cache_bytes: int = CACHE_BYTES,
        between: Callable[[], None] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if steps < 0:
            raise ValueError(f"a segment has no {steps} steps")
        if inputs is not None and (program.merge is None or len(inputs) != program.slots or steps != 1):
            raise ValueError(f"the task has no merge of {len(inputs)} states in {steps} steps")
        taken = [base, *(base if one is None else one for one in inputs or ())]
        for state in taken:
            check_state(state, program.layout)
        self.task, self.steps, self.slot, self.merge = program, steps, slot, inputs is not None
        self.data = DatasetProofs(data)
        self._base = [tensor for state in taken for tensor in state.values()]
        self._engine = engine or ReferenceEngine()
        self._interpreter = interpreter or _interpreter_of(self._engine)
        self._keeper = keeper or KeptStates(spacing=max(1, -(-self.runs // _KEPT)))
        self._cache_bytes, self._between, self._progress = cache_bytes, between, progress
        self._roots: dict[int, bytes] = {}
        self._traces: OrderedDict[int, RunTruth] = OrderedDict()
        self._open: tuple[int, Run] | None = None  # a run of what run 0 runs, and the number of its state

    @property
    def runs(self) -> int:
        """Number of runs: one for each step, and the evaluation."""
        return self.steps + 1

    def state_root(self, run: int) -> bytes:
        """Root of the state before a run, of a merge's run 0 that of its inputs; of `runs`, of the segment's result.

        Raises IndexError outside.
        """
        if run not in self._roots:
            merges = self.merge and run == 0
            self._roots[run] = self.run(0).state_before if merges else state_root(self.state(run))
        return self._roots[run]

    def state(self, run: int) -> Sequence[Tensor]:
        """The state before a run, in the program's order; before run 0 of a merge, all states that it takes.

        Not to be changed. Raises IndexError outside 0 … runs.
        """
        if not 0 <= run <= self.runs:
            raise IndexError(f"no state {run} in a segment of {self.runs} runs")
        if run == 0:
            return self._base
        kept = self._keeper.nearest(run)
        if kept is not None and kept[0] == run:
            return kept[1]
        with memory_of(self.task):
            state = self._evaluated() if run == self.runs else self._trained(run, kept)
        self._keeper.keep(run, state)
        return state

    def run(self, number: int) -> RunTruth:
        """A run's own truth. Raises IndexError outside 0 … runs - 1."""
        if not 0 <= number < self.runs:
            raise IndexError(f"no run {number} in a segment of {self.runs}")
        if number not in self._traces:
            self._traces[number] = RunTruth(
                self.program_of(number),
                self.state(number),
                self.data,
                seed=self.task.seed,
                slot=self.slot,
                interpreter=self._interpreter,
                cache_bytes=self._cache_bytes,
                expected=self._roots.get(number + 1),
                progress=self._progress,
            )
        self._traces.move_to_end(number)
        while len(self._traces) > _TRACES:
            self._traces.popitem(last=False)
        return self._traces[number]

    def program_of(self, run: int) -> BuiltProgram:
        """The program of a run: training or merge, and for the last one evaluation."""
        if run >= self.steps:
            return self.task.evaluation
        if not self.merge:
            return self.task.training
        assert self.task.merge is not None  # seen to at the beginning
        return self.task.merge

    def program_proof(self, run: int) -> ProgramProof:
        """The seed and the program of a run with their proofs against the task's program root."""
        manifest = self.task.manifest
        tree = Tree(Kind.PROGRAM, [leaf(Kind.PROGRAM, record) for record in manifest.records])
        place = program_place(run, steps=self.steps, merge=self.merge)
        return ProgramProof(
            seed=manifest.seed,
            seed_siblings=tuple(tree.path(0)),
            program=manifest.records[place],
            program_siblings=tuple(tree.path(place)),
            header=self.run(run).header(),
        )

    def _evaluated(self) -> list[Tensor]:
        """The segment's result."""
        run = self._engine.open(self.task.evaluation)
        before = self.state(self.steps)
        run.load(before)
        self._step(run)
        return run.state()

    def _trained(self, number: int, kept: tuple[int, Sequence[Tensor]] | None) -> list[Tensor]:
        """The state before run `number`, from the nearest one: kept, held by the open run, or the base."""
        at, near = kept or (0, self._base)
        if self._open is None or not at <= self._open[0] <= number:
            run = self._open[1] if self._open is not None else self._engine.open(self.program_of(0))
            run.load(near)
            self._open = (at, run)
        at, run = self._open
        # Until it has arrived, nobody knows where an interrupted run is.
        self._open = None
        while at < number:
            self._step(run)
            at += 1
            if at < number and at % self._spacing == 0:
                self._keeper.keep(at, run.state())
        self._open = (at, run)
        return run.state()

    @property
    def _spacing(self) -> int:
        """Of the states that are kept in passing."""
        return max(1, -(-self.runs // _KEPT))

    def _step(self, run: Run) -> None:
        if self._between is not None:
            self._between()
        step = int(run.tensor(_STEP).item())
        run.step(DatasetBatches(data=self.data.data, seed=self.task.seed, slot=self.slot, step=step))


def _interpreter_of(engine: Engine) -> Interpreter:
    """The interpreter on the engine's own device, where it has one there; else on the CPU."""
    reference = engine.reference if isinstance(engine, WithReference) else engine
    if not isinstance(reference, ReferenceEngine):
        return Interpreter()
    return Interpreter(reference.device, reference.backend)
