"""Whole games on a real chain: the contracts' verdicts, their positions against the rules in Python, and the money."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

import pytest
from chain_games import BOND, STAKE, Accounts, ChainWorld, Played, post_world
from fake_games import FixedTruths, Heard
from liars import Plant, plants
from plain_truth import PlainSegment
from spoilt_moves import spoilt
from worlds import LONG, LONGEST, SHORT, World, primitive_world, random_world, world

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.disputes.positions import GameView, Outcome
from ledger.errors import ContractReverted
from ledger.keys import Wallet
from ledger.types import SlotStatus
from trainer.dispute import judge, rules
from trainer.dispute.player import Player
from trainer.dispute.solver import next_move
from trainer.dispute.sources import EvidenceRefused
from trainer.dispute.values import Concede

pytestmark = pytest.mark.chain
Count = Callable[[str, object], None]


def heavy(test: Callable[..., None]) -> Callable[..., None]:
    """Many games one after the other: minutes each, on a busy machine more."""
    return pytest.mark.full(pytest.mark.timeout(3600)(test))


@pytest.fixture(scope="module")
def accounts(
    chain: LocalChain, deployment: Deployment, deployer: Wallet, artifacts: dict[str, Artifact]
) -> Iterator[Accounts]:
    with Accounts.opened(chain, deployment, deployer, artifacts) as opened:
        yield opened


@pytest.fixture(scope="module")
def long_game(accounts: Accounts) -> ChainWorld:
    return post_world(world(LONG), accounts)


@pytest.fixture(autouse=True)
def _taken_back(accounts: Accounts, long_game: ChainWorld) -> Iterator[None]:
    with accounts.undone():
        yield


def lie(at: World, name: str, *, run: int = 1) -> PlainSegment:
    return at.liar(run, next(one for one in plants(at.plain.run(run), random.Random(8)) if one.name == name))


def both_ways(on: ChainWorld, liar: PlainSegment) -> list[Played]:
    """The lie as a submission, and as a challenge of the true one; the honest side has to win."""
    games = []
    for honest in ("challenger", "defender"):
        with on.accounts.undone():
            truths = (liar, on.at.party) if honest == "challenger" else (on.at.party, liar)
            on.submit(liar if honest == "challenger" else on.at.plain)
            game = on.open(truths[1])
            played = on.play_out(game, *truths, honest=honest)
            assert played.outcome is (Outcome.CHALLENGER_WON if honest == "challenger" else Outcome.DEFENDER_WON)
            games.append(played)
    return games


@pytest.mark.parametrize(
    "name",
    [
        "matmul 10 fold wrong from block 3",
        "sum 12 element 0 alone",
        "state counter.step element 0",
        "state moment.unused element 0",
        "pointwise 28 padding",
    ],
)
def test_game_on_chain_honest_side_wins_and_positions_are_the_rules(long_game: ChainWorld, name: str) -> None:
    for played in both_ways(long_game, lie(long_game.at, name)):
        assert not played.late


def test_game_won_by_the_challenger_money_to_the_wei(long_game: ChainWorld) -> None:
    on, accounts = long_game, long_game.accounts
    liar = lie(on.at, "view 18 element 0 alone")
    on.submit(liar)
    game = on.open(on.at.party)
    worker, doubter = accounts("worker"), accounts("doubter")
    assert doubter.stake_account(doubter.address).locked == BOND
    supply = _supply(accounts)
    assert on.play_out(game, liar, on.at.party, honest="challenger").outcome is Outcome.CHALLENGER_WON
    slot = worker.slot(on.task, 0)
    assert (slot.status, slot.attempt, slot.worker) == (SlotStatus.OPEN, 1, doubter.address)
    assert doubter.stake_account(doubter.address).locked == 0
    assert worker.stake_account(worker.address).locked == BOND  # until the slot has found its state
    on.submit(on.at.plain, worker="doubter")  # who won has first claim
    accounts.chain.advance(worker.slot(on.task, 0).deadline - worker.chain_time() + 1)
    doubter.finalise(on.task, 0, attempt=1, state_root=on.at.plain.state_root(on.at.plain.steps + 1))
    before = doubter.stake_account(doubter.address).credit
    doubter.award_fall(on.task, 0, attempt=0)
    assert doubter.stake_account(doubter.address).credit - before == BOND // 2
    account = worker.stake_account(worker.address)
    assert (account.staked, account.locked) == (STAKE - BOND, 0)
    assert supply - _supply(accounts) == BOND // 2


def test_game_won_by_the_defender_money_to_the_wei(long_game: ChainWorld) -> None:
    on, accounts = long_game, long_game.accounts
    liar = lie(on.at, "view 18 element 0 alone")
    on.submit(on.at.plain)
    worker, doubter = accounts("worker"), accounts("doubter")
    supply, game = _supply(accounts), on.open(liar)
    assert on.play_out(game, on.at.party, liar, honest="defender").outcome is Outcome.DEFENDER_WON
    account = doubter.stake_account(doubter.address)
    assert (account.staked, account.locked) == (STAKE - BOND, 0)
    assert worker.stake_account(worker.address).credit == BOND // 2
    assert supply - _supply(accounts) == BOND // 2
    slot = worker.slot(on.task, 0)
    assert (slot.status, slot.open_games) == (SlotStatus.SUBMITTED, 0)
    again = on.open(lie(on.at, "sum 12 element 0 alone"))  # a won defence bars no other challenge
    assert again == game + 1


def _supply(accounts: Accounts) -> int:
    return int(accounts("worker")._token.functions.totalSupply().call())


class Death(BaseException):
    """The process is gone."""


class Killed:
    """A client that dies just before or just after each transaction that a game has not seen a death at yet."""

    def __init__(self, client: DisputeClient, died: set[object]) -> None:
        self._client, self._died = client, died

    def __getattr__(self, name: str) -> object:
        found = getattr(self._client, name)
        if name not in ("play", "settle_late", "release", "award_fall"):
            return found

        def dying(*given: object, **named: object) -> object:
            where = given[0].position.moves if isinstance(given[0], GameView) else given[0]
            for when in ("before", "after"):
                if when == "after":
                    done = found(*given, **named)
                if (name, where, when) not in self._died:
                    self._died.add((name, where, when))
                    raise Death
            return done

        return dying


@pytest.mark.parametrize("honest", ["worker", "doubter"])
def test_players_killed_around_every_transaction_end_games_right(long_game: ChainWorld, honest: str) -> None:
    on, accounts = long_game, long_game.accounts
    accounts.fund("rogue")
    fakes = [lie(on.at, name) for name in ("matmul 10 element 0 alone", "state counter.step element 0")]
    if honest == "worker":  # two false challenges at once of true work
        parties = {"worker": on.at.party, "doubter": fakes[0], "rogue": fakes[1]}
        on.submit(on.at.plain)
        games = [on.open(fakes[0]), on.open(fakes[1], doubter="rogue")]
    else:
        parties = {"worker": fakes[0], "doubter": on.at.party}
        on.submit(fakes[0])
        games = [on.open(on.at.party)]
    died: set[object] = set()

    def turn(name: str) -> bool:
        client = Killed(accounts(name), died) if name == honest else accounts(name)
        player = Player(client, FixedTruths(parties[name]), owner=client.address, reporter=Heard(), clock=lambda: 0.0)
        try:
            return player.turn()
        except Death:
            return True  # the next turn is a new process's

    def views() -> list[GameView]:
        return [accounts(honest).view(game) for game in games]

    for _ in range(100):
        if not any(turn(name) for name in parties):
            latest = max(view.deadline for view in views() if view.running)
            accounts.chain.advance(max(0, latest - accounts(honest).chain_time()) + 1)
        if not any(view.running for view in views()):
            break
    won = Outcome.CHALLENGER_WON if honest == "doubter" else Outcome.DEFENDER_WON
    assert [view.outcome for view in views()] == [won] * len(games)
    assert len(died) >= 4


def test_moves_with_one_thing_changed_are_refused_alike(long_game: ChainWorld) -> None:
    assert compare_spoilt_moves(long_game, "sum 12 element 0 alone", random.Random(1), each=3) > 6


def compare_spoilt_moves(on: ChainWorld, name: str, rng: random.Random, *, each: int) -> int:
    """Plays a game, and in each position moves that are spoilt: contract and rules have to say the same of each.

    Returns how many were refused.
    """
    liar, refused = lie(on.at, name), 0
    on.submit(liar)
    game = on.open(on.at.party)
    sides = {True: ("worker", liar), False: ("doubter", on.at.party)}
    while True:
        account, truth = sides[on.accounts("worker").view(game).position.defender_to_move]
        view = on.accounts(account).view(game)
        move = next_move(view, truth)
        assert not isinstance(move, Concede)
        for _ in range(each):
            other = spoilt(move, rng)
            expected = said_by_rules(on, view, other)
            with on.accounts.undone():
                assert said_by_contract(on, account, view, other) == expected, other
            refused += isinstance(expected, str)
        on.accounts(account).play(view, move)
        if not on.accounts(account).view(game).running:
            return refused


def said_by_rules(on: ChainWorld, view: GameView, move: object) -> object:
    """The name of the error, or the outcome and the next position (its turn beginning at 0)."""
    minimum = on.accounts("worker").minimum_move()
    now = view.position.since
    try:
        played = rules.play(view.position, move, now=now, minimum_move=minimum, referee=judge)  # type: ignore[arg-type]  # one of the moves
    except (rules.Refused, EvidenceRefused) as refusal:
        return refusal.error
    return played.outcome, timeless(played.position) if played.outcome is Outcome.RUNNING else None


def said_by_contract(on: ChainWorld, account: str, view: GameView, move: object) -> object:
    client = on.accounts(account)
    try:
        client.play(view, move)  # type: ignore[arg-type]  # one of the moves
    except ContractReverted as refusal:
        return refusal.error
    after = client.view(view.number)
    return after.outcome, timeless(after.position) if after.running else None


def timeless(position: object) -> object:
    return dataclasses.replace(position, since=0, mover_seconds=0, waiter_seconds=0)  # type: ignore[type-var]  # a Position


@pytest.mark.full
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "name", ["matmul 10 fold wrong from block 3", "state counter.step element 0", "state parameter.x element 0"]
)
def test_moves_with_one_thing_changed_are_refused_alike_everywhere(long_game: ChainWorld, name: str, seed: int) -> None:
    compare_spoilt_moves(long_game, name, random.Random(seed), each=15)


@heavy
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("run", [1, 3])
@pytest.mark.parametrize("length", [SHORT, LONG])
def test_every_lie_on_chain_honest_side_wins(
    accounts: Accounts, length: int, run: int, part: int, record_property: Count
) -> None:
    record_property(
        "games", play_all(post_world(world(length), accounts), run, random.Random(length), part=part, parts=4)
    )


@heavy
@pytest.mark.parametrize("run", [1, 3])
def test_lies_in_folds_of_many_blocks_on_chain_honest_side_wins(
    accounts: Accounts, run: int, record_property: Count
) -> None:
    record_property(
        "games", play_all(post_world(world(LONGEST), accounts), run, random.Random(LONGEST), part=3, parts=8)
    )


@heavy
@pytest.mark.parametrize("seed", range(10))
def test_random_programs_on_chain_honest_side_wins(accounts: Accounts, seed: int, record_property: Count) -> None:
    record_property(
        "games", play_all(post_world(random_world(seed), accounts), 2, random.Random(seed), part=seed % 4, parts=4)
    )


@heavy
@pytest.mark.parametrize("part", range(3))
def test_every_primitive_on_chain_honest_side_wins(accounts: Accounts, part: int, record_property: Count) -> None:
    record_property("games", play_all(post_world(primitive_world(), accounts), 1, random.Random(6), part=part, parts=3))


def play_all(on: ChainWorld, run: int, rng: random.Random, *, part: int, parts: int) -> int:
    """Every so-manieth lie in a run, from number `part` on, both ways. Gives the number of games."""
    games = 0
    for plant in list(plants(on.at.plain.run(run), rng))[part::parts]:
        liar = on.at.liar(run, plant)
        if can_be_submitted(liar, run, plant):
            games += len(both_ways(on, liar))
    assert games
    return games


def can_be_submitted(liar: PlainSegment, run: int, plant: Plant) -> bool:
    """The contract itself refuses a last state whose held-out loss is not proved, or is a NaN other than the one."""
    loss = int.from_bytes(liar.run(liar.steps).state_after[0].numpy().tobytes(), "little")
    if loss & 0x7FFFFFFF > 0x7F800000 and loss != 0x7FC00000:
        return False
    last = run == liar.steps
    return not (last and ("metric" in plant.name or "tensor.0" in plant.name))
