"""Where passwords and private keys come from: the environment, a file, or a prompt. Never the command line."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from ledger.errors import WalletError
from ledger.keys import KeyStore, Wallet, is_address
from ledger.settings import Settings

__all__ = ["find_address", "new_password", "read_password", "read_private_key", "unlock_account"]

_PASSWORD_REMEDY = "Set TRAINLEDGER_PASSWORD, or name a file with --password-file."


def read_password(settings: Settings, who: str) -> str:
    """The password of an existing key.

    Raises:
        WalletError: none is set and nobody can be asked.
    """
    password = _given_password(settings)
    if password is not None:
        return password
    if not sys.stdin.isatty():
        raise WalletError(f"The password of {who} is needed.", remedy=_PASSWORD_REMEDY)
    return getpass.getpass(f"Password of {who}: ")


def new_password(settings: Settings, who: str) -> str:
    """The password for a new key; a prompt asks twice.

    Raises:
        WalletError: none is set and nobody can be asked, or the two differ.
    """
    password = _given_password(settings)
    if password is not None:
        return password
    if not sys.stdin.isatty():
        raise WalletError(f"A password to encrypt {who} is needed.", remedy=_PASSWORD_REMEDY)
    password = getpass.getpass(f"New password for {who}: ")
    if getpass.getpass("The same password again: ") != password:
        raise WalletError("The two passwords differ.", remedy="Run the same command again.")
    return password


def _given_password(settings: Settings) -> str | None:
    if settings.password is not None:
        return settings.password
    return _first_line(settings.password_file) if settings.password_file is not None else None


def _first_line(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise WalletError(f"The password file {path} cannot be read: {reason}.", remedy=_PASSWORD_REMEDY) from None
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise WalletError(f"The first line of the password file {path} is empty.", remedy="Write the password there.")
    return lines[0]


def read_private_key(settings: Settings) -> str:
    """The key to import: TRAINLEDGER_PRIVATE_KEY, a hidden prompt, or the first line of standard input.

    Raises:
        WalletError: there is none.
    """
    if settings.private_key is not None:
        return settings.private_key
    text = getpass.getpass("Private key: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        raise WalletError(
            "No private key was given.",
            remedy="Set TRAINLEDGER_PRIVATE_KEY, or send the key on standard input; never as an argument.",
        )
    return text.strip()


def unlock_account(settings: Settings, keystore: KeyStore) -> Wallet:
    """The account to act as: the one that is named, else TRAINLEDGER_PRIVATE_KEY's, else the only one stored.

    Raises:
        WalletError: none of these, or it cannot be unlocked.
    """
    if settings.private_key is not None:
        wallet = Wallet.from_private_key(settings.private_key)
        if settings.account is None or settings.account.lower() == wallet.address.lower():
            return wallet
    name = settings.account or _only_account(keystore)
    key = keystore.find(name)
    return keystore.unlock(key.name, read_password(settings, f"account {key.name!r}"))


def find_address(settings: Settings, keystore: KeyStore, name_or_address: str | None) -> str:
    """The checksummed address of an account, without unlocking it.

    Raises:
        WalletError: a name that no key has, an address whose checksum is wrong, or no account at all.
    """
    wanted = name_or_address or settings.account
    if wanted is None:
        if settings.private_key is not None:
            return Wallet.from_private_key(settings.private_key).address
        wanted = _only_account(keystore)
    if is_address(wanted):
        return _checksummed(wanted)
    return keystore.find(wanted).address


def _checksummed(address: str) -> str:
    from eth_utils.address import to_checksum_address

    checksummed = str(to_checksum_address(address))
    digits = address[2:]
    if digits not in (digits.lower(), digits.upper()) and checksummed != address:
        raise WalletError(
            f"The address {address} has a wrong checksum: at least one character is mistyped.",
            remedy="Copy it again.",
        )
    return checksummed


def _only_account(keystore: KeyStore) -> str:
    keys = keystore.list()
    if len(keys) == 1:
        return keys[0].name
    if not keys:
        raise WalletError(
            f"There is no account in {keystore.path}.", remedy="Make one with `trainledger account new NAME`."
        )
    names = ", ".join(key.name for key in keys)
    raise WalletError(
        f"There are {len(keys)} accounts, and none is named.", remedy=f"Name one with --account: {names}."
    )
