"""Auditors with seats, and a task with an audit budget whose first round is submitted; on a real chain."""

from __future__ import annotations

from dataclasses import dataclass

from eth_utils.crypto import keccak
from life import ETHER, LOSS, TENSORS, claim, parameters, submit
from states import make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.audits.client import CommitteeClient
from ledger.audits.records import VOTES, Audit, commitment_of
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import rpc
from ledger.tx import TransactionSender
from ledger.types import Task

FEE = ETHER // 4
WINDOW = 1200
TRACE, SALT = b"\x07" * 32, b"\x08" * 32


@dataclass
class World:
    """Two auditors with seats, a requester whose task has a budget, and a submission of its first round."""

    web3: Web3
    deployment: Deployment
    artifacts: dict[str, Artifact]
    chain: LocalChain
    crowd: str = "audits"  # two worlds of one chain have other people

    def client(self, name: str) -> CommitteeClient:
        return self.of(Wallet.from_private_key(keccak(text=f"{self.crowd} {name}").hex(), name=name))

    def of(self, wallet: Wallet) -> CommitteeClient:
        sender = TransactionSender(self.web3, wallet, errors=ErrorDecoder(self.artifacts))
        return CommitteeClient(self.web3, self.deployment, sender, artifacts=self.artifacts)

    def people(self, deployer: Wallet) -> tuple[Task, bytes]:
        rich = self.of(deployer)
        for name in ("requester", "worker", "anna", "boris", "stranger"):
            client = self.client(name)
            self.chain.set_balance(client.address, 100 * ETHER)
            rich.transfer_token(client.address, 1000 * ETHER)
            if name != "requester":
                client.stake(20 * ETHER)
        for name in ("anna", "boris"):
            self.client(name).enrol(6)
        self.chain.advance(self.client("anna").seat_age() + 1)
        requester, worker = self.client("requester"), self.client("worker")
        task = requester.task(requester.post_task(parameters(challenge_window=WINDOW), "file:///store"))
        requester.fund_audits(task.number, FEE, 3 * VOTES * FEE)
        attempt, state = claim(worker, task), make_state(LOSS, TENSORS, 1)
        submit(worker, task, 0, attempt, state)
        return task, state.root


def drawn(world: World, task: Task, root: bytes) -> Audit:
    """A drawn audit in which both auditors have votes. One seed of 256 gives one of them none: that is undone."""
    while True:
        before = rpc(world.web3, "evm_snapshot")
        stranger = world.client("stranger")
        key = stranger.request_audit(task.number, 0, 0, root)
        rpc(world.web3, "anvil_mine", hex(3))
        stranger.draw_audit(key)
        if all(stranger.votes_of(key, world.client(name).address) for name in ("anna", "boris")):
            return stranger.audit(key)
        rpc(world.web3, "evm_revert", before)
        rpc(world.web3, "evm_increaseTime", 1)  # another time makes another hash


def commit(client: CommitteeClient, audit: Audit, root: bytes) -> bytes:
    commitment = commitment_of(audit.key, audit.seed, client.address, TRACE, root, SALT)
    client.commit_finding(audit.key, audit.seed, client.address, commitment)
    return commitment
