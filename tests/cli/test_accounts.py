from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import PASSWORD, PROJECT, CommandLine

from ledger.anvil import LocalChain
from ledger.client import LedgerClient
from ledger.keys import Wallet

TOKEN = 10**18
# keccak256 of "cow", EIP-712's example.
COW_KEY = "c85ef7d79691fe79573b1a7064c19c1a9819ebdbd1faaab1a8ec92344438aaf4"
COW = "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"


def test_account_new_stores_an_encrypted_key(offline: CommandLine) -> None:
    made = offline.json("account", "new", "alice")
    assert stat.S_IMODE(Path(made["path"]).stat().st_mode) == 0o600
    assert offline.keys.unlock("alice", PASSWORD).address == made["address"]
    assert offline.json("account", "list") == [made]


def test_account_new_twice_keeps_the_first(offline: CommandLine) -> None:
    offline.keys.import_key("cow", COW_KEY, PASSWORD)
    assert "already is an account 'cow'" in offline.fail(2, "account", "new", "cow")
    assert [key["address"] for key in offline.json("account", "list")] == [COW]


def test_account_new_without_password_or_terminal_is_refused(offline: CommandLine) -> None:
    problem = offline.fail(2, "account", "new", "alice", TRAINLEDGER_PASSWORD=None)
    assert "password" in problem
    assert offline.json("account", "list") == []


