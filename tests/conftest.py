"""A real local chain for tests: one Anvil per test process, contracts deployed once, every test rolled back."""

from __future__ import annotations

import gc
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from eth_utils.crypto import keccak
from hypothesis import settings
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import Artifact, compile_contracts
from ledger.deploy import LOCAL_PARAMETERS, Deployment, deploy
from ledger.keys import Wallet
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect, rpc
from ledger.tx import TransactionSender

# Test processes share the processors, and PyTorch's own threads would wait for each other on what is small. Read when
# PyTorch is imported, here and in the processes that tests start; tests of threads ask for theirs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A machine that is busy with something else makes no test fail.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

ETHER = 10**18
LIBRARIES = Path(__file__).resolve().parent.parent / "build" / "libraries"


def make_wallet(name: str) -> Wallet:
    """The same throw-away key for the same name, another for each test process."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    return Wallet.from_private_key(keccak(text=f"test key {worker} {name}").hex(), name=name)


def pytest_collection_finish() -> None:
    """Two things that would take a tenth of all time each."""
    # What is imported by now stays, so the collector need not look at it.
    gc.collect()
    gc.freeze()
    # pytest listens to loggers that do not propagate; this one records, for who listens, each tensor that is traced.
    logging.getLogger("torch.__trace").propagate = True


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalChain]:
    """A running chain in a home of its own, on a free port."""
    with LocalChain(tmp_path_factory.mktemp("home"), 0) as running:
        yield running


@pytest.fixture(scope="session")
def web3(chain: LocalChain) -> Web3:
    return connect(chain.rpc_url)


@pytest.fixture(scope="session")
def artifacts() -> dict[str, Artifact]:
    return compile_contracts()


@pytest.fixture(scope="session")
def deployer(chain: LocalChain) -> Wallet:
    """Who deployed the contracts, and holds the tokens."""
    wallet = make_wallet("deployer")
    chain.set_balance(wallet.address, 1000 * ETHER)
    return wallet


@pytest.fixture(scope="session")
def deployment(web3: Web3, deployer: Wallet, artifacts: dict[str, Artifact]) -> Deployment:
    """Contracts with LOCAL_PARAMETERS."""
    sender = TransactionSender(web3, deployer, errors=ErrorDecoder(artifacts))
    return deploy(web3, sender, parameters=LOCAL_PARAMETERS)


@pytest.fixture
def client_for(web3: Web3, deployment: Deployment, artifacts: dict[str, Artifact]) -> Callable[[Wallet], LedgerClient]:
    """Makes a client that signs with a wallet."""

    def make(wallet: Wallet) -> LedgerClient:
        sender = TransactionSender(web3, wallet, errors=ErrorDecoder(artifacts))
        return LedgerClient(web3, deployment, sender, artifacts=artifacts)

    return make


_numbers = itertools.count()


@pytest.fixture
def funded_wallet(
    chain: LocalChain, deployer: Wallet, client_for: Callable[[Wallet], LedgerClient]
) -> Callable[..., Wallet]:
    """Makes fresh wallets with gas and tokens in wei: `funded_wallet()`, `funded_wallet(ether=0, tokens=5)`."""

    def make(*, ether: int = 100 * ETHER, tokens: int = 1000 * ETHER) -> Wallet:
        wallet = make_wallet(f"account {next(_numbers)}")
        chain.set_balance(wallet.address, ether)
        if tokens:
            client_for(deployer).transfer_token(wallet.address, tokens)
        return wallet

    return make


@pytest.fixture
def rolled_back(web3: Web3) -> Iterator[None]:
    """Undoes on the chain whatever the test does, blocks included; for tests that count on an empty deployment."""
    snapshot = rpc(web3, "evm_snapshot")
    yield
    rpc(web3, "evm_revert", snapshot)


@pytest.fixture(autouse=True)
def _home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own files. Compiled programs are shared: a name says all that is in one."""
    monkeypatch.setenv("TRAINLEDGER_HOME", str(tmp_path / "trainledger-home"))
    monkeypatch.setenv("TRAINLEDGER_LIBRARIES", str(LIBRARIES))
