"""Command lines without a chain and on the test chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine
from life import ETHER
from round_life import round_parameters
from rounds_of_two import Rounds
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment, publish
from ledger.disputes.client import DisputeClient
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.tx import TransactionSender


@pytest.fixture
def offline(tmp_path: Path) -> CommandLine:
    """A command line without a chain: nothing listens on port 1."""
    return CommandLine(tmp_path / "home", rpc_url="http://127.0.0.1:1")


@pytest.fixture(scope="session")
def record(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the test deployment's record and ABIs."""
    directory = tmp_path_factory.mktemp("record")
    publish(deployment, directory)
    return directory


@pytest.fixture
def online(tmp_path: Path, chain: LocalChain, record: Path) -> CommandLine:
    """A command line on the test chain with its deployment."""
    return CommandLine(tmp_path / "home", rpc_url=chain.rpc_url, deployment=record)


@pytest.fixture
def account(online: CommandLine, funded_wallet: Callable[..., Wallet]) -> Callable[..., Wallet]:
    """Makes a funded account and stores its key: `account("alice")`, `account("bob", tokens=0)` (wei)."""

    def make(name: str, **funds: int) -> Wallet:
        return online.add(funded_wallet(**funds), name)

    return make


@pytest.fixture
def rounds(
    chain: LocalChain,
    web3: Web3,
    deployment: Deployment,
    artifacts: dict[str, Artifact],
    client_for: Callable[..., LedgerClient],
    account: Callable[..., Wallet],
    rolled_back: None,
) -> Rounds:
    requester, worker = client_for(account("requester")), client_for(account("worker"))
    sender = TransactionSender(web3, account("carol"), errors=ErrorDecoder(artifacts))
    challenger = DisputeClient(web3, deployment, sender, artifacts=artifacts)
    for client in (worker, challenger):
        client.stake(5 * ETHER)
    task = requester.task(requester.post_task(round_parameters(), "file:///store"))
    return Rounds(chain, task, worker, challenger)
