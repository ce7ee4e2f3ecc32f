"""A chain of games in memory that keeps the rules, with a clock that moves only when told, and faults on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from arena import MINIMUM_MOVE
from worlds import World

from ledger.disputes.moves import Move
from ledger.disputes.positions import GameView, Matter, Outcome
from ledger.errors import ContractReverted
from ledger.types import Slot, SlotStatus
from trainer.dispute import judge, rules
from trainer.dispute.rules import Played, Refused
from trainer.dispute.segments import Segment
from trainer.dispute.values import Truth


def reverted(method: str, error: str, **arguments: Any) -> ContractReverted:
    return ContractReverted("DisputeGame", method, error, arguments)


@dataclass
class FakeGames:
    """The games that all parties of a test share. `moves` lists what landed, in order."""

    now: int = 1_000_000
    views: dict[int, GameView] = field(default_factory=dict)
    slots: dict[tuple[int, int], Slot] = field(default_factory=dict)
    closed: bool = False
    current_round: int = 0
    moves: list[tuple[int, str]] = field(default_factory=list)
    awards: list[tuple[int, int, int]] = field(default_factory=list)
    awarded: set[tuple[int, int, int]] = field(default_factory=set)
    before_write: Callable[[str, int], None] = lambda method, game: None
    after_write: Callable[[str, int], None] = lambda method, game: None

    def submit(self, task: int, round_number: int, *, defender: str, root: bytes, steps: int) -> None:
        self.slots[(task, round_number)] = Slot(
            task=task,
            round=round_number,
            slot=0,
            worker=defender,
            attempt=1,
            deadline=self.now + 10_000,
            status=SlotStatus.SUBMITTED,
            open_games=0,
            payout=defender,
            steps=steps,
            heldout_loss=0,
            state_root=root,
        )

    def open(self, matter: Matter, points: Sequence[bytes]) -> int:
        number = len(self.views) + 1
        self._put(rules.opened(dataclasses.replace(matter, game=number), points, now=self.now), None)
        return number

    # --- what a player sees ---

    def chain_time(self) -> int:
        return self.now

    def minimum_move(self) -> int:
        return MINIMUM_MOVE

    def slot(self, task: int, round_number: int, slot: int = 0, /) -> Slot:
        return self.slots[(task, round_number)]

    def task(self, number: int, /) -> Any:
        @dataclass
        class Standing:
            closed: bool
            current_round: int

        return Standing(self.closed, self.current_round)

    def games(self, *, task: int | None = None, party: str | None = None, only_running: bool = False) -> list[GameView]:
        return [
            view
            for view in self.views.values()
            if party in (None, view.position.matter.defender, view.position.matter.challenger)
            and (view.running or not only_running)
        ]

    def view(self, game: int, /) -> GameView:
        if game not in self.views:
            raise reverted("getGame", "NoSuchGame", game=game)
        return self.views[game]

    def play(self, view: GameView, move: Move, /) -> object:
        self.before_write(move.function, view.number)
        current = self.views[view.number]
        if current.position.digest() != view.position.digest() or not current.running:
            return None
        try:
            played = rules.play(current.position, move, now=self.now, minimum_move=MINIMUM_MOVE, referee=judge)
        except Refused as refusal:
            raise reverted(move.function, refusal.error) from refusal
        self._put(played, current)
        self._landed(move.function, view.number)
        return "receipt"

    def settle_late(self, game: int, /) -> object:
        self.before_write("settleLate", game)
        view = self.views[game]
        self._put(rules.settle_late(view.position, now=self.now, minimum_move=MINIMUM_MOVE), view)
        self._landed("settleLate", game)
        return "receipt"

    def release(self, game: int, /) -> object:
        self.before_write("release", game)
        view = self.views[game]
        assert self._attempt(view) != view.position.matter.attempt, "the submission stands"
        self.views[game] = dataclasses.replace(view, outcome=Outcome.VOID)
        self._landed("release", game)
        return "receipt"

    def award_fall(self, task: int, round_number: int, /, *, attempt: int, slot: int = 0) -> object:
        key = (task, round_number, attempt)
        if key in self.awarded:
            raise reverted("awardFall", "NothingToAward")
        self.awarded.add(key)
        self._landed("awardFall", 0)
        return "receipt"

    def _attempt(self, view: GameView) -> int:
        matter = view.position.matter
        return self.slots[(matter.task, matter.round)].attempt

    def _landed(self, method: str, game: int) -> None:
        self.moves.append((game, method))
        self.now += 1
        self.after_write(method, game)

    def _put(self, played: Played, before: GameView | None) -> None:
        position = played.position
        outcome, matter = played.outcome, position.matter
        if outcome is not Outcome.RUNNING and before is not None and self._attempt(before) != matter.attempt:
            outcome = Outcome.VOID
        posted = played.posted if outcome is Outcome.RUNNING else before.posted if before else b""
        winner = {Outcome.DEFENDER_WON: matter.defender, Outcome.CHALLENGER_WON: matter.challenger}.get(outcome)
        self.views[matter.game] = GameView(
            position=position,
            posted=posted,
            deadline=position.deadline(MINIMUM_MOVE),
            outcome=outcome,
            winner=winner,
            late=played.late,
            moved_block=0,
        )
        if outcome is Outcome.CHALLENGER_WON:
            key = (matter.task, matter.round)
            old = self.slots[key]
            self.slots[key] = dataclasses.replace(old, attempt=old.attempt + 1, status=SlotStatus.OPEN)


@dataclass
class FixedTruths:
    """The same values for every segment; those of some rounds cannot be had."""

    truth_of: Truth
    missing: dict[int, Exception] = field(default_factory=dict)
    asked: int = 0
    distrusted: int = 0

    def truth(self, segment: Segment, /) -> Truth:
        self.asked += 1
        if segment.round in self.missing:
            raise self.missing[segment.round]
        return self.truth_of

    def explain(self, position: object, /) -> None:
        return None

    def distrust(self) -> bool:
        self.distrusted += 1
        return False


@dataclass
class Heard:
    """A reporter that keeps what it is told."""

    said: list[dict[str, Any]] = field(default_factory=list)

    def say(self, event: str, text: str, **fields: object) -> None:
        self.said.append({"event": event, "text": text, **fields})

    def progress(self, progress: object) -> None:
        raise AssertionError("players train nothing")

    def round_over(self) -> None: ...

    @property
    def events(self) -> list[str]:
        return [str(one["event"]) for one in self.said]


def games_of(at: World) -> FakeGames:
    """A chain with the true submission of the world in rounds 0 to 9 of task 1."""
    chain = FakeGames()
    root = at.party.state_root(at.plain.steps + 1)
    for number in range(10):
        chain.submit(1, number, defender="", root=root, steps=at.plain.steps)
    return chain
