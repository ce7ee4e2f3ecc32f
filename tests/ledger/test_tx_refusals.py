"""What the sender says when a call cannot be made, and nodes that lag."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_utils.crypto import keccak
from proxies import ETHER, NOBODY, NOBODY_CHECKSUM, Bench, error, fresh_address
from web3 import Web3
from web3.types import RPCResponse

from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import ChainError, ContractReverted, InsufficientFunds, TransactionFailed
from ledger.keys import Wallet

pytestmark = pytest.mark.chain


def test_send_never_mined_says_so(bench: Bench) -> None:
    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction":
            return {"jsonrpc": "2.0", "id": 1, "result": "0x" + keccak(hexstr=str(params[0])).hex()}
        return go()

    sender, proxy, token, _ = bench(rule, timeout=0.5)
    with pytest.raises(TransactionFailed, match=r"was not mined within 0\.5 seconds") as caught:
        sender.send(token.functions.transfer(NOBODY_CHECKSUM, 1))
    assert caught.value.transaction == "0x" + keccak(hexstr=proxy.sent[-1]).hex()
    assert "nonce 0" in caught.value.problem


def test_send_reverting_call_is_not_sent(bench: Bench, web3: Web3) -> None:
    sender, proxy, token, wallet = bench()
    with pytest.raises(ContractReverted) as caught:
        sender.send(token.functions.transfer(NOBODY_CHECKSUM, 11), contract="TrainingToken")
    refusal = caught.value
    assert (refusal.contract, refusal.method, refusal.error) == (
        "TrainingToken",
        "transfer",
        "ERC20InsufficientBalance",
    )
    assert refusal.arguments == {"sender": wallet.address, "balance": 10, "needed": 11}
    assert refusal.problem.startswith("TrainingToken.transfer refused: ERC20InsufficientBalance(sender=0x")
    assert proxy.sent == []


def test_send_reverting_when_mined_is_explained(bench: Bench, web3: Web3) -> None:
    """The simulation passes on a node that shows an old state; the transaction reverts."""

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_estimateGas":
            return {"jsonrpc": "2.0", "id": 1, "result": hex(100_000)}
        if method == "eth_call" and not proxy.sent:
            return {"jsonrpc": "2.0", "id": 1, "result": "0x" + "00" * 31 + "01"}
        return go()

    sender, proxy, token, wallet = bench(rule)
    with pytest.raises(TransactionFailed) as caught:
        sender.send(token.functions.transfer(NOBODY_CHECKSUM, 11), contract="TrainingToken")
    assert "TrainingToken.transfer was mined in block" in caught.value.problem
    assert "ERC20InsufficientBalance" in caught.value.problem
    assert isinstance(caught.value.__cause__, ContractReverted)
    assert caught.value.__cause__.arguments == {"sender": wallet.address, "balance": 10, "needed": 11}
    assert web3.eth.get_transaction_receipt(caught.value.transaction)["status"] == 0


def test_send_out_of_gas_is_explained(bench: Bench) -> None:
    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_estimateGas":
            return {"jsonrpc": "2.0", "id": 1, "result": hex(25_000)}
        return go()

    sender, _, token, _ = bench(rule)
    with pytest.raises(TransactionFailed, match="after it had used all of its 30000 gas"):
        sender.send(token.functions.transfer(fresh_address("out of gas"), 1))


def test_send_unfunded_account_is_named(bench: Bench, funded_wallet: Callable[..., Wallet]) -> None:
    poor = funded_wallet(ether=0, tokens=5)
    sender, proxy, token, _ = bench(wallet=poor)
    with pytest.raises(InsufficientFunds) as caught:
        sender.send(token.functions.transfer(NOBODY_CHECKSUM, 1))
    assert (caught.value.account, caught.value.asset, caught.value.available) == (poor.address, "ether", 0)
    assert caught.value.needed > 0
    assert proxy.sent == []


def test_send_value_beyond_the_balance_is_named(bench: Bench, funded_wallet: Callable[..., Wallet]) -> None:
    sender, proxy, _, _ = bench(wallet=funded_wallet(ether=ETHER, tokens=0))
    with pytest.raises(InsufficientFunds) as caught:
        sender.send_request({"to": NOBODY, "data": "0x"}, value=2 * ETHER, contract="account", method="transfer")
    assert caught.value.available == ETHER
    assert caught.value.needed > ETHER
    assert proxy.sent == []


def test_send_refused_by_the_node_is_a_chain_error(bench: Bench) -> None:
    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        return error(-32000, "transaction type not supported") if method == "eth_sendRawTransaction" else go()

    sender, _, token, _ = bench(rule)
    with pytest.raises(ChainError, match="refuses the transaction: transaction type not supported"):
        sender.send(token.functions.transfer(NOBODY_CHECKSUM, 1))


def test_send_node_without_tip_method_is_served(bench: Bench) -> None:
    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        return error(-32601, "method not found") if method == "eth_maxPriorityFeePerGas" else go()

    sender, _, token, _ = bench(rule)
    assert sender.send(token.functions.transfer(fresh_address("no tip"), 1)).gas_used > 21000


def test_reads_wait_for_a_node_that_is_behind(
    bench: Bench, deployment: Deployment, artifacts: dict[str, Artifact]
) -> None:
    lies = [True, True]

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_blockNumber" and lies:
            lies.pop()
            return {"jsonrpc": "2.0", "id": 1, "result": "0x1"}
        return go()

    sender, _, token, wallet = bench(rule)
    client = LedgerClient(sender.web3, deployment, sender, artifacts=artifacts)
    sender.send(token.functions.transfer(fresh_address("behind"), 4))
    assert client.token_balance(wallet.address) == 6
    assert lies == []


def test_reads_from_a_node_that_stays_behind_are_refused(
    bench: Bench, deployment: Deployment, artifacts: dict[str, Artifact]
) -> None:
    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        return {"jsonrpc": "2.0", "id": 1, "result": "0x1"} if method == "eth_blockNumber" else go()

    sender, _, token, wallet = bench(rule)
    client = LedgerClient(sender.web3, deployment, sender, artifacts=artifacts)
    client._behind_seconds = 0.3
    receipt = sender.send(token.functions.transfer(fresh_address("far behind"), 4))
    with pytest.raises(ChainError, match=f"is behind: it is at block 1, .* in block {receipt.block_number}"):
        client.token_balance(wallet.address)
