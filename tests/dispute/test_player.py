"""The player: many games at once, clocks, and whatever happens in between."""

from __future__ import annotations

import dataclasses
import random

import pytest
from arena import CHALLENGER, CLOCK, DEFENDER, MINIMUM_MOVE, matter_of
from fake_games import FakeGames, FixedTruths, Heard, reverted
from liars import plants
from plain_truth import PlainSegment
from worlds import LONG, World, world

from ledger.disputes.positions import Outcome
from ledger.errors import BlobMissing, ChainUnreachable, ContractReverted, MachineFault, ResourceError
from ledger.types import SlotStatus
from trainer.dispute import player as player_module
from trainer.dispute.player import Player
from trainer.dispute.solver import opening_points
from trainer.dispute.values import Concede, Truth

LIES = ["matmul 10 element 0 alone", "state counter.step element 0", "sum 12 root", "pad of the trace"]


class Stage:
    """Honest players, and liars with an account for each lie, over one fake chain."""

    def __init__(self) -> None:
        self.at: World = world(LONG)
        self.chain, self.truths, self.heard = FakeGames(), FixedTruths(self.at.party), Heard()
        self.seconds = 0.0
        self.liars: list[Player] = []

    def player(self, owner: str, truths: FixedTruths | None = None, heard: Heard | None = None) -> Player:
        return Player(
            self.chain,
            truths or self.truths,
            owner=owner,
            reporter=heard or self.heard,
            clock=lambda: self.seconds,
        )

    def liar(self, name: str, *, run: int = 1) -> PlainSegment:
        return self.at.liar(
            run, next(one for one in plants(self.at.plain.run(run), random.Random(8)) if one.name == name)
        )

    def false_submission(self, round_number: int, lie: str, *, challenger: str = CHALLENGER) -> int:
        """A game about a liar's work, opened by an honest challenger."""
        fake, account = self.liar(lie), self._account()
        self.liars.append(self.player(account, FixedTruths(fake), Heard()))
        return self._game(round_number, account, challenger, fake, self.at.party)

    def false_challenge(self, round_number: int, lie: str) -> int:
        """A game about honest work, opened by a liar."""
        fake, account = self.liar(lie), self._account()
        self.liars.append(self.player(account, FixedTruths(fake), Heard()))
        return self._game(round_number, DEFENDER, account, self.at.party, fake)

    def outcomes(self) -> list[Outcome]:
        return [view.outcome for view in self.chain.views.values()]

    def play_out(self, *honest: Player) -> None:
        """Everybody moves while there are moves; then time passes, until all games are over."""
        for _ in range(60):
            while any(player.turn() for player in (*honest, *self.liars)):
                pass
            if Outcome.RUNNING not in self.outcomes():
                return
            self.chain.now = max(view.deadline for view in self.chain.views.values() if view.running) + 1
        raise AssertionError("a game does not end")

    def _account(self) -> str:
        return "0x" + f"{len(self.liars) + 1:02x}" * 20

    def _game(self, round_number: int, defender: str, challenger: str, work: Truth, doubt: Truth) -> int:
        steps = self.at.plain.steps
        submitted = work.state_root(steps + 1)
        if (1, round_number) not in self.chain.slots:
            self.chain.submit(1, round_number, defender=defender, root=submitted, steps=steps)
        points = opening_points(doubt, steps=steps, submitted=submitted)
        assert not isinstance(points, Concede)
        matter = matter_of(self.at.plain, submitted=submitted, claimed=points[-1])
        matter = dataclasses.replace(matter, round=round_number, defender=defender, challenger=challenger)
        return self.chain.open(matter, points)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_turn_several_games_at_once_honest_side_wins_all(stage: Stage) -> None:
    for number, lie in enumerate(LIES):
        stage.false_submission(number, lie)
        stage.false_challenge(9, lie)
    stage.play_out(stage.player(CHALLENGER), stage.player(DEFENDER))
    assert stage.outcomes() == [Outcome.CHALLENGER_WON, Outcome.DEFENDER_WON] * len(LIES)
    assert stage.heard.events.count("game-over") == 2 * len(LIES)
    assert "game-trouble" not in stage.heard.events


