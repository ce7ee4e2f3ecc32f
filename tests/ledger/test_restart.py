"""Clients whose node is killed and comes back in the middle of their work."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak
from life import LOSS, TENSORS, parameters
from states import make_state

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import LOCAL_PARAMETERS, deploy
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect
from ledger.tx import TransactionSender
from ledger.types import SlotStatus

pytestmark = pytest.mark.chain

ETHER = 10**18


@pytest.fixture
def world(tmp_path: Path, artifacts: dict[str, Artifact]) -> Any:
    """(chain, client of one account that is requester and worker) on a chain of its own."""
    with LocalChain(tmp_path, 0) as chain:
        wallet = Wallet.from_private_key(keccak(text="restart").hex())
        chain.set_balance(wallet.address, 100 * ETHER)
        web3 = connect(chain.rpc_url)
        sender = TransactionSender(web3, wallet, errors=ErrorDecoder(artifacts))
        deployment = deploy(web3, sender, parameters=LOCAL_PARAMETERS)
        yield chain, LedgerClient(web3, deployment, sender, artifacts=artifacts)


def test_client_goes_on_over_a_killed_node(world: tuple[LocalChain, LedgerClient]) -> None:
    chain, client = world
    number = client.post_task(parameters(), "file:///store")
    client.stake(ETHER)
    client.claim(client.task(number), 0, base_root=b"\4" * 32, attempt=0, worker=client.address)
    chain.save()
    assert chain.pid is not None
    os.kill(chain.pid, signal.SIGKILL)
    timer = threading.Timer(0.3, chain.start)
    timer.start()
    state = make_state(LOSS, TENSORS)
    client.submit(
        number, 0, attempt=0, base_root=b"\4" * 32, state_root=state.root, steps=10, loss_bits=LOSS,
        proof=state.loss_proof,
    )  # fmt: skip
    timer.join()
    assert client.slot(number, 0).status == SlotStatus.SUBMITTED
    client.deployment.check(client.web3)
    assert client.totals().solvent


def test_transaction_lost_with_the_node_is_mined_again(
    world: tuple[LocalChain, LedgerClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node dies after it took a transaction and before the next dump: once confirmed means once, not never."""
    chain, client = world
    chain.save()
    before = client.token_balance(client.address)
    monkeypatch.setattr(chain, "_changed", lambda: False)  # no dump until the node is dead
    sender = client._sender
    assert sender is not None
    sender._confirmations = 3
    to = Wallet.from_private_key(keccak(text="receiver").hex()).address
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(client.transfer_token(to, 5)))
    thread.start()
    reader = LedgerClient(connect(chain.rpc_url), client.deployment, artifacts=client.artifacts)
    while reader.token_balance(to) == 0:
        time.sleep(0.02)
    assert chain.pid is not None
    os.kill(chain.pid, signal.SIGKILL)
    chain.start()
    thread.join(timeout=60)
    assert len(outcome) == 1
    assert reader.token_balance(to) == 5
    assert reader.token_balance(client.address) == before - 5
