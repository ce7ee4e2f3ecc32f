from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from life import TENSORS, parameters
from web3 import Web3
from web3.providers.base import BaseProvider
from web3.types import RPCEndpoint, RPCResponse

from ledger.client import LedgerClient
from ledger.compile import Artifact
from ledger.deploy import Deployment
from ledger.errors import ChainError
from ledger.events import event_names, fetch_events
from ledger.keys import Wallet
from ledger.types import Event

pytestmark = pytest.mark.chain


class LimitedNode(BaseProvider):
    """Refuses log queries over more blocks than `limit`, as public providers do, and counts the others."""

    def __init__(self, inner: BaseProvider, limit: int) -> None:
        super().__init__()
        self._inner = inner
        self._limit = limit
        self.ranges: list[int] = []

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        if method == "eth_getLogs":
            blocks = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            if blocks > self._limit:
                return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "block range too wide"}}
            self.ranges.append(blocks)
        return self._inner.make_request(method, params)


@pytest.fixture
def history(
    client_for: Callable[[Wallet], LedgerClient], funded_wallet: Callable[..., Wallet]
) -> tuple[LedgerClient, LedgerClient, int, int]:
    """(requester, worker, task, first block) after a posting, a stake and a claim."""
    requester, worker = client_for(funded_wallet()), client_for(funded_wallet())
    first = requester.block_number() + 1
    number = requester.post_task(parameters(), "file:///there")
    worker.stake(10**18)
    worker.claim(requester.task(number), 0, base_root=b"\4" * 32, attempt=0, worker=worker.address)
    return requester, worker, number, first


def by_name(events: list[Event]) -> dict[str, Event]:
    return {event.name: event for event in events}


def test_fetch_events_decodes_every_contract(
    history: tuple[LedgerClient, LedgerClient, int, int], web3: Web3, deployment: Deployment
) -> None:
    requester, worker, number, first = history
    events = list(fetch_events(web3, deployment, from_block=first))
    places = [(event.block_number, event.log_index) for event in events]
    assert places == sorted(places)
    found = by_name(events)
    posted, claimed, staked = found["TaskPosted"], found["SlotClaimed"], found["Staked"]
    assert posted.contract == "TrainingLedger"
    assert posted.arguments["task"] == number
    assert posted.arguments["requester"] == requester.address
    assert posted.arguments["specificationHash"] == b"\1" * 32
    assert posted.arguments["storeUrl"] == "file:///there"
    terms = posted.arguments["parameters"]
    assert isinstance(terms, dict)
    assert (terms["stateTensors"], terms["programRoot"]) == (TENSORS, b"\2" * 32)
    assert claimed.arguments["leaseEnd"] == worker.slot(number, 0).deadline
    assert (staked.contract, staked.arguments["owner"], staked.arguments["amount"]) == (
        "StakeVault",
        worker.address,
        10**18,
    )
    assert {event.contract for event in events if event.name == "Transfer"} == {"TrainingToken"}
    assert posted.block_hash == bytes(web3.eth.get_block(posted.block_number)["hash"])
    assert web3.eth.get_transaction_receipt("0x" + posted.transaction.hex())["status"] == 1


def test_fetch_events_names_and_topics_choose(
    history: tuple[LedgerClient, LedgerClient, int, int], web3: Web3, deployment: Deployment
) -> None:
    _, _, number, _ = history
    chosen = list(
        fetch_events(web3, deployment, names={"TaskPosted", "SlotClaimed"}, topics=[number.to_bytes(32, "big")])
    )
    assert [event.name for event in chosen] == ["TaskPosted", "SlotClaimed"]
    assert {event.arguments["task"] for event in chosen} == {number}


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_fetch_events_node_with_a_limit_gets_smaller_pieces(
    history: tuple[LedgerClient, LedgerClient, int, int], web3: Web3, deployment: Deployment, limit: int
) -> None:
    _, _, _, first = history
    node = LimitedNode(web3.provider, limit)
    last = web3.eth.block_number
    pieces = list(fetch_events(Web3(node), deployment, from_block=first, to_block=last, chunk=16))
    assert pieces == list(fetch_events(web3, deployment, from_block=first, to_block=last))
    assert sum(node.ranges) == last - first + 1
    assert max(node.ranges) <= limit


def test_fetch_events_refused_even_for_a_block_is_an_error(web3: Web3, deployment: Deployment) -> None:
    with pytest.raises(ChainError, match=f"refuses the logs of block {deployment.block_number}"):
        list(fetch_events(Web3(LimitedNode(web3.provider, 0)), deployment))


def test_fetch_events_empty_range_is_empty(web3: Web3, deployment: Deployment) -> None:
    assert list(fetch_events(web3, deployment, from_block=10, to_block=9)) == []


def test_fetch_events_unknown_name_is_an_error(web3: Web3, deployment: Deployment) -> None:
    with pytest.raises(ChainError, match="There is no event 'Nothing'"):
        list(fetch_events(web3, deployment, names={"Nothing"}))


def test_event_names_are_the_interfaces(artifacts: dict[str, Artifact]) -> None:
    training = ("ITrainingLedger", "IStakeVault", "IAuditCommittee", "IDisputeGame", "IRoundBook")
    of_open_tasks = ("IOpenLedger", "IStakeVault", "IAvailabilityCommittee", "IDisputeGame")
    for open_tasks, interfaces in ((False, training), (True, of_open_tasks)):
        names = event_names(artifacts, open_tasks=open_tasks)
        assert len(names) == len(interfaces) + 1  # the token's
        for interface in interfaces:
            declared = {entry["name"] for entry in artifacts[interface].abi if entry["type"] == "event"}
            assert declared <= set(names[interface.removeprefix("I")])
