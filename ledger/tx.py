"""The one way to send a transaction: simulated first, sent once, awaited, and explained when it fails.

*Once* rests on the account's nonce. A call is signed with a nonce, and from then on only these bytes (or, when stuck,
a dearer transaction of the same nonce) are ever sent for it, as often as connections break and nodes forget. At most
one transaction of a nonce can be mined, so the call cannot happen twice. Only when another transaction of that nonce
has been mined, which proves that ours never will be, is the call simulated and signed anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from hexbytes import HexBytes
from web3 import Web3
from web3.contract.contract import ContractFunction
from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError
from web3.types import LogReceipt, TxParams, TxReceipt

from ledger.errors import ChainError, ChainUnreachable, ContractReverted, InsufficientFunds, TransactionFailed
from ledger.reverts import ErrorDecoder, revert_data
from ledger.rpc import endpoint, rpc

__all__ = ["ErrorDecoder", "Receipt", "Signer", "TransactionSender"]

_GAS_CAP = 1 << 24  # EIP-7825: no transaction may have more
_DEFAULT_TIP = 10**9  # wei; for nodes without eth_maxPriorityFeePerGas
_CONFLICTS = 5  # times that another user of the account may take our nonce before we give up
_LOST_POLLS = 4  # looks at the chain that must agree that our nonce went to somebody else
_REBROADCAST_SECONDS = 5.0
_POLL_SECONDS = 0.02
_POLL_LIMIT_SECONDS = 1.0
_SECONDS_A_CONFIRMATION = 30.0

_KNOWN = ("already known", "already imported", "known transaction", "alreadyknown")
_NONCE_LOW = ("nonce too low", "nonce is too low", "already been used", "already used")
_UNDERPRICED = ("underpriced", "gas price too low to replace")


class _Signed(Protocol):
    @property
    def raw_transaction(self) -> HexBytes: ...
    @property
    def hash(self) -> HexBytes: ...


class Signer(Protocol):
    """What the sender needs of a wallet."""

    @property
    def address(self) -> str:
        """Checksummed address."""
        ...

    def sign_transaction(self, transaction: dict[str, Any], /) -> _Signed:
        """The signed bytes and hash of an EIP-1559 transaction."""
        ...

    def sign_typed(self, message: dict[str, Any], /) -> Any:
        """A signature (`v`, `r`, `s`) of a full EIP-712 message."""
        ...


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A mined, successful transaction. Gas in units, prices in wei."""

    transaction: str
    block_number: int
    block_hash: bytes
    gas_used: int
    gas_price: int
    contract_address: str | None
    logs: tuple[LogReceipt, ...] = field(repr=False)


@dataclass
class _Delivery:
    """A call with its nonce: everything signed for it, oldest first."""

    request: dict[str, Any]
    nonce: int
    gas: int
    max_fee: int
    tip: int
    signed: list[_Signed] = field(default_factory=list)
    accepted: bool = False  # a node took it, or may have

    @property
    def hash(self) -> str:
        return self.signed[-1].hash.to_0x_hex()


