"""Which accounts a fleet takes, and what it says of those that cannot work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ledger.errors import ToolMissing, WalletError
from ledger.keys import KeyStore, StoredKey
from trainer.fleet.accounts import Shortfall, Unfunded, given_keys, own_keys
from trainer.fleet.cluster import Cluster, FleetFailed
from trainer.fleet.orders import Report


def test_own_keys_are_made_once(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, scrypt_cost=2)
    first = own_keys(store, "fleet", 2, "password")
    assert [key.name for key in first] == ["fleet-1", "fleet-2"]
    assert own_keys(store, "fleet", 3, "password")[:2] == first
    assert store.unlock("fleet-3", "password").address == store.find("fleet-3").address


def test_given_keys_go_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    store = KeyStore(tmp_path, scrypt_cost=2)
    for name in ("worker-10", "worker-9", "alice"):
        store.new(name, "password")
    assert [key.name for key in given_keys(store, 3)] == ["alice", "worker-9", "worker-10"]
    assert [key.name for key in given_keys(store, 2)] == ["alice", "worker-9"]
    with pytest.raises(WalletError, match=r"holds 3 keys, and 4 workers need one each\."):
        given_keys(store, 4)


def test_unfunded_names_each_account_and_what_it_lacks() -> None:
    ann, ben = (StoredKey(name, f"0x{name}", Path(name)) for name in ("ann", "ben"))
    error = Unfunded([Shortfall(ann, ether=True, stake=5 * 10**18), Shortfall(ben, ether=False, stake=10**17)])
    assert error.problem == (
        "2 accounts of the fleet cannot work: ann (0xann) has no ether and lacks 5 tokens of stake; "
        "ben (0xben) lacks 0.1 tokens of stake."
    )
    assert error.exit_code == 3


def test_fleet_without_ray_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ToolMissing, match=r"pip install 'trainledger\[fleet\]'"):
        Cluster(None)


def test_fleet_failed_names_the_workers_and_their_reasons() -> None:
    failed = Report(name="ann", incarnation="", machine="one", state="failed", problem="It is wrong. Mend it.")
    assert str(FleetFailed([failed])) == "1 worker of the fleet failed. ann: It is wrong. Mend it."
