from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from ledger.errors import WalletError
from ledger.keys import KeyStore, Wallet

# The private key and address of EIP-712's own example (keccak256 of "cow").
COW_KEY = "c85ef7d79691fe79573b1a7064c19c1a9819ebdbd1faaab1a8ec92344438aaf4"
COW = "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"
MAIL = {
    "types": {
        "EIP712Domain": [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
        ],
        "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
        "Mail": [
            {"name": "from", "type": "Person"},
            {"name": "to", "type": "Person"},
            {"name": "contents", "type": "string"},
        ],
    },
    "primaryType": "Mail",
    "domain": {
        "name": "Ether Mail",
        "version": "1",
        "chainId": 1,
        "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC",
    },
    "message": {
        "from": {"name": "Cow", "wallet": COW},
        "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
        "contents": "Hello, Bob!",
    },
}


@pytest.fixture
def keystore(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys", scrypt_cost=2)


def test_new_then_unlock_gives_the_same_account(keystore: KeyStore) -> None:
    made = keystore.new("alice", "pass")
    opened = keystore.unlock("alice", "pass")
    assert (opened.address, opened.name) == (made.address, "alice")
    assert keystore.unlock(made.address.lower(), "pass") == opened
    transaction = {"to": COW, "value": 1, "gas": 21000, "gasPrice": 1, "nonce": 0, "chainId": 1}
    signed = opened.sign_transaction(transaction)
    assert Account.recover_transaction(signed.raw_transaction) == made.address


def test_new_keys_differ(keystore: KeyStore) -> None:
    assert keystore.new("a", "p").address != keystore.new("b", "p").address
    assert [key.name for key in keystore.list()] == ["a", "b"]


def test_import_key_has_the_published_address(keystore: KeyStore) -> None:
    assert keystore.import_key("cow", "0x" + COW_KEY, "moo").address == COW
    assert keystore.find(COW).name == "cow"


def test_sign_typed_matches_the_published_vector() -> None:
    signed = Wallet.from_private_key(COW_KEY).sign_typed(MAIL)
    assert signed.v == 28
    assert signed.r == 0x4355C47D63924E8A72E509B65029052EB6C299D53A04E167C5775FD466751C9D
    assert signed.s == 0x07299936D304C153F6443DFA05F40FF007D72911B6F72307F996231605B91562
    assert Account.recover_message(encode_typed_data(full_message=MAIL), signature=signed.signature) == COW


def test_files_are_private_and_hold_no_key(keystore: KeyStore) -> None:
    keystore.import_key("cow", COW_KEY, "moo")
    path = keystore.find("cow").path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keystore.path.stat().st_mode) == 0o700
    assert COW_KEY not in path.read_text().lower()
    assert sorted(item.name for item in keystore.path.iterdir()) == [".lock", "cow.json"]


def test_wallet_repr_hides_the_key() -> None:
    wallet = Wallet.from_private_key(COW_KEY, name="cow")
    assert repr(wallet) == f"Wallet(address='{COW}', name='cow')"


@pytest.mark.parametrize("name", ["cow", "COW"])
def test_new_taken_name_leaves_the_old_key(keystore: KeyStore, name: str) -> None:
    keystore.import_key("cow", COW_KEY, "moo")
    before = keystore.find("cow").path.read_bytes()
    with pytest.raises(WalletError, match="already is an account 'cow'"):
        keystore.new(name, "other")
    assert keystore.find("cow").path.read_bytes() == before
    assert len(keystore.list()) == 1


def test_import_key_twice_names_the_first(keystore: KeyStore) -> None:
    keystore.import_key("cow", COW_KEY, "moo")
    with pytest.raises(WalletError) as caught:
        keystore.import_key("calf", COW_KEY, "moo")
    assert caught.value.remedy == "Use 'cow'."


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a b", "x" * 65, COW])
def test_new_bad_name_writes_nothing(keystore: KeyStore, name: str) -> None:
    with pytest.raises(WalletError, match="not a name"):
        keystore.new(name, "pass")
    assert keystore.list() == []


def test_new_empty_password_is_refused(keystore: KeyStore) -> None:
    with pytest.raises(WalletError, match="password is empty"):
        keystore.new("a", "")


@pytest.mark.parametrize("key", ["", "12", COW_KEY + "00", COW_KEY[:-1] + "x", "0" * 64, "f" * 64])
def test_from_private_key_malformed_is_not_repeated(key: str) -> None:
    with pytest.raises(WalletError) as caught:
        Wallet.from_private_key(key)
    assert caught.value.remedy
    assert len(key) < 5 or key not in str(caught.value)
    assert caught.value.__cause__ is None


def test_unlock_wrong_password_names_the_account(keystore: KeyStore) -> None:
    keystore.import_key("cow", COW_KEY, "moo")
    with pytest.raises(WalletError) as caught:
        keystore.unlock("cow", "wrong")
    assert caught.value.problem == f"The password does not open account 'cow' ({COW})."
    assert "wrong" not in str(caught.value)


def test_find_unknown_lists_the_known(keystore: KeyStore) -> None:
    with pytest.raises(WalletError, match="no account 'bob'") as caught:
        keystore.find("bob")
    assert "account new" in caught.value.remedy
    keystore.new("alice", "p")
    with pytest.raises(WalletError) as caught:
        keystore.find("bob")
    assert caught.value.remedy == "Known accounts: alice."


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version":3}', '{"address":"12","version":3,"crypto":{}}'])
def test_list_malformed_file_is_named(keystore: KeyStore, text: str) -> None:
    keystore.path.mkdir()
    (keystore.path / "bad.json").write_text(text)
    with pytest.raises(WalletError, match=r"bad\.json is not an encrypted key"):
        keystore.list()


def test_unlock_address_swapped_is_refused(keystore: KeyStore) -> None:
    keystore.import_key("cow", COW_KEY, "moo")
    path = keystore.find("cow").path
    document = json.loads(path.read_text())
    document["address"] = "11" * 20
    path.write_text(json.dumps(document))
    with pytest.raises(WalletError, match=f"holds the key of {COW}"):
        keystore.unlock("cow", "moo")


def test_unlock_unsupported_cipher_is_refused(keystore: KeyStore) -> None:
    keystore.import_key("cow", COW_KEY, "moo")
    path = keystore.find("cow").path
    document = json.loads(path.read_text())
    document["crypto"]["kdf"] = "rot13"
    path.write_text(json.dumps(document))
    with pytest.raises(WalletError, match="not an encrypted key"):
        keystore.unlock("cow", "moo")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its address space")
def test_unlock_without_memory_does_not_blame_the_password(tmp_path: Path) -> None:
    KeyStore(tmp_path).new("alice", "secret")
    script = (
        "import sys, resource\nfrom pathlib import Path\n"
        "from ledger.keys import KeyStore\nfrom ledger.errors import ResourceError\n"
        "import eth_account\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))\n"
        "try: KeyStore(Path(sys.argv[1])).unlock('alice', 'secret')\n"
        "except (ResourceError, MemoryError) as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "ResourceError"
