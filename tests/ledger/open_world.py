"""People of open tasks, and a task's rounds in short calls, with made-up states and real held-out data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_utils.crypto import keccak
from life import ETHER
from states import MadeUpState, make_state
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.audits.client import CommitteeClient
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.keys import Wallet
from ledger.open.client import OpenClient
from ledger.open.records import OpenParameters
from ledger.performance import float_bits
from ledger.reverts import ErrorDecoder
from ledger.tx import TransactionSender

TENSORS = 7
PERIOD = 300  # of commits, reveals, held-out data and leases: never over by itself within a test
WINDOW = 600
BOND, FEE = ETHER, ETHER // 10
SLOT, FLOOR, SCORE = 10 * ETHER, ETHER, ETHER // 2
SLOTS = 3
BASE = b"\4" * 32
BASE_LOSS = float_bits(4.0)
PEOPLE = ("requester", "anna", "boris", "clara", "stranger")
_KIND = b"\5"
SALT = b"\x08" * 32
TRAIN_LEAF, PUBLIC_NODE = b"\x09" * 32, b"\x0a" * 32
HELD_OUT_BYTES = 3000


def parameters(**fields: Any) -> OpenParameters:
    defaults: dict[str, Any] = {
        "specification_hash": b"\1" * 32,
        "program_root": b"\2" * 32,
        "initial_state_root": BASE,
        "train_leaf": TRAIN_LEAF,
        "public_node": PUBLIC_NODE,
        "state_tensors": TENSORS,
        "slots_per_round": SLOTS,
        "full_gain": float_bits(2.0),
        "held_out_bytes": HELD_OUT_BYTES,
        "slot_reward": SLOT,
        "floor_reward": FLOOR,
        "score_reward": SCORE,
        "bond": BOND,
        "fee": FEE,
        "commit_seconds": PERIOD,
        "reveal_seconds": PERIOD,
        "held_out_seconds": PERIOD,
        "lease_seconds": PERIOD,
        "challenge_window": WINDOW,
    }
    return OpenParameters(**(defaults | fields))


@dataclass(frozen=True)
class HeldOut:
    """A round's held-out tokens, and the root of their data set (formats.md, section 5)."""

    tokens: bytes
    root: bytes


def held_out(seed: int, size: int = HELD_OUT_BYTES) -> HeldOut:
    """Made-up tokens of a data set whose other parts are those of `parameters`."""
    tokens = hashlib.shake_256(seed.to_bytes(8, "big")).digest(size)
    chunks = [tokens[start : start + 1024].ljust(1024, b"\0") for start in range(0, size, 1024)]
    row = [_sha(b"\0", _KIND, chunk) for chunk in chunks]
    while len(row) & (len(row) - 1):
        row.append(_sha(b"\2", _KIND))
    while len(row) > 1:
        row = [_sha(b"\1", _KIND, *row[index : index + 2]) for index in range(0, len(row), 2)]
    part = _sha(b"\3", _KIND, b"\6", size.to_bytes(8, "big"), row[0])
    top = _sha(b"\1", _KIND, TRAIN_LEAF, _sha(b"\0", _KIND, part))
    top = _sha(b"\1", _KIND, PUBLIC_NODE, top)
    root = _sha(b"\3", _KIND, b"\0", (4).to_bytes(8, "big"), top)
    return HeldOut(tokens, root)


def _sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def trained_root(name: str) -> bytes:
    """The made-up state that somebody trained."""
    return _sha(b"trained", name.encode())


@dataclass(frozen=True)
class OpenWorld:
    """The people of open tasks; each call makes a client of its own."""

    web3: Web3
    deployment: Deployment
    artifacts: Mapping[str, Artifact]
    chain: LocalChain

    def people(self, deployer: Wallet) -> None:
        """Gives everybody ether, tokens and stakes."""
        rich = LedgerClient(self.web3, self.deployment, self._sender(deployer), artifacts=self.artifacts)
        for name in PEOPLE:
            client = self.client(name)
            self.chain.set_balance(client.address, 100 * ETHER)
            rich.transfer_token(client.address, 1000 * ETHER)
            if name != "requester":
                client.stake(50 * ETHER)

    def enrol(self) -> None:
        """Ten seats of two auditors, old enough to be drawn."""
        for name in ("boris", "clara"):
            self.committee(name).enrol(5)
        self.chain.advance(self.committee("boris").seat_age() + 1)

    def client(self, name: str) -> OpenClient:
        """A client of one of `PEOPLE`."""
        return OpenClient(self.web3, self.deployment, self._sender(self.wallet(name)), artifacts=self.artifacts)

    def committee(self, name: str) -> CommitteeClient:
        """As `client`, for seats."""
        return CommitteeClient(self.web3, self.deployment, self._sender(self.wallet(name)), artifacts=self.artifacts)

    def disputes(self, name: str) -> DisputeClient:
        """As `client`, for games about scores."""
        sender = self._sender(self.wallet(name))
        return DisputeClient(self.web3, self.deployment, sender, artifacts=self.artifacts, open_tasks=True)

    def wallet(self, name: str) -> Wallet:
        """The key of one of `PEOPLE`."""
        return Wallet.from_private_key(keccak(text=f"open tasks {name}").hex(), name=name)

    def _sender(self, wallet: Wallet) -> TransactionSender:
        return TransactionSender(self.web3, wallet, errors=ErrorDecoder(self.artifacts))

    # --- rounds ---

    def post(self, rounds: int = 1, **fields: Any) -> int:
        """A task of so many rounds, whose held-out data are `held_out(0)` and on."""
        roots = [held_out(number).root for number in range(rounds)]
        return self.client("requester").post_task(parameters(**fields), roots, "file:///store")

    def commit(self, name: str, task: int, state: bytes, round_number: int = 0) -> int:
        """Commits to a state; returns the slot."""
        client = self.client(name)
        commitment = client.commitment(task, round_number, client.address, state, SALT)
        base = client.base_root(task, round_number)
        return client.commit(task, round_number, b"\1" * 32, base, client.address, commitment)

    def handed_in(self, names: tuple[str, ...], task: int, round_number: int = 0) -> None:
        """Everybody commits to a state of their own, and reveals it."""
        slots = {name: self.commit(name, task, trained_root(name), round_number) for name in names}
        state = self.client("stranger").round(task, round_number)
        if state.committed < SLOTS:
            self.pass_time(state.commit_end)
        for name, slot in slots.items():
            self.client(name).reveal(task, round_number, slot, trained_root(name), SALT)

    def show(self, task: int, round_number: int = 0) -> None:
        """The requester shows the round's held-out data."""
        data = held_out(round_number)
        client = self.client("requester")
        client.reveal_held_out(task, round_number, data.tokens)

    def score(self, name: str, task: int, slot: int, loss: float, round_number: int = 0) -> MadeUpState:
        """Scores a slot with a made-up state that has this loss."""
        client = self.client(name)
        stored = client.slot(task, round_number, slot)
        scored = make_state(float_bits(loss), TENSORS, seed=slot + 1)
        client.score(
            task,
            round_number,
            slot,
            stored.attempt,
            client.address,
            stored.trained_root,
            scored.root,
            float_bits(loss),
            scored.loss_proof,
        )
        return scored

    def finalise(self, task: int, slot: int, round_number: int = 0) -> None:
        """Anybody makes a slot final."""
        client = self.client("stranger")
        stored = client.slot(task, round_number, slot)
        client.finalise(task, round_number, slot, stored.attempt, stored.scored_root)

    def pass_time(self, end: int) -> None:
        """Lets a period end."""
        self.chain.advance(max(0, end - self.client("stranger").chain_time()) + 1)
