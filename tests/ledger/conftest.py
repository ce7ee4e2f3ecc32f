"""People of a task's life, and senders behind unreliable connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from life import ETHER, ClientFor, WalletFactory, parameters
from proxies import Bench, Proxy, Rule
from web3 import Web3

from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.tx import TransactionSender
from ledger.types import Task


@pytest.fixture
def requester(client_for: ClientFor, funded_wallet: WalletFactory) -> LedgerClient:
    return client_for(funded_wallet())


@pytest.fixture
def worker(client_for: ClientFor, funded_wallet: WalletFactory) -> LedgerClient:
    """A worker with one token staked."""
    client = client_for(funded_wallet())
    client.stake(ETHER)
    return client


@pytest.fixture
def task(requester: LedgerClient) -> Task:
    return requester.task(requester.post_task(parameters(), "file:///store"))


@pytest.fixture
def solvent(web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact]) -> Iterator[None]:
    """After every test the vault holds at least what it owes."""
    yield
    totals = LedgerClient(web3, deployment, artifacts=artifacts).totals()
    assert totals.solvent, totals


@pytest.fixture
def bench(
    web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact], funded_wallet: Callable[..., Wallet]
) -> Bench:
    """Makes (sender through a proxy with this rule, the proxy, the token contract, the sender's wallet)."""

    def make(rule: Rule | None = None, wallet: Wallet | None = None, **options: Any) -> Any:
        proxy = Proxy(web3.provider, rule if rule is not None else lambda method, params, go: go())
        remote = Web3(proxy)
        who = wallet if wallet is not None else funded_wallet(tokens=10)
        sender = TransactionSender(remote, who, errors=ErrorDecoder(artifacts), **options)
        token = remote.eth.contract(
            address=Web3.to_checksum_address(deployment.token), abi=artifacts["TrainingToken"].abi
        )
        return sender, proxy, token, who

    return make
