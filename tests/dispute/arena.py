"""Games without a chain: two players, a referee and a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from plain_truth import PlainSegment

from ledger.disputes.moves import Move
from ledger.disputes.positions import GameView, Matter, Outcome
from trainer.dispute import rules
from trainer.dispute.rules import Played, Referee
from trainer.dispute.solver import next_move, opening_points
from trainer.dispute.values import Concede, Truth

CLOCK, MINIMUM_MOVE = 1000, 100
DEFENDER, CHALLENGER = "0x" + "d1" * 20, "0x" + "c2" * 20
MOST_MOVES = 40


class Player(Protocol):
    def move(self, view: GameView) -> Move | Concede: ...


@dataclass
class Solver:
    """Plays by the solver with the values it holds, true or not."""

    truth: Truth

    def move(self, view: GameView) -> Move | Concede:
        return next_move(view, self.truth)


@dataclass
class Game:
    """One game as it went."""

    outcome: Outcome
    late: bool
    moves: list[Move] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [type(move).__name__ for move in self.moves]


def matter_of(truth: PlainSegment, *, submitted: bytes, claimed: bytes) -> Matter:
    return Matter(
        game=1,
        task=1,
        round=0,
        slot=0,
        attempt=1,
        steps=truth.steps,
        clock=CLOCK,
        defender=DEFENDER,
        challenger=CHALLENGER,
        base=truth.state_root(0),
        submitted=submitted,
        claimed=claimed,
        task_program=truth.task_program,
        dataset=truth.dataset,
        merge=truth.merge,
    )


def view_of(played: Played) -> GameView:
    return GameView(
        position=played.position,
        posted=played.posted,
        deadline=played.position.deadline(MINIMUM_MOVE),
        outcome=played.outcome,
        winner=None,
        late=played.late,
        moved_block=0,
    )


def play_out(
    matter: Matter, points: Sequence[bytes], defender: Player, challenger: Player, referee: Referee, *, honest: str
) -> Game:
    """Plays until a verdict. A liar without a move that the contract would take is late; `honest` never may be."""
    now = 10_000
    played = rules.opened(matter, points, now=now)
    moves: list[Move] = []
    while len(moves) < MOST_MOVES:
        now += 3
        side = "defender" if played.position.defender_to_move else "challenger"
        move = (defender if side == "defender" else challenger).move(view_of(played))
        try:
            assert not isinstance(move, Concede), move
            played = rules.play(played.position, move, now=now, minimum_move=MINIMUM_MOVE, referee=referee)
            moves.append(move)
        except (AssertionError, ValueError):
            if side == honest:
                raise
            late = played.position.deadline(MINIMUM_MOVE) + 1
            played = rules.settle_late(played.position, now=late, minimum_move=MINIMUM_MOVE)
        if played.outcome is not Outcome.RUNNING:
            return Game(played.outcome, played.late, moves)
    raise AssertionError(f"no verdict after {MOST_MOVES} moves: {[type(move).__name__ for move in moves]}")


def dispute(truth: PlainSegment, liar: Truth, referee: Referee, *, honest: str, party: Truth) -> Game:
    """A game by the solver on both sides about the liar's values: the honest side is `party` and has to win.

    `honest` is "challenger" (of the liar's submission) or "defender" (of the true one).
    """
    defender, challenger = (liar, party) if honest == "challenger" else (party, liar)
    submitted = defender.state_root(truth.steps + 1)
    points = opening_points(challenger, steps=truth.steps, submitted=submitted)
    assert not isinstance(points, Concede), points.reason
    matter = matter_of(truth, submitted=submitted, claimed=points[-1])
    game = play_out(matter, points, Solver(defender), Solver(challenger), referee, honest=honest)
    won = Outcome.CHALLENGER_WON if honest == "challenger" else Outcome.DEFENDER_WON
    assert game.outcome is won, game.names
    return game
