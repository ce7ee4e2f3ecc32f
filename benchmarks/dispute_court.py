"""Disputes on a real chain, with every transaction written down: what it was for, its gas and its calldata."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispute_parties import Result
from eth_utils.crypto import keccak

from ledger.anvil import LocalChain
from ledger.compile import compile_contracts
from ledger.deploy import LOCAL_PARAMETERS, Deployment, deploy
from ledger.disputes.client import DisputeClient
from ledger.disputes.moves import Opening
from ledger.disputes.positions import Outcome
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect, rpc
from ledger.tx import Receipt, TransactionSender
from ledger.types import TaskParameters
from trainer.dispute.player import Player
from trainer.dispute.segments import Segment
from trainer.dispute.solver import next_move, opening_points
from trainer.dispute.values import Concede, Truth

TOKEN = 10**18
DAY = 24 * 3600  # of a lease and a window, so that no clock runs out while a machine computes
NAMES = ("requester", "worker", "doubter")
PHASES = {
    "open": "opening",
    "narrow": "narrowing the runs",
    "enterRun": "entering the run: first view of the trace",
    "trace": "down the trace",
    "enterTensor": "entering the tensor: first view",
    "tensor": "down the tensor",
    "openChunk": "opening the chunk",
    "openFold": "opening the fold",
    "narrowFold": "narrowing the fold",
    "proveElement": "proof of the element",
    "proveBlock": "proof of the block",
    "settleLate": "verdict by the clock",
    "awardFall": "sharing out the bond",
}


@dataclass(frozen=True)
class Sent:
    """One transaction: the contract's function, gas in all, bytes of calldata."""

    function: str
    gas: int
    calldata: int