@pytest.mark.parametrize("when", ["before", "after"])
def test_turn_killed_around_every_move_goes_on(stage: Stage, when: str) -> None:
    class Killed(BaseException):
        pass

    killed: set[tuple[str, int]] = set()

    def kill(method: str, game: int) -> None:
        moves = stage.chain.views[game].position.moves if game else 0
        if honest_acts and (method, moves) not in killed:
            killed.add((method, moves))
            raise Killed

    if when == "before":
        stage.chain.before_write = kill
    else:
        stage.chain.after_write = kill
    stage.false_submission(0, LIES[0])
    stage.false_challenge(1, LIES[1])
    honest_acts = False
    for _ in range(100):
        players = {CHALLENGER: stage.player(CHALLENGER), DEFENDER: stage.player(DEFENDER)}
        acted = any(liar.turn() for liar in stage.liars)
        for player in players.values():
            honest_acts = True
            try:
                acted |= player.turn()
            except Killed:
                acted = True  # the next loop starts a new process
            honest_acts = False
        if not acted:
            if Outcome.RUNNING not in stage.outcomes():
                break
            stage.chain.now = max(view.deadline for view in stage.chain.views.values() if view.running) + 1
    assert stage.outcomes() == [Outcome.CHALLENGER_WON, Outcome.DEFENDER_WON]
    assert len(killed) >= 4


def test_turn_other_side_never_moves_is_settled(stage: Stage) -> None:
    game = stage.false_submission(0, LIES[0])
    honest = stage.player(CHALLENGER)
    assert not honest.turn()  # the defender has time
    stage.chain.now += CLOCK
    assert not honest.turn()  # its last second
    stage.chain.now += 1
    assert honest.turn()
    assert stage.chain.moves == [(game, "settleLate")]
    assert stage.outcomes() == [Outcome.CHALLENGER_WON]


def test_turn_most_urgent_game_first(stage: Stage) -> None:
    late = stage.false_challenge(0, LIES[0])
    stage.chain.now -= 500
    urgent = stage.false_challenge(1, LIES[0])
    stage.chain.now += 500
    assert stage.player(DEFENDER).turn()
    assert [game for game, _ in stage.chain.moves] == [urgent]
    assert late != urgent


def test_turn_time_over_says_so_once_and_lets_it_be(stage: Stage) -> None:
    stage.false_challenge(0, LIES[0])
    stage.chain.now += CLOCK + MINIMUM_MOVE
    honest = stage.player(DEFENDER)
    assert not honest.turn()
    assert not honest.turn()
    assert stage.heard.events == ["game", "late"]


def test_turn_missing_data_in_one_game_plays_the_others(stage: Stage) -> None:
    stage.false_challenge(0, LIES[0])
    good = stage.false_challenge(1, LIES[0])
    stage.truths.missing[0] = BlobMissing("states/0x12", "file:///nowhere")
    honest = stage.player(DEFENDER)
    assert honest.turn()
    assert [game for game, _ in stage.chain.moves] == [good]
    assert stage.heard.events.count("game-trouble") == 1
    (trouble,) = [one for one in stage.heard.said if one["event"] == "game-trouble"]
    assert trouble["game"] == 1
    assert "states/0x12 is not in the store" in trouble["text"]
    # It is tried again, ever less often, and played once the data are there.
    asked = stage.truths.asked
    assert not honest.turn()
    assert stage.truths.asked == asked
    stage.seconds += 2.5
    assert not honest.turn()
    assert stage.truths.asked == asked + 1
    del stage.truths.missing[0]
    stage.seconds += 5
    assert honest.turn()
    assert stage.heard.events.count("game-trouble") == 1


def test_turn_own_error_in_one_game_is_shown_whole_and_plays_the_others(stage: Stage) -> None:
    stage.false_challenge(0, LIES[0])
    stage.false_challenge(1, LIES[0])
    stage.truths.missing[0] = ZeroDivisionError("a bug")
    assert stage.player(DEFENDER).turn()
    (trouble,) = [one for one in stage.heard.said if one["event"] == "game-trouble"]
    assert "ZeroDivisionError: a bug" in trouble["text"]


@pytest.mark.parametrize("error", [ChainUnreachable("http://x", "refused"), ResourceError("disk full")])
def test_turn_outage_or_full_disk_is_the_callers(stage: Stage, error: Exception) -> None:
    stage.false_challenge(0, LIES[0])
    stage.truths.missing[0] = error
    with pytest.raises(type(error)):
        stage.player(DEFENDER).turn()


def test_turn_refused_move_is_tried_again_later(stage: Stage) -> None:
    stage.false_challenge(0, LIES[0])

    def refuse(method: str, game: int) -> None:
        raise reverted(method, "NotYourMove")

    stage.chain.before_write = refuse
    honest = stage.player(DEFENDER)
    assert not honest.turn()
    assert "NotYourMove" in stage.heard.said[-1]["text"]
    stage.chain.before_write = lambda method, game: None
    stage.seconds += 3
    assert honest.turn()


def test_turn_false_work_of_ones_own_is_not_defended(stage: Stage) -> None:
    stage.false_submission(0, LIES[0])
    (liar,) = stage.liars
    honest = stage.player(liar._owner)  # the same account, now on a machine that computes right
    assert not honest.turn()
    assert not honest.turn()
    assert stage.heard.events == ["game", "conceded"]
    assert stage.heard.said[-1]["reason"] == "every state that the other side posted is what this machine computes"
    assert stage.chain.moves == []


