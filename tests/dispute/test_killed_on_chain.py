"""Real games whose parties are killed around every transaction, and whose chain is reorganised under them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chain_games import BOND, STAKE, Accounts, ChainWorld, post_world
from fake_games import FixedTruths, Heard
from liars import plants
from worlds import LONG, world

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.disputes.positions import GameView, Outcome
from ledger.keys import Wallet
from ledger.rpc import rpc
from trainer.dispute.player import Player
from trainer.dispute.values import Truth

pytestmark = pytest.mark.chain

# Ends by a fold, by an element, and by a state's tensor: between them, games of every phase.
LIES = ["matmul 10 fold wrong from block 3", "view 18 element 0 alone", "state counter.step element 0"]
WRITES = frozenset({"play", "settle_late", "release", "award_fall"})


class Killed(BaseException):
    """A process dies."""


class MortalClient:
    """Dies before each of its transactions the first time, and after it the second, when it has been mined."""

    def __init__(self, client: DisputeClient, deaths: set[tuple[str, int, str]]) -> None:
        self._client, self._deaths = client, deaths

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return self._mortal(name, found) if name in WRITES else found

    def _mortal(self, name: str, write: Callable[..., Any]) -> Callable[..., Any]:
        def act(first: GameView | int, *rest: Any, **named: Any) -> Any:
            moves = first.position.moves if isinstance(first, GameView) else -1
            for moment in ("before", "after"):
                if (name, moves, moment) not in self._deaths:
                    self._deaths.add((name, moves, moment))
                    if moment == "after":
                        write(first, *rest, **named)
                    raise Killed
            return write(first, *rest, **named)

        return act


class Stage:
    """A game on chain between two players, each made anew whenever it dies."""

    def __init__(self, accounts: Accounts, name: str, *, honest: str) -> None:
        self.on: ChainWorld = post_world(world(LONG), accounts)
        at = self.on.at
        liar = at.liar(1, next(one for one in plants(at.plain.run(1), random.Random(8)) if one.name == name))
        self.honest = honest
        self.truths: dict[str, Truth] = {
            "worker": at.party if honest == "worker" else liar,
            "doubter": at.party if honest == "doubter" else liar,
        }
        self.deaths: dict[str, set[tuple[str, int, str]]] = {"worker": set(), "doubter": set()}
        self.on.submit(at.plain if honest == "worker" else liar)
        self.game = self.on.open(self.truths["doubter"])

    def player(self, who: str, *, mortal: bool) -> Player:
        self.on.accounts.forget(who)  # a process of its own knows nothing of the one before
        client: Any = self.on.accounts(who)
        if mortal:
            client = MortalClient(client, self.deaths[who])
        owner = self.on.accounts.wallet(who).address
        return Player(client, FixedTruths(self.truths[who]), owner=owner, reporter=Heard(), clock=lambda: 0.0)

    def view(self) -> GameView:
        self.on.accounts.forget("requester")
        return self.on.accounts("requester").view(self.game)

    def settle(self) -> Outcome:
        """Lets the side to move run out of time where nobody acts; then anybody may end the game."""
        view = self.view()
        if view.running:
            client = self.on.accounts("requester")
            self.on.accounts.chain.advance(max(0, view.deadline - client.chain_time()) + 1)
            for _ in range(3):
                with contextlib.suppress(Killed):
                    self.player(self.honest, mortal=True).turn()
        return self.view().outcome


@pytest.fixture
def accounts(
    chain: LocalChain, deployment: Deployment, deployer: Wallet, artifacts: dict[str, Artifact]
) -> Iterator[Accounts]:
    with Accounts.opened(chain, deployment, deployer, artifacts) as opened:
        yield opened


@pytest.mark.parametrize("honest", ["worker", "doubter"])
@pytest.mark.parametrize("name", [LIES[0], *(pytest.param(name, marks=pytest.mark.full) for name in LIES[1:])])
def test_both_parties_killed_around_every_transaction(accounts: Accounts, name: str, honest: str) -> None:
    stage = Stage(accounts, name, honest=honest)
    for _ in range(200):
        acted = False
        for who in ("worker", "doubter"):
            try:
                acted |= stage.player(who, mortal=True).turn()
            except Killed:
                acted = True
        if not acted:
            break
    else:
        raise AssertionError("the game does not come to rest")
    wanted = Outcome.DEFENDER_WON if honest == "worker" else Outcome.CHALLENGER_WON
    assert stage.settle() is wanted
    everywhere = stage.deaths["worker"] | stage.deaths["doubter"]
    # Each side died before and after each of its moves, from the opening on. At the last position the liar may see
    # that its own proof would lose, and let its time run out.
    moves = {moves for name, moves, _ in everywhere if name == "play"}
    assert len(moves) >= 3
    assert moves >= set(range(1, stage.view().position.moves))
    assert len(everywhere) == 2 * len({(name, moves) for name, moves, _ in everywhere})
    winner, loser = (honest, "doubter" if honest == "worker" else "worker")
    account = accounts(winner).stake_account(accounts.wallet(winner).address)
    assert account.staked == STAKE
    lost = accounts(loser).stake_account(accounts.wallet(loser).address)
    # A fallen worker's bond waits for the slot to find its state; a false challenger's is gone at once.
    assert (lost.staked, lost.locked) == ((STAKE - BOND, 0) if honest == "worker" else (STAKE, BOND))


@pytest.mark.parametrize("lost", [pytest.param(1, marks=pytest.mark.full), 2, 3])
def test_chain_reorganised_in_mid_game(accounts: Accounts, lost: int) -> None:
    """The last `lost` moves never happened; players that have seen them, and new ones, go on to the same end."""
    stage = Stage(accounts, LIES[0], honest="doubter")
    players = {who: stage.player(who, mortal=False) for who in ("worker", "doubter")}
    branches: list[tuple[int, str]] = []
    while (view := stage.view()).running and view.position.moves < 6:
        branches.append((view.position.moves, rpc(accounts.web3, "evm_snapshot")))
        if not any(player.turn() for player in players.values()):
            break  # the liar sees that it would lose
    assert len(branches) > lost
    moves, branch = branches[-1 - lost]
    height = int(accounts.web3.eth.block_number)
    rpc(accounts.web3, "evm_revert", branch)
    # The other branch is the longer one, as a reorganisation's is.
    missing = height - int(accounts.web3.eth.block_number) + 2
    rpc(accounts.web3, "anvil_mine", hex(missing))
    assert stage.view().position.moves == moves
    for _ in range(40):
        if not any(player.turn() for player in players.values()):
            break
    assert stage.settle() is Outcome.CHALLENGER_WON
