"""A worker that is challenged: it defends its work before anything else, and goes on with its rounds afterwards."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from arena import CLOCK
from fake_games import FakeGames
from worker_bench import Bench, TinyTask, bench
from worker_fakes import ALICE, BOB, FakeLedger

from ledger.disputes.positions import Matter, Outcome
from ledger.types import Slot
from trainer.commit.states import state_root


class LedgerGames(FakeGames):
    """Games about the submissions of a `FakeLedger`, by its clock; they keep its slots from being finalised."""

    def __init__(self, ledger: FakeLedger, task: TinyTask) -> None:
        super().__init__()
        self.ledger, self.tiny = ledger, task

    def chain_time(self) -> int:
        self.now = self.ledger.read().now
        return self.now

    def slot(self, task: int, round_number: int, slot: int = 0, /) -> Slot:
        return self.ledger.books.slots[(task, round_number)]

    def challenge(self, round_number: int) -> int:
        """Bob's garbage against what is submitted; he never moves again."""
        held = self.slot(1, round_number)
        self.slots[(1, round_number)] = held  # what games in memory look at
        self.ledger.books.slots[(1, round_number)] = dataclasses.replace(held, open_games=1)
        points = [b"bob says %d" % number + bytes(21) for number in range(10, 10 + held.steps + 1)]
        parameters = self.tiny.parameters
        before = self.ledger.books.lineage.get((1, round_number - 1))
        self.chain_time()
        return self.open(
            Matter(
                game=0,
                task=1,
                round=round_number,
                slot=0,
                attempt=held.attempt,
                steps=held.steps,
                clock=CLOCK,
                defender=held.worker,
                challenger=BOB,
                base=parameters.initial_state_root if before is None else before.state_root,
                submitted=held.state_root,
                claimed=points[-1],
                task_program=parameters.program_root,
                dataset=parameters.dataset_root,
                merge=False,
            ),
            points,
        )

    def settle_late(self, game: int, /) -> object:
        self.chain_time()
        done = super().settle_late(game)
        matter = self.views[game].position.matter
        held = self.slot(matter.task, matter.round)
        self.ledger.books.slots[(matter.task, matter.round)] = dataclasses.replace(held, open_games=0)
        return done


@pytest.fixture
def games(ledger: FakeLedger, task: TinyTask) -> LedgerGames:
    return LedgerGames(ledger, task)


def honest_roots(task: TinyTask) -> list[bytes]:
    return [state_root(state.values()) for state in task.states(3)][1:]


def lineage(ledger: FakeLedger) -> list[bytes]:
    return [ledger.books.lineage[(1, number)].state_root for number in range(3)]


def test_run_challenged_worker_defends_and_then_goes_on(
    task: TinyTask, ledger: FakeLedger, games: LedgerGames, tmp_path: Path
) -> None:
    made: Bench = bench(ledger, tmp_path, task, ALICE, games=games)

    def challenged(event: str) -> None:
        if event == "submitted" and not games.views:
            games.challenge(0)

    made.recorder.on_say = challenged
    made.worker.run()
    assert [view.outcome for view in games.views.values()] == [Outcome.DEFENDER_WON]
    assert games.moves == [(1, "enterRun"), (1, "settleLate")]
    assert lineage(ledger) == honest_roots(task)
    # It claimed nothing while its game ran, and said why.
    (reason,) = [text for text in made.recorder.texts("waiting") if "dispute" in text]
    assert "dispute 1 of yours runs; no round is claimed until that is over" in reason
    events = made.recorder.events
    assert events.index("moved") < events.index("settled") < events.index("claimed", events.index("submitted"))


def test_run_challenged_in_the_middle_of_training_moves_first(
    task: TinyTask, ledger: FakeLedger, games: LedgerGames, tmp_path: Path
) -> None:
    made = bench(ledger, tmp_path, task, ALICE, games=games)
    ledger.books.slots.clear()

    def challenged(progress: object) -> None:
        # A game about round 0 that begins while round 1 is trained: as after a reorganisation, or about another slot.
        if getattr(progress, "round", None) == 1 and getattr(progress, "step", 0) == 5 and not games.views:
            games.challenge(0)
            made.stop.seconds += 10

    made.recorder.on_progress = challenged
    made.worker.run()
    assert games.moves == [(1, "enterRun"), (1, "settleLate")]
    events = made.recorder.events
    due, moved = events.index("move-due"), events.index("moved")
    assert due < moved < events.index("resumed")
    steps = [progress.step for progress in made.recorder.steps if progress.round == 1]
    assert steps == list(range(1, 13))  # nothing was trained twice
    assert lineage(ledger) == honest_roots(task)


def test_run_does_not_leave_while_its_game_runs(
    task: TinyTask, ledger: FakeLedger, games: LedgerGames, tmp_path: Path
) -> None:
    made = bench(ledger, tmp_path, task, ALICE, games=games, maximum_rounds=1, finalise=False, idle_exit=5.0)

    def challenged(event: str) -> None:
        if event == "submitted":
            games.challenge(0)

    made.recorder.on_say = challenged
    made.worker.run()
    assert games.views[1].outcome is Outcome.DEFENDER_WON
