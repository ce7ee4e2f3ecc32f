"""Logs of all contracts of a deployment, fetched in pieces and decoded with the artifacts' ABIs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast

from eth_abi.exceptions import DecodingError
from eth_typing import ABIEvent
from eth_utils.abi import event_abi_to_log_topic
from web3 import Web3
from web3._utils.events import get_event_data  # web3 offers decoding without a request only here
from web3.exceptions import Web3Exception
from web3.types import FilterParams, LogReceipt

from ledger.compile import Artifact, compile_contracts
from ledger.deploy import Deployment
from ledger.errors import ChainError
from ledger.rpc import endpoint
from ledger.types import Event

# Field of the deployment record -> contract. Some events of open tasks have the names of others, and tasks and games
# are counted apart, so nobody is given both at once.
_SHARED = {"token": "TrainingToken", "vault": "StakeVault"}
_TRAINING = _SHARED | {
    "ledger": "TrainingLedger",
    "game": "DisputeGame",
    "committee": "AuditCommittee",
    "book": "RoundBook",
}
_OPEN = _SHARED | {"open_ledger": "OpenLedger", "open_game": "DisputeGame", "availability": "AvailabilityCommittee"}


def event_names(artifacts: Mapping[str, Artifact] | None = None, *, open_tasks: bool = False) -> dict[str, list[str]]:
    """Names of all events by contract, sorted; `open_tasks` as in `fetch_events`."""
    known = artifacts if artifacts is not None else compile_contracts()
    return {
        name: sorted(entry["name"] for entry in known[name].abi if entry["type"] == "event")
        for name in _sources(open_tasks).values()
    }


def fetch_events(
    web3: Web3,
    deployment: Deployment,
    *,
    from_block: int | None = None,
    to_block: int | None = None,
    names: Collection[str] | None = None,
    topics: Collection[bytes | None] = (),
    chunk: int = 2000,
    open_tasks: bool = False,
    artifacts: Mapping[str, Artifact] | None = None,
) -> Iterator[Event]:
    """Yields the deployment's events in chain order.

    Args:
        from_block: first block; the deployment's own when None.
        to_block: last block; the newest when None.
        names: events wanted, such as {"TaskPosted"}; all when None.
        topics: values of the indexed arguments, 32 bytes each, None for any; needs `names` to make sense of them.
        chunk: blocks asked for at once. Halved whenever the node refuses, and slowly raised again.
        open_tasks: events of open tasks' ledger, game and committee; otherwise of the training ledger's. Those of token
            and vault in either case.

    Raises:
        ChainUnreachable: no answer.
        ChainError: the node refuses even a single block, or a name is unknown.
    """
    known = artifacts if artifacts is not None else compile_contracts()
    decoders = _decoders(deployment, known, names, open_tasks)
    last = int(web3.eth.block_number) if to_block is None else to_block
    first = deployment.block_number if from_block is None else from_block
    size = chunk
    selectors = sorted({topic for _, topic in decoders})
    while first <= last:
        end = min(first + size - 1, last)
        query = {
            "fromBlock": hex(first),
            "toBlock": hex(end),
            "address": sorted({address for address, _ in decoders}),
            "topics": [["0x" + topic.hex() for topic in selectors]]
            + [None if value is None else "0x" + value.hex() for value in topics],
        }
        try:
            logs = web3.eth.get_logs(cast(FilterParams, query))
        except (Web3Exception, ValueError) as problem:
            if size == 1:
                raise ChainError(
                    f"The node at {endpoint(web3)} refuses the logs of block {first}: {problem}.",
                    remedy="Name a node that keeps the history with --rpc-url.",
                ) from problem
            size = max(1, min(size, end - first + 1) // 2)
            continue
        # Nodes that gather logs from several sources do not all sort them.
        for log in sorted(logs, key=lambda log: (log["blockNumber"], log["logIndex"])):
            if (event := _decode(web3, decoders, log)) is not None:
                yield event
        first = end + 1
        size = min(chunk, size * 2)


def decode_logs(
    web3: Web3,
    deployment: Deployment,
    logs: Iterable[LogReceipt],
    *,
    names: Collection[str] | None = None,
    open_tasks: bool = False,
    artifacts: Mapping[str, Artifact] | None = None,
) -> list[Event]:
    """The deployment's events among the logs of a receipt, in their order; arguments as in `fetch_events`."""
    known = artifacts if artifacts is not None else compile_contracts()
    decoders = _decoders(deployment, known, names, open_tasks)
    return [event for log in logs if (event := _decode(web3, decoders, log)) is not None]


def _sources(open_tasks: bool) -> dict[str, str]:
    return _OPEN if open_tasks else _TRAINING


def _decoders(
    deployment: Deployment, artifacts: Mapping[str, Artifact], names: Collection[str] | None, open_tasks: bool
) -> dict[tuple[str, bytes], tuple[str, ABIEvent]]:
    """(address, first topic) -> (contract, ABI entry)."""
    found: dict[tuple[str, bytes], tuple[str, ABIEvent]] = {}
    for role, contract in _sources(open_tasks).items():
        for entry in artifacts[contract].abi:
            if entry["type"] == "event" and (names is None or entry["name"] in names):
                event = cast(ABIEvent, entry)
                found[getattr(deployment, role), bytes(event_abi_to_log_topic(event))] = (contract, event)
    missing = sorted(set(names or ()) - {event["name"] for _, event in found.values()})
    if missing:
        raise ChainError(f"There is no event {missing[0]!r}.")
    return found


def _decode(web3: Web3, decoders: Mapping[tuple[str, bytes], tuple[str, ABIEvent]], log: LogReceipt) -> Event | None:
    known = decoders.get((str(log["address"]), bytes(log["topics"][0]) if log["topics"] else b""))
    if known is None:  # the same event at another of our addresses
        return None
    contract, abi = known
    try:
        data = get_event_data(web3.codec, abi, log)
    except (Web3Exception, DecodingError, ValueError) as problem:
        raise ChainError(
            f"The node at {endpoint(web3)} gives a log of {abi['name']} in block {log['blockNumber']} that cannot be "
            f"read: {problem}.",
            remedy="Name another node with --rpc-url.",
        ) from problem
    return Event(
        contract=contract,
        name=abi["name"],
        arguments={name: _plain(value) for name, value in data["args"].items()},
        block_number=log["blockNumber"],
        block_hash=bytes(log["blockHash"]),
        transaction=bytes(log["transactionHash"]),
        log_index=log["logIndex"],
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
