"""The sender makes each call once, through connections that drop, forget and reorder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from eth_utils.crypto import keccak
from proxies import NOBODY, NOBODY_CHECKSUM, Bench, balance, dropped, fresh_address, nonce
from web3 import Web3
from web3.contract import Contract
from web3.types import RPCResponse

from ledger.anvil import LocalChain
from ledger.errors import ChainUnreachable, ContractReverted, TransactionFailed
from ledger.rpc import rpc
from ledger.tx import TransactionSender

pytestmark = pytest.mark.chain


def test_send_returns_the_receipt(bench: Bench, web3: Web3) -> None:
    sender, proxy, token, wallet = bench()
    to = fresh_address("receipt")
    receipt = sender.send(token.functions.transfer(to, 3))
    assert balance(token, to) == 3
    mined = web3.eth.get_transaction_receipt(receipt.transaction)
    assert (receipt.block_number, receipt.gas_used) == (mined["blockNumber"], mined["gasUsed"])
    assert receipt.block_hash == bytes(mined["blockHash"])
    assert len(receipt.logs) == 1
    assert receipt.contract_address is None
    assert sender.last_block == receipt.block_number
    assert (len(proxy.sent), nonce(web3, wallet)) == (1, 1)
    transaction = web3.eth.get_transaction(receipt.transaction)
    assert transaction["type"] == 2
    assert receipt.gas_used < transaction["gas"] <= receipt.gas_used * 2


def test_send_answer_dropped_after_arrival_is_sent_once(bench: Bench, web3: Web3) -> None:
    """The node takes the transaction and mines it, but its answer never comes."""
    drops = [True, True, True]

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and drops:
            drops.pop()
            go()
            raise dropped()
        return go()

    sender, proxy, token, wallet = bench(rule)
    to = fresh_address("dropped answer")
    sender.send(token.functions.transfer(to, 4))
    assert balance(token, to) == 4
    assert nonce(web3, wallet) == 1
    assert len(set(proxy.sent)) == 1


def test_send_request_dropped_before_arrival_is_sent_again(bench: Bench, web3: Web3) -> None:
    drops = [True, True]

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and drops:
            drops.pop()
            raise dropped()
        return go()

    sender, proxy, token, wallet = bench(rule)
    to = fresh_address("dropped request")
    sender.send(token.functions.transfer(to, 5))
    assert (balance(token, to), nonce(web3, wallet)) == (5, 1)
    assert len(proxy.sent) == 3
    assert len(set(proxy.sent)) == 1


def test_send_everything_dropped_after_the_first_byte_is_unreachable_and_at_most_once(bench: Bench, web3: Web3) -> None:
    down = threading.Event()

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and not down.is_set():
            go()
            down.set()
        if down.is_set():
            raise dropped()
        return go()

    sender, _, token, wallet = bench(rule, timeout=1)
    to = fresh_address("all dropped")
    with pytest.raises(ChainUnreachable):
        sender.send(token.functions.transfer(to, 6))
    down.clear()
    down_again = bench(wallet=wallet)[2]
    assert balance(down_again, to) == 6
    assert nonce(web3, wallet) == 1


def test_send_lookup_dropped_keeps_waiting(bench: Bench, web3: Web3) -> None:
    drops = [True] * 3

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_getTransactionReceipt" and drops:
            drops.pop()
            raise dropped()
        return go()

    sender, _, token, wallet = bench(rule)
    sender.send(token.functions.transfer(fresh_address("lookup"), 1))
    assert (drops, nonce(web3, wallet)) == ([], 1)


def test_send_node_forgets_the_transaction_and_gets_it_again(
    bench: Bench, web3: Web3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a restarted node does: it said yes, and then knows nothing of it."""
    monkeypatch.setattr("ledger.tx._REBROADCAST_SECONDS", 0.2)
    forgets = [True]

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and forgets:
            forgets.pop()
            return {"jsonrpc": "2.0", "id": 1, "result": "0x" + keccak(hexstr=str(params[0])).hex()}
        return go()

    sender, proxy, token, wallet = bench(rule)
    to = fresh_address("forgotten")
    sender.send(token.functions.transfer(to, 2))
    assert (balance(token, to), nonce(web3, wallet)) == (2, 1)
    assert len(proxy.sent) == 2
    assert len(set(proxy.sent)) == 1


def test_send_nonce_taken_by_another_process_is_signed_anew(bench: Bench, web3: Web3) -> None:
    other: list[TransactionSender] = []

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and other:
            other.pop().send_request({"to": NOBODY, "data": "0x"}, contract="account", method="transfer", value=1)
        return go()

    sender, proxy, token, wallet = bench(rule)
    other.append(bench(wallet=wallet)[0])
    to = fresh_address("conflict")
    sender.send(token.functions.transfer(to, 7))
    assert balance(token, to) == 7
    assert nonce(web3, wallet) == 2
    assert len(set(proxy.sent)) == 2


