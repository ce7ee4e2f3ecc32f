"""Command lines without a chain and on the test chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine

from ledger.anvil import LocalChain
from ledger.deploy import Deployment, publish
from ledger.keys import Wallet


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
