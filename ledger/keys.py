"""Encrypted keys on disk (Web3 Secret Storage, version 3) and unlocked wallets; neither shows its key anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.atomic import exclusive_lock, write_atomically
from ledger.canonical import parse_json_strict
from ledger.errors import ResourceError, SpecificationError, WalletError

if TYPE_CHECKING:
    from eth_account.datastructures import SignedMessage, SignedTransaction
    from eth_account.signers.local import LocalAccount

__all__ = ["KeyStore", "StoredKey", "Wallet", "is_address"]

# Cost of the scrypt key derivation: 256 MiB and about a second for each guess of a password.
SCRYPT_COST = 2**18
# Bounds of what a key file may ask for: eight times the memory and thirty times the work of our own.
_MOST = {"n": 2**21, "r": 64, "p": 64, "dklen": 1024, "c": 10**8}
_MOST_WORK = 2**26
_BYTES = re.compile(r"(?:0x)?(?:[0-9a-fA-F]{2})+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def is_address(text: str) -> bool:
    """Whether a text has the shape of an address (its checksum is not looked at)."""
    return _ADDRESS.fullmatch(text) is not None


@dataclass(frozen=True)
class Wallet:
    """An unlocked account. `address` is checksummed; `name` is "" for a key that did not come from a key store."""

    address: str
    name: str
    _key: LocalAccount = field(repr=False, compare=False)

    @classmethod
    def from_private_key(cls, private_key: str, *, name: str = "") -> Wallet:
        """Makes a wallet of 64 hexadecimal digits, with or without 0x.

        Raises:
            WalletError: it is no private key. The text is never repeated in the error.
        """
        from eth_account import Account

        text = private_key.strip().removeprefix("0x")
        if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
            raise WalletError(
                f"The private key has {len(text)} characters where 64 hexadecimal digits are needed."
                if len(text) != 64
                else "The private key holds characters that are not hexadecimal digits.",
                remedy="Copy it again, whole, with or without 0x.",
            )
        try:
            key = Account.from_key(bytes.fromhex(text))
        except Exception as error:
            # eth-keys raises several types for 0 and for numbers beyond the curve's order; none may show the key.
            problem = f"The private key is not valid on the curve ({type(error).__name__})."
            raise WalletError(problem, remedy="Make a new one with `trainledger account new NAME`.") from None
        return cls(address=str(key.address), name=name, _key=key)

    def sign_transaction(self, transaction: Mapping[str, Any]) -> SignedTransaction:
        """Signs; the result has `raw_transaction` (bytes to send) and `hash`."""
        return self._key.sign_transaction(dict(transaction))

    def sign_typed(self, message: Mapping[str, Any]) -> SignedMessage:
        """Signs a full EIP-712 message (types, domain, primaryType, message); the result has `v`, `r` and `s`."""
        return self._key.sign_typed_data(full_message=dict(message))


@dataclass(frozen=True)
class StoredKey:
    """A key on disk, still locked."""

    name: str
    address: str
    path: Path


class KeyStore:
    """A folder of `<name>.json` files, readable by their owner only, written whole and never overwritten."""

    def __init__(self, path: Path, *, scrypt_cost: int = SCRYPT_COST) -> None:
        self.path = path
        self._scrypt_cost = scrypt_cost

    def new(self, name: str, password: str) -> Wallet:
        """Makes and stores a new random key.

        Raises:
            WalletError: a bad or taken name, or an empty password.
        """
        import secrets

        return self._store(Wallet.from_private_key(secrets.token_hex(32), name=name), password)

    def import_key(self, name: str, private_key: str, password: str) -> Wallet:
        """Stores a key that exists already.

        Raises:
            WalletError: a bad or taken name, an empty password, a malformed key, or a key that is stored already.
        """
        return self._store(Wallet.from_private_key(private_key, name=name), password)

    def list(self) -> list[StoredKey]:
        """All keys, by name.

        Raises:
            WalletError: a file in the folder is no keystore.
        """
        if not self.path.is_dir():
            return []
        return [self._read(path)[0] for path in sorted(self.path.glob("*.json"))]

    def find(self, name_or_address: str) -> StoredKey:
        """The key of that name or address.

        Raises:
            WalletError: there is none; the error names those there are.
        """
        keys = self.list()
        for key in keys:
            if name_or_address == key.name or name_or_address.lower() == key.address.lower():
                return key
        known = ", ".join(key.name for key in keys)
        raise WalletError(
            f"There is no account {name_or_address!r} in {self.path}.",
            remedy=f"Known accounts: {known}." if known else "Make one with `trainledger account new NAME`.",
        )

    def unlock(self, name_or_address: str, password: str) -> Wallet:
        """Decrypts a key.

        Raises:
            WalletError: there is no such key, the password is wrong, or the file does not hold the key it names.
        """
        from eth_account import Account

        key, document = self._read(self.find(name_or_address).path)
        if (wrong := _wrong_crypto(document["crypto"])) is not None:
            raise _malformed(key.path, wrong)
        try:
            secret = Account.decrypt(document, password)
        except ValueError as error:
            if "MAC mismatch" not in str(error):  # scrypt, where it does not get its 256 MiB
                raise ResourceError(
                    f"The key of account {key.name!r} could not be unlocked: {error}.",
                    remedy="Unlocking takes 256 MiB of memory for a moment; close other programs and try again.",
                ) from error
            raise WalletError(
                f"The password does not open account {key.name!r} ({key.address}).",
                remedy="Check the password in TRAINLEDGER_PASSWORD or in the password file.",
            ) from None
        except (KeyError, TypeError, NotImplementedError) as error:
            raise _malformed(key.path, f"it lacks or does not support {error}") from None
        wallet = Wallet.from_private_key(bytes(secret).hex(), name=key.name)
        if wallet.address != key.address:
            raise _malformed(key.path, f"it says {key.address} but holds the key of {wallet.address}")
        return wallet

    def _store(self, wallet: Wallet, password: str) -> Wallet:
        if _NAME.fullmatch(wallet.name) is None or is_address(wallet.name):
            raise WalletError(
                f"{wallet.name!r} is not a name for an account.",
                remedy="Use up to 64 letters, digits, dots, dashes and underscores, not an address.",
            )
        if not password:
            raise WalletError("The password is empty.", remedy="Choose one; without it the key cannot be encrypted.")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with exclusive_lock(self.path / ".lock"):
            self._refuse_twice(wallet)
            document = wallet._key.encrypt(password, kdf="scrypt", iterations=self._scrypt_cost)
            data = (json.dumps(document, indent=2) + "\n").encode()
            write_atomically(self.path / f"{wallet.name}.json", data, mode=0o600)
        return wallet

    def _refuse_twice(self, wallet: Wallet) -> None:
        for key in self.list():
            # Case counts for nothing here: some file systems would overwrite "Alice" by "alice".
            if key.name.lower() == wallet.name.lower():
                raise WalletError(
                    f"There already is an account {key.name!r} ({key.address}).",
                    remedy="Choose another name; keys are never overwritten.",
                )
            if key.address == wallet.address:
                raise WalletError(
                    f"The key of {wallet.address} is already stored as {key.name!r}.", remedy=f"Use {key.name!r}."
                )

    def _read(self, path: Path) -> tuple[StoredKey, dict[str, Any]]:
        from eth_utils.address import to_checksum_address

        try:
            document = parse_json_strict(path.read_bytes(), "It")
        except FileNotFoundError:
            raise WalletError(f"The key file {path} does not exist.", remedy="Restore it from a backup.") from None
        except (SpecificationError, OSError) as error:
            raise _malformed(path, str(error).rstrip(".")) from None
        address = document.get("address") if isinstance(document, dict) else None
        text = "0x" + address.removeprefix("0x") if isinstance(address, str) else ""
        if not is_address(text) or document.get("version") != 3 or "crypto" not in document:
            raise _malformed(path, "it has no address, no crypto section or another version than 3")
        return StoredKey(name=path.stem, address=str(to_checksum_address(text)), path=path), document


def _wrong_crypto(crypto: object) -> str | None:
    """What in the encrypted part cannot be: it would fail deep in a library, be blamed on memory, or take for ever."""
    if not isinstance(crypto, Mapping):
        return "its crypto section is no object"
    cipher, costs = crypto.get("cipherparams"), crypto.get("kdfparams")
    if not isinstance(cipher, Mapping) or not isinstance(costs, Mapping):
        return "it lacks cipherparams or kdfparams"
    texts: dict[str, Any] = {"iv": cipher.get("iv"), "salt": costs.get("salt")} | {
        key: crypto.get(key) for key in ("ciphertext", "mac")
    }
    for name, text in texts.items():
        if not isinstance(text, str) or _BYTES.fullmatch(text) is None:
            return f"its {name} is not hexadecimal"
    if len(texts["iv"].removeprefix("0x")) != 32:
        return "its iv has not 16 bytes"
    for name, most in _MOST.items():
        value = costs.get(name, 1)
        if type(value) is not int or not 1 <= value <= most:
            return f"its {name} is not a whole number from 1 to {most}"
    n = costs.get("n", 2)
    if n & (n - 1) or n == 1:
        return "its n is not a power of two"
    if n * costs.get("r", 1) * costs.get("p", 1) > _MOST_WORK:
        return "its key derivation would take hours"
    return None


def _malformed(path: Path, reason: str) -> WalletError:
    return WalletError(
        f"{path} is not an encrypted key: {reason}.", remedy="Restore it from a backup, or move it out of the folder."
    )