class MeteredSender(TransactionSender):
    """Writes down what it sends."""

    def __init__(self, *given: Any, book: list[Sent], **named: Any) -> None:
        super().__init__(*given, **named)
        self._book = book

    def send_request(self, request: Mapping[str, Any], *, contract: str, method: str, value: int = 0) -> Receipt:
        receipt = super().send_request(request, contract=contract, method=method, value=value)
        self._book.append(Sent(method, receipt.gas_used, len(request["data"].removeprefix("0x")) // 2))
        return receipt


@dataclass(frozen=True)
class Case:
    """A segment that is disputed: what its task commits to, the true result and the false one."""

    program: bytes
    dataset: bytes
    states: int
    steps: int
    true: Result
    false: Result


@dataclass(frozen=True)
class Dispute:
    """A dispute as it went, from the opening to the settled bond."""

    sent: tuple[Sent, ...]
    late: bool

    @property
    def gas(self) -> int:
        return sum(one.gas for one in self.sent)

    @property
    def calldata(self) -> int:
        return sum(one.calldata for one in self.sent)

    def phases(self) -> dict[str, list[Sent]]:
        """Its transactions by what they were for, in order."""
        found: dict[str, list[Sent]] = {}
        tree = "trace"
        for one in self.sent:
            tree = "tensor" if one.function == "enterTensor" else tree
            found.setdefault(PHASES[tree if one.function == "descend" else one.function], []).append(one)
        return found


class Court:
    """A fresh chain with the contracts and three accounts. Each dispute is taken back after it was measured."""

    def __init__(self, chain: LocalChain) -> None:
        self._chain, self._web3 = chain, connect(chain.rpc_url)
        self._book: list[Sent] = []
        self._artifacts = compile_contracts()
        for name in NAMES:
            chain.set_balance(_wallet(name).address, 1000 * TOKEN)
        self._deployment: Deployment = deploy(self._web3, self._sender("requester"), parameters=LOCAL_PARAMETERS)
        requester = self.client("requester")
        for name in NAMES[1:]:
            client = self.client(name)
            requester.transfer_token(client.address, 1000 * TOKEN)
            client.stake(100 * TOKEN)

    def _sender(self, name: str) -> MeteredSender:
        return MeteredSender(self._web3, _wallet(name), errors=ErrorDecoder(self._artifacts), book=self._book)

    def client(self, name: str) -> DisputeClient:
        """A client that remembers nothing, as after what was taken back it must not."""
        return DisputeClient(self._web3, self._deployment, self._sender(name), artifacts=self._artifacts)

    @contextmanager
    def task(self, case: Case, *, base: bytes) -> Iterator[int]:
        """The case's task; the block's transactions are taken back."""
        snapshot = rpc(self._web3, "evm_snapshot")
        parameters = TaskParameters(
            specification_hash=b"\x05" * 32,
            program_root=case.program,
            dataset_root=case.dataset,
            initial_state_root=base,
            state_tensors=case.states,
            rounds=2,
            steps_per_round=case.steps,
            minimum_steps=case.steps,
            slot_reward=10 * TOKEN,
            bond=10 * TOKEN,
            lease_fee=TOKEN,
            lease_seconds=DAY,
            challenge_window=DAY,
        )
        yield self.client("requester").post_task(parameters, "")
        rpc(self._web3, "evm_revert", snapshot)

    def play(self, case: Case, true: Truth, false: Truth, *, submitted: str, players: bool = False) -> Dispute:
        """One dispute, played out.

        Args:
            submitted: which of both results the worker submits: "true" or "false". The other one challenges it.
            players: by the code that workers and auditors run, which sends no proof against itself, in place of
                solvers that do, so that the proof is measured whoever's turn it is.
        """
        sides = {"worker": true, "doubter": false} if submitted == "true" else {"worker": false, "doubter": true}
        with self.task(case, base=true.state_root(0)) as task:
            self._submit("worker", task, case, case.true if submitted == "true" else case.false)
            self._book.clear()
            game = self._open(task, sides["doubter"])
            if players:
                self._by_players(game, sides)
            else:
                self._by_solvers(game, sides)
            view = self.client("worker").view(game)
            fell = view.outcome is Outcome.CHALLENGER_WON
            assert fell == (submitted == "false"), "the false side won"
            if fell:
                self._redo(task, case)
            return Dispute(tuple(one for one in self._book if one.function in {*PHASES, "descend"}), view.late)

    def _submit(self, name: str, task: int, case: Case, result: Result) -> None:
        client = self.client(name)
        base, attempt = client.base_root(task, 0), client.next_attempt(task, 0)
        client.claim(client.task(task), 0, base_root=base, attempt=attempt, worker=client.address)
        client.submit(
            task,
            0,
            attempt=attempt,
            base_root=base,
            state_root=result.root,
            steps=case.steps,
            loss_bits=result.loss_bits,
            proof=result.proof,
        )

    def _open(self, task: int, truth: Truth) -> int:
        client = self.client("doubter")
        slot = client.slot(task, 0)
        points = opening_points(truth, steps=slot.steps, submitted=slot.state_root)
        assert not isinstance(points, Concede), points.reason
        return client.open(Opening(client.address, task, 0, 0, slot.attempt, slot.state_root), points)

    def _by_solvers(self, game: int, sides: Mapping[str, Truth]) -> None:
        clients = {name: self.client(name) for name in sides}
        while (view := clients["worker"].view(game)).running:
            name = "worker" if view.position.defender_to_move else "doubter"
            move = next_move(view, sides[name])
            assert not isinstance(move, Concede), move
            clients[name].play(view, move)

    def _by_players(self, game: int, sides: Mapping[str, Truth]) -> None:
        clients = {name: self.client(name) for name in sides}
        players = [
            Player(clients[name], _Known(truth), owner=clients[name].address, reporter=_Quiet(), clock=time.monotonic)
            for name, truth in sides.items()
        ]
        while (view := clients["worker"].view(game)).running:
            if not any(player.turn() for player in players):
                self._chain.advance(max(0, view.deadline - clients["worker"].chain_time()) + 1)

    def _redo(self, task: int, case: Case) -> None:
        """The winner finds the slot's true state, as any round is worked on, and then the bond is shared out."""
        self._submit("doubter", task, case, case.true)
        client = self.client("doubter")
        self._chain.advance(DAY + 1)
        client.finalise(task, 0, attempt=1, state_root=case.true.root)
        client.award_fall(task, 0, attempt=0)


@contextmanager
def court() -> Iterator[Court]:
    with tempfile.TemporaryDirectory() as home, LocalChain(Path(home), 0) as chain:
        yield Court(chain)


def _wallet(name: str) -> Wallet:
    return Wallet.from_private_key(keccak(text=f"dispute benchmark {name}").hex())


@dataclass(frozen=True)
class _Known:
    """The same values for every segment."""

    known: Truth

    def truth(self, segment: Segment, /) -> Truth:
        return self.known

    def explain(self, position: object, /) -> None:
        return None

    def distrust(self) -> bool:
        return False


class _Quiet:
    """A reporter that says nothing."""

    def say(self, event: str, text: str, **fields: object) -> None: ...

    def progress(self, progress: object) -> None: ...

    def round_over(self) -> None: ...
