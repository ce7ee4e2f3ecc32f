from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import CommandLine
from web3 import Web3

from ledger.anvil import LocalChain
from ledger.deploy import Deployment
from ledger.keys import Wallet

pytestmark = pytest.mark.chain


@pytest.fixture
def fresh(online: CommandLine, tmp_path: Path) -> CommandLine:
    """On the test chain, but with no record yet."""
    online.deployment = tmp_path / "fresh"
    return online


def test_deploy_writes_a_record_that_works(
    fresh: CommandLine, account: Callable[..., Wallet], chain: LocalChain, web3: Web3
) -> None:
    wallet = account("alice")
    document = fresh.json(
        "deploy", "--account", "alice", "--minimum-bond", "0.5", "--minimum-lease", "7", "--minimum-window", "9",
        "--unbonding-delay", "11", "--supply", "1234.5", "--minimum-clock", "90", "--minimum-move", "12",
    )  # fmt: skip
    assert document["deployer"] == wallet.address
    record = Deployment.load(fresh.deployment or Path())
    record.check(web3)
    assert (record.parameters.minimum_bond, record.parameters.unbonding_delay) == (5 * 10**17, 11)
    assert (record.parameters.minimum_lease, record.parameters.minimum_window) == (7, 9)
    assert (record.parameters.minimum_clock, record.parameters.minimum_move) == (90, 12)
    assert (document["minimum_clock"], document["minimum_move"]) == (90, 12)
    assert (document["referee"], document["game"]) == (record.referee, record.game)
    assert document["committee"] == record.committee
    assert [document[name] for name in ("open_ledger", "open_game", "availability")] == [
        record.open_ledger,
        record.open_game,
        record.availability,
    ]
    assert (document["seat_stake"]["tokens"], document["seat_age"], document["reveal_seconds"]) == ("1", 2, 20)
    assert sorted(path.stem for path in (fresh.deployment or Path()).glob("abi/*.json"))[-1] == "TrainingToken"
    assert fresh.json("account", "show", "alice")["tokens_held"]["tokens"] == "1234.5"
    assert fresh.json("task", "list") == []


def test_deploy_takes_the_clocks_of_the_settings_unless_flags_say_others(
    fresh: CommandLine, account: Callable[..., Wallet]
) -> None:
    account("alice")
    clocks = {"TRAINLEDGER_MINIMUM_CLOCK": "77", "TRAINLEDGER_MINIMUM_MOVE": "11"}
    done = fresh.run("deploy", "--account", "alice", "--minimum-move", "13", "--json", **clocks)
    document = json.loads(done.stdout)
    assert (document["minimum_clock"], document["minimum_move"]) == (77, 13)


def test_record_of_an_older_version_is_named_and_may_be_replaced(
    fresh: CommandLine, account: Callable[..., Wallet]
) -> None:
    account("alice")
    file = Path(fresh.json("deploy", "--account", "alice")["record"])
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": "trainledger/deployment/2"}))
    assert fresh.fail(3, "task", "list") == (
        f"The deployment record {file} is of an older trainledger, whose contracts were others."
    )
    assert fresh.json("deploy", "--account", "alice")["chain_id"] == 31337
    assert fresh.json("task", "list") == []


def test_deploy_refuses_a_live_record_without_force(fresh: CommandLine, account: Callable[..., Wallet]) -> None:
    account("alice")
    first = fresh.json("deploy", "--account", "alice")
    before = Path(first["record"]).read_bytes()
    assert f"{first['ledger']} is already deployed" in fresh.fail(2, "deploy", "--account", "alice")
    assert Path(first["record"]).read_bytes() == before
    second = fresh.json("deploy", "--account", "alice", "--force", "--token", first["token"])
    assert second["ledger"] != first["ledger"]
    assert second["token"] == first["token"]


def test_deploy_of_another_chain_record_is_refused(fresh: CommandLine, account: Callable[..., Wallet]) -> None:
    account("alice")
    file = Path(fresh.json("deploy", "--account", "alice")["record"])
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chain_id": 5}))
    assert "another chain, with id 5" in fresh.fail(2, "deploy", "--account", "alice")
    assert "but the deployment is on chain 5" in fresh.fail(3, "task", "list")


def test_stale_record_is_named_and_may_be_replaced(fresh: CommandLine, account: Callable[..., Wallet]) -> None:
    account("alice")
    file = Path(fresh.json("deploy", "--account", "alice")["record"])
    file.write_text(json.dumps(json.loads(file.read_text()) | {"block_hash": "0x" + "12" * 32}))
    assert "0x" + "12" * 32 in fresh.fail(3, "task", "list")
    assert fresh.json("deploy", "--account", "alice")["chain_id"] == 31337


def test_missing_and_damaged_records_are_named(fresh: CommandLine) -> None:
    assert "no deployment record" in fresh.fail(2, "rewards", "--account", "0x" + "11" * 20)
    directory = fresh.deployment or Path()
    directory.mkdir()
    (directory / "deployment.json").write_text("{")
    assert "cannot be read" in fresh.fail(2, "task", "list")


def test_deploy_bad_values_are_refused_before_any_transaction(
    fresh: CommandLine, account: Callable[..., Wallet], web3: Web3
) -> None:
    wallet = account("alice")
    for arguments in (
        ["--supply", "0"],
        ["--supply", "1", "--token", "0x" + "11" * 20],
        ["--minimum-bond", "x"],
        ["--minimum-lease", "0"],
        ["--unbonding-delay", "-1"],
        ["--minimum-move", "0"],
    ):
        fresh.fail(2, "deploy", "--account", "alice", *arguments)
    assert fresh.fail(2, "deploy", "--account", "alice", "--minimum-clock", "9", "--minimum-move", "10") == (
        "A move of a dispute would have 10 seconds, more than the 9 of the whole clock."
    )
    assert "no token contract" in fresh.fail(3, "deploy", "--account", "alice", "--token", "0x" + "11" * 20)
    assert web3.eth.get_transaction_count(Web3.to_checksum_address(wallet.address)) == 0
