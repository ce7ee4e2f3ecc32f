"""Connections that lie, drop and forget, in front of a real node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eth_utils.crypto import keccak
from web3 import Web3
from web3.contract import Contract
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from ledger.errors import ChainUnreachable
from ledger.keys import Wallet
from ledger.tx import TransactionSender

ETHER = 10**18
NOBODY = "0x00000000000000000000000000000000000000bb"
NOBODY_CHECKSUM = Web3.to_checksum_address(NOBODY)
Rule = Callable[[str, Any, Callable[[], RPCResponse]], RPCResponse]


class Proxy(BaseProvider):
    """Passes requests on, except where `rule(method, parameters, pass on)` does something else."""

    def __init__(self, inner: BaseProvider, rule: Rule) -> None:
        super().__init__()
        self._inner = inner
        self._rule = rule
        self.calls: list[str] = []
        self.sent: list[str] = []

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        self.calls.append(method)
        if method == "eth_sendRawTransaction":
            self.sent.append(str(params[0]))
        return self._rule(method, params, lambda: self._inner.make_request(method, params))


def dropped() -> ChainUnreachable:
    return ChainUnreachable("http://proxy", "the connection was closed")


def error(code: int, message: str) -> RPCResponse:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}


def fresh_address(name: str) -> str:
    return str(Web3.to_checksum_address(keccak(text=name)[12:]))


def balance(token: Contract, address: str) -> int:
    return int(token.functions.balanceOf(address).call())


def nonce(web3: Web3, wallet: Wallet) -> int:
    return web3.eth.get_transaction_count(Web3.to_checksum_address(wallet.address))


Bench = Callable[..., tuple[TransactionSender, Proxy, Contract, Wallet]]
