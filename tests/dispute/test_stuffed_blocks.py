"""Somebody fills block after block to keep a party's move out of the chain until its time has run out."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chain_games import Accounts, ChainWorld, post_world
from fake_games import FixedTruths, Heard
from liars import plants
from web3 import Web3
from worlds import SHORT, world

from ledger.anvil import LocalChain
from ledger.compile import Artifact
from ledger.deploy import LOCAL_PARAMETERS, deploy
from ledger.disputes.client import DisputeClient
from ledger.disputes.positions import Outcome
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect, rpc
from ledger.tx import TransactionSender
from trainer.dispute.player import Player

pytestmark = pytest.mark.chain

GAS_LIMIT, BLOCK_SECONDS, FULL_BLOCKS = 30_000_000, 12, 20
MOVE = 2 * BLOCK_SECONDS * FULL_BLOCKS
GWEI = 10**9
# JUMPDEST PUSH1 0 JUMP: runs until its gas is gone. Before it, the code that deploys these four bytes.
BURNER = "0x635b600056600052600460" + "1cf3"


class Miner:
    """Mines by hand, on a node that mines nothing by itself."""

    def __init__(self, web3: Web3) -> None:
        self.web3 = web3
        rpc(web3, "evm_setAutomine", False)
        rpc(web3, "evm_setIntervalMining", 0)

    def mine(self) -> Any:
        """The next block, 12 seconds after the one before."""
        rpc(self.web3, "evm_increaseTime", BLOCK_SECONDS)
        rpc(self.web3, "evm_mine")
        return self.web3.eth.get_block("latest")


class Stuffer:
    """Pays for whole blocks. Nodes suggest the tips of recent blocks to everybody, so it raises its own each time."""

    def __init__(self, chain: LocalChain, web3: Web3) -> None:
        self.web3, self.wallet = web3, Wallet.from_private_key("0x" + "5f" * 32, name="stuffer")
        chain.set_balance(self.wallet.address, 10**12 * 10**18)
        self.tip = 1000 * GWEI
        receipt = self._receipt(self._send({"data": BURNER}, gas=200_000))
        self.burner = receipt["contractAddress"]

    def fill(self) -> bytes:
        """A transaction that takes all of the next block."""
        self.tip = self.tip * 3 // 2
        return self._send({"to": self.burner, "data": "0x"}, gas=GAS_LIMIT)

    def _send(self, fields: dict[str, Any], *, gas: int) -> bytes:
        base = self.web3.eth.get_block("latest")["baseFeePerGas"]
        signed = self.wallet.sign_transaction(
            {
                "chainId": self.web3.eth.chain_id,
                "nonce": self.web3.eth.get_transaction_count(Web3.to_checksum_address(self.wallet.address), "pending"),
                "gas": gas,
                "value": 0,
                "maxFeePerGas": 2 * base + self.tip,
                "maxPriorityFeePerGas": self.tip,
                **fields,
            }
        )
        return bytes(self.web3.eth.send_raw_transaction(signed.raw_transaction))

    def _receipt(self, transaction: bytes) -> Any:
        return self.web3.eth.wait_for_transaction_receipt(transaction)  # type: ignore[arg-type]  # 32 bytes


@pytest.fixture
def arena(tmp_path: Path, artifacts: dict[str, Artifact]) -> Iterator[tuple[LocalChain, Web3, Accounts]]:
    """A chain of its own, whose disputes leave time for twice as many blocks as will be filled."""
    with LocalChain(tmp_path / "chain", 0) as chain:
        web3 = connect(chain.rpc_url)
        owner = Wallet.from_private_key("0x" + "5e" * 32, name="owner")
        chain.set_balance(owner.address, 10**6 * 10**18)
        sender = TransactionSender(web3, owner, errors=ErrorDecoder(artifacts))
        limits = replace(LOCAL_PARAMETERS, minimum_clock=MOVE, minimum_move=MOVE)
        deployment = deploy(web3, sender, parameters=limits)
        bank = DisputeClient(web3, deployment, sender, artifacts=artifacts)
        accounts = Accounts(chain, deployment, bank, artifacts)
        accounts.fund("requester", "worker", "doubter")
        yield chain, web3, accounts


def test_move_gets_in_when_the_stuffing_stops(arena: tuple[LocalChain, Web3, Accounts]) -> None:
    chain, web3, accounts = arena
    on: ChainWorld = post_world(world(SHORT), accounts)
    lie = next(one for one in plants(on.at.plain.run(1), random.Random(8)) if "alone" in one.name)
    on.submit(on.at.liar(1, lie))
    game = on.open(on.at.party)
    stuffer = Stuffer(chain, web3)
    rpc(web3, "evm_setBlockGasLimit", hex(GAS_LIMIT))
    miner = Miner(web3)
    miner.mine()
    base = web3.eth.get_block("latest")["baseFeePerGas"]
    sender = TransactionSender(web3, accounts.wallet("worker"), errors=accounts("worker").errors, bump_seconds=0.2)
    worker = DisputeClient(web3, accounts("worker").deployment, sender, artifacts=accounts("worker").artifacts)
    truth = FixedTruths(on.at.liar(1, lie))
    player = Player(worker, truth, owner=worker.address, reporter=Heard(), clock=lambda: 0.0)
    moved = threading.Thread(target=player.turn)
    moved.start()
    full = 0
    for _ in range(FULL_BLOCKS):
        filling = stuffer.fill()
        block = miner.mine()
        full += [bytes(one) for one in block["transactions"]] == [filling]
    assert full == FULL_BLOCKS
    assert worker.view(game).position.moves == 1
    assert web3.eth.get_block("latest")["baseFeePerGas"] > 5 * base  # what was offered first is too little by now
    while moved.is_alive():
        miner.mine()
        moved.join(0.3)
    view = worker.view(game)
    assert view.position.moves == 2
    assert view.outcome is Outcome.RUNNING
    assert worker.chain_time() <= view.deadline