class TransactionSender:
    """Sends one account's transactions, one at a time.

    Args:
        wallet: who signs and pays.
        errors: decodes what contracts answer.
        confirmations: blocks that must follow a transaction's own before it counts.
        timeout: seconds to wait for a transaction to be mined.
        bump_seconds: seconds after which a stuck transaction is sent again with fees a quarter higher.
    """

    def __init__(
        self,
        web3: Web3,
        wallet: Signer,
        *,
        errors: ErrorDecoder,
        confirmations: int = 0,
        timeout: float = 120,
        bump_seconds: float = 30,
    ) -> None:
        self.web3 = web3
        self.wallet = wallet
        self.errors = errors
        self.last_block = 0  # newest block with a transaction of ours: reads wait for it
        self.last_receipt: Receipt | None = None
        self._confirmations = confirmations
        self._timeout = timeout
        self._bump_seconds = bump_seconds
        self._lock = threading.Lock()
        self._chain_id: int | None = None

    @property
    def address(self) -> str:
        """The account that sends."""
        return self.wallet.address

    def send(self, call: ContractFunction, *, value: int = 0, contract: str = "contract") -> Receipt:
        """Calls a contract in a transaction and waits for it.

        Args:
            value: wei of ether to send along.
            contract: the contract's name, for messages.

        Raises:
            ContractReverted: the simulation reverts; nothing was sent.
            InsufficientFunds: the account cannot pay for the gas; nothing was sent.
            TransactionFailed: it was mined and reverted all the same, or was not mined in time.
            ChainUnreachable: no node answered. It is unknown whether the transaction will be mined.
        """
        data = call._encode_transaction_data()  # web3 has no public name for "this call's calldata"
        return self.send_request(
            {"to": call.address, "data": data}, value=value, contract=contract, method=call.fn_name
        )

    def send_request(self, request: Mapping[str, Any], *, contract: str, method: str, value: int = 0) -> Receipt:
        """As `send`, for any transaction: `request` has `data`, and `to` unless it deploys."""
        full = {"from": self.wallet.address, "value": value, **request}
        with self._lock:
            for _ in range(_CONFLICTS):
                self.simulate(full, contract=contract, method=method)
                delivery = self._prepare(full, contract=contract, method=method)
                receipt = self._deliver(delivery)
                if receipt is not None:
                    return self._settle(receipt, delivery, contract=contract, method=method)
        raise TransactionFailed(
            delivery.hash,
            f"Other transactions of {self.wallet.address} took the place of {contract}.{method} {_CONFLICTS} times.",
            remedy="Use the account in one process at a time; this call was not made.",
        )

    def simulate(self, request: Mapping[str, Any], *, contract: str, method: str) -> bytes:
        """Runs a transaction on the newest state without sending it; returns its output.

        Raises:
            ContractReverted: it would revert.
        """
        try:
            return bytes(self.web3.eth.call(cast(TxParams, dict(request)), "latest"))
        except ContractLogicError as problem:
            raise self.errors.decode(contract, method, revert_data(problem)) from None
        except Web3Exception as problem:
            raise self._refused(problem, request) from problem

    def _prepare(self, request: dict[str, Any], *, contract: str, method: str) -> _Delivery:
        try:
            estimate = self.web3.eth.estimate_gas(cast(TxParams, request))
        except ContractLogicError as problem:
            raise self.errors.decode(contract, method, revert_data(problem)) from None
        except Web3Exception as problem:
            raise self._refused(problem, request) from problem
        # The state may change before the transaction's turn; what is not used is not paid.
        gas = max(estimate, min(estimate * 6 // 5, _GAS_CAP))
        max_fee, tip = self._fees()
        needed = request["value"] + gas * max_fee
        balance = self.web3.eth.get_balance(Web3.to_checksum_address(self.wallet.address), "latest")
        if balance < needed:
            raise self._unfunded(balance, needed)
        address = Web3.to_checksum_address(self.wallet.address)
        nonce = self.web3.eth.get_transaction_count(address, "pending")
        delivery = _Delivery(request=request, nonce=nonce, gas=gas, max_fee=max_fee, tip=tip)
        self._sign(delivery)
        return delivery

    def _fees(self) -> tuple[int, int]:
        """EIP-1559 (maximum fee, tip) in wei a gas: the base fee may double before the transaction is left out."""
        base = self.web3.eth.get_block("latest").get("baseFeePerGas", 0)
        try:
            tip = int(rpc(self.web3, "eth_maxPriorityFeePerGas"), 16)
        except ChainUnreachable:
            raise
        except ChainError:
            tip = _DEFAULT_TIP
        return 2 * base + tip, tip

    def _sign(self, delivery: _Delivery) -> None:
        if self._chain_id is None:
            self._chain_id = self.web3.eth.chain_id
        fields = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": delivery.nonce,
            "gas": delivery.gas,
            "maxFeePerGas": delivery.max_fee,
            "maxPriorityFeePerGas": delivery.tip,
            "value": delivery.request["value"],
            "data": delivery.request["data"],
        }
        if "to" in delivery.request:
            fields["to"] = delivery.request["to"]
        delivery.signed.append(self.wallet.sign_transaction(fields))

    def _deliver(self, delivery: _Delivery) -> TxReceipt | None:
        """Sends and sends again until mined. None where another transaction of the same nonce was mined instead."""
        start = now = time.monotonic()
        broadcast_at, bump_at, end = start, start + self._bump_seconds, start + self._timeout
        lost, pause, unreachable = 0, _POLL_SECONDS, None
        while now < end:
            try:
                if now >= broadcast_at:
                    self._broadcast(delivery)
                    broadcast_at = now + _REBROADCAST_SECONDS
                receipt = self._find(delivery)
                unreachable = None
                if receipt is not None:
                    end = max(end, start + self._timeout + self._confirmations * _SECONDS_A_CONFIRMATION)
                    if self._confirmed(receipt):
                        return receipt
                lost = lost + 1 if receipt is None and self._nonce_gone(delivery) else 0
                if lost >= _LOST_POLLS:
                    return None
                if receipt is None and now >= bump_at:
                    self._bump(delivery)
                    bump_at = now + self._bump_seconds
                    broadcast_at = now
            except ChainUnreachable as problem:
                delivery.accepted = True  # it may have arrived although the answer did not
                unreachable = problem
                broadcast_at = now
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL_LIMIT_SECONDS)
            now = time.monotonic()
        if unreachable is not None:
            raise unreachable
        raise TransactionFailed(
            delivery.hash,
            f"Transaction {delivery.hash} (nonce {delivery.nonce} of {self.wallet.address}) was not mined within "
            f"{self._timeout:g} seconds.",
            remedy="It may still be. Run the same command again: what has happened by then is not repeated.",
        )

    def _broadcast(self, delivery: _Delivery) -> None:
        newest = delivery.signed[-1]
        try:
            self.web3.eth.send_raw_transaction(newest.raw_transaction)
            delivery.accepted = True
        except Web3RPCError as problem:
            text = _node_message(problem).lower()
            if any(sign in text for sign in _KNOWN):
                delivery.accepted = True
            elif any(sign in text for sign in (*_NONCE_LOW, *_UNDERPRICED)):
                return  # something of this nonce is mined or pending: the loop finds out whether it is ours
            elif not delivery.accepted:
                raise self._refused(problem, delivery.request, delivery) from problem

    def _find(self, delivery: _Delivery) -> TxReceipt | None:
        for signed in delivery.signed:
            try:
                return self.web3.eth.get_transaction_receipt(signed.hash)
            except TransactionNotFound:
                continue
            except Web3RPCError:
                continue  # some nodes answer with an error while they still index the block
        return None

    def _confirmed(self, receipt: TxReceipt) -> bool:
        return self._confirmations == 0 or self.web3.eth.block_number >= receipt["blockNumber"] + self._confirmations

    def _nonce_gone(self, delivery: _Delivery) -> bool:
        address = Web3.to_checksum_address(self.wallet.address)
        return self.web3.eth.get_transaction_count(address, "latest") > delivery.nonce

    def _bump(self, delivery: _Delivery) -> None:
        """Signs the same nonce with fees a quarter higher (nodes ask for a tenth), or today's where those are more."""
        max_fee, tip = self._fees()
        max_fee = max(max_fee, delivery.max_fee * 5 // 4 + 1)
        tip = max(tip, delivery.tip * 5 // 4 + 1)
        balance = self.web3.eth.get_balance(Web3.to_checksum_address(self.wallet.address), "latest")
        if balance >= delivery.request["value"] + delivery.gas * max_fee:
            delivery.max_fee, delivery.tip = max_fee, max(tip, 0)
            self._sign(delivery)

    def _settle(self, receipt: TxReceipt, delivery: _Delivery, *, contract: str, method: str) -> Receipt:
        self.last_block = max(self.last_block, receipt["blockNumber"])
        name = receipt["transactionHash"].to_0x_hex()
        if receipt["status"] != 1:
            raise self._explain(receipt, delivery, contract=contract, method=method)
        address = receipt.get("contractAddress")
        self.last_receipt = Receipt(
            transaction=name,
            block_number=receipt["blockNumber"],
            block_hash=bytes(receipt["blockHash"]),
            gas_used=receipt["gasUsed"],
            gas_price=int(receipt.get("effectiveGasPrice", 0)),
            contract_address=str(address) if address else None,
            logs=tuple(receipt["logs"]),
        )
        return self.last_receipt

    def _explain(self, receipt: TxReceipt, delivery: _Delivery, *, contract: str, method: str) -> TransactionFailed:
        name = receipt["transactionHash"].to_0x_hex()
        reason, cause = "without a reason that can be found again", None
        if receipt["gasUsed"] >= delivery.gas:
            reason = f"after it had used all of its {delivery.gas} gas"
        else:
            try:
                self.simulate(delivery.request, contract=contract, method=method)
            except ContractReverted as problem:
                reason, cause = f"most likely because {problem.problem}", problem
            except ChainError:
                reason = "and the node cannot replay it"
        failure = TransactionFailed(
            name,
            f"{contract}.{method} was mined in block {receipt['blockNumber']} and reverted, {reason.rstrip('.')}.",
            remedy=cause.remedy if cause is not None else "Run the same command again.",
        )
        failure.__cause__ = cause
        return failure

    def _refused(
        self, problem: Web3Exception, request: Mapping[str, Any], delivery: _Delivery | None = None
    ) -> ChainError:
        text = _node_message(problem)
        if "insufficient funds" in text.lower():
            balance = self.web3.eth.get_balance(Web3.to_checksum_address(self.wallet.address), "latest")
            gas_cost = delivery.gas * delivery.max_fee if delivery is not None else 0
            return self._unfunded(balance, max(int(request["value"]) + gas_cost, balance + 1))
        return ChainError(f"The node at {endpoint(self.web3)} refuses the transaction: {text}.")

    def _unfunded(self, balance: int, needed: int) -> InsufficientFunds:
        return InsufficientFunds(
            self.wallet.address,
            "ether",
            balance,
            needed,
            remedy="Send it some ether for gas; on the local chain `trainledger account fund` does.",
        )


def _node_message(problem: Web3Exception) -> str:
    """The node's own words in an exception of web3."""
    response: Any = getattr(problem, "rpc_response", None) or {}
    error = response.get("error")
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"]).rstrip(".")
    return str(error or getattr(problem, "message", None) or problem).rstrip(".")
