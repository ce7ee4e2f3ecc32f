"""Games about a world's segment on a real chain: posted, claimed, submitted and challenged like any other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from plain_truth import PlainSegment
from web3 import Web3
from worlds import World

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.disputes.moves import Opening
from ledger.disputes.positions import GameView, Outcome
from ledger.errors import ChainError
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect, rpc
from ledger.tx import Receipt, TransactionSender
from ledger.types import Task, TaskParameters
from trainer.dispute import judge, rules
from trainer.dispute.solver import next_move, opening_points
from trainer.dispute.values import Concede, RunValues, Truth

TOKEN = 10**18
STAKE, BOND, LEASE, WINDOW = 100 * TOKEN, 6 * TOKEN, 50, 100


@dataclass
class Played:
    """A game as it went. `gas` by the contract's functions, in order."""

    game: int
    outcome: Outcome
    late: bool
    gas: list[tuple[str, int]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.gas]


@dataclass
class ChainWorld:
    """A world's task on a chain; `worker` and `doubter` have stake."""

    at: World
    accounts: Accounts
    task: int

    def submit(self, submitted: PlainSegment, *, worker: str = "worker") -> Task:
        """The worker claims round 0 and submits the segment's result."""
        client = self.accounts(worker)
        task = client.task(self.task)
        base = client.base_root(self.task, 0)
        attempt = client.next_attempt(self.task, 0)
        client.claim(task, 0, base_root=base, attempt=attempt, worker=client.address)
        last = submitted.run(submitted.steps)
        client.submit(
            self.task,
            0,
            attempt=attempt,
            base_root=base,
            state_root=last.state_root,
            steps=submitted.steps,
            loss_bits=int.from_bytes(bytes(last.state_after[0].numpy().tobytes()), "little"),
            proof=loss_siblings(last),
        )
        return client.task(self.task)

    def open(self, challenger: Truth, *, doubter: str = "doubter") -> int:
        """A challenge of what is in the slot."""
        client = self.accounts(doubter)
        slot = client.slot(self.task, 0)
        points = opening_points(challenger, steps=slot.steps, submitted=slot.state_root)
        assert not isinstance(points, Concede), points.reason
        opening = Opening(client.address, self.task, 0, 0, slot.attempt, slot.state_root)
        return client.open(opening, points)

    def play_out(self, game: int, defender: Truth, challenger: Truth, *, honest: str) -> Played:
        """Plays a game by the solver on both sides; each move is compared with the rules in Python."""
        played = Played(game, Outcome.RUNNING, False)
        sides = {
            "defender": (self.accounts("worker"), defender),
            "challenger": (self.accounts("doubter"), challenger),
        }
        while True:
            side = "defender" if self._view(game).position.defender_to_move else "challenger"
            client, truth = sides[side]
            view = client.view(game)
            move = next_move(view, truth)
            try:
                assert not isinstance(move, Concede), move
                receipt = client.play(view, move)
            except (AssertionError, ChainError):
                if side == honest:
                    raise
                self.accounts.chain.advance(max(0, view.deadline - client.chain_time()) + 1)
                receipt = sides[honest][0].settle_late(game)
                move = None
            assert receipt is not None
            after = self._view(game)
            if move is not None:
                self.check(view, move, after, receipt)
            played.gas.append(("settleLate" if move is None else move.function, receipt.gas_used))
            if not after.running:
                played.outcome, played.late = after.outcome, after.late
                return played

    def check(self, view: GameView, move: object, after: GameView, receipt: Receipt) -> None:
        """The contract made of the position exactly what the rules in Python make of it."""
        now = int(self.accounts.web3.eth.get_block(receipt.block_number)["timestamp"])
        minimum = self.accounts("worker").minimum_move()
        expected = rules.play(view.position, move, now=now, minimum_move=minimum, referee=judge)  # type: ignore[arg-type]  # one of the moves
        assert after.outcome is expected.outcome
        if after.running:
            assert after.position == expected.position
            assert after.posted == expected.posted
            assert after.deadline == expected.position.deadline(minimum)

    def _view(self, game: int) -> GameView:
        return self.accounts("worker").view(game)


def post_world(at: World, accounts: Accounts) -> ChainWorld:
    """Posts the world's task by "requester"; nobody could fetch its data, and nobody has to."""
    return ChainWorld(at, accounts, accounts("requester").post_task(parameters_of(at), ""))


def parameters_of(at: World) -> TaskParameters:
    """Of a task of one round over the world's programs and its first state."""
    return TaskParameters(
        specification_hash=b"\x05" * 32,
        program_root=at.plain.task_program,
        dataset_root=at.plain.dataset,
        initial_state_root=at.plain.state_root(0),
        state_tensors=len(at.plain.base),
        rounds=1,
        steps_per_round=at.plain.steps,
        minimum_steps=at.plain.steps,
        slot_reward=10 * TOKEN,
        bond=BOND,
        lease_fee=TOKEN,
        lease_seconds=LEASE,
        challenge_window=WINDOW,
    )


def loss_siblings(run: RunValues) -> list[bytes]:
    """What proves the held-out loss against the state that a run ends in."""
    height = (run.states - 1).bit_length()
    return [run.state_nodes(level, 1, 0)[0] for level in range(height)]


class Accounts:
    """Clients by name, each with ether, tokens and stake. After something was taken back they are made anew."""

    def __init__(
        self, chain: LocalChain, deployment: Deployment, bank: DisputeClient, artifacts: Mapping[str, Artifact]
    ) -> None:
        self.chain, self.web3 = chain, bank.web3
        self._deployment, self._bank, self.artifacts = deployment, bank, artifacts
        self._known: dict[str, DisputeClient] = {}

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, chain: LocalChain, deployment: Deployment, deployer: Wallet, artifacts: Mapping[str, Artifact]
    ) -> Iterator[Accounts]:
        """Those of every game, with money; what the block does on the chain is taken back."""
        web3 = connect(chain.rpc_url)
        sender = TransactionSender(web3, deployer, errors=ErrorDecoder(artifacts))
        made = cls(chain, deployment, DisputeClient(web3, deployment, sender, artifacts=artifacts), artifacts)
        with made.undone():
            made.fund("requester", "worker", "doubter")
            yield made

    def __call__(self, name: str) -> DisputeClient:
        if name not in self._known:
            sender = TransactionSender(self.web3, self.wallet(name), errors=ErrorDecoder(self.artifacts))
            self._known[name] = DisputeClient(self.web3, self._deployment, sender, artifacts=self.artifacts)
        return self._known[name]

    def forget(self, name: str) -> None:
        """The next client of that name is a new one."""
        self._known.pop(name, None)

    def wallet(self, name: str) -> Wallet:
        return Wallet.from_private_key(Web3.keccak(text=f"on chain {name}").hex(), name=name)

    def fund(self, *names: str) -> None:
        for name in names:
            address = self.wallet(name).address
            self.chain.set_balance(address, 1000 * TOKEN)
            self._bank.transfer_token(address, 1000 * TOKEN)
            self(name).stake(STAKE)

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Takes back on the chain whatever the block does."""
        snapshot = rpc(self.web3, "evm_snapshot")
        try:
            yield
        finally:
            rpc(self.web3, "evm_revert", snapshot)
            self._known.clear()
