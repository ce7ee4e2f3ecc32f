"""Commands at the edges of what they take: refused in words before anything is sent, or done to the last wei."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from web3 import Web3

from ledger.deploy import Deployment
from ledger.keys import Wallet

pytestmark = pytest.mark.chain
TOKEN = 10**18
YEAR = 365 * 24 * 3600
HUGE = "9" * 59


@pytest.fixture
def alice(account: Callable[..., Wallet]) -> Wallet:
    return account("alice", tokens=10 * TOKEN)


@pytest.fixture
def sent(web3: Web3, alice: Wallet) -> Callable[[], int]:
    """How many transactions alice has sent."""
    return lambda: web3.eth.get_transaction_count(Web3.to_checksum_address(alice.address))


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--minimum-bond", "0", "--minimum-bond is 0; it must be more than 0 and at most 79228162514.26433759354395"),
        ("--minimum-bond", "79228162514.264337593543950336", "it must be more than 0 and at most 79228162514.2"),
        ("--minimum-bond", HUGE, f"--minimum-bond is {HUGE}; it must be more than 0"),
        ("--supply", "340282366920938463463.374607431768211456", "at most 340282366920938463463.374607431768211455"),
        ("--minimum-window", str(YEAR + 1), "Input should be less than or equal to 31536000."),
        ("--minimum-lease", str(YEAR + 1), "Input should be less than or equal to 31536000."),
        ("--unbonding-delay", str(YEAR + 1), "Input should be less than or equal to 31536000."),
        ("--minimum-clock", str(YEAR + 1), "Input should be less than or equal to 31536000."),
        ("--minimum-move", "0", "Input should be greater than or equal to 1."),
        ("--unbonding-delay", "0", "Input should be greater than or equal to 1."),
    ],
)
def test_deploy_beyond_what_contracts_take_sends_nothing(
    online: CommandLine, alice: Wallet, sent: Callable[[], int], option: str, value: str, problem: str
) -> None:
    online.deployment = online.home / "fresh"
    assert problem in online.fail(2, "deploy", "--account", "alice", option, value)
    assert sent() == 0
    assert not online.deployment.exists()


def test_deploy_at_the_contracts_limits_succeeds(online: CommandLine, alice: Wallet, sent: Callable[[], int]) -> None:
    online.deployment = online.home / "fresh"
    made = online.json(
        "deploy", "--account", "alice", "--minimum-bond", "79228162514.264337593543950335",
        "--unbonding-delay", str(YEAR), "--minimum-window", str(YEAR), "--minimum-lease", str(YEAR),
        "--minimum-clock", str(YEAR), "--minimum-move", str(YEAR),
    )  # fmt: skip
    assert made["minimum_bond"]["wei"] == str(2**96 - 1)
    assert (made["unbonding_delay"], made["minimum_window"], made["minimum_lease"]) == (YEAR, YEAR, YEAR)
    assert (made["minimum_clock"], made["minimum_move"]) == (YEAR, YEAR)
    assert sent() == 10


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("account", "unbond", HUGE), 3, "StakeVault.requestUnbond refused: InsufficientFreeStake"),
        (("account", "unbond", HUGE + "0"), 2, "is not a number of tokens"),
        (("account", "unbond", "0"), 2, "The amount is 0."),
        (("account", "unbond"), 3, "NothingUnbonding"),
        (("account", "authorise", "0x" + "00" * 20), 3, "StakeVault.setOperator refused: ZeroAddress()."),
        (("account", "stake", HUGE), 3, f"has 10 TRAIN and needs {HUGE}."),
        (("account", "stake", "1.0000000000000000001"), 2, "which has 19 decimal places; a token has 18."),
        (("account", "send", "alice", HUGE), 3, f"has 10 TRAIN and needs {HUGE}."),
        (("account", "send", "bob", "1"), 2, "There is no account 'bob'"),
        (("withdraw", "--to", "0x" + "00" * 19), 2, "There is no account '0x"),
        (("account", "fund", "--ether", "-1"), 2, "--ether is '-1', which is not a number of tokens."),
        (("task", "show", str(2**64)), 2, "Input should be less than or equal to 18446744073709551615."),
        (("task", "close", "0"), 3, "Task 0 does not exist"),
        (("checkpoint", "list", str(2**64 - 1)), 3, f"Task {2**64 - 1} does not exist"),
    ],
)
def test_command_at_its_limits_is_refused_unsent(
    online: CommandLine, sent: Callable[[], int], arguments: tuple[str, ...], code: int, problem: str
) -> None:
    assert problem in online.fail(code, *arguments, "--account", "alice")
    assert sent() == 0


def test_stake_and_unbond_to_the_last_wei(online: CommandLine, alice: Wallet) -> None:
    assert online.json("account", "stake", "0.000000000000000001", "--account", "alice")["staked"]["wei"] == "1"
    assert online.json("account", "stake", "9.999999999999999999", "--account", "alice")["free"]["wei"] == str(10**19)
    assert online.json("account", "unbond", "10", "--account", "alice")["free"] == {"wei": "0", "tokens": "0"}
    shown = online.json("account", "show", alice.address)
    assert shown["tokens_held"]["wei"] == "0"
    assert shown["unbonding"] == {"wei": str(10**19), "tokens": "10"}
    assert isinstance(shown["unbonding_release"], int)


@pytest.mark.parametrize("command", [("account", "show"), ("rewards",), ("task", "list"), ("checkpoint", "list", "1")])
@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"chain_id": 5}, 3, "WrongChain"),
        ({"chain_id": "31337"}, 2, "SettingsError"),
        ({"ledger": "0x" + "00" * 19 + "cc"}, 3, "StaleDeployment"),
        ({"artifact_hashes": {}}, 2, "SettingsError"),
        ({"block_hash": "0x"}, 3, "StaleDeployment"),
    ],
)
def test_command_with_an_edited_record_says_so_in_json(
    online: CommandLine,
    alice: Wallet,
    deployment: Deployment,
    tmp_path: Path,
    command: tuple[str, ...],
    change: dict[str, Any],
    code: int,
    kind: str,
) -> None:
    record = tmp_path / "edited.json"
    record.write_text(json.dumps(json.loads(deployment.to_json()) | change))
    result = online.run(*command, "--json", "--deployment", str(record), "--account", "alice")
    assert result.stdout == ""
    error = json.loads(result.stderr)
    assert (error["error"], error["exit_code"], result.exit_code) == (kind, code, code)
    assert error["remedy"]
