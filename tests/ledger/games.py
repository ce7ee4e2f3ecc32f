"""A submission of a million steps that is disputed, with made-up roots: enough to play the phase of runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from eth_utils.crypto import keccak
from life import ETHER, LOSS, TENSORS, claim, parameters, submit
from states import make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.disputes.moves import Narrow, Opening
from ledger.disputes.positions import GameView
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.tx import TransactionSender
from ledger.types import Task

PEOPLE = ("requester", "defender", "challenger", "other", "stranger")

STEPS = 1_000_000


@dataclass(frozen=True)
class Submission:
    """What a worker submitted for round 0, and the task."""

    task: Task
    attempt: int
    root: bytes

    def opening(self, challenger: str) -> Opening:
        return Opening(challenger, self.task.number, 0, 0, self.attempt, self.root)


@dataclass(frozen=True)
class GameWorld:
    """The people of games; each call makes a client of its own."""

    web3: Web3
    deployment: Deployment
    artifacts: dict[str, Artifact]
    chain: LocalChain
    crowd: str = "games"  # two worlds of one chain have other people

    def people(self, deployer: Wallet) -> Submission:
        """Gives everybody ether, tokens and stakes; returns what the defender submitted."""
        rich = self._client(deployer)
        for name in PEOPLE:
            client = self.client(name)
            self.chain.set_balance(client.address, 100 * ETHER)
            if name == "stranger":
                continue
            rich.transfer_token(client.address, 1000 * ETHER)
            if name != "requester":
                client.stake(ETHER)
        return make_submission(self.client("requester"), self.client("defender"))

    def client(self, name: str) -> DisputeClient:
        """A new client of one of `PEOPLE`, which knows nothing of the log yet."""
        return self._client(self.wallet(name))

    def wallet(self, name: str) -> Wallet:
        """The key of one of `PEOPLE`."""
        return Wallet.from_private_key(keccak(text=f"{self.crowd} {name}").hex(), name=name)

    def _client(self, wallet: Wallet) -> DisputeClient:
        sender = TransactionSender(self.web3, wallet, errors=ErrorDecoder(self.artifacts))
        return DisputeClient(self.web3, self.deployment, sender, artifacts=self.artifacts)


def make_submission(requester: LedgerClient, worker: LedgerClient, seed: int = 1) -> Submission:
    """Posts a task and submits a made-up state for its first round."""
    fields = parameters(steps_per_round=STEPS, minimum_steps=STEPS)
    task = requester.task(requester.post_task(fields, "file:///store"))
    attempt = claim(worker, task)
    state = make_state(LOSS, TENSORS, seed)
    submit(worker, task, 0, attempt, state, steps=STEPS)
    return Submission(task, attempt, state.root)


def roots(who: str, count: int) -> tuple[bytes, ...]:
    """Made-up state roots of a party."""
    return tuple(f"{who} {number}".encode().ljust(32, b".") for number in range(count))


def open_game(challenger: DisputeClient, made: Submission, who: str = "challenger") -> GameView:
    """Opens a game with made-up roots, the same at each call."""
    return challenger.view(challenger.open(made.opening(challenger.address), roots(who, 32)))


def narrow(view: GameView, place: int, who: str) -> Narrow:
    """The move that picks a point and posts made-up roots of a party."""
    low, high = [view.position.low, *view.position.places][place : place + 2]
    between = dataclasses.replace(view.position, low=low, high=high)
    return Narrow(place, roots(who, len(between.places)))
