"""Nodes that answer what no node should: always a chain error that says so, never a traceback and never a wait."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from life import WalletFactory, parameters
from test_rpc import server
from web3 import HTTPProvider, Web3

from ledger.answers import wrong_answer
from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import ChainError, ChainUnreachable, TrainledgerError
from ledger.events import decode_logs, fetch_events
from ledger.reverts import ErrorDecoder
from ledger.rpc import connect, mask_url
from ledger.settings import load_settings
from ledger.tx import TransactionSender

Lie = Callable[[Any], Any]
WORD = "0x" + "11" * 32
LOG = {
    "address": "0x" + "22" * 20, "topics": [WORD], "data": "0x", "logIndex": "0x0",
    "blockNumber": "0x1", "blockHash": WORD, "transactionHash": WORD,
}  # fmt: skip
RECEIPT = {
    "status": "0x1", "gasUsed": "0x5208", "logs": [LOG],
    "blockNumber": "0x1", "blockHash": WORD, "transactionHash": WORD,
}  # fmt: skip
GOOD: dict[str, Any] = {
    "eth_chainId": "0x7a69",
    "eth_blockNumber": "0x0",
    "eth_call": "0x",
    "eth_getCode": "0x6001",
    "eth_sendRawTransaction": WORD,
    "eth_getBlockByNumber": {"number": "0x1", "hash": WORD, "timestamp": "0x5"},
    "eth_getTransactionReceipt": RECEIPT,
    "eth_getLogs": [LOG],
}
JUNK = [True, -1, 7, 1.5, "", "0x", "0xzz", "7", [], {}, [None], {"result": "0x1"}, "0x" + "1" * 65]


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Lie], None]:
    """From now on every answer to this method is what `lie(true response)` makes of it."""

    def start(method: str, lie: Lie) -> None:
        honest = HTTPProvider.make_request

        def make_request(self: HTTPProvider, asked: Any, params: Any) -> Any:
            response = honest(self, asked, params)
            return lie(copy.deepcopy(dict(response))) if asked == method else response

        monkeypatch.setattr(HTTPProvider, "make_request", make_request)
        monkeypatch.setattr("ledger.rpc._FIRST_PAUSE_SECONDS", 0.0)

    return start


def result(value: Any) -> Lie:
    return lambda response: response if "error" in response else response | {"result": value}


def envelope(**fields: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, **fields}


def without(name: str) -> Lie:
    """The true answer, an object or a list of them, without one field."""

    def lie(response: dict[str, Any]) -> dict[str, Any]:
        found = response["result"]
        for item in found if isinstance(found, list) else [found]:
            if item is not None:  # a receipt before its block is mined
                item.pop(name)
        return response

    return lie


@pytest.mark.parametrize("method", sorted(GOOD))
def test_wrong_answer_takes_the_right_shape_alone(method: str) -> None:
    assert wrong_answer(method, [], envelope(result=GOOD[method])) is None
    for junk in JUNK:
        if (method in ("eth_call", "eth_getCode") and junk == "0x") or (method == "eth_getLogs" and junk == []):
            continue
        assert wrong_answer(method, [], envelope(result=junk)) == f"{method} gave {repr(junk)[:60]}" + "…" * (
            len(repr(junk)) > 60
        )


@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_getTransactionReceipt", "eth_getLogs"])
def test_wrong_answer_misses_every_field(method: str) -> None:
    good = GOOD[method]
    record = good[0] if isinstance(good, list) else good
    for name in record:
        for value in (None, [], "0xg", {}):
            if name in ("topics", "logs") and value == []:
                continue
            broken: Any = record | {name: value}
            problem = wrong_answer(method, [], envelope(result=[broken] if isinstance(good, list) else broken))
            assert problem is not None, (name, value)
            assert problem.startswith(f"{method} gave ")
            assert len(problem) < 100


@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "eth_getTransactionReceipt"])
def test_wrong_answer_null_is_a_thing_that_is_not_there(method: str) -> None:
    assert wrong_answer(method, ["0x7"], envelope(result=None)) is None
    assert wrong_answer("eth_getBlockByNumber", ["latest", False], envelope(result=None)) == "it has no newest block"


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        ([], "m gave []"),
        ("text", "m gave 'text'"),
        ({"result": 1}, "m gave {'result': 1}, which is not JSON-RPC 2.0"),
        ({"jsonrpc": "2.0", "result": 1}, "m gave {'jsonrpc': '2.0', 'result': 1}, which is not JSON-RPC 2.0"),
        ({"jsonrpc": "1.0", "id": 1}, "m gave {'jsonrpc': '1.0', 'id': 1}, which is not JSON-RPC 2.0"),
        ({"jsonrpc": "2.0", "id": "x"}, "m gave {'jsonrpc': '2.0', 'id': 'x'}, which is not JSON-RPC 2.0"),
        (envelope(), "m gave neither a result nor an error"),
        (envelope(error=None), "m gave the error None"),
        (envelope(error=None, result=1), "m gave both a result and an error"),
        (envelope(error="no"), "m gave the error 'no'"),
        (envelope(error={"message": "no"}), "m gave the error {'message': 'no'}"),
        (envelope(error={"code": True, "message": "no"}), "m gave the error {'code': True, 'message': 'no'}"),
        (envelope(error={"code": 1, "message": None}), "m gave the error {'code': 1, 'message': None}"),
        (envelope(error={"code": -32000, "message": "no", "data": "0x"}), None),
        ({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "no"}}, None),
        ({"jsonrpc": "2.0", "id": "17", "result": 1}, None),
    ],
)
def test_wrong_answer_envelope(response: Any, problem: str | None) -> None:
    assert wrong_answer("m", [], response) == problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RECEIPT, "error"]), inner),
    max_leaves=8,
)


@given(method=st.sampled_from([*GOOD, "eth_estimateGas", "anvil_x"]), params=st.just(["latest"]), response=JSON)
@settings(max_examples=200, deadline=None)
def test_wrong_answer_never_fails_itself(method: str, params: list[str], response: Any) -> None:
    for answer in (response, envelope(result=response), envelope(error=response)):
        problem = wrong_answer(method, params, answer)
        assert problem is None or len(problem) < 200


@pytest.mark.chain
@pytest.mark.parametrize(
    ("method", "lie", "read"),
    [
        ("eth_blockNumber", result(None), lambda client: client.block_number()),
        ("eth_blockNumber", result(12), lambda client: client.block_number()),
        ("eth_getBalance", result("many"), lambda client: client.ether_balance("0x" + "11" * 20)),
        ("eth_getBlockByNumber", result(None), lambda client: client.chain_time()),
        ("eth_getBlockByNumber", without("timestamp"), lambda client: client.chain_time()),
        ("eth_call", result({"data": "0x"}), lambda client: client.task_count()),
        ("eth_call", lambda response: {"jsonrpc": "2.0", "id": 1}, lambda client: client.task_count()),
        ("eth_call", lambda response: {"jsonrpc": "2.0", "error": 5}, lambda client: client.task_count()),
        ("eth_chainId", result([]), lambda client: connect(client.web3.provider.endpoint_uri)),
    ],
)
def test_read_of_a_lying_node_is_unreachable(
    chain: LocalChain, deployment: Deployment, lying: Callable[[str, Lie], None], method: str, lie: Lie, read: Any
) -> None:
    client = LedgerClient(connect(chain.rpc_url), deployment)
    lying(method, lie)
    with pytest.raises(ChainUnreachable, match="does not answer as an Ethereum node") as caught:
        read(client)
    assert caught.value.url == chain.rpc_url


@pytest.mark.chain
def test_read_of_too_few_bytes_is_a_stale_deployment(
    chain: LocalChain, deployment: Deployment, lying: Callable[[str, Lie], None]
) -> None:
    client = LedgerClient(connect(chain.rpc_url), deployment)
    lying("eth_call", result("0x01"))
    for read in (client.task_count, lambda: client.task(1), lambda: client.stake_account("0x" + "11" * 20)):
        with pytest.raises(ChainError) as caught:
            read()
        assert caught.value.exit_code == 3


@pytest.mark.chain
@pytest.mark.parametrize(
    ("method", "lie"),
    [
        ("eth_estimateGas", result("lots")),
        ("eth_getTransactionCount", result(None)),
        ("eth_maxPriorityFeePerGas", result({})),
        ("eth_getBlockByNumber", without("hash")),
        ("eth_getTransactionReceipt", without("status")),
        ("eth_getTransactionReceipt", without("logs")),
        ("eth_sendRawTransaction", result("0x12")),
    ],
)
def test_send_to_a_lying_node_ends_in_time(
    chain: LocalChain,
    deployment: Deployment,
    artifacts: dict[str, Artifact],
    funded_wallet: WalletFactory,
    lying: Callable[[str, Lie], None],
    method: str,
    lie: Lie,
) -> None:
    web3, wallet = connect(chain.rpc_url), funded_wallet()
    sender = TransactionSender(web3, wallet, errors=ErrorDecoder(artifacts), timeout=0.3)
    client = LedgerClient(web3, deployment, sender, artifacts=artifacts)
    before = client.token_balance(wallet.address)
    lying(method, lie)
    if method == "eth_sendRawTransaction":  # it arrived all the same: the receipt says so
        client.transfer_token("0x" + "33" * 20, 1)
        assert client.token_balance(wallet.address) == before - 1
        return
    with pytest.raises(ChainUnreachable, match=f"{method} gave "):
        client.transfer_token("0x" + "33" * 20, 1)
    sent = method == "eth_getTransactionReceipt"
    assert client.token_balance(wallet.address) == before - sent


@pytest.fixture
def staked(client_for: Any, funded_wallet: WalletFactory) -> tuple[LedgerClient, int]:
    """A client that staked three times in three blocks, and the block before."""
    client = client_for(funded_wallet())
    first = client.block_number()
    for amount in (1, 2, 3):
        client.stake(amount)
    return client, first


@pytest.mark.chain
def test_fetch_events_reordered_logs_come_in_chain_order(
    chain: LocalChain, deployment: Deployment, staked: tuple[LedgerClient, int], lying: Callable[[str, Lie], None]
) -> None:
    lying("eth_getLogs", lambda response: response | {"result": response["result"][::-1]})
    events = list(fetch_events(connect(chain.rpc_url), deployment, from_block=staked[1] + 1))
    mine = [event for event in events if staked[0].address in event.arguments.values()]
    assert [event.name for event in mine] == ["Approval", "Staked", "Transfer"] * 3
    assert [event.arguments["amount"] for event in mine[1::3]] == [1, 2, 3]


@pytest.mark.chain
@pytest.mark.parametrize("field", ["blockNumber", "logIndex", "data", "topics", "address", "transactionHash"])
def test_fetch_events_log_without_a_field_is_refused(
    chain: LocalChain, deployment: Deployment, staked: Any, lying: Callable[[str, Lie], None], field: str
) -> None:
    lying("eth_getLogs", without(field))
    with pytest.raises(ChainUnreachable, match="eth_getLogs gave "):
        list(fetch_events(connect(chain.rpc_url), deployment, from_block=staked[1]))


@pytest.mark.chain
@pytest.mark.parametrize(("field", "value"), [("data", "0x"), ("data", "0x01"), ("topics", 1), ("topics", 9)])
def test_fetch_events_log_of_another_shape_is_named(
    chain: LocalChain,
    deployment: Deployment,
    staked: tuple[LedgerClient, int],
    lying: Callable[[str, Lie], None],
    field: str,
    value: Any,
) -> None:
    def lie(response: dict[str, Any]) -> dict[str, Any]:
        for log in response["result"]:
            log[field] = (log["topics"] * 9)[:value] if field == "topics" else value
        return response

    lying("eth_getLogs", lie)
    with pytest.raises(ChainError, match=r"gives a log of Staked in block [0-9]+ that cannot be read") as caught:
        list(fetch_events(connect(chain.rpc_url), deployment, from_block=staked[1], names={"Staked"}))
    assert caught.value.remedy == "Name another node with --rpc-url."


@pytest.mark.chain
def test_fetch_events_huge_and_foreign_logs_are_read_or_left_out(
    chain: LocalChain, deployment: Deployment, staked: tuple[LedgerClient, int], lying: Callable[[str, Lie], None]
) -> None:
    client, first = staked
    number = client.post_task(parameters(rounds=1), "x" * 100_000)
    assert client.store_url(number) == "x" * 100_000
    foreign = LOG | {"data": "0x" + "ff" * 200_000}
    lying("eth_getLogs", lambda response: response | {"result": [foreign, *response["result"]] * 20})
    events = list(fetch_events(connect(chain.rpc_url), deployment, from_block=first, names={"TaskPosted"}))
    assert [event.arguments["storeUrl"] for event in events] == ["x" * 100_000] * 20


def test_decode_logs_without_topics_is_nobodys(deployment: Deployment, web3: Web3) -> None:
    log: Any = LOG | {"topics": [], "address": deployment.vault}
    assert decode_logs(web3, deployment, [log]) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":0,"result":' + b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":0,"result":' + b"9" * 10_000 + b"}",
        b"[" * 5000 + b"]" * 5000,
        b'"0x1"',
        b"null",
        json.dumps([{"jsonrpc": "2.0", "id": 0, "result": "0x1"}]).encode(),
        b'{"jsonrpc":"2.0","id":0,"result":"\xff"}',
    ],
)
def test_connect_to_a_server_of_nonsense_is_unreachable(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.rpc._FIRST_PAUSE_SECONDS", 0.0)
    with server(lambda number: (200, body)) as url, pytest.raises(ChainUnreachable) as caught:
        connect(url)
    assert caught.value.url == url


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://[secret]:1", "https://℀secret.com", "http:///secret", "http://"]
)
def test_unreadable_url_is_refused_and_not_repeated(url: str, tmp_path: Any) -> None:
    for refuse in (lambda: connect(url), lambda: load_settings({"rpc_url": url, "home": tmp_path}, {})):
        with pytest.raises(TrainledgerError) as caught:
            refuse()
        assert caught.value.exit_code == 2
    assert "secret" not in str(caught.value)
    assert "secret" not in mask_url("http://[secret/key")