def test_account_new_password_file_first_line(offline: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from file\nsecond line\n")
    made = offline.run("account", "new", "alice", "--password-file", str(file))
    assert made.exit_code == 0
    assert offline.keys.unlock("alice", "from file").name == "alice"


@pytest.mark.parametrize("content", [b"", b"\nx", b"\xff\xfe"])
def test_account_new_unusable_password_file_is_named(offline: CommandLine, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert str(file) in offline.fail(2, "account", "new", "alice", "--password-file", str(file))


def test_account_import_from_environment_and_from_stdin(offline: CommandLine) -> None:
    result = offline.run("account", "import", "cow", "--json", TRAINLEDGER_PRIVATE_KEY="0x" + COW_KEY)
    assert json.loads(result.stdout)["address"] == COW
    other = offline.run("account", "import", "calf", "--json", input="11" * 32 + "\n")
    assert json.loads(other.stdout)["address"] == "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
    assert COW_KEY not in result.output


def test_account_import_takes_no_key_argument(offline: CommandLine) -> None:
    result = offline.run("account", "import", "cow", COW_KEY)
    assert result.exit_code == 2
    assert offline.json("account", "list") == []


def test_account_import_wrong_key_is_not_shown(offline: CommandLine) -> None:
    result = offline.run("account", "import", "cow", input=COW_KEY[:-2] + "zz\n")
    assert result.exit_code == 2
    assert COW_KEY[:20] not in result.output
    offline.fail(2, "account", "import", "cow")


def test_account_list_needs_neither_chain_nor_record(offline: CommandLine) -> None:
    result = offline.run("account", "list")
    assert result.exit_code == 0
    assert "account new NAME" in result.stderr
    assert offline.json("account", "list") == []


@pytest.mark.timeout(60)
def test_password_prompt_in_a_terminal_asks_twice(offline: CommandLine) -> None:
    def answer(*words: str) -> tuple[int, str]:
        parent, child = pty.openpty()
        environment = {**os.environ, **offline.environment}
        del environment["TRAINLEDGER_PASSWORD"]
        process = subprocess.Popen(
            [sys.executable, "-c", "from ledger.cli import make_app; make_app()()", "account", "new", "alice"],
            stdin=child,
            stdout=child,
            stderr=child,
            env=environment,
            cwd=PROJECT,
            start_new_session=True,
            close_fds=True,
        )
        os.close(child)
        shown = b""
        for word in words:
            prompt = b""
            while not prompt.endswith(b": "):
                prompt += os.read(parent, 1000)
            shown += prompt
            os.write(parent, word.encode() + b"\n")
        try:
            while chunk := os.read(parent, 1000):
                shown += chunk
        except OSError:  # the terminal's other end was closed
            pass
        os.close(parent)
        return process.wait(30), shown.decode()

    code, shown = answer("one", "two")
    assert code == 2
    assert "The two passwords differ." in shown
    code, shown = answer("one", "one")
    assert code == 0
    assert offline.keys.unlock("alice", "one").name == "alice"
    assert "one" not in shown  # not echoed


def test_account_of_wrong_password_fails_before_any_chain(offline: CommandLine) -> None:
    offline.keys.import_key("cow", COW_KEY, PASSWORD)
    problem = offline.fail(2, "withdraw", "--account", "cow", TRAINLEDGER_PASSWORD="wrong")
    assert "does not open account 'cow'" in problem


def test_account_none_several_or_unknown_is_explained(offline: CommandLine) -> None:
    assert "no account in" in offline.fail(2, "withdraw")
    offline.keys.import_key("cow", COW_KEY, PASSWORD)
    assert "No answer from the chain" in offline.fail(3, "withdraw")  # the only one is taken
    offline.keys.import_key("calf", "11" * 32, PASSWORD)
    assert "2 accounts, and none is named" in offline.fail(2, "withdraw")
    assert "no account 'bull'" in offline.fail(2, "withdraw", "--account", "bull")


def test_address_with_wrong_checksum_is_refused(offline: CommandLine) -> None:
    offline.keys.import_key("cow", COW_KEY, PASSWORD)
    wrong = COW.replace("CD2a", "Cd2a")
    assert "wrong checksum" in offline.fail(2, "withdraw", "--to", wrong, "--account", wrong)


@pytest.mark.chain
def test_account_fund_tops_up_and_never_gives_twice(
    online: CommandLine, deployer: Wallet, client_for: Callable[[Wallet], LedgerClient]
) -> None:
    online.keys.import_key("cow", COW_KEY, PASSWORD)
    reader = client_for(deployer)
    # In this test chain the tokens belong to another deployer than Anvil's own account.
    assert "TRAIN" in online.fail(3, "account", "fund", "cow")
    developer = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    reader.transfer_token(developer, 100 * TOKEN)
    for given in ("5", "0"):
        result = online.json("account", "fund", "cow", "--tokens", "5", "--ether", "2.5")
        assert result["tokens"]["tokens"] == given
        assert reader.token_balance(COW) == 5 * TOKEN
        assert reader.ether_balance(COW) == 25 * 10**17
    shown = online.json("account", "show", "cow")
    assert (shown["tokens_held"]["tokens"], shown["ether"]["tokens"]) == ("5", "2.5")
    online.fail(2, "account", "fund", "cow", "--tokens", "many")


@pytest.mark.chain
def test_account_stake_unbond_and_collect(
    online: CommandLine, chain: LocalChain, account: Callable[..., Wallet]
) -> None:
    wallet = account("alice", tokens=10 * TOKEN)
    staked = online.json("account", "stake", "8.5", "--account", "alice")
    assert (staked["staked"]["tokens"], staked["free"]["tokens"]) == ("8.5", "8.5")
    assert "InsufficientFreeStake" in online.fail(3, "account", "unbond", "9", "--account", "alice")
    waiting = online.json("account", "unbond", "3.25", "--account", "alice")
    assert (waiting["unbonding"]["tokens"], waiting["free"]["tokens"]) == ("3.25", "5.25")
    assert "StillUnbonding" in online.fail(3, "account", "unbond", "--account", "alice")
    chain.advance(31)
    collected = online.json("account", "unbond", "--account", "alice")
    assert collected["collected"] == {"wei": str(325 * 10**16), "tokens": "3.25"}
    shown = online.json("account", "show", wallet.address)
    assert (shown["tokens_held"]["tokens"], shown["staked"]["tokens"], shown["unbonding"]["wei"]) == (
        "4.75",
        "5.25",
        "0",
    )


@pytest.mark.chain
def test_account_stake_beyond_the_balance_names_both(online: CommandLine, account: Callable[..., Wallet]) -> None:
    wallet = account("alice", tokens=TOKEN)
    problem = online.fail(3, "account", "stake", "2", "--account", "alice")
    assert wallet.address in problem
    assert "has 1 TRAIN and needs 2." in problem
    online.fail(2, "account", "stake", "0", "--account", "alice")


@pytest.mark.chain
def test_account_without_ether_is_told(online: CommandLine, account: Callable[..., Wallet]) -> None:
    wallet = account("alice", ether=0)
    problem = online.fail(3, "account", "stake", "1", "--account", "alice")
    assert wallet.address in problem
    assert "ether" in problem


@pytest.mark.chain
def test_account_authorise_payout_and_send(
    online: CommandLine, account: Callable[..., Wallet], client_for: Callable[[Wallet], LedgerClient]
) -> None:
    alice, bob = account("alice"), account("bob", tokens=0)
    reader = client_for(alice)
    online.json("account", "authorise", "bob", "--account", "alice")
    assert reader.is_operator(alice.address, bob.address)
    online.json("account", "authorise", "bob", "--revoke", "--account", "alice")
    assert not reader.is_operator(alice.address, bob.address)
    online.json("account", "payout", "bob", "--account", "alice")
    assert reader.stake_account(alice.address).payout == bob.address
    online.json("account", "send", "bob", "0.000000000000000001", "--account", "alice")
    assert reader.token_balance(bob.address) == 1


@pytest.mark.chain
def test_account_private_key_in_environment_acts(online: CommandLine, account: Callable[..., Wallet]) -> None:
    wallet = account("alice")
    online.keys.find("alice").path.unlink()
    key = wallet._key.key.hex()
    result = online.run("account", "stake", "1", "--json", TRAINLEDGER_PRIVATE_KEY=key, TRAINLEDGER_PASSWORD=None)
    assert json.loads(result.stdout)["account"] == wallet.address
    assert key not in result.output
