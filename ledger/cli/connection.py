"""From settings to a deployment record and a client."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from web3 import Web3

from ledger.audits.client import CommitteeClient
from ledger.client import LedgerClient
from ledger.compile import compile_contracts
from ledger.deploy import Deployment
from ledger.disputes.client import DisputeClient
from ledger.errors import SettingsError
from ledger.open.client import OpenClient
from ledger.reverts import ErrorDecoder
from ledger.rpc import chain_id, endpoint
from ledger.settings import Settings
from ledger.tx import TransactionSender

if TYPE_CHECKING:
    from ledger.cli.common import CommandContext
    from ledger.keys import Wallet

__all__ = [
    "deployment_directory",
    "load_deployment",
    "make_client",
    "make_committee",
    "make_disputes",
    "make_open_tasks",
    "make_sender",
]


def deployment_directory(settings: Settings, web3: Web3) -> Path:
    """Where the record of the chain at hand is or belongs."""
    path = settings.deployment or settings.deployments / str(chain_id(web3))
    return path.parent if path.suffix == ".json" else path


def load_deployment(settings: Settings, web3: Web3) -> Deployment:
    """Reads the record and compares it with the chain.

    Raises:
        SettingsError: there is no record. WrongChain, StaleDeployment: see `Deployment.check`.
    """
    directory = settings.deployment or deployment_directory(settings, web3)
    file = directory if directory.suffix == ".json" else directory / "deployment.json"
    if not file.exists():
        raise SettingsError(
            f"There is no deployment record for the chain at {endpoint(web3)} (looked for {file}).",
            remedy="Deploy with `trainledger up` (local) or `trainledger deploy`, or name a record with --deployment.",
        )
    deployment = Deployment.load(file)
    deployment.check(web3)
    return deployment


def make_sender(web3: Web3, wallet: Wallet, *, confirmations: int = 0) -> TransactionSender:
    """A sender that decodes the errors of all contracts."""
    return TransactionSender(web3, wallet, errors=ErrorDecoder(compile_contracts()), confirmations=confirmations)


def make_client(context: CommandContext, *, signing: bool) -> LedgerClient:
    """A client; with `signing` one that sends as the context's account."""
    sender = _sender(context) if signing else None
    return LedgerClient(context.web3, context.deployment, sender)


def make_disputes(context: CommandContext, *, signing: bool, open_tasks: bool = False) -> DisputeClient:
    """As `make_client`, with the games; with `open_tasks` those about scores of open tasks."""
    sender = _sender(context) if signing else None
    return DisputeClient(context.web3, context.deployment, sender, open_tasks=open_tasks)


def make_committee(context: CommandContext, *, signing: bool) -> CommitteeClient:
    """As `make_disputes`, with the audits."""
    sender = _sender(context) if signing else None
    return CommitteeClient(context.web3, context.deployment, sender)


def make_open_tasks(context: CommandContext, *, signing: bool) -> OpenClient:
    """As `make_client`, for open tasks."""
    sender = _sender(context) if signing else None
    return OpenClient(context.web3, context.deployment, sender)


def _sender(context: CommandContext) -> TransactionSender:
    # The key first: a wrong password should not have to wait for a chain.
    wallet = context.wallet
    return make_sender(context.web3, wallet, confirmations=context.settings.confirmations)
