"""The local development chain's rich account: it deploys, and gives ether and tokens to new accounts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledger.cli.connection import make_sender
from ledger.client import LedgerClient
from ledger.errors import ChainError, InsufficientFunds
from ledger.keys import Wallet
from ledger.rpc import chain_id, endpoint, rpc

if TYPE_CHECKING:
    from web3 import Web3

    from ledger.cli.common import CommandContext

__all__ = ["Given", "developer_wallet", "require_development_chain", "top_up"]

# Anvil's (and Hardhat's) first account. Its key is printed in their manuals: it protects nothing and must never be
# used on a public chain.
_DEVELOPER_KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
DEVELOPMENT_CHAIN = 31337


@dataclass(frozen=True)
class Given:
    """What a top-up gave, wei."""

    ether: int
    tokens: int


def developer_wallet() -> Wallet:
    """The account that every development chain starts with."""
    return Wallet.from_private_key(_DEVELOPER_KEY, name="developer")


def require_development_chain(web3: Web3) -> None:
    """Refuses any chain but a development one.

    Raises:
        ChainError: the chain's id is not 31337, or the node has no Anvil methods.
    """
    number = chain_id(web3)
    if number != DEVELOPMENT_CHAIN:
        raise ChainError(
            f"The chain at {endpoint(web3)} has id {number}; free funds exist only on the local chain "
            f"({DEVELOPMENT_CHAIN}).",
            remedy="Send ether and tokens from an account that has some: `trainledger account send`.",
        )


def top_up(context: CommandContext, address: str, *, ether: int, tokens: int) -> Given:
    """Raises an account's ether and tokens to the given amounts (wei), on a development chain.

    Raises:
        ChainError: not a development chain. InsufficientFunds: the development account has not enough tokens, because
            somebody else deployed.
    """
    web3 = context.web3
    require_development_chain(web3)
    developer = developer_wallet()
    client = LedgerClient(web3, context.deployment, make_sender(web3, developer))
    missing_ether = max(0, ether - client.ether_balance(address))
    missing_tokens = max(0, tokens - client.token_balance(address))
    available = client.token_balance(developer.address)
    if missing_tokens > available:
        raise InsufficientFunds(
            developer.address,
            client.token_symbol,
            available,
            missing_tokens,
            remedy=f"The tokens belong to {context.deployment.deployer}, who can `trainledger account send` some.",
        )
    if missing_ether:
        rpc(web3, "anvil_setBalance", address, hex(ether))
    if missing_tokens:
        client.transfer_token(address, missing_tokens)
    return Given(missing_ether, missing_tokens)