def test_send_nonce_taken_simulates_again(bench: Bench, web3: Web3) -> None:
    """The other process spent the tokens: ours is refused by simulation, not sent to fail."""
    other: list[tuple[TransactionSender, Contract]] = []
    to = fresh_address("simulated again")

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and other:
            sender, token = other.pop()
            sender.send(token.functions.transfer(NOBODY_CHECKSUM, 10))
        return go()

    sender, _, token, wallet = bench(rule)
    twin, _, same_token, _ = bench(wallet=wallet)
    other.append((twin, same_token))
    with pytest.raises(ContractReverted) as caught:
        sender.send(token.functions.transfer(to, 10), contract="TrainingToken")
    assert caught.value.error == "ERC20InsufficientBalance"
    assert caught.value.arguments == {"sender": wallet.address, "balance": 0, "needed": 10}
    assert (balance(token, to), nonce(web3, wallet)) == (0, 1)


def test_send_same_call_by_two_processes_at_once_is_one_transaction(
    bench: Bench, web3: Web3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same account, nonce, call and fees are the same bytes: both see the one receipt."""
    monkeypatch.setattr(TransactionSender, "_fees", lambda self: (10**10, 10**9))
    other: list[tuple[TransactionSender, Contract]] = []
    to = fresh_address("same twice")

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and other:
            sender, token = other.pop()
            sender.send(token.functions.transfer(to, 4))
        return go()

    sender, proxy, token, wallet = bench(rule)
    twin, twins_proxy, same_token, _ = bench(wallet=wallet)
    other.append((twin, same_token))
    sender.send(token.functions.transfer(to, 4))
    assert set(proxy.sent) == set(twins_proxy.sent)
    assert (balance(token, to), nonce(web3, wallet)) == (4, 1)


def test_send_nonce_always_taken_gives_up(bench: Bench, web3: Web3) -> None:
    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction":
            twin.send_request({"to": NOBODY, "data": "0x"}, contract="account", method="transfer")
        return go()

    sender, _, token, wallet = bench(rule)
    twin = bench(wallet=wallet)[0]
    to = fresh_address("always taken")
    with pytest.raises(TransactionFailed, match=r"took the place of TrainingToken\.transfer 5 times"):
        sender.send(token.functions.transfer(to, 1), contract="TrainingToken")
    assert balance(token, to) == 0


def test_send_queued_later_nonce_of_the_account_is_no_obstacle(bench: Bench, web3: Web3) -> None:
    """Somebody left a transaction with a nonce far ahead in the pool: a gap, which ours must not fall into."""
    sender, _, token, wallet = bench()
    ahead = wallet.sign_transaction(
        {
            "type": 2,
            "chainId": web3.eth.chain_id,
            "nonce": 5,
            "gas": 21000,
            "maxFeePerGas": 10**10,
            "maxPriorityFeePerGas": 10**9,
            "to": NOBODY,
            "value": 0,
        }
    )
    web3.eth.send_raw_transaction(ahead.raw_transaction)
    to = fresh_address("gap")
    sender.send(token.functions.transfer(to, 8))
    assert (balance(token, to), nonce(web3, wallet)) == (8, 1)


def test_send_stuck_is_sent_again_dearer_under_the_same_nonce(bench: Bench, web3: Web3) -> None:
    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and len(set(proxy.sent)) < 2:
            return {"jsonrpc": "2.0", "id": 1, "result": "0x" + keccak(hexstr=str(params[0])).hex()}
        return go()

    sender, proxy, token, wallet = bench(rule, bump_seconds=0.2)
    to = fresh_address("stuck")
    receipt = sender.send(token.functions.transfer(to, 9))
    assert (balance(token, to), nonce(web3, wallet)) == (9, 1)
    cheap, dear = list(dict.fromkeys(proxy.sent))
    assert receipt.transaction == "0x" + keccak(hexstr=dear).hex()
    assert receipt.transaction != "0x" + keccak(hexstr=cheap).hex()


def test_send_waits_for_confirmations(bench: Bench, web3: Web3) -> None:
    sender, _, token, _ = bench(confirmations=2)
    receipt = sender.send(token.functions.transfer(fresh_address("confirmed"), 1))
    assert web3.eth.block_number >= receipt.block_number + 2


def test_send_from_many_threads_takes_one_nonce_each(bench: Bench, web3: Web3) -> None:
    sender, _, token, wallet = bench()
    to = fresh_address("threads")
    threads = [threading.Thread(target=sender.send, args=(token.functions.transfer(to, 1),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (balance(token, to), nonce(web3, wallet)) == (5, 5)


def test_send_across_a_lost_block_is_repeated_by_the_same_bytes(bench: Bench, web3: Web3, chain: LocalChain) -> None:
    """A reorganisation takes the block away before it is confirmed: the transaction is mined again."""
    snapshot: list[str] = []

    def rule(method: str, params: Any, go: Callable[[], RPCResponse]) -> RPCResponse:
        if method == "eth_sendRawTransaction" and not snapshot:
            snapshot.append(rpc(web3, "evm_snapshot"))
            go()
            while web3.eth.get_transaction_count(Web3.to_checksum_address(wallet.address)) == 0:
                pass
            rpc(web3, "evm_revert", snapshot[0])
            raise dropped()
        return go()

    sender, proxy, token, wallet = bench(rule)
    to = fresh_address("reorganised")
    sender.send(token.functions.transfer(to, 3))
    assert (balance(token, to), nonce(web3, wallet)) == (3, 1)
    assert len(set(proxy.sent)) == 1
