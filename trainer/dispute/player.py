"""Plays the games of one stake: for a worker that defends its submissions, or for whoever challenges others'.

Nothing is kept that cannot be found again: where a game stands is on the chain, what is true is computed. So a player
may be killed anywhere, and started again goes on. It sees to the most urgent game first, and a game that it cannot
play (data that are missing, a chain that refuses) is tried again later and holds up no other.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ledger.canonical import root_hex
from ledger.disputes.moves import Move
from ledger.disputes.positions import GameView, Matter, Outcome, Position
from ledger.disputes.words import describe_outcome, describe_place
from ledger.errors import ChainError, ContractReverted, MachineFault, ResourceError, TrainledgerError
from ledger.types import SlotStatus
from trainer.dispute import judge, rules
from trainer.dispute.explain import Explanation
from trainer.dispute.segments import Segment
from trainer.dispute.solver import next_move
from trainer.dispute.values import Concede, Truth
from trainer.worker.lease import is_outage
from trainer.worker.ports import ChainReader
from trainer.worker.progress import Reporter
from trainer.worker.stop import Interrupted, Terminated

# A game that could not be played is tried again after so many seconds, then twice as many, up to the last.
_FIRST_RETRY, _LAST_RETRY = 2.0, 120.0


class GameChain(ChainReader, Protocol):
    """What a player needs of `DisputeClient`. Writes that already landed are success."""

    def games(
        self, *, task: int | None = None, party: str | None = None, only_running: bool = False
    ) -> list[GameView]: ...

    def view(self, game: int, /) -> GameView: ...

    def minimum_move(self) -> int: ...

    def play(self, view: GameView, move: Move, /) -> object: ...

    def settle_late(self, game: int, /) -> object: ...

    def release(self, game: int, /) -> object: ...

    def award_fall(self, task: int, round_number: int, /, *, attempt: int, slot: int = 0) -> object: ...


class TruthSource(Protocol):
    """Where true values come from (`SegmentSource`)."""

    def truth(self, segment: Segment, /) -> Truth: ...

    def explain(self, position: Position, /) -> Explanation | None: ...

    def distrust(self) -> bool: ...


@dataclass
class _Trouble:
    retry_at: float
    pause: float
    shown: str


class Player:
    """Plays all games in which `owner` is a party, on its account or as one of its operators.

    Args:
        clock: seconds that only go forward, for retries; time in games is the chain's.
        only: play this game alone.
        poll_seconds: how often `must_move` asks the chain.
        found: whether the slot of a submission that fell has found its true state, or will find none; None where the
            games are about prescribed tasks.
    """

    def __init__(
        self,
        chain: GameChain,
        truths: TruthSource,
        *,
        owner: str,
        reporter: Reporter,
        clock: Callable[[], float],
        only: int | None = None,
        poll_seconds: float = 0.0,
        found: Callable[[Matter], bool] | None = None,
    ) -> None:
        self._chain, self._truths, self._owner = chain, truths, owner
        self._found = found or self._found_or_over
        self._reporter, self._clock, self._only = reporter, clock, only
        self._poll_seconds, self._asked_at = poll_seconds, -float("inf")
        self._minimum_move: int | None = None
        self._running: dict[int, GameView] = {}  # as they were at the last look
        self._looked = False
        self._conceded: set[bytes] = set()  # digests of positions without a move
        self._awaited: dict[int, GameView] = {}  # games won whose prize is not given yet
        self._trouble: dict[int, _Trouble] = {}

    @property
    def running(self) -> frozenset[int]:
        """Games of this stake that were running at the last turn."""
        return frozenset(self._running)

    @property
    def waits_for_award(self) -> bool:
        """Whether a submission that fell to this stake's challenge has not found its true state yet."""
        return bool(self._awaited)

    def turn(self) -> bool:
        """Looks once at all games, and makes at most one move. Returns whether something was done.

        Raises:
            ChainUnreachable, ChainError: no answer; ask again.
            ResourceError: disk or memory ran out.
        Interrupted, Terminated: asked to stop.
        """
        self._look()
        running = sorted(self._running.values(), key=lambda view: view.deadline)
        return any(self._guarded(view, self._act) for view in running) or any(
            self._guarded(view, self._award) for view in list(self._awaited.values())
        )

    def must_move(self) -> bool:
        """Whether a game waits for a move of this stake that has not been tried yet. A silent chain says no."""
        if self._clock() - self._asked_at < self._poll_seconds:
            return False
        self._asked_at = self._clock()
        try:
            waiting = [view for view in self._games(only_running=True) if self._mine_to_move(view)]
        except ChainError as error:
            if not is_outage(error):
                raise
            return False
        return any(
            view.number not in self._trouble and view.position.digest() not in self._conceded for view in waiting
        )

    def _games(self, *, only_running: bool) -> list[GameView]:
        if self._only is not None:
            return [self._chain.view(self._only)]
        return self._chain.games(party=self._owner, only_running=only_running)

    def _look(self) -> None:
        """Notes which games run and which have ended since the last look; at the first one, which prizes are due."""
        games = self._games(only_running=self._looked)
        running = {view.number: view for view in games if view.running}
        ended = [view for view in games if not view.running and view.number not in self._awaited]
        gone = self._running.keys() - {view.number for view in games}
        ended += [view for view in map(self._view, gone) if view is not None]
        for view in ended:
            if view.number in self._running and not view.running:
                text = f"{self._about(view)}: {describe_outcome(view)}."
                self._say("game-over", view, text, outcome=view.outcome.name.lower())
            if view.outcome is Outcome.CHALLENGER_WON and self._is_challenger(view):
                self._awaited[view.number] = view
        for number in running.keys() - self._running.keys():
            # A chain that was reorganised may have taken an end back.
            self._awaited.pop(number, None)
            view = running[number]
            self._say("game", view, f"{self._about(view)}: {describe_place(view.position)}.")
        self._running, self._looked = running, True

    def _view(self, game: int) -> GameView | None:
        """A game; None where the chain was reorganised to before its opening."""
        try:
            return self._chain.view(game)
        except ContractReverted as refusal:
            if refusal.error != "NoSuchGame":
                raise
            return None

    def _guarded(self, view: GameView, act: Callable[[GameView], bool]) -> bool:
        """Does something for a game, and keeps what goes wrong there from the others."""
        trouble = self._trouble.get(view.number)
        if trouble is not None and self._clock() < trouble.retry_at:
            return False
        try:
            acted = act(view)
        except (ResourceError, Interrupted, Terminated):
            raise
        except MachineFault as error:
            self._stumbled(view, str(error))
            return self._truths.distrust()
        except ChainError as error:
            if is_outage(error):
                raise
            self._stumbled(view, str(error))
            return False
        except TrainledgerError as error:
            self._stumbled(view, str(error))
            return False
        except Exception:  # an error of ours in one game must not lose the others; it is shown whole
            self._stumbled(view, traceback.format_exc())
            return False
        self._trouble.pop(view.number, None)
        return acted

    def _stumbled(self, view: GameView, text: str) -> None:
        before = self._trouble.get(view.number)
        pause = _FIRST_RETRY if before is None else min(_LAST_RETRY, 2 * before.pause)
        if before is None or before.shown != text:
            self._say("game-trouble", view, f"{self._about(view)} cannot be played now: {text} Trying again.")
        self._trouble[view.number] = _Trouble(self._clock() + pause, pause, text)

    def _act(self, view: GameView) -> bool:
        """What there is to do in a running game."""
        matter, now = view.position.matter, self._chain.chain_time()
        if self._chain.slot(matter.task, matter.round, matter.slot).attempt != matter.attempt:
            self._chain.release(view.number)
            self._say("released", view, f"{self._about(view)} is void: the submission fell in another one.")
            return True
        if not self._mine_to_move(view):
            if now <= view.deadline:
                return False
            self._chain.settle_late(view.number)
            self._say("settled", view, f"{self._about(view)}: the other side did not move in time.")
            return True
        if view.position.digest() in self._conceded:
            return False
        if now > view.deadline:
            self._conceded.add(view.position.digest())
            self._say("late", view, f"{self._about(view)}: the time for this side's move is over.")
            return False
        return self._move(view)

    def _move(self, view: GameView) -> bool:
        truth = self._truths.truth(Segment.of_matter(view.position.matter))
        began = self._clock()
        move = next_move(view, truth)
        if isinstance(move, Concede):
            self._conceded.add(view.position.digest())
            self._say("conceded", view, f"{self._about(view)}: no move, because {move.reason}.", reason=move.reason)
            return False
        self._check(view, move)
        seconds = self._clock() - began
        if self._chain.play(view, move) is None:
            return True  # somebody made this very move before
        name, explained = type(move).function, self._truths.explain(view.position)
        place = describe_place(view.position) + ("" if explained is None else f" ({explained})")
        self._say(
            "moved",
            view,
            f"{self._about(view)}: {place}; moved ({name}, {seconds:.1f} s).",
            move=name,
            seconds=round(seconds, 3),
            explanation=None if explained is None else explained.as_json(),
        )
        return True

    def _check(self, view: GameView, move: Move) -> None:
        """Plays the move by the rules first: nothing is sent that the contract would refuse, or that would lose."""
        position = view.position
        if self._minimum_move is None:
            self._minimum_move = self._chain.minimum_move()
        try:
            played = rules.play(position, move, now=position.since, minimum_move=self._minimum_move, referee=judge)
        except ValueError as error:
            raise MachineFault(
                f"This machine's own move {type(move).function} is against the rules: {error}.",
                remedy="Nothing was sent. Check the machine's memory, and report this with `--json`.",
            ) from error
        won = Outcome.DEFENDER_WON if position.defender_to_move else Outcome.CHALLENGER_WON
        if played.outcome not in (Outcome.RUNNING, won):
            raise MachineFault(
                f"This machine's own proof {type(move).function} shows that the other side is right.",
                remedy="Nothing was sent. Try `trainledger selftest`, and check this machine's memory.",
            )

    def _award(self, view: GameView) -> bool:
        """Collects the prize once the slot has found its state, or will find none."""
        matter = view.position.matter
        if not self._found(matter):
            return False
        try:
            self._chain.award_fall(matter.task, matter.round, attempt=matter.attempt, slot=matter.slot)
        except ContractReverted as refusal:
            if refusal.error != "NothingToAward":
                raise
        del self._awaited[view.number]
        self._say("awarded", view, f"The bond of the submission that fell in game {view.number} has been shared out.")
        return True

    def _found_or_over(self, matter: Matter) -> bool:
        slot = self._chain.slot(matter.task, matter.round, matter.slot)
        task = self._chain.task(matter.task)
        over = task.closed or matter.round < task.current_round  # a round may end without one of its slots
        return slot.status is SlotStatus.FINALISED or (slot.status is SlotStatus.OPEN and over)

    def _mine_to_move(self, view: GameView) -> bool:
        return view.position.mover.lower() == self._owner.lower()

    def _is_challenger(self, view: GameView) -> bool:
        return view.position.matter.challenger.lower() == self._owner.lower()

    def _about(self, view: GameView) -> str:
        matter = view.position.matter
        side = "challenging" if self._is_challenger(view) else "defending"
        return f"Game {view.number} ({side} round {matter.round} of task {matter.task})"

    def _say(self, event: str, view: GameView, text: str, **fields: object) -> None:
        matter = view.position.matter
        self._reporter.say(
            event,
            text,
            game=view.number,
            task=matter.task,
            round=matter.round,
            submitted_root=root_hex(matter.submitted),
            moves=view.position.moves,
            **fields,
        )