def test_turn_machine_that_is_wrong_sends_nothing_that_loses(stage: Stage) -> None:
    stage.false_challenge(0, "view 18 element 0 alone")
    honest, (liar,) = stage.player(DEFENDER), stage.liars
    # The liar's own proof would show that it is wrong: its check keeps it from sending that.
    while honest.turn() or liar.turn():
        pass
    said = liar._reporter.said[-1]
    assert said["event"] == "game-trouble"
    assert "shows that the other side is right" in said["text"]
    assert stage.outcomes() == [Outcome.RUNNING]
    assert not {"proveElement", "proveBlock", "proveRounding"} & {name for _, name in stage.chain.moves}


def test_turn_faulty_engine_is_distrusted(stage: Stage) -> None:
    stage.false_challenge(0, LIES[0])
    stage.truths.missing[0] = MachineFault("other bits")
    assert not stage.player(DEFENDER).turn()
    assert stage.truths.distrusted == 1


def test_turn_submission_fell_elsewhere_game_is_released(stage: Stage) -> None:
    first = stage.false_submission(0, LIES[0])
    second = stage.false_submission(0, LIES[0], challenger="0x" + "77" * 20)
    stage.chain.slots[(1, 0)] = dataclasses.replace(stage.chain.slots[(1, 0)], attempt=2, status=SlotStatus.OPEN)
    assert stage.player(CHALLENGER).turn()
    assert stage.chain.moves == [(first, "release")]
    assert stage.outcomes() == [Outcome.VOID, Outcome.RUNNING]
    assert second == 2


@pytest.mark.parametrize("closed", [False, True])
def test_turn_prize_is_collected_when_it_is_due(stage: Stage, closed: bool) -> None:
    stage.false_submission(0, LIES[0])
    honest = stage.player(CHALLENGER)
    stage.play_out(honest)
    assert honest.waits_for_award
    assert not honest.turn()  # the slot has not found its state yet
    if closed:
        stage.chain.closed = True
    else:
        stage.chain.slots[(1, 0)] = dataclasses.replace(stage.chain.slots[(1, 0)], status=SlotStatus.FINALISED)
    again = stage.player(CHALLENGER)  # a new process finds what is due
    assert again.turn()
    assert stage.chain.awarded == {(1, 0, 1)}
    assert honest.turn()  # somebody was faster: just as well
    assert not honest.waits_for_award
    assert not again.turn()


def test_turn_reorganisation_takes_an_end_back_and_the_game_is_played_again(stage: Stage) -> None:
    game = stage.false_submission(0, LIES[1])
    honest = stage.player(CHALLENGER)
    before = (dict(stage.chain.views), dict(stage.chain.slots))
    stage.play_out(honest)
    assert stage.outcomes() == [Outcome.CHALLENGER_WON]
    stage.chain.views, stage.chain.slots = before
    stage.play_out(honest)
    assert stage.outcomes() == [Outcome.CHALLENGER_WON]
    del stage.chain.views[game]
    assert not honest.turn()


def test_must_move_only_where_a_move_has_not_been_tried(stage: Stage) -> None:
    honest = stage.player(DEFENDER)
    assert not honest.must_move()
    stage.false_challenge(0, LIES[0])
    assert honest.must_move()
    stage.truths.missing[0] = BlobMissing("states/0x12", "file:///nowhere")
    honest.turn()
    assert not honest.must_move()
    stage.truths.missing.clear()
    stage.seconds += 10
    assert honest.turn()
    assert not honest.must_move()


def test_turn_one_game_only_leaves_the_others(stage: Stage) -> None:
    stage.false_challenge(0, LIES[0])
    second = stage.false_challenge(1, LIES[0])
    honest = Player(
        stage.chain, stage.truths, owner=DEFENDER, reporter=stage.heard, clock=lambda: stage.seconds, only=second
    )
    assert honest.turn()
    assert not honest.turn()
    assert [game for game, _ in stage.chain.moves] == [second]


def test_check_move_against_the_rules_is_a_machine_fault(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.false_challenge(0, LIES[0])
    view = stage.chain.views[1]
    from ledger.disputes.moves import Narrow

    monkeypatch.setattr(player_module, "next_move", lambda view, truth: Narrow(0, ()))
    assert not stage.player(DEFENDER).turn()
    assert "is against the rules" in stage.heard.said[-1]["text"]
    assert stage.chain.views[1] == view


def test_turn_unexpected_refusal_of_a_read_is_raised(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def games(**about: object) -> list[object]:
        raise reverted("getGame", "Unknown")

    monkeypatch.setattr(stage.chain, "games", games)
    with pytest.raises(ContractReverted):
        stage.player(DEFENDER).turn()
