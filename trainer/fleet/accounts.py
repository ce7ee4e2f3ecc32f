"""The accounts of a fleet, one for each worker, and what they lack to work."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ledger.amounts import format_tokens
from ledger.client import LedgerClient
from ledger.errors import ChainError, WalletError
from ledger.keys import KeyStore, StoredKey


@dataclass(frozen=True)
class Shortfall:
    """What an account lacks: wei of ether where it has none, wei of stake. `stake` 0 lacks none."""

    key: StoredKey
    ether: bool
    stake: int


class Unfunded(ChainError):
    """Accounts of a fleet lack ether or stake. `shortfalls` says which."""

    def __init__(self, shortfalls: Sequence[Shortfall]) -> None:
        lacking = "; ".join(_described(one) for one in shortfalls)
        super().__init__(
            f"{len(shortfalls)} account{'s' * (len(shortfalls) != 1)} of the fleet cannot work: {lacking}.",
            remedy="Send them ether and tokens (on the local chain: `trainledger account fund NAME`), then "
            "`trainledger account stake AMOUNT --account NAME`; or give --stake AMOUNT, which stakes for all.",
        )
        self.shortfalls = tuple(shortfalls)


def _described(one: Shortfall) -> str:
    missing = ["has no ether"] * one.ether
    missing += [f"lacks {format_tokens(one.stake)} tokens of stake"] * (one.stake > 0)
    return f"{one.key.name} ({one.key.address}) {' and '.join(missing)}"


def own_keys(store: KeyStore, prefix: str, count: int, password: str) -> list[StoredKey]:
    """The keys <prefix>-1 … <prefix>-<count>; those that are not there are made, under the
    password.
    """
    known = {key.name for key in store.list()}
    names = [f"{prefix}-{number}" for number in range(1, count + 1)]
    for name in names:
        if name not in known:
            store.new(name, password)
    return [store.find(name) for name in names]


def given_keys(store: KeyStore, count: int) -> list[StoredKey]:
    """The first keys of a folder, by name, numbers in names as numbers.

    Raises:
        WalletError: there are fewer.
    """
    keys = sorted(store.list(), key=lambda key: _order(key.name))
    if len(keys) < count:
        raise WalletError(
            f"{store.path} holds {len(keys)} key{'s' * (len(keys) != 1)}, and {count} workers need one each.",
            remedy="Start fewer workers, or leave --keys out to have accounts made.",
        )
    return keys[:count]


def _order(name: str) -> list[tuple[str, int]]:
    """worker-2 before worker-10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def needed_stake(client: LedgerClient, tasks: Sequence[int]) -> int:
    """Wei of stake that a worker needs to claim any of the tasks; with none named, the cheapest of those that run.

    Raises:
        ContractReverted: a task is not there.
    """
    if tasks:
        return max(client.task(number).parameters.bond for number in tasks)
    bonds = [task.parameters.bond for task in client.tasks() if not task.complete and not task.closed]
    return min(bonds, default=1)


def shortfalls(client: LedgerClient, keys: Sequence[StoredKey], *, stake: int) -> list[Shortfall]:
    """What accounts lack. Stake that is locked counts: it is the bond of a round that goes on."""
    found = []
    for key in keys:
        missing = max(0, stake - client.stake_account(key.address).staked)
        no_ether = client.ether_balance(key.address) == 0
        if missing or no_ether:
            found.append(Shortfall(key, no_ether, missing))
    return found
