"""A worker that cheats, for the demonstration alone: one element of one tensor is wrong after one of its steps.

Everything else it does by the book: it claims, trains, publishes and submits as any worker, and when it is challenged
it plays the dispute with values that fit its lie. It loses all the same, which is the point.

    python -m trainer.demo.cheat run --task 1 --account worker-3
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from torch import Tensor

from ledger.cli.common import CommandContext, root_app
from ledger.disputes.moves import Evidence, Move, ProgramProof, Record
from ledger.disputes.positions import GameView
from ledger.types import SlotStatus
from trainer.commit.hashing import Kind, leaf, seal
from trainer.commit.traces import trace_leaf
from trainer.commit.trees import Tree
from trainer.dispute.committed import CommittedBytes
from trainer.dispute.player import Player
from trainer.dispute.runs import RunTruth
from trainer.dispute.segments import Segment, SegmentSource
from trainer.dispute.subjects import Subject, TensorLayout
from trainer.dispute.truth import SegmentTruth
from trainer.dispute.values import RunValues, Truth
from trainer.engine.engines import Engine, Run
from trainer.engine.exact.interpreter import Batches
from trainer.program.exact import BuiltProgram, Program, Role
from trainer.program.layout import PARAMETER

if TYPE_CHECKING:
    from ledger.disputes.client import DisputeClient
    from trainer.worker.progress import Reporter
    from trainer.worker.stop import Stop

_STEP = 1  # place of counter.step in every state
_BIT = 1 << 22  # of a float32: changes its value by up to a half of itself
_ELEMENT = 5


@dataclass(frozen=True)
class Lie:
    """Which element is wrong: of tensor `tensor` of the state, after the run that leaves the counter at `step`."""

    step: int
    tensor: int
    element: int = _ELEMENT

    def told(self, tensor: Tensor) -> Tensor:
        """A copy of the tensor with the element changed."""
        changed = tensor.clone()
        changed.reshape(-1).view(torch.int32)[self.element] ^= _BIT
        return changed


def first_parameter(program: Program) -> int:
    """Number of the first tensor of the state that is a parameter of the model."""
    return next(number for number, one in enumerate(program.states) if one.name.startswith(PARAMETER))


class LyingEngine:
    """Another engine, but for one element. It says that it is the reference, so that nobody repeats its runs."""

    is_reference = True

    def __init__(self, engine: Engine, lie: Lie) -> None:
        self._engine, self._lie = engine, lie
        self.name, self.setting = engine.name, engine.setting

    def open(self, built: BuiltProgram) -> Run:
        """A run that lies where the program is one that trains."""
        run = self._engine.open(built)
        return _LyingRun(run, self._lie) if built.program.role is Role.TRAIN else run


class _LyingRun:
    def __init__(self, run: Run, lie: Lie) -> None:
        self._run, self._lie = run, lie

    def load(self, state: Sequence[Tensor]) -> None:
        self._run.load(state)

    def step(self, batches: Batches | None = None) -> None:
        self._run.step(batches)
        if int(self._run.tensor(_STEP).item()) == self._lie.step:
            state = self._run.state()
            state[self._lie.tensor] = self._lie.told(state[self._lie.tensor])
            self._run.load(state)

    def state(self) -> list[Tensor]:
        return self._run.state()

    def tensor(self, number: int) -> Tensor:
        return self._run.tensor(number)


class LyingRunValues:
    """The values of the run with the lie: the output that becomes the tensor is wrong in the element, and the state."""

    def __init__(self, true: RunTruth, lie: Lie) -> None:
        self._true, self._lie = true, lie
        source = true.program.states[lie.tensor].source
        assert source is not None  # training changes every parameter
        self._subjects = (Subject(False, source), Subject(True, lie.tensor))
        self.states, self.operations = true.states, true.operations

    @cached_property
    def _wrong(self) -> CommittedBytes:
        raw = bytearray(self._true.tensor(self._subjects[0]).data)
        return CommittedBytes.of_tensor(self._lie.told(torch.frombuffer(raw, dtype=torch.float32)))

    @cached_property
    def _state(self) -> Tree:
        leaves = [self._true.state_nodes(0, number, 0)[0] for number in range(self.states)]
        leaves[self._lie.tensor] = leaf(Kind.STATE, self._wrong.root)
        return Tree(Kind.STATE, leaves)

    @cached_property
    def _trace(self) -> Tree:
        leaves = [self._true.trace_nodes(0, number, 0)[0] for number in range(self.operations)]
        leaves[self._subjects[0].number] = trace_leaf(self._wrong.root)
        return Tree(Kind.TRACE, [*leaves, trace_leaf(seal(Kind.STATE, 0, self.states, self._state.root))])

    def trace_nodes(self, height: int, index: int, width: int) -> Sequence[bytes]:
        return self._trace.view(height, index, width)

    def state_nodes(self, height: int, index: int, width: int) -> Sequence[bytes]:
        return self._state.view(height, index, width)

    def tensor_nodes(self, subject: Subject, height: int, index: int, width: int) -> Sequence[bytes]:
        if subject in self._subjects:
            return self._wrong.tree.view(height, index, width)
        return self._true.tensor_nodes(subject, height, index, width)

    def tensor_layout(self, subject: Subject) -> TensorLayout:
        return self._true.tensor_layout(subject)

    def chunk(self, subject: Subject, index: int) -> bytes:
        return self._wrong.chunk(index) if subject in self._subjects else self._true.chunk(subject, index)

    def element_bits(self, subject: Subject, element: int) -> int:
        return self._wrong.bits(element) if subject in self._subjects else self._true.element_bits(subject, element)

    def fold_length(self, operation: int) -> int:
        return self._true.fold_length(operation)

    def accumulators(self, operation: int, element: int, blocks: Sequence[int]) -> Sequence[int]:
        return self._true.accumulators(operation, element, blocks)

    def is_counter(self, tensor: int) -> bool:
        return self._true.is_counter(tensor)

    def record(self, subject: Subject) -> Record:
        return self._true.record(subject)

    def prove_element(self, subject: Subject, element: int) -> Evidence:
        return self._true.prove_element(subject, element)

    def prove_block(self, operation: int, element: int, block: int) -> Evidence:
        return self._true.prove_block(operation, element, block)

    def prove_rounding(self, operation: int, element: int) -> Evidence:
        return self._true.prove_rounding(operation, element)

    def state_leaf(self, tensor: int) -> tuple[bytes, Sequence[bytes]]:
        return self._true.state_leaf(tensor)


class LyingTruth:
    """A segment computed with the lie in it. `wrong` is the run that tells it."""

    def __init__(self, segment: SegmentTruth, lie: Lie, wrong: int) -> None:
        self._segment, self._lie, self._wrong = segment, lie, wrong

    def state_root(self, run: int) -> bytes:
        return self._segment.state_root(run)

    def program_proof(self, number: int) -> ProgramProof:
        return self._segment.program_proof(number)

    @cached_property
    def _lying(self) -> LyingRunValues:
        segment, number = self._segment, self._wrong
        true = RunTruth(
            segment.program_of(number),
            segment.state(number),
            segment.data,
            seed=segment.task.seed,
            slot=segment.slot,
        )
        return LyingRunValues(true, self._lie)

    def run(self, number: int) -> RunValues:
        return self._lying if number == self._wrong else self._segment.run(number)


class LyingSource(SegmentSource):
    """Where the cheat gets its values from; its engine is a `LyingEngine`. It lies in one segment only."""

    def __init__(self, lie: Lie, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._lie = lie
        self._lying: LyingTruth | None = None

    def truth(self, segment: Segment) -> Truth:  # type: ignore[override]  # a truth of another kind serves as well
        """See `SegmentSource`."""
        if self._lying is None:
            self._lying = LyingTruth(super().truth(segment), self._lie, self._lie.step - 1)
        return self._lying


class Stubborn(Player):
    """Makes moves that lose, too: an honest player would see that its own proof is against it."""

    def _check(self, view: GameView, move: Move) -> None:
        return


app = root_app(name="cheat", help="The demonstration's cheat.")


@app.command("run")
def run(
    context: CommandContext,
    task: Annotated[int, typer.Option("--task", min=1, metavar="TASK", help="Task to cheat in, in its first round.")],
) -> None:
    """Do the first round of a task with one wrong element, submit it, and defend it to the end.

    Example: python -m trainer.demo.cheat run --task 1 --account worker-3
    """
    from trainer.cli.engine import open_engine
    from trainer.cli.parties import make_reporter
    from trainer.materials import open_materials
    from trainer.worker.session import worker_folder, worker_lock
    from trainer.worker.stop import stop_on_signals

    settings, client, reporter = context.settings, context.disputes(signing=True), make_reporter(context)
    materials = open_materials(client, task, settings.store_url, settings.home / "cache")
    program = materials.program.training.program
    lie = Lie(materials.task.parameters.steps_per_round // 2, first_parameter(program))
    engine = LyingEngine(open_engine(context), lie)
    folder = worker_folder(settings.home, client.address)
    with worker_lock(folder, client.address), stop_on_signals() as stop:
        slot = client.slot(task, 0)
        if slot.attempt == 0 and slot.status in (SlotStatus.OPEN, SlotStatus.LEASED):
            name = program.states[lie.tensor].name
            reporter.say("cheating", f"Changes element {lie.element} of {name} after step {lie.step}, nothing else.")
            _work(context, client, engine, task, reporter, stop)
        _defend(context, client, engine, task, reporter, stop, folder, lie)


def _work(
    context: CommandContext, client: DisputeClient, engine: Engine, task: int, reporter: Reporter, stop: Stop
) -> None:
    """The round, to its submission."""
    from trainer.worker.policy import WorkerOptions
    from trainer.worker.session import make_worker
    from trainer.worker.workshop import Identity

    settings, deployment = context.settings, client.deployment
    make_worker(
        client,
        signer=client.address,
        worker=client.address,
        identity=Identity(
            chain_id=deployment.chain_id, ledger=deployment.ledger, deployment_block=deployment.block_hash
        ),
        options=WorkerOptions(
            only_task=task,
            maximum_rounds=1,
            finalise=False,
            poll_seconds=settings.poll_seconds,
            snapshot_seconds=settings.snapshot_seconds,
        ),
        engine=engine,
        home=settings.home,
        store_url=settings.store_url,
        reporter=reporter,
        stop=stop,
    ).run()


def _defend(
    context: CommandContext,
    client: DisputeClient,
    engine: Engine,
    task: int,
    reporter: Reporter,
    stop: Stop,
    folder: Path,
    lie: Lie,
) -> None:
    """The disputes about the round, until it has fallen or is final."""
    from trainer.worker.session import stop_between

    settings = context.settings
    source = LyingSource(
        lie,
        client,
        store_of=lambda task: settings.store_url,
        cache=settings.home / "cache",
        journals=folder / "disputes",
        engine=engine,
        between=partial(stop_between, stop),
    )
    player = Stubborn(client, source, owner=client.address, reporter=reporter, clock=time.monotonic)
    while (slot := client.slot(task, 0)).attempt == 0 and slot.status is SlotStatus.SUBMITTED:
        stop_between(stop)
        if not player.turn():
            stop.wait(settings.poll_seconds)
    player.turn()  # says how its last dispute ended
    _say_end(slot.attempt > 0, reporter)


def _say_end(fell: bool, reporter: Reporter) -> None:
    reporter.say("caught" if fell else "uncaught", "The lie was found out." if fell else "Nobody found the lie.")


if __name__ == "__main__":
    app()
