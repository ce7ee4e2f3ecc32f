"""A small history on a local chain, and what must be left of it after each way of ending the chain."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from ledger._node import is_anvil
from ledger.anvil import LocalChain
from ledger.rpc import connect, rpc

RICH = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"  # Anvil's first development account
POOR = "0x00000000000000000000000000000000000000AA"
# Stores the block time in a log whenever it is called: TIMESTAMP PUSH0 MSTORE; LOG0 of that word; return it.
CODE = "425f5260205fa060205ff3"
CREATE = f"6a{CODE}5f52600b6015f3"


@dataclass(frozen=True)
class Facts:
    """Everything that must come back."""

    balance: int
    contract: str
    code: str
    transaction: str
    receipt: dict[str, Any]
    logs: list[Any]
    block_number: int
    block_hash: str
    identity: str


def call(chain: LocalChain, method: str, *parameters: Any) -> Any:
    return rpc(connect(chain.rpc_url), method, *parameters)


def mined(chain: LocalChain, transaction: str) -> dict[str, Any]:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if (receipt := call(chain, "eth_getTransactionReceipt", transaction)) is not None:
            return dict(receipt)
        time.sleep(0.02)
    raise AssertionError(f"{transaction} was not mined")


def make_history(chain: LocalChain) -> Facts:
    created = mined(chain, call(chain, "eth_sendTransaction", {"from": RICH, "data": "0x" + CREATE}))
    contract = created["contractAddress"]
    called = mined(chain, call(chain, "eth_sendTransaction", {"from": RICH, "to": contract}))
    mined(chain, call(chain, "eth_sendTransaction", {"from": RICH, "to": POOR, "value": "0x7"}))
    return read_facts(chain, contract, called["transactionHash"])


def read_facts(chain: LocalChain, contract: str, transaction: str) -> Facts:
    receipt = call(chain, "eth_getTransactionReceipt", transaction)
    assert receipt is not None
    return Facts(
        balance=int(call(chain, "eth_getBalance", POOR, "latest"), 16),
        contract=contract,
        code=call(chain, "eth_getCode", contract, "latest"),
        transaction=transaction,
        receipt=receipt,
        logs=call(chain, "eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest", "address": contract}),
        block_number=int(receipt["blockNumber"], 16),
        block_hash=call(chain, "eth_getBlockByNumber", receipt["blockNumber"], False)["hash"],
        identity=(chain.directory / "identity").read_text(),
    )


def assert_kept(chain: LocalChain, before: Facts) -> None:
    assert before.code == "0x" + CODE
    assert before.balance % 7 == 0
    assert before.balance > 0
    assert len(before.logs) == 1
    assert before.receipt["blockHash"] == before.block_hash
    assert read_facts(chain, before.contract, before.transaction) == before


def time_of(chain: LocalChain) -> int:
    return int(call(chain, "eth_getBlockByNumber", "latest", False)["timestamp"], 16)


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_anvil(pid))
